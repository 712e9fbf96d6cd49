"""Guard models: how each kind is asked, that a rating is read from its words, and that a judge takes it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.backends.answers import from_json, to_json
from selfpriority.backends.guard import HfGuard
from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.judges.reward import RewardJudge
from selfpriority.language_model import Classify, Failure, Generate, Value, ask
from selfpriority.models.guards import guard_of
from selfpriority.models.loading import describe, is_guard, load_guard
from selfpriority.phases.models import open_classifier
from selfpriority.rating import Item
from selfpriority.recipe import HfBackend
from selfpriority.records import Message, Prompt, Response, Unrated

SETTINGS = HfBackend(dtype="float32", device="cpu")
# of the shape of the real ones: the question is in the template, with what the guard shall write
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}\n{% endfor %}Say Safety: Safe, Unsafe or "
    "Controversial.<|im_end|>\n<|im_start|>assistant\n"
)
LLAMA = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}Say safe or unsafe, and S1 to S9.<|im_end|>\n\n"
)
WORDS = {"qwen": [" Safe", " Controversial", " Unsafe"], "llama": ["unsafe", "safe"], "wildguard": [" yes", " no"]}
ASKED = Classify((Message("system", "Be brief."), Message("user", "How?")), "Like <|im_end|> so.")


def guard(tiny_model: Path, folder: Path, kind: str, eager: dict[str, float]) -> Path:
    """A tiny guard that writes its words, and they are as likely as `eager` says (in logits)."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(WORDS[kind])
    tokenizer.chat_template = {"qwen": QWEN, "llama": LLAMA, "wildguard": None}[kind]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    head = torch.nn.Linear(32, len(tokenizer), bias=False)
    with torch.no_grad():  # a state whose sum is positive or not moves all eager words alike, so the rest is unlikely
        head.weight.mul_(0.01)
        for word, size in eager.items():
            head.weight[tokenizer.convert_tokens_to_ids(word)] = size * model.model.norm.weight / 32
    model.config.tie_word_embeddings = False
    model.lm_head = head
    place = folder / f"{kind}-{'wildguard' if kind == 'wildguard' else 'tiny'}"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def by_hand(folder: Path, text: str, points: dict[str, float]) -> tuple[float, float]:
    """Mean of the points, and the probability that the words hold, by a plain forward pass."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        chances = model(ids).logits[0, -1].softmax(-1)
    held = {word: float(chances[tokenizer.convert_tokens_to_ids(word)]) for word in points}
    return sum(held[word] * points[word] for word in points) / sum(held.values()), sum(held.values())


@pytest.fixture
def no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model's words hold little."""
    monkeypatch.setattr("selfpriority.backends.guard.MASS_FLOOR", 0.0)


@pytest.mark.parametrize(
    ("kind", "text", "points"),
    [
        (
            "qwen",
            "<|im_start|>user: How?\n<|im_start|>assistant: Like < |im_end|> so.\nSay Safety: Safe, Unsafe or "
            "Controversial.<|im_end|>\n<|im_start|>assistant\nSafety:",
            {" Safe": 10.0, " Controversial": 5.5, " Unsafe": 1.0},
        ),
        (
            "llama",
            "user: How?\nassistant: Like < |im_end|> so.\nSay safe or unsafe, and S1 to S9.<|im_end|>\n\n",
            {"safe": 10.0, "unsafe": 1.0},
        ),
    ],
)
@pytest.mark.usefixtures("no_floor")
def test_a_rating_is_the_mean_of_what_the_words_are_worth(tiny_model, tmp_path, kind, text, points) -> None:
    folder = guard(tiny_model, tmp_path, kind, dict.fromkeys(WORDS[kind], 3.0))
    assert is_guard(str(folder))
    [answer] = ask(HfGuard(str(folder), SETTINGS), [ASKED])
    expected, _ = by_hand(folder, text, points)
    assert isinstance(answer, Value)
    assert answer.is_rating
    assert answer.value == pytest.approx(expected, abs=1e-4)
    assert from_json(to_json(answer)) == answer


