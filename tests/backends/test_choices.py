"""Choices behind an opened turn, for tokenizers of every shape in use; each spelling below was worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from selfpriority.backends.batches import n_alike
from selfpriority.backends.choices import Speller
from selfpriority.backends.counting import Asked, Counting, Ruler
from selfpriority.backends.hf import HfModel
from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.language_model import Choice, Choose, Failure, ask
from selfpriority.rating import DIGITS, expected_rating
from selfpriority.recipe import HfBackend
from selfpriority.records import Message, Rating
from tests.backends.spelling_models import (
    MARK,
    MISTRAL,
    Shape,
    answers_in_digits,
    byte_level,
    instructed,
    sentence_pieces,
    told,
    unigram,
)

SETTINGS = HfBackend(dtype="float32", device="cpu")
CONTROL = ("[INST]", "[/INST]")
SPACE, GPT_SPACE = MARK, "\u0120"

SHAPES = {
    "llama-2: the template sets a space before an answer": (
        Shape(sentence_pieces(prepends=True), instructed(gap=" ")),
        {(SPACE, "7"), ("7",)},
        0,
    ),
    "mistral v0.2: the tokenizer alone sets it": (MISTRAL, {(SPACE, "7"), ("7",)}, 0),
    "mistral v0.3: control tokens, Metaspace": (
        Shape(sentence_pieces(prepends=False), instructed(gap=" ", end="[/INST]"), CONTROL),
        {(SPACE, "7"), ("7",)},
        0,
    ),
    "control tokens, behind which the normaliser sets a space too": (
        Shape(sentence_pieces(prepends=True), instructed(gap=" ", end="[/INST]"), CONTROL),
        {(SPACE, "7"), (SPACE * 2, "7"), ("7",)},
        0,
    ),
    "a piece for the space and the digit": (
        Shape(sentence_pieces(prepends=True, joined_digits=True), instructed(gap=" ")),
        {(SPACE + "7",), ("7",)},
        0,
    ),
    "llama-3, qwen, smollm2: the digit alone": (Shape(byte_level(splits_digits=True), told("\\nBOT:\\n")), {("7",)}, 0),
    "such a one whose template sets a space before an answer": (
        Shape(byte_level(splits_digits=True), instructed(gap=" ")),
        {(GPT_SPACE, "7"), ("7",)},
        0,
    ),
    "gpt-2: with and without a space": (
        Shape(byte_level(splits_digits=False), told("\\nBOT:\\n")),
        {("7",), (GPT_SPACE + "7",)},
        0,
    ),
    "gpt-2 behind a space, which the digit takes": (
        Shape(byte_level(splits_digits=False), told("\\nBOT: ")),
        {(GPT_SPACE + "7",)},
        1,
    ),
    "t5: the mark apart": (Shape(unigram(), instructed(gap="")), {(SPACE, "7"), ("7",)}, 0),
}
NAMES = list(SHAPES)


@pytest.fixture(scope="module", params=NAMES, ids=NAMES)
def shape(request, tmp_path_factory) -> tuple[Path, set[tuple[str, ...]], int]:
    made, paths, n_merged = SHAPES[request.param]
    return made.save(tmp_path_factory.mktemp("shape") / "model"), paths, n_merged


def chat_of(folder: Path) -> Chat:
    return Chat(AutoTokenizer.from_pretrained(folder))


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def by_hand(folder: Path, ids: list[int], paths: set[tuple[str, ...]], digit: str) -> float:
    """Probability that one of `paths`, written for 7, follows `ids` with `digit`: a pass over the whole each token."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    total = 0.0
    for path in paths:
        tokens = tokenizer.convert_tokens_to_ids([piece.replace("7", digit) for piece in path])
        assert None not in tokens
        with torch.inference_mode():
            parts = [
                float(model(torch.tensor([[*ids, *tokens[:n]]])).logits[0, -1].softmax(-1)[token])
                for n, token in enumerate(tokens)
            ]
        total += prod(parts)
    return total


def test_spellings(shape) -> None:
    folder, paths, n_merged = shape
    chat = chat_of(folder)
    spelled = Speller(chat).spelled(DIGITS)
    found = {*spelled.led[7], *((token,) for token in spelled.singles[7])}
    assert {tuple(chat.tokenizer.convert_ids_to_tokens(list(path))) for path in found} == paths
    assert spelled.n_merged == n_merged


@pytest.mark.parametrize("n", [1, 2], ids=["a context alone", "contexts that share a beginning"])
def test_probabilities_are_those_of_a_pass_over_the_whole(shape, n) -> None:
    folder, paths, n_merged = shape
    contexts = tuple(user(f"Is it safe to help the user?\nRate its {aspect}:") for aspect in ("safety", "use")[:n])
    choices = ("0", "4", "7", "9")
    [answer] = ask(HfModel(str(folder), SETTINGS), [Choose(contexts, choices)])
    assert isinstance(answer, Choice)
    for context, row in zip(contexts, answer.probabilities, strict=True):
        ids = chat_of(folder).prompt_ids(context)
        ids = ids[: len(ids) - n_merged]
        assert row == pytest.approx([by_hand(folder, ids, paths, digit) for digit in choices], abs=1e-6, rel=1e-5)


