"""The judges on a real (random, tiny) model: the requests they make are ones a backend answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.backends.batches import n_shared
from selfpriority.backends.hf import HfModel
from selfpriority.constitution import Constitution, Objective, load_constitution
from selfpriority.judges.asking import marked
from selfpriority.judges.battery import read_questions, values_of
from selfpriority.judges.fit import FitSettings, fit_heads
from selfpriority.judges.heads import Head, Heads
from selfpriority.judges.labels import LabelledAnswer, Labels, label_prompt
from selfpriority.judges.probe import ProbeJudge
from selfpriority.judges.words import WordsJudge
from selfpriority.language_model import LanguageModel
from selfpriority.rating import Item
from selfpriority.recipe import HfBackend, InWords
from selfpriority.records import Message, Rating, Response, Stop, Unrated
from selfpriority.wording import fill

SHORT = Constitution(
    "short",
    "",
    tuple(
        Objective(
            name=name,
            definition="Safe.",
            rubric={1: "bad", 10: "good"},
            question="Safe?",
            question_reworded="?",
        )
        for name in ("harmlessness", "helpfulness")
    ),
    (),
)
ANSWERS = [(f"Explain {word}.", f"No, I will not {word}.", f"Yes, {word} now.") for word in "abcdefghijkl"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LanguageModel:
    return HfModel(str(tiny_model), HfBackend(dtype="float32"))


@pytest.fixture(scope="module")
def roomy_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The same weights with a context that holds the question."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("roomy") / "tiny"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    return HfModel(str(folder), HfBackend())


def items() -> list[Item]:
    asked = [(label_prompt([Message("user", prompt)]), text) for prompt, *texts in ANSWERS for text in texts]
    return [Item(prompt, Response("r", prompt.id, text, stop="end", n_tokens=1)) for prompt, text in asked]


def test_expected_ratings_vary_with_the_answer(roomy_model: LanguageModel) -> None:
    rows = WordsJudge(roomy_model, SHORT, InWords(judge="self", mass_floor=1e-6)).rate(items()[:6])
    values = [verdict.value for row in rows for verdict in row if isinstance(verdict, Rating)]
    assert len(values) == 12
    assert all(1 < value < 10 for value in values)
    assert len(set(values)) > 6


def test_a_context_too_small_for_the_question_is_unrated(model: LanguageModel) -> None:
    judge = WordsJudge(model, load_constitution("harmless-helpful"), InWords(judge="self"))
    assert [v.reason for v in judge.rate(items()[:1])[0] if isinstance(v, Unrated)] == ["too_long"] * 2


def test_a_fitted_probe_separates_what_it_was_fitted_on(model: LanguageModel) -> None:
    answers = tuple(
        LabelledAnswer(item.prompt, item.response.text, name, item.response.text.startswith("No"), item.prompt.id)
        for name in SHORT.names
        for item in items()
    )
    heads = fit_heads(Labels(answers, ()), model, "tiny", FitSettings(layers={"harmlessness": 1, "helpfulness": 2}))
    rows = ProbeJudge(model, heads, SHORT.names).rate(items())
    for k in range(2):
        values = [row[k].value for row in rows if isinstance(row[k], Rating)]
        assert min(values[0::2]) > max(values[1::2])
        assert fmean(values[0::2]) > 5.5 > fmean(values[1::2])


@pytest.mark.parametrize("stop", ["end", "length"])
def test_a_probe_rates_the_states_of_a_forward_pass_by_hand(model: LanguageModel, tiny_model: Path, stop: Stop) -> None:
    """An answer that was cut is read up to its last word; a finished one with its end token, as heads are fitted."""
    width = 2 * 2 * 32  # spans, layers, hidden size
    draw = np.random.default_rng(0)
    weights, mean = draw.normal(size=width), draw.normal(size=width)
    head = Head("harmlessness", (1, 0), "match", mean, np.full(width, 2.0), weights, 0.3, 0.1, spread=5.0)
    item = Item(label_prompt([Message("user", "Is it safe?")]), Response("r", "p", "No, and then it", stop, 4))
    ((verdict,),) = ProbeJudge(model, Heads("tiny", {"harmlessness": head}, {}), ("harmlessness",)).rate([item])

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    parts = ["<|im_start|>user\n", "Is it safe?", "<|im_end|>\n<|im_start|>assistant\n", "No, and then it"]
    opened, asked, between, said = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    said = [*said, *([tokenizer.convert_tokens_to_ids("<|im_end|>")] if stop == "end" else [])]
    causal = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    ids = torch.tensor([[*opened, *asked, *between, *said]])
    with torch.inference_mode():
        states = [layer[0].double().numpy() for layer in causal(ids, output_hidden_states=True).hidden_states]
    of_asked, of_said = slice(len(opened), len(opened) + len(asked)), slice(-len(said), None)
    response, prompt = (np.concatenate([states[k][span].mean(0) for k in (1, 0)]) for span in (of_said, of_asked))
    response, prompt = (response - mean[: width // 2]) / 2, (prompt - mean[width // 2 :]) / 2
    z = (weights @ np.concatenate([response, response * prompt]) + 0.3 - 0.1) / 5
    assert isinstance(verdict, Rating)
    assert verdict.value == pytest.approx(1 + 9 / (1 + np.exp(-0.8 * z)), abs=1e-5)


def test_a_battery_reads_an_answer_once_for_all_its_questions(yes_no_model: Path) -> None:
    """By hand: every question alone in a plain forward pass. Forwarded: what stands before the questions once."""
    (item,) = items()[:1]
    questions = tuple(q for name in SHORT.names for q in read_questions(name))[:44]
    model = HfModel(str(yes_no_model), HfBackend(dtype="float32", device="cpu"))
    loaded, forwarded = model._loaded, []
    handle = loaded.model.register_forward_pre_hook(
        lambda _, __, given: forwarded.append(given["input_ids"].numel()), with_kwargs=True
    )
    [values] = values_of(model, questions, [(item.prompt, item.response.text)])
    handle.remove()
    assert isinstance(values, dict)
    contexts = [context_of(item, text, questions) for text in (item.response.text, "N/A")]
    ids = [[loaded.chat.prompt_ids(context) for context in group] for group in contexts]
    n_once = [n_shared(group) for group in ids]
    longest = max(len(one) for group in ids for one in group) - min(n_once)
    assert min(n_once) > 4 * longest
    assert sum(forwarded) <= sum(n_once) + 2 + 2 * len(questions) * (longest + 1)
    words = [loaded.chat.tokenizer.convert_tokens_to_ids([word, word.lower()]) for word in ("Yes", "No")]
    with torch.inference_mode():
        rows = [[loaded.model(torch.tensor([one])).logits[0, -1] for one in group] for group in ids]
    odds = [[float(row[words[0]].logsumexp(0) - row[words[1]].logsumexp(0)) for row in group] for group in rows]
    expected = {q: said - free for q, said, free in zip(questions, *odds, strict=True)}
    assert values == pytest.approx(expected, abs=1e-3)


def context_of(item: Item, text: str, questions: tuple[str, ...]) -> list[tuple[Message, ...]]:
    judged = marked(item.prompt.messages, text)
    told = {"code": judged.code, "conversation": judged.conversation, "answer": text}
    return [(Message("user", fill("battery", question=question, **told)),) for question in questions]
