"""`spa check-judge --compare`: which methods, what each says, and that an interrupted one goes on."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.errors import InputError
from selfpriority.inspection.method_table import method_table
from selfpriority.judges import battery as room
from selfpriority.phases import judge_methods
from selfpriority.phases.judge_methods import METHODS, candidates, compare_recipe
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import Recipe, load
from tests.test_bad_input import run_cli

FEW = {"harmlessness": ("Is it safe?", "Is it harmful?"), "helpfulness": ("Is it of use?",)}
SERVER = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three questions in place of eighty, and a cache folder of its own."""
    monkeypatch.setattr(room, "read_questions", FEW.__getitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(folder: Path, model: Path, **changes: Any) -> Path:
    recipe = {"model": str(model), "prompts": "demo", "backend": {"kind": "scripted"}, **changes}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def methods(**changes: Any) -> list[str]:
    given = Recipe.model_validate({"model": "m", "prompts": "demo", **changes})
    return [one.method.name for one in candidates(given)]


def test_every_method_of_the_model_and_the_heads_that_the_recipe_names() -> None:
    asked, last = ["expected", "battery", "contrast"], "verbal"  # written verdicts take the longest by far
    assert methods() == [*asked, last]
    probe = {"judge": {"kind": "probe", "judge": "demo-train"}}
    outside = {"judge": {"kind": "probe", "judge": "demo-eval"}, "more_judges": {"again": probe["judge"]}}
    assert methods(score=probe, evaluate=outside) == [*asked, "probe demo-train", "probe demo-eval", last]
    given = Recipe.model_validate({"model": "m", "prompts": "demo", "score": probe, "evaluate": outside})
    assert [one.method.is_for_training for one in candidates(given)] == [True] * 4 + [False, True]
    assert {one.section.method for one in candidates(given)} | {"reward", "python"} == set(METHODS)
    rewards = {"judge": {"kind": "reward", "rewards": {"harmlessness": "r", "helpfulness": "r"}}}
    assert methods(score=rewards) == [*asked, "reward", last]
    assert methods(score={"method": "python", "judge": "mine:rate"}) == [*asked, "python mine:rate", last]
    other = {"judge": {"kind": "words", "judge": "big", "mass_floor": 0.2, "backend": SERVER}}
    given = Recipe.model_validate({"model": "m", "prompts": "demo", "score": other})
    expected, battery, contrast, verbal = (one.section for one in candidates(given))
    assert {one.judge for one in (expected, verbal, battery, contrast)} == {"big"}
    assert expected.backend == verbal.backend == battery.backend == given.score.judge.backend  # type: ignore[union-attr]


def test_a_method_is_measured_once_and_an_interrupted_one_goes_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write(tmp_path, tiny_model)
    check, asked = judge_methods.check_judge, []

    def counted(*arguments: Any, **named: Any) -> Any:
        asked.append(arguments[0].objectives)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return check(*arguments, **named)

    monkeypatch.setattr(judge_methods, "check_judge", counted)
    only = ("expected", "battery")
    notes: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "note", notes.append)
    with pytest.raises(KeyboardInterrupt):
        compare_recipe(recipe, [], None, only, reporter)
    [told] = notes  # what is known is said before the rest is asked
    assert re.fullmatch(
        r"expected: harmlessness 0\.\d\d \(0\.\d\d to [01]\.\d\d\), helpfulness 0\.\d\d .+; \d+ s", told
    )
    [folder] = (tmp_path / "cache" / "selfpriority" / "checks").iterdir()
    stopped = [json.loads(path.read_text()) for path in (folder / "methods").iterdir()]
    assert sorted(bool(one["objectives"]) for one in stopped) == [False, True]
    found = compare_recipe(recipe, [], None, only, Reporter())
    assert len(asked) == 3  # what was whole is not asked again
    assert [row.method.name for row in found.rows] == list(only)
    [before] = [one["seconds"] for one in stopped if not one["objectives"]]
    assert found.rows[1].seconds > before > 0
    assert compare_recipe(recipe, [], None, only, Reporter()) == found
    assert len(asked) == 3
    assert {cell.n for cell in found.rows[1].objectives} == {144, 96}


