"""Four systems on two prompt sets with two judges: files, contests, corrections, and that nobody answers twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import Contest, Difference, Summary, Wins
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.intervals import holm
from selfpriority.phases.align import align_step
from selfpriority.phases.evaluate import check_evaluation, evaluate, evaluate_steps, evaluation_steps
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.systems import prompts_to, systems
from selfpriority.recipe import Recipe
from selfpriority.run import Run
from selfpriority.storage import read_rows

SYSTEMS = ["vanilla", "spa-round-1", "spa", "told"]
JUDGED = (("verdicts", ""), ("verdicts", "@second"))


def two_rounds(folder: Path, model: Path, **evaluate_fields: Any) -> Resources:
    """A run of two rounds whose policies are the model itself under other weights."""
    recipe = {
        "model": str(model),
        "rounds": 2,
        "prompts": {"source": "demo", "split": "train", "limit": 6},
        "sample": {"n": 4, "max_new_tokens": 12},
        "evaluate": {
            "prompts": {"source": "demo", "split": "heldout", "limit": 8},
            "more_prompts": {"transfer": {"source": "demo", "split": "dev", "limit": 6}},
            "more_systems": {"told": {"how": "constitution"}},
            "more_judges": {"second": {"judge": "self", "method": "verbal"}},
            "comparer": {"judge": "self"},
            "reference": "spa",
            "max_new_tokens": 12,
            **evaluate_fields,
        },
        "backend": {"kind": "scripted"},
    }
    run = Run(folder)
    given = Resources(Recipe.model_validate(recipe), run, Reporter())
    for number in (1, 2):
        trained_policy(run.policy(number), model, scale=float(1 + number))
        with run.recording(align_step(run, given, number)):
            (run.round(number) / "training.jsonl").touch()
    return given


def trained_policy(folder: Path, model: Path, scale: float) -> None:
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(model)
    policy.model.embed_tokens.weight.data.mul_(scale)
    policy.save_pretrained(folder)
    for path in model.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def evaluated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Resources:
    given = two_rounds(tmp_path_factory.mktemp("systems") / "run", tiny_model)
    evaluate(given.run, given)
    return given


def summaries(given: Resources) -> list[Summary]:
    folder = given.run.evaluation
    return [read_summary(EvaluationFiles(place).summary) for place in (folder, folder / "transfer")]


def test_the_policy_of_every_round_and_what_the_recipe_adds_are_systems(evaluated):
    found = systems(evaluated.run, evaluated.recipe)
    assert [system.name for system in found] == SYSTEMS
    assert [system.round for system in found] == [0, 1, 2, 0]
    assert found[3].model == found[0].model
    assert found[3].how == "constitution"


def test_every_set_has_a_folder_and_every_system_and_judge_a_file_in_it(evaluated):
    for summary, folder in zip(summaries(evaluated), ("", "transfer"), strict=True):
        files = EvaluationFiles(evaluated.run.evaluation / folder)
        assert sorted(files.systems()) == sorted(SYSTEMS)
        for system in SYSTEMS:
            assert files.verdicts(system).is_file()
            assert files.verdicts(system, "second").is_file()
        assert list(summary.systems) == SYSTEMS
        assert summary.prompts.n == (6 if folder else 8)
        assert list(summary.judges) == ["second"]
        assert files.table.read_text("utf-8").count("against vanilla") >= 3


def test_everybody_meets_the_first_and_the_reference_and_nobody_twice(evaluated):
    met = [Contest("spa-round-1", "vanilla"), Contest("spa", "vanilla"), Contest("told", "vanilla")]
    met += [Contest("spa-round-1", "spa"), Contest("told", "spa")]
    for summary in summaries(evaluated):
        assert list(summary.difference) == met
        assert list(summary.pairwise or {}) == met
        assert list(summary.judges["second"].difference) == met
        assert summary.against_first() == met[:3]


def families(summary: Summary) -> dict[str, list[Difference | Wins]]:
    """What is corrected together, by what it is; figures of further judges by the judge's name."""
    mixed = [name for name in next(iter(summary.difference.values())) if name not in summary.objectives]
    kinds = [standing.difference for standing in summary.by_kind.values()]
    assert summary.pairwise is not None
    return {
        "objectives": cells(summary.difference, summary.objectives),
        "HH": cells(summary.difference, mixed),
        "kinds": [cell for table in kinds for cell in cells(table, summary.objectives)],
        "wins": cells(summary.pairwise, summary.objectives),
        "behaviour": cells(summary.behaviour_difference, ("refusal", "over_refusal", "words")),
        "second": cells(summary.judges["second"].difference, summary.objectives),
    }