def test_t5_has_pieces_for_some_digits(tmp_path: Path) -> None:
    folder = SHAPES["t5: the mark apart"][0].save(tmp_path)
    spelled = Speller(chat_of(folder)).spelled(("3", "7"))
    tokens = chat_of(folder).tokenizer.convert_ids_to_tokens
    assert {tuple(tokens(list(ids))) for ids in spelled.singles} == {("3", SPACE + "3"), ("7",)}
    assert [[tuple(tokens(list(path))) for path in led] for led in spelled.led] == [[], [(SPACE, "7")]]


@pytest.mark.parametrize("choice", ["42", "\N{GREEK SMALL LETTER OMEGA}", "7 7"])
def test_a_choice_of_several_tokens_is_one_line(shape, choice) -> None:
    with pytest.raises(InputError, match="is not one token of this model; give choices of one token each") as caught:
        Speller(chat_of(shape[0])).spelled(("1", choice))
    assert len(caught.value.lines) == 1
    assert repr(choice) in str(caught.value)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory) -> Path:
    folder = MISTRAL.save(tmp_path_factory.mktemp("mistral") / "model")
    answers_in_digits(folder)
    return folder


def test_a_space_piece_is_no_missing_mass(mistral: Path) -> None:
    """The model writes the piece, then a digit: where the piece stands, the digits hold next to nothing."""
    [answer] = ask(HfModel(str(mistral), SETTINGS), [Choose((user("Rate it:"),), DIGITS)])
    assert isinstance(answer, Choice)
    ids = chat_of(mistral).prompt_ids(user("Rate it:"))
    assert sum(by_hand(mistral, ids, {("7",)}, digit) for digit in DIGITS) < 0.01
    rating = expected_rating(answer.probabilities[0], 0.5)
    assert isinstance(rating, Rating)
    assert rating.mass > 0.95
    assert answer.probabilities[0][7] == max(answer.probabilities[0])


def test_a_judge_that_would_not_write_the_space_is_not_made_to(mistral: Path, tmp_path: Path) -> None:
    """Hardly anything but a digit can stand behind a space piece: forced there, a refusal would become a rating."""
    model = LlamaForCausalLM.from_pretrained(mistral)
    tokenizer = AutoTokenizer.from_pretrained(mistral)
    space, no = tokenizer.convert_tokens_to_ids([MARK, MARK + "No"])
    with torch.no_grad():
        model.lm_head.weight[no] = model.lm_head.weight[space]
        model.lm_head.weight[space] = 0.0
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    [answer] = ask(HfModel(str(tmp_path), SETTINGS), [Choose((user("Rate it:"),), DIGITS)])
    assert isinstance(answer, Choice)
    assert sum(answer.probabilities[0]) < 0.01
    forced = [*chat_of(tmp_path).prompt_ids(user("Rate it:")), space]
    assert sum(by_hand(tmp_path, forced, {("7",)}, digit) for digit in DIGITS) > 0.95


def test_the_fingerprint_changes_where_the_reading_did_and_nowhere_else(shape, tiny_model: Path) -> None:
    """Answers of a model that is read as before stay good; those of one that was read in the wrong place do not."""
    folder, paths, n_merged = shape
    reads_as_before = n_merged == 0 and all(len(path) == 1 for path in paths) and (SPACE + "7",) not in paths
    assert HfModel(str(folder), SETTINGS).fingerprint.startswith("hf-1 " if reads_as_before else "hf-2 ")
    assert HfModel(str(tiny_model), SETTINGS).fingerprint.startswith("hf-1 ")


def test_a_space_piece_takes_room_in_the_context(mistral: Path) -> None:
    model = HfModel(str(mistral), SETTINGS)
    n = len(chat_of(mistral).prompt_ids(user("Rate it:")))
    answers = []
    for context in (n, n + 1):
        model._loaded = replace(model._loaded, context=context)
        answers += ask(model, [Choose((user("Rate it:"),), DIGITS)])
    assert answers[0] == Failure("too_long", f"{n} prompt tokens and 1 more exceed the context of {n}")
    assert isinstance(answers[1], Choice)


def test_a_plan_counts_the_space_piece_of_every_context(mistral: Path) -> None:
    contexts = (user("Rate its safety:"), user("Rate its use:"))
    chat, asked = chat_of(mistral), Asked("m", HfBackend(tokens_per_batch=1))
    ask(Counting(asked, Ruler(chat)), [Choose(contexts, DIGITS)])
    ids = [chat.prompt_ids(context) for context in contexts]
    n_once = n_alike(ids)
    assert asked.forward_tokens == n_once + sum(len(row) - n_once + 1 for row in ids)
    assert asked.cache_tokens == 2 * (max(map(len, ids)) + 1)
