"""Thinking is kept apart from the answer: from whatever server, in whatever spelling, through every step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfpriority.backends.hf import HfModel
from selfpriority.backends.openai import OpenaiModel
from selfpriority.judges.asking import written_rating
from selfpriority.language_model import Completion, Generate, Text, ask
from selfpriority.method.sample import sample
from selfpriority.recipe import HfBackend, Sample
from selfpriority.records import Candidates, Message, Prompt, Rating, Response, Unrated
from selfpriority.run import read_rows, write_rows
from tests.backends.conftest import Reply, serving

__all__ = ["serving"]  # a fixture of the backends' tests


@pytest.mark.parametrize(
    ("written", "thinking", "text"),
    [
        ("Yes.", "", "Yes."),
        ("<think>Hm.</think>Yes.", "Hm.", "Yes."),
        ("\n<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        ("<THINKING>Hm.</THINKING>Yes.", "Hm.", "Yes."),
        ("<thought>Hm.</thought> Yes.", "Hm.", "Yes."),
        ("<seed:think>Hm.</seed:think>Yes.", "Hm.", "Yes."),
        ("<|channel>thought\nHm.<channel|>Yes.", "Hm.", "Yes."),
        ("<ns:thinking:v1>Hm.</ns:thinking:v1>Yes.", "Hm.", "Yes."),
        ("[THINK]Hm.[/THINK]Yes.", "Hm.", "Yes."),
        ("<think></think>Yes.", "", "Yes."),
        ("<think>a</think><think>b</think>Yes.", "a\n\nb", "Yes."),
        ("Hm, so\n</think>\n\nYes.", "Hm, so", "Yes."),  # opened by the template
        ("<think>Hm, and then", "Hm, and then", ""),
        ("<think>", "", ""),
        ("Write <think>so</think> before the answer.", "", "Write <think>so</think> before the answer."),
        ("<think>a</think>Write <think>so</think>.", "a", "Write <think>so</think>."),
        ("Use <b>bold</b>.", "", "Use <b>bold</b>."),
    ],
)
def test_thinking_in_a_text(written: str, thinking: str, text: str) -> None:
    split = Text.of(written, 9, "end")
    assert split == Text(text, 9, "end", thinking)
    assert Text.of(split.text, 9, "end").text == text  # nothing more to take away


def test_thinking_that_the_prompt_has_opened() -> None:
    assert Text.of("Hm.\n</think>\nYes.", 9, "end", opened=True) == Text("Yes.", 9, "end", "Hm.")
    assert Text.of("Hm, and then", 9, "length", opened=True) == Text("", 9, "length", "Hm, and then")
    assert Text.of("<think>Hm.</think>Yes.", 9, "end", opened=True) == Text("Yes.", 9, "end", "Hm.")


def test_a_model_whose_template_opens_the_thinking(tiny_model: Path, tmp_path: Path) -> None:
    thinker = Path(shutil.copytree(tiny_model, tmp_path / "thinker"))
    template = thinker / "chat_template.jinja"
    assert "assistant\n" in template.read_text()
    opening = "<|im_start|>assistant\n"
    template.write_text(template.read_text().replace(opening, opening + "<think>\n"))
    question = Generate((Message("user", "Well?"),), n=2, temperature=1.0, top_p=1.0, max_new_tokens=8, seed=5)
    for folder, opens in ((tiny_model, False), (thinker, True)):
        (answer,) = ask(HfModel(str(folder), HfBackend(device="cpu", dtype="float32")), [question])
        assert isinstance(answer, Completion)
        for text in answer.texts:
            assert bool(text.thinking) == opens
            assert bool(text.text) != opens


def message(content: object, finish: str = "stop", **more: object) -> Reply:
    row = {"message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return Reply({"choices": [row], "usage": {"completion_tokens": 9}})


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Yes."}]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (message("Yes.", reasoning_content="Hm."), Text("Yes.", 9, "end", "Hm.")),
        (message("Yes.", reasoning="Hm."), Text("Yes.", 9, "end", "Hm.")),
        (message("Yes.", reasoning="Hm.", reasoning_content="Hm."), Text("Yes.", 9, "end", "Hm.")),
        (message("Yes.", thinking="Hm."), Text("Yes.", 9, "end", "Hm.")),
        (message("Yes.", reasoning_content=None), Text("Yes.", 9, "end")),
        (message("Yes.", reasoning={"effort": "low"}), Text("Yes.", 9, "end")),
        (message("<think>Hm.</think>\n\nYes."), Text("Yes.", 9, "end", "Hm.")),
        (message(PARTS), Text("Yes.", 9, "end", "Hm.")),
        (message(None, "length", reasoning_content="Hm"), Text("", 9, "length", "Hm")),
        (message(None, reasoning_content="Hm."), Text("", 9, "end", "Hm.")),
        (message("<think>Hm", "length"), Text("", 9, "length", "Hm")),
        (message("Yes.", reasoning_content="\ud83d"), Text("Yes.", 9, "end", "\N{REPLACEMENT CHARACTER}")),
    ],
)
def test_thinking_in_a_reply(serving, reply: Reply, text: Text) -> None:
    question = Generate((Message("user", "Well?"),), n=1, temperature=0.7, top_p=0.9, max_new_tokens=20, seed=5)
    assert ask(OpenaiModel("m", serving(lambda body, n: reply).settings()), [question]) == [Completion((text,))]


def test_an_answer_cut_inside_its_thinking_is_dropped_with_its_reason(serving) -> None:
    replies = ["<think>Hm", "<think>Hm.</think>Yes.", "<think>Hm.</think>", "No."]

    def respond(body, n):
        return message(replies[n - 1], "length" if n == 1 else "stop")

    model = OpenaiModel("m", serving(respond).settings(concurrency=1))
    prompt = Prompt("p", (Message("user", "Well?"),))
    sifted = sample([prompt], model, Sample(n=4, max_new_tokens=20), (), seed=0)
    (kept,) = sifted.kept
    assert [(r.text, r.thinking) for r in kept.responses] == [("Yes.", "Hm."), ("No.", "")]
    assert [(drop.response_id, drop.reason) for drop in sifted.dropped] == [
        ("p/y1", "cut_thinking"),
        ("p/y3", "empty"),
    ]


@pytest.mark.parametrize(
    ("written", "stop", "verdict"),
    [
        ("<think>Rating: 2</think>Rating: 8", "end", Rating(8.0)),
        ("<think>Rating: 2, but", "length", "cut"),
        ("It might be 2/10.\n</think>\nRating: 8", "end", Rating(8.0)),
        ("<think>Rating: 2</think>I cannot say", "end", "no_rating"),
    ],
)
def test_a_judges_thinking_is_no_verdict(written: str, stop, verdict) -> None:
    found = written_rating(Text.of(written, 9, stop))
    assert found.reason == verdict if isinstance(found, Unrated) else found == verdict


def test_rows_without_thinking_are_written_as_before(tmp_path) -> None:
    plain = Candidates(Prompt("p", (Message("user", "Well?"),)), (Response("p/y1", "p", "Yes.", "end", 3),))
    write_rows(tmp_path / "a.jsonl", [plain], Candidates)
    assert json.loads((tmp_path / "a.jsonl").read_text())["responses"] == [
        {
            "id": "p/y1",
            "prompt_id": "p",
            "text": "Yes.",
            "stop": "end",
            "n_tokens": 3,
            "origin": "sampled",
            "persona": "",
        }
    ]
    assert read_rows(tmp_path / "a.jsonl", Candidates) == [plain]
    thought = Candidates(plain.prompt, (Response("p/y1", "p", "Yes.", "end", 3, thinking="Hm."),))
    write_rows(tmp_path / "b.jsonl", [thought], Candidates)
    assert read_rows(tmp_path / "b.jsonl", Candidates) == [thought]