def cells(table: Mapping[Contest, Mapping[str, Any]], names: Sequence[str]) -> list[Any]:
    return [row[name] for row in table.values() for name in names]


def test_the_correction_runs_over_all_contests_of_a_family(evaluated):
    for summary in summaries(evaluated):
        by_name = families(summary)
        assert {len(by_name[name]) for name in ("objectives", "wins", "second")} == {5 * 2}
        assert (len(by_name["HH"]), len(by_name["behaviour"])) == (5 * 3, 5 * 3)
        for name, family in by_name.items():
            tested = [cell for cell in family if cell.p is not None]
            assert tested or name == "second", name  # who writes no readable verdict decides nothing
            assert [cell.p_holm for cell in tested] == pytest.approx(holm([cell.p for cell in tested])), name
        assert any(cell.p_holm != cell.p for cell in by_name["objectives"])


def test_steps_are_called_by_set_system_judge_and_contest(evaluated):
    done = [name for name in evaluated.run.manifest.steps if name.startswith("evaluation/")]
    met = ["spa-round-1_vs_vanilla", "spa_vs_vanilla", "told_vs_vanilla", "spa-round-1_vs_spa", "told_vs_spa"]
    sets = ("evaluation", "evaluation/transfer")
    of_a_system = [
        [f"{place}/answers-{system}" for place in sets]
        + [f"{place}/{what}-{system}{judge}" for place in sets for what, judge in JUDGED]
        for system in SYSTEMS
    ]
    assert done == [
        *(name for names in of_a_system for name in names),
        *(f"{place}/comparisons-{contest}" for place in sets for contest in met),
        *(f"{place}/summary" for place in sets),
    ]


def test_every_system_answers_every_set_once(evaluated):
    with sqlite3.connect(evaluated.run.cache) as store:
        assert {n for (n,) in store.execute("SELECT times_asked FROM answers")} == {1}
    steps = evaluated.run.manifest.steps
    answered = {name: entry.requests for name, entry in dict(steps).items() if "/answers-" in name}
    assert answered == {
        **{f"evaluation/answers-{name}": 8 + 6 for name in SYSTEMS},  # all sets at once
        **{f"evaluation/transfer/answers-{name}": 6 for name in SYSTEMS},
    }
    before = dict(steps)
    evaluate(evaluated.run, evaluated)
    assert dict(evaluated.run.manifest.steps) == before
    assert all(evaluated.run.is_done(step) for step in evaluate_steps(evaluated.run, evaluated))


def test_systems_differ_in_what_they_answer(evaluated):
    from selfpriority.evaluation.records import AnswerRow

    files = EvaluationFiles(evaluated.run.evaluation)
    texts = {name: tuple(row.response.text for row in read_rows(files.answers(name), AnswerRow)) for name in SYSTEMS}
    assert len(set(texts.values())) == len(SYSTEMS)


def test_the_constitution_stands_before_the_prompt_and_not_in_what_is_judged(evaluated):
    from selfpriority.evaluation.records import AnswerRow

    told = systems(evaluated.run, evaluated.recipe)[3]
    rows = read_rows(EvaluationFiles(evaluated.run.evaluation).answers("told"), AnswerRow)
    assert Counter(message.role for row in rows for message in row.prompt.messages) == {"user": 8}
    asked = prompts_to(told, [row.prompt for row in rows], evaluated.constitution)
    assert all(prompt.messages[0].role == "system" for prompt in asked)
    assert all(evaluated.constitution.text in prompt.messages[0].content for prompt in asked)


