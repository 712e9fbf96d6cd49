"""The benchmark of yields: its figures by hand, and its table of a run on scripted answers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from selfpriority.method.order import Order
from selfpriority.phases.collect import collect
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.planning.pilot import Counted
from selfpriority.rating import Item
from selfpriority.recipe import load
from selfpriority.records import Pool, Rating, Ratings
from selfpriority.run import Run
from tests.method.pools import pool, scored
from tests.scripts import opened

NAMES = ("harmlessness", "helpfulness")
CANDIDATES = [(2.0, 5.0), (4.0, 3.0), (6.0, 8.0), (6.2, 1.0)]


@pytest.fixture(scope="module")
def bench():
    """benchmarks/yields.py as a module."""
    return opened("benchmarks/yields.py")


def made() -> list[Pool]:
    """Beats all four; is 0.2 behind one of them; beats two on both; has none; another refinement beats all."""
    other = scored((9.0, 9.0), "p5/refined2", "p5", "refined")
    return [
        pool(CANDIDATES, (7.0, 9.0), "p1"),
        pool(CANDIDATES, (6.0, 9.0), "p2"),
        pool(CANDIDATES, (5.0, 4.0), "p3"),
        pool(CANDIDATES, None, "p4"),
        replace(pool(CANDIDATES, (9.5, 1.0), "p5"), other_refinements=(other,)),
    ]


def test_figures_by_hand(bench):
    """Grid of 1: candidates 3 and 4 tie on the first objective, so 3 is the best; the highest are 6.2 and 8."""
    found = bench.yields("x", made(), 0.5, Order(1.0), NAMES)
    assert (found.strict, found.any_strict, found.with_noise) == (
        Counted.among(1, 5),
        Counted.among(2, 5),
        Counted.among(2, 5),
    )
    assert (found.half.n, found.quarter.n, found.without_refinement) == (3, 3, 1)
    assert found.refined == {"harmlessness": pytest.approx(27.5 / 4), "helpfulness": pytest.approx(23 / 4)}
    assert found.best == {"harmlessness": 6.0, "helpfulness": 8.0}
    assert found.highest == {"harmlessness": pytest.approx(6.2), "helpfulness": 8.0}


class Opinion:
    """Rates the first pool's refined answer two points above the others of its pool, on the first objective."""

    fingerprint, objectives = "opinion", NAMES

    def rate(self, items: list[Item]) -> list[Ratings]:
        return [(Rating(7.0 if item.response.id == "p1/refined1" else 5.0), Rating(5.0)) for item in items]


def test_a_second_judge_is_asked_whether_the_consistent_pools_gained_more(bench):
    found = bench.second_opinion(made(), Opinion())
    assert (found.all["harmlessness"].estimate, found.all["harmlessness"].n) == (0.5, 4)
    assert (found.consistent["harmlessness"].estimate, found.consistent["harmlessness"].n) == (2.0, 1)
    assert found.consistent["helpfulness"].estimate == found.all["helpfulness"].estimate == 0.0


@pytest.fixture
def collected(tmp_path: Path, tiny_model: Path) -> Path:
    """A run that was collected from scripted answers."""
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    recipe = {
        "model": str(tiny_model),
        "prompts": {"source": "demo", "limit": 6},
        "sample": {"n": 4, "max_new_tokens": 12},
        "refine": {"n": 1, "max_new_tokens": 10},
        "denoise": {"consistency": "off", "keep_lowest": 1.0},
        "backend": {"kind": "scripted"},
    }
    run.recipe.write_text(yaml.safe_dump(recipe))
    collect(run, Resources(load(run.recipe), run, Reporter()), 1)
    return run.folder


def test_variants_of_a_run(bench, collected, monkeypatch, capsys):
    def told(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["yields.py", str(collected), *map(str, arguments)])
        assert bench.main() == 0
        return capsys.readouterr().out

    manifest = (collected / "manifest.json").read_bytes()
    variants = ("show=all n=1", "show=best n=4", "show=best n=4 twice as long")
    asked = [word for variant in variants for word in ("--variant", variant)]
    usual, best, longer = json.loads(told(*asked, "--json", "--second-judge"))["variants"]
    assert usual["strict"]["of"] == best["strict"]["of"] == 6
    assert best["tokens_read"] < usual["tokens_read"]
    assert usual["tokens_written"] < best["tokens_written"] < longer["tokens_written"]
    assert usual["second_opinion"]["all"]["harmlessness"]["n"] == 6
    table = told(*asked, "--prompts", 4).splitlines()
    assert [line.split("  ")[0] for line in table] == [
        "refine",
        *variants,
        "4 pools; ratings are of harmlessness, helpfulness; tokens are the refinement's",
    ]
    assert (collected / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--variant", "shw=best"], "did you mean show"),
        (["--prompts", "0"], "0 of 6 pools"),
        (["--round", "2"], "no such"),
    ],
)
def test_wrong_input_is_one_line(bench, collected, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(sys, "argv", ["yields.py", str(collected), *arguments])
    assert bench.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