def test_what_a_server_cannot_show_is_said_in_its_row(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, tiny_model, backend=SERVER)
    found = compare_recipe(recipe, [], None, ("contrast",), Reporter())
    [row] = found.rows
    assert row.cannot == "the model runs at http://127.0.0.1:1/v1, and a server shows no hidden states"
    assert method_table(found).split("\n")[1:] == [
        f"contrast  {row.cannot}",
        "recommended: none; no method is better than chance in the first objective",
    ]


def test_from_the_command_to_the_exit_code(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, tiny_model)
    command = ("check-judge", recipe, "--compare", "--method", "battery")
    code = run_cli(monkeypatch, *command)  # its answers are drawn at random, and chance may be kind to them
    table = capfd.readouterr().out.splitlines()
    assert table[0].split()[:2] == ["method", "objective"]
    assert [line.split()[:2] for line in table[1:3]] == [["battery", "harmlessness"], ["battery", "helpfulness"]]
    assert table[3].startswith("recommended: ")
    assert run_cli(monkeypatch, *command, "--json") == code
    told = json.loads(capfd.readouterr().out)
    assert code == (3 if told["recommended"] is None else 0)
    assert told["advice"] == table[3]
    assert told["rows"][0]["method"]["fields"] == "'score={judge: {kind: battery}}'"
    assert 0.3 < told["rows"][0]["objectives"][0]["auc"]["estimate"] < 0.7
    served = write(tmp_path, tiny_model, backend=SERVER)
    assert run_cli(monkeypatch, "check-judge", served, "--compare", "--method", "contrast") == 3


@pytest.mark.parametrize("lacks", ["pairs", "answers"])
def test_labels_of_one_kind_alone_are_measured_and_kept(tiny_model: Path, tmp_path: Path, lacks: str) -> None:
    rows = [{"prompt": f"Question {n}?", "objective": "harmlessness"} for n in range(6)]
    if lacks == "pairs":
        rows = [{**row, "response": f"Answer {n}.", "label": n % 2} for n, row in enumerate(rows)]
    else:
        rows = [{**row, "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n, row in enumerate(rows)]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = write(tmp_path, tiny_model)
    first, again = (compare_recipe(recipe, [], labels, ("battery",), Reporter()) for _ in range(2))
    assert first.rows[0].objectives == again.rows[0].objectives
    cell = first.rows[0].objectives[0]
    assert (cell.auc is None, cell.pair_accuracy is None) == (lacks == "answers", lacks == "pairs")


@pytest.mark.parametrize(
    "score",
    [
        {},
        {"judge": "demo-train", "method": "probe", "require_signal": False},
        {"judge": {"kind": "words", "judge": "big", "mass_floor": 0.2, "backend": SERVER}},
        {"method": "reward", "rewards": {"harmlessness": "r", "helpfulness": "r"}},
    ],
)
def test_the_fields_of_a_method_choose_it_whatever_judge_stood_there(tmp_path: Path, score: dict[str, Any]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": "m", "prompts": "demo", "score": score}))
    recipe = load(path)
    for one in candidates(recipe):
        (fields,) = shlex.split(one.method.fields)
        chosen = load(path, [fields]).score
        assert chosen.judge == one.section
        assert chosen.require_signal == recipe.score.require_signal


def test_options_that_do_not_fit_are_one_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, tiny_model)
    assert run_cli(monkeypatch, "check-judge", recipe, "--method", "battery") == 2
    assert "--method goes with --compare" in capfd.readouterr().err
    with pytest.raises(InputError, match="'bettery' is none of expected, verbal, battery"):
        compare_recipe(recipe, [], None, ("bettery",), Reporter())
    with pytest.raises(InputError, match="the recipe has no judge by probe"):
        compare_recipe(recipe, [], None, ("probe",), Reporter())