def test_a_system_is_asked_all_sets_at_once_and_each_set_finds_its_answers(evaluated):
    steps = evaluated.run.manifest.steps
    for system in SYSTEMS:
        first, second = steps[f"evaluation/answers-{system}"], steps[f"evaluation/transfer/answers-{system}"]
        assert (first.requests, first.cached) == (8 + 6, 0), system
        assert (second.requests, second.cached, second.tokens) == (6, 6, 0), system


def test_several_sets_are_asked_once_and_a_lost_one_is_found_in_the_cache(tiny_model, tmp_path):
    sets = {name: {"source": "demo", "split": name, "limit": n} for name, n in (("dev", 6), ("unseen", 3))}
    given = two_rounds(tmp_path / "run", tiny_model, more_prompts=sets, reference=None)
    evaluate(given.run, given)
    places = ("evaluation", "evaluation/dev", "evaluation/unseen")

    def counts(system: str) -> list[tuple[int, int]]:
        steps = given.run.manifest.steps
        found = [steps[f"{place}/answers-{system}"] for place in places]
        return [(step.requests, step.cached) for step in found]

    assert [counts(system) for system in SYSTEMS] == [[(8 + 6 + 3, 0), (6, 6), (3, 3)]] * len(SYSTEMS)
    EvaluationFiles(given.run.evaluation / "dev").answers("spa").unlink()
    again = Resources(given.recipe, given.run, Reporter())
    evaluate(again.run, again)
    assert counts("spa") == [(8 + 6 + 3, 0), (6, 6), (3, 3)]
    assert EvaluationFiles(given.run.evaluation / "dev").answers("spa").is_file()


def test_its_answers_and_the_verdicts_on_them_come_before_those_of_the_next_system(evaluated):
    steps = [each for each in evaluation_steps(evaluated.run, evaluated) if each.system]
    assert list(dict.fromkeys(each.system.name for each in steps)) == SYSTEMS
    order = [(each.system.name, not each.asks) for each in steps]
    assert order == sorted(order, key=lambda place: (SYSTEMS.index(place[0]), place[1]))
    assert len(order) == len(SYSTEMS) * 2 * 3  # two sets: answers and two judges


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"reference": "dpo"},
            r"evaluate\.reference: 'dpo' is no system of this run; it has vanilla, spa-round-1, spa",
        ),
        ({"more_systems": {"spa": {}}}, r"evaluate\.more_systems\.spa: every evaluation has a system of this name"),
        ({"more_systems": {"old_vs": {}}, "reference": None}, r"evaluate\.more_systems\.old_vs: files write '_vs_'"),
        ({"more_systems": {"other": {"model": "nowhere"}}, "reference": None}, "'nowhere' is no folder"),
        (
            {"more_prompts": {"x": {"source": "demo", "split": "train", "limit": 6}}},
            r"evaluate\.more_prompts\.x: demo: no",
        ),
        ({"prompts": {"source": "demo", "split": "devv"}}, r"^evaluate\.prompts\.split: .*no split 'devv'"),
        (
            {"more_prompts": {"x": {"source": "demo", "config": "en"}}},
            r"^evaluate\.more_prompts\.x\.config: 'en' is for hub data sets",
        ),
    ],
)
def test_what_is_wrong_is_found_before_any_work(tiny_model, tmp_path, fields, message):
    given = two_rounds(tmp_path / "run", tiny_model)
    section = {**given.recipe.evaluate.model_dump(mode="json"), **fields}
    given.recipe = Recipe.model_validate({**given.recipe.model_dump(mode="json"), "evaluate": section})
    with pytest.raises(InputError, match=message) as wrong:
        check_evaluation(given)
    assert len(wrong.value.lines) == 1
    assert "\n" not in wrong.value.lines[0]
    assert not given.run.evaluation.exists()