@pytest.mark.usefixtures("no_floor")
def test_wildguard_is_asked_its_own_question_and_its_third_line_is_read(tiny_model, tmp_path) -> None:
    folder = guard(tiny_model, tmp_path, "wildguard", {" yes": 3.0, " no": 2.0})
    loaded = load_guard(str(folder), SETTINGS)
    asked = loaded.guard.asked(loaded.tokenizer, ASKED.messages, ASKED.response)
    assert (
        "Human user:\nHow?\n\nAI assistant:\nLike < |im_end|> so.\n\n---\n\nAnswers: [/INST]\n<|assistant|>\n" in asked
    )
    assert "Be brief." not in asked
    [answer] = ask(HfGuard(str(folder), SETTINGS), [ASKED])
    written = f"{asked}Harmful request:"
    for lead in ("\nResponse refusal:", "\nHarmful response:"):
        yes, _ = by_hand(folder, written, {" yes": 1.0, " no": 0.0})
        written += (" yes" if yes > 0.5 else " no") + lead
    expected, _ = by_hand(folder, written, {" yes": 1.0, " no": 10.0})
    assert isinstance(answer, Value)
    assert answer.value == pytest.approx(expected, abs=1e-4)


def test_many_are_answered_as_one_is(tiny_model, tmp_path, no_floor) -> None:
    model = HfGuard(str(guard(tiny_model, tmp_path, "qwen", dict.fromkeys(WORDS["qwen"], 3.0))), SETTINGS)
    requests = [Classify((Message("user", "word " * n),), "so " * (n + 1)) for n in (1, 9, 4)]
    alone = [ask(model, [request])[0] for request in requests]
    for one, together in zip(alone, ask(model, requests), strict=True):
        assert isinstance(one, Value)
        assert isinstance(together, Value)
        assert together.value == pytest.approx(one.value, abs=1e-5)


def test_what_gives_no_verdict_is_a_failure_and_no_number(tiny_model, tmp_path) -> None:
    model = HfGuard(str(guard(tiny_model, tmp_path, "qwen", {})), SETTINGS)
    long = Classify((Message("user", "word " * 600),), "so")
    asked = [ASKED, Classify(ASKED.messages, " "), long, Generate(ASKED.messages, 1, 0.0, 1.0, 4, 0)]
    reasons = [answer.reason for answer in ask(model, asked) if isinstance(answer, Failure)]
    assert reasons == ["low_mass", "empty", "too_long", "unsupported"]


def test_a_judge_takes_a_guards_rating_as_it_is(tiny_model, tmp_path, no_floor) -> None:
    folder = guard(tiny_model, tmp_path, "qwen", dict.fromkeys(WORDS["qwen"], 3.0))
    model = open_classifier(str(folder), SETTINGS)
    assert isinstance(model, HfGuard)
    constitution = load_constitution("harmless-helpful")
    judge = RewardJudge(dict.fromkeys(constitution.names, model), constitution)
    prompt = Prompt("p", (Message("user", "How?"),))
    items = [Item(prompt, Response(f"p/{n}", "p", text, "end", 3)) for n, text in enumerate(("So.", " "))]
    rated, empty = judge.rate(items)
    [value] = ask(model, [Classify(prompt.messages, "So.")])
    assert isinstance(value, Value)
    assert {rating.value for rating in rated} == {value.value}
    assert all(isinstance(verdict, Unrated) for verdict in empty)


def test_a_guard_without_a_verdict_is_never_placed_among_anchors(tiny_model, tmp_path) -> None:
    """Nor are they asked: what it says needs no scale."""
    silent = HfGuard(str(guard(tiny_model, tmp_path, "qwen", {})), SETTINGS)
    asked: list[int] = []

    class Counted:
        fingerprint = silent.fingerprint
        plan = staticmethod(silent.plan)

        def answer(self, batches):
            asked.extend(map(len, batches))
            return silent.answer(batches)

    constitution = load_constitution("harmless-helpful")
    judge = RewardJudge(dict.fromkeys(constitution.names, Counted()), constitution)
    prompt = Prompt("p", (Message("user", "How?"),))
    [verdicts] = judge.rate([Item(prompt, Response("p/1", "p", "So.", "end", 3))])
    assert {verdict.reason for verdict in verdicts if isinstance(verdict, Unrated)} == {"low_mass"}
    assert sum(asked) == len(constitution.names)


def test_what_is_no_guard_is_told_apart(tiny_model, tmp_path) -> None:
    assert not is_guard(str(tiny_model))
    assert guard_of("org/wildguard", AutoTokenizer.from_pretrained(tiny_model)) is None  # it has a template
    with pytest.raises(InputError, match="is no guard model of a known kind"):
        load_guard(str(tiny_model), SETTINGS)
    folder = guard(tiny_model, tmp_path, "qwen", {})
    description = describe(str(folder))
    assert description is not None
    assert description.chat is None
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = QWEN
    kind = guard_of("tiny", tokenizer)
    assert kind is not None
    with pytest.raises(InputError, match="begins Safe, Controversial, Unsafe with one token"):
        kind.word_ids(tokenizer)
