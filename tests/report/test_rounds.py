"""What the page says of the systems of a run: what each was trained on, or merged of."""

from __future__ import annotations

from pathlib import Path

from selfpriority.recipe import OtherSystem, Recipe, dump, parse
from selfpriority.report.page import training_of
from selfpriority.report.rounds import differences, read_systems
from selfpriority.report.view import read_view
from selfpriority.run import Run
from selfpriority.run_records import Funnel, FunnelStep, PairCounts
from selfpriority.storage import write_text

SYSTEMS = {
    "swapped": {"train": {"pair": {"order": "swapped"}}},
    "soup": {"merge": {"spa": 0.6, "swapped": 0.4}},
    "half": {"merge": {"spa": 0.5}},
}


def a_run(folder: Path, *names: str) -> Run:
    run = Run(folder / "run")
    systems = {name: SYSTEMS[name] for name in names}
    recipe = parse({"model": "some/model", "prompts": "demo", "evaluate": {"more_systems": systems}}, "r.yaml")
    for place in (run, *(Run(run.folder / "systems" / name) for name in names if "train" in SYSTEMS[name])):
        write_text(place.recipe, [dump(recipe)])
        place.write_funnel(1, Funnel({"pair": FunnelStep(9, 8)}, PairCounts(n=40, decided_by={"harmlessness": 40})))
    return run


def test_merged_systems_stand_among_those_that_were_trained(tmp_path: Path) -> None:
    run = a_run(tmp_path, "swapped", "soup", "half")
    for name in ("soup", "half"):
        (run.folder / "merged" / name).mkdir(parents=True)
    rows = {row.name: row.cells for row in training_of(read_view(run)).rows}
    assert list(rows) == ["spa", "swapped", "soup", "half"]
    assert rows["soup"][:3] == ("merged: 0.6 spa + 0.4 swapped", "-", "-")
    assert rows["swapped"][:3] == ("pair.order: swapped", "8", "40")


def test_a_merge_alone_makes_the_table_too_and_what_is_not_made_is_not_told(tmp_path: Path) -> None:
    run = a_run(tmp_path, "half")
    recipe = read_view(run).recipe
    assert [system.name for system in read_systems(run, recipe)] == ["spa"]
    (run.folder / "merged" / "half").mkdir(parents=True)
    assert [system.name for system in read_systems(run, recipe)] == ["spa", "half"]
    assert read_systems(run, parse({"model": "some/model", "prompts": "demo"}, "r.yaml")) == ()


def test_what_pairs_lose_stands_beside_who_decided_them(tmp_path: Path) -> None:
    run = a_run(tmp_path, "swapped")
    counts = PairCounts(n=40, decided_by={"harmlessness": 40}, contested=0.25, contested_weight=0.1)
    run.write_funnel(1, Funnel({"pair": FunnelStep(9, 8)}, counts))
    table = training_of(read_view(run))
    cells = {row.name: dict(zip(table.columns, row.cells, strict=True)) for row in table.rows}
    assert (cells["spa"]["lose on another"], cells["spa"]["their weight"]) == ("25\u202f%", "10\u202f%")
    assert (cells["swapped"]["lose on another"], cells["swapped"]["their weight"]) == ("-", "-")


def test_a_system_differs_in_what_is_not_the_recipes():
    recipe = Recipe.model_validate({"model": "m", "prompts": "p.jsonl", "align": {"nll": 0.5, "lora": {"r": 8}}})
    same = {"align": {"nll": 0.5, "method": "spa", "lora": {"r": 8}}, "pair": {"order": "priority"}}
    assert list(differences(OtherSystem(train=same), recipe)) == []
    other = {"align": {"nll": 0, "method": "spa", "lora": {"r": 4}}, "pair": {"order": "swapped"}}
    told = ["align.nll: 0", "align.lora.r: 4", "pair.order: swapped", "starts from: spa"]
    assert list(differences(OtherSystem(train=other, start="spa"), recipe)) == told
