"""Encoders of three kinds, tiny and random: what they read, compared with a plain forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from selfpriority.backends.encoder import HfEncoder
from selfpriority.errors import InputError
from selfpriority.language_model import Embed, Failure, Generate, Vectors, ask
from selfpriority.models.loading import describe, is_encoder
from selfpriority.recipe import HfBackend
from selfpriority.records import Message
from selfpriority.training.parameters import check_trainable, n_parameters
from tests.backends.tiny_encoders import KINDS, write_encoder

SETTINGS = HfBackend(device="cpu")
ASKED = (Message("system", "be brief"), Message("user", "no"), Message("assistant", "how"), Message("user", "a knife"))


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / request.param, request.param)


def plain(folder: Path, prompt: str, response: str) -> tuple[Any, slice, slice]:
    """Hidden states of every layer [tokens, hidden size] of the pair, and where prompt and response lie."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, response, return_tensors="pt")["input_ids"]
    n, m = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (prompt, response))
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=ids, output_hidden_states=True).hidden_states
    return [each[0] for each in states], slice(1, 1 + n), slice(ids.shape[1] - 1 - m, ids.shape[1] - 1)


def test_the_states_are_those_of_the_last_question_and_the_answer(folder: Path) -> None:
    [answer] = ask(HfEncoder(str(folder), SETTINGS), [Embed(ASKED, "keep it safe", (2, 3), ("response", "prompt"))])
    states, prompt, response = plain(folder, "a knife", "keep it safe")
    expected = [states[layer][span].mean(0) for span in (response, prompt) for layer in (2, 3)]
    assert isinstance(answer, Vectors)
    torch.testing.assert_close(torch.tensor(answer.vectors), torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_a_long_answer_is_read_in_pieces_and_counts_by_its_tokens(folder: Path) -> None:
    model = HfEncoder(str(folder), SETTINGS)
    [answer] = ask(model, [Embed(ASKED, "keep " * 90 + "sharp", (2,))])
    assert isinstance(answer, Vectors)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    n = len(tokenizer("keep " * 90 + "sharp", add_special_tokens=False)["input_ids"])
    pieces = model._pieces(Embed(ASKED, "keep " * 90 + "sharp", (2,)))
    lengths = [len(piece.where["response"]) for piece in pieces]
    assert sum(lengths) == n
    assert max(lengths) - min(lengths) < len(lengths)
    assert all(len(piece.ids) <= 64 for piece in pieces)
    total = torch.zeros(16)
    for piece in pieces:
        with torch.inference_mode():
            network = AutoModel.from_pretrained(folder).eval()
            states = network(torch.tensor([piece.ids]), output_hidden_states=True).hidden_states[2][0]
        total += states[list(piece.where["response"])].sum(0)
    torch.testing.assert_close(torch.tensor(answer.vectors[0]), total / n, atol=1e-5, rtol=1e-4)


def test_an_answer_is_read_alike_whatever_stands_beside_it(folder: Path) -> None:
    model = HfEncoder(str(folder), SETTINGS)
    requests = [Embed(ASKED, text, (3,)) for text in ("no", "keep a knife " * 20, "sharp and safe")]
    others = [Generate(ASKED, 1, 0.0, 1.0, 4, 0), Embed(ASKED, " ", (3,))]
    together = ask(model, [*others, *requests])
    assert together[0] == Failure("unsupported", "an encoder only shows hidden states, and of whole answers")
    assert together[1] == Failure("empty", "the response is empty")
    [batch] = [answers for _, answers in model.answer([[requests[0], others[0], requests[1], others[1]]])]
    assert [type(answer) for answer in batch] == [Vectors, Failure, Vectors, Failure]
    for request, answer in zip(requests, together[2:], strict=True):
        [alone] = ask(model, [request])
        assert isinstance(answer, Vectors)
        assert isinstance(alone, Vectors)
        torch.testing.assert_close(torch.tensor(answer.vectors), torch.tensor(alone.vectors), atol=1e-5, rtol=1e-4)


def test_a_text_that_spells_a_special_token_does_not_end_its_place(folder: Path) -> None:
    model = HfEncoder(str(folder), SETTINGS)
    closing = AutoTokenizer.from_pretrained(folder).sep_token
    [piece] = model._pieces(Embed((Message("user", closing),), f"no {closing} safe", (1,)))
    end = AutoTokenizer.from_pretrained(folder).sep_token_id
    said = [piece.ids[i] for span in piece.where.values() for i in span]
    assert end not in said


def test_no_arithmetic_of_a_recipe_changes_it_and_a_layer_too_deep_is_one_line(folder: Path) -> None:
    model = HfEncoder(str(folder), SETTINGS)
    low = HfEncoder(str(folder), HfBackend(device="cpu", dtype="bfloat16"))
    assert low.fingerprint == model.fingerprint
    request = Embed(ASKED, "keep it safe", (1,))
    assert ask(low, [request]) == ask(model, [request])
    with pytest.raises(InputError, match=r"layer 4: this model has layers 0 to 3"):
        ask(model, [Embed(ASKED, "no", (4,))])


def test_an_encoder_is_told_from_a_language_model_and_is_not_trained(folder: Path, tiny_model: Path) -> None:
    assert is_encoder(str(folder))
    assert not is_encoder(str(tiny_model))
    found = describe(str(folder))
    assert found is not None
    assert found.chat is None
    assert n_parameters(found.config) == sum(w.numel() for w in AutoModel.from_pretrained(folder).parameters())
    with pytest.raises(InputError, match="is an encoder or a guard, which writes no answers; name a language model"):
        check_trainable(str(folder), None)
