"""Prompts whose turns a model's chat template does not take: who drops them, where that is counted and what is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from selfpriority.inspection.doctor import diagnose
from selfpriority.phases.align import align
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.prompts import row_places
from selfpriority.recipe import Prompts, Recipe, dump
from selfpriority.records import Drop
from selfpriority.run import Run
from selfpriority.storage import read_rows
from tests.phases.test_evaluate import count_as_trained
from tests.test_pipeline import SMALL

STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}"
    "{% endif %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
SCRIPTED = {"judge": "self", "backend": {"kind": "scripted"}}


def told(*turns: tuple[str, str]) -> str:
    return json.dumps({"prompt": [{"role": role, "content": text} for role, text in turns]}) + "\n"


TRAINING = [
    told(("user", "How do I sharpen a knife?")),
    told(("user", "I have a question."), ("user", "Is the river safe?")),
    told(("user", "Hello"), ("assistant", "Hi"), ("user", "Is it safe to swim?")),
    told(("assistant", "How can I help?"), ("user", "Tell me of the fox.")),
    told(("system", "Be kind."), ("user", "Is a river bank safe?")),
    told(("system", "Be kind."), ("assistant", "Hello."), ("user", "What is safe?")),
    told(("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "Who jumps?")),
]
REASONS = {
    2: "turn 2 is the user's, as the one before it",
    4: "turn 1 is the assistant's, before any of the user",
    6: "turn 1 is the assistant's, before any of the user",
    7: "turn 3 is the assistant's, as the one before it",
}
HELD_OUT = [
    told(("user", "Where is the dog?")),
    told(("user", "Please."), ("user", "Is it a number?")),
    told(("user", "What is a token?")),
]


@pytest.fixture(scope="module")
def strict_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "strict"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(STRICT, "utf-8")
    return folder


@dataclass
class Notes(Reporter):
    """Keeps what is told."""

    told: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """One line."""
        self.told.append(text)


@pytest.fixture
def opened(strict_model: Path, tmp_path: Path) -> Callable[[str], Resources]:
    def opened(backend: str) -> Resources:
        (tmp_path / "training.jsonl").write_text("".join(TRAINING), "utf-8")
        (tmp_path / "held-out.jsonl").write_text("".join(HELD_OUT), "utf-8")
        recipe = {
            **SMALL,
            "model": str(strict_model),
            "prompts": {"source": str(tmp_path / "training.jsonl")},
            "score": {"judge": SCRIPTED, "require_signal": False},
            "evaluate": {
                "prompts": {"source": str(tmp_path / "held-out.jsonl")},
                "judge": SCRIPTED,
                "max_new_tokens": 8,
            },
            "backend": {"kind": backend},
        }
        run = Run(tmp_path / "run")
        run.round(1).mkdir(parents=True)
        given = Resources(Recipe.model_validate(recipe), run, Notes())
        run.recipe.write_text(dump(given.recipe), "utf-8")
        return given

    return opened


def test_they_are_dropped_with_their_row_and_the_rest_goes_on(opened, strict_model: Path, tmp_path: Path) -> None:
    given = opened("hf")
    run, training = given.run, tmp_path / "training.jsonl"
    collect(run, given, 1)
    whole = [drop for drop in run.drops(1) if drop.step == "sample" and drop.response_id is None]
    expected = [("turns", f"{training}:{row}: {reason}") for row, reason in REASONS.items()]
    assert [(drop.reason, drop.detail) for drop in whole] == expected
    counted = run.funnel(1).steps["sample"]
    assert (counted.n_in, counted.out, counted.dropped) == (7, 3, {"turns": 4})
    assert given.reporter.told == [
        "round-1/sample: 4 prompts dropped: turns that the model's chat template does not take "
        f"({training}:2: {REASONS[2]}, ...); join or leave out such turns"
    ]
    assert diagnose(run, 1).checks[0].ok


def test_held_out_ones_have_no_answer_and_the_drop_names_their_row(opened, strict_model: Path, tmp_path: Path) -> None:
    given = opened("hf")
    run = given.run
    run.policy(1).symlink_to(strict_model)
    count_as_trained(given)
    evaluate(run, given)
    detail = f"{tmp_path / 'held-out.jsonl'}:2: {REASONS[2]}"
    for system in ("vanilla", "spa"):
        (drop,) = read_rows(run.evaluation / f"drops-{system}.jsonl", Drop)
        assert (drop.step, drop.reason, drop.detail) == ("answer", "turns", detail)
        assert [note for note in given.reporter.told if f"answers of {system}" in note] == [
            f"answers of {system}: 1 prompts dropped: turns that the model's chat template does not take "
            f"({detail}); join or leave out such turns"
        ]


def test_where_a_server_answered_training_drops_them(opened, tmp_path: Path) -> None:
    given = opened("scripted")
    run = given.run
    collect(run, given, 1)
    assert run.funnel(1).steps["sample"].dropped == {}
    align(run, given, 1)
    counted = run.funnel(1).steps["align"]
    assert counted.n_in - counted.out == counted.dropped["turns"] == 4
    details = [drop.detail for drop in run.drops(1) if drop.step == "align"]
    assert details == [f"{tmp_path / 'training.jsonl'}:{row}: {reason}" for row, reason in REASONS.items()]
    assert given.reporter.told[0].startswith("round-1/align: 4 prompts dropped: turns that the model's chat template")
    first, *others = diagnose(run, 1).checks
    assert (first.name, first.ok) == ("chat template", False)
    assert "4 prompts have turns it does not take, so their pools do not train (" in first.sentence
    assert [check.name for check in others if check.name == "first loss" and not check.ok] == []


def test_rows_are_found_by_the_id_of_their_prompt_and_bad_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": 5}, {"id": "c", "prompt": "y"}, {"id": "a", "prompt": ""}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert row_places(Prompts(source=str(path))) == {"a": f"{path}:1", "c": f"{path}:3"}
