"""The steps of a round: what they say, and that a run of version 0.1.0 has the very keys that are computed today."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from selfpriority.phases.align import align_step
from selfpriority.phases.collect import collect, collect_steps
from selfpriority.phases.evaluate import evaluate_steps
from selfpriority.phases.judge_check import judge_step
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_steps import ROUND_STEPS
from selfpriority.recipe import Recipe, load
from selfpriority.run import Run
from selfpriority.run_records import Manifest
from selfpriority.stages import rounds
from selfpriority.storage import as_json, read_json
from tests.phases.test_evaluate import recipe

FIXTURE = Path(__file__).parent.parent / "fixtures" / "finished-run-0.1.0.tar.gz"


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    run = Run(tmp_path / "finished" / "run")
    text = run.recipe.read_text("utf-8")
    run.recipe.write_text(text.replace("/tmp/fx/finished", str(tmp_path / "finished")), "utf-8")
    return run


def test_the_keys_of_a_finished_run_are_computed_as_they_are_stored(finished: Run) -> None:
    resources = Resources(load(finished.recipe), finished, Reporter())
    steps = [*collect_steps(finished, resources, 1), align_step(finished, resources, 1)]
    stored = read_json(finished.folder / "manifest.json")["steps"]
    assert [step.name for step in steps] == [f"round-1/{name}" for name in [s.name for s in ROUND_STEPS] + ["align"]]
    assert [step.key for step in steps] == [stored[step.name]["key"] for step in steps]


def test_another_order_refines_and_pairs_anew(finished: Run) -> None:
    def keys(*fields: str) -> dict[str, str]:
        resources = Resources(load(finished.recipe, fields), finished, Reporter())
        return {step.name: step.key for step in collect_steps(finished, resources, 1)}

    usual, swapped, plain = keys(), keys("pair.order=swapped"), keys("pair.order=sum")
    assert keys("pair.order=priority") == usual
    for name in usual:
        differ = len({usual[name], swapped[name], plain[name]})
        assert differ == (1 if name in ("round-1/sample", "round-1/score") else 3)
    alone, mixed = keys("pair.order=only:helpfulness"), keys("pair.order=mix:6,4")
    assert len({keys["round-1/pair"] for keys in (usual, swapped, plain, alone, mixed)}) == 5


def test_what_is_shown_and_what_is_noise_are_in_a_key_only_where_a_recipe_says_so(finished: Run) -> None:
    def keys(*fields: str) -> list[str]:
        resources = Resources(load(finished.recipe, fields), finished, Reporter())
        return [step.key for step in collect_steps(finished, resources, 1)]

    usual = keys()
    assert keys("refine.show=all", "refine.keep=order", "denoise.noise=0") == usual
    refining = ("refine.show=best", "refine.show=extremes", "refine.keep=consistent")
    for field, place in (*((field, 2) for field in refining), ("denoise.noise=0.5", 3)):
        changed = keys(field)
        assert [name for name, a, b in zip(ROUND_STEPS, usual, changed, strict=True) if a != b] == [
            *ROUND_STEPS[place:]
        ]


def test_every_phase_of_a_finished_run_was_done_before(finished: Run) -> None:
    resources = Resources(load(finished.recipe), finished, Reporter())
    trained = [step for phase in rounds(finished, resources) for step in phase.steps()]
    steps = [judge_step(finished, resources), *trained, *evaluate_steps(finished, resources)]
    assert len(steps) > 7
    # the summary's key holds names since; it is computed from what is there
    assert [step.name for step in steps if not finished.is_done(step)] == ["evaluation/summary"]


def test_manifest_and_funnel_are_written_as_they_were_read(finished: Run) -> None:
    manifest = finished.folder / "manifest.json"
    assert isinstance(finished.manifest, Manifest)
    assert as_json(finished.manifest, without_none=True) == read_json(manifest)
    path = finished.round(1) / "funnel.json"
    before = path.read_text("utf-8")
    finished.write_funnel(1, finished.funnel(1))
    assert path.read_text("utf-8") == before


class Heard(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("order", "decides"),
    [("priority", "harmlessness"), ("swapped", "helpfulness"), ("only:helpfulness", ""), ("sum", "")],
)
def test_one_objective_that_decides_all_is_told_where_others_are_asked_as_well(
    tiny_model: Path, tmp_path: Path, order: str, decides: str
) -> None:
    asked = recipe(tiny_model).model_dump() | {"pair": {"margin": 0.1, "resolution": 0.001, "order": order}}
    reporter = Heard()
    given = Resources(Recipe.model_validate(asked), Run(tmp_path / "run"), reporter)
    collect(given.run, given, 1)
    told = [note for note in reporter.notes if "hardly speak" in note]
    assert [note.partition(" decided")[0] for note in told] == [f"round-1/pair: {decides}"] * bool(decides)
