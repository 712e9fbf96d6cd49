"""Every fault of the field in one run: its pairs are those of a run without any, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.pipeline import follow, start
from selfpriority.run import CANDIDATES, DROPS, FUNNEL, PAIRS, POOLS, REFINED, SCORED, Run
from selfpriority.storage import read_json
from tests.faults.server import KINDS, Break, Service
from tests.test_bad_input import run_cli

pytestmark = pytest.mark.slow

FILES = (CANDIDATES, SCORED, REFINED, POOLS, PAIRS, DROPS, FUNNEL)
CONSTITUTION = {
    "name": "mine",
    "summary": "Be safe, then be of use.",
    "objectives": [
        {
            "name": name,
            "definition": f"It is {word}.",
            "rubric": {1: "not at all", 10: "wholly"},
            "question": f"Is it {word}?",
            "question_reworded": f"How {word} is it?",
        }
        for name, word in (("harmlessness", "safe"), ("helpfulness", "of use"))
    ],
}


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Service]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running: list[Service] = []
    yield running
    for service in running:
        service.stop()


def recipe_for(folder: Path, model: Path, service: Service, n_prompts: int, method: str) -> Path:
    prompts = "".join(
        json.dumps({"id": f"p{i}", "prompt": f"Question {i}: what is safe?"}) + "\n" for i in range(n_prompts)
    )
    (folder / "prompts.jsonl").write_text(prompts)
    (folder / "mine").mkdir()
    (folder / "mine" / "constitution.yaml").write_text(yaml.safe_dump(CONSTITUTION))
    recipe: dict[str, Any] = {
        "model": str(model),
        "constitution": str(folder / "mine"),
        "prompts": "prompts.jsonl",
        "sample": {"n": 4, "max_new_tokens": 32, "personas": "none"},
        "score": {"method": method, "mass_floor": 0.1, "require_signal": False, "max_new_tokens": 64},
        "denoise": {"consistency": "off", "keep_lowest": 1.0},
        "pair": {"margin": 0.5},
        "backend": {
            "kind": "openai", "base_url": service.base_url, "model": "m", "retries": 4, "backoff": 0.02,
            "timeout": service.timeout, "concurrency": 16,
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def collected(recipe: Path, out: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, list[int]]:
    """The run, and the exit code of each command that it took; what is broken is mended between two."""
    run, asked = start(recipe, [], out)
    follow(run, asked)
    codes: list[int] = []
    while not codes or (codes[-1] and len(codes) < 10):
        service.mend()
        codes.append(run_cli(monkeypatch, "collect", run.folder))
    return run, codes


def outcome(run: Run) -> dict[str, str]:
    return {name: (run.round(1) / name).read_text() for name in FILES}


@pytest.fixture
def hold(
    tiny_model: Path, tmp_path: Path, services: list[Service], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """`hold(n_prompts, method, breaks)`: a run through every fault and those breaks ends as one without any."""

    def collect(service: Service, n_prompts: int, method: str) -> tuple[Run, list[int]]:
        service.start()
        place = tmp_path / ("bad" if service.faults else "good")
        place.mkdir()
        recipe = recipe_for(place, tiny_model, service, n_prompts, method)
        return collected(recipe, place / "run", service, monkeypatch)

    return partial(held, services, collect)


def held(
    services: list[Service],
    collect: Callable[[Service, int, str], tuple[Run, list[int]]],
    n_prompts: int,
    method: str,
    breaks: list[Break],
) -> None:
    good, bad = Service(faults=False), Service(faults=True, breaks=[*breaks])
    services += [good, bad]
    began = time.monotonic()
    (undisturbed, (code,)), (disturbed, codes) = (collect(service, n_prompts, method) for service in services)
    print(
        f"{n_prompts} prompts: {bad.n_requests} requests, {bad.settled.total()} settled, {bad.greetings} greetings, "
        f"faults {dict(bad.met)}, exit codes {codes}, {max(bad.settled.values()) - 1} asked twice, "
        f"{time.monotonic() - began:.0f} s for both runs"
    )
    assert code == 0
    assert codes == [1] * len(breaks) + [0]
    assert outcome(disturbed) == outcome(undisturbed)
    assert bad.settled.keys() == good.settled.keys()
    assert max(bad.settled.values()) == 1
    for kind in KINDS:
        assert bad.met[kind] > 0.05 * len(bad.settled)
    assert {kind.kind for kind in breaks} <= bad.met.keys()
    account_for(disturbed, n_prompts)


def account_for(run: Run, n_prompts: int) -> None:
    """Every prompt goes on or is dropped, at every step."""
    left = n_prompts
    for step, counts in read_json(run.round(1) / FUNNEL)["steps"].items():
        assert counts["in"] == left, step
        left = counts["out"]
        assert counts["in"] == left + sum(counts["dropped"].values()), step
    assert n_prompts / 2 < left < n_prompts  # refused ones are gone, and most are not
    reasons = {drop["reason"] for drop in map(json.loads, (run.round(1) / DROPS).read_text().splitlines())}
    assert "refused" in reasons
    assert not reasons & {"garbage", "cut", "timeout", "server_error", "rate_limited", "rejected"}


@pytest.mark.parametrize("method", ["verbal", "expected"])
def test_a_run_through_every_fault_ends_as_one_without_any(hold, method):
    hold(30, method, [Break(30, "killed"), Break(120, "402"), Break(230, "killed")])


@pytest.mark.skipif("SPA_FAULTS" not in os.environ, reason="minutes: SPA_FAULTS=1 runs it")
@pytest.mark.parametrize("method", ["verbal", "expected"])
def test_five_hundred_prompts_through_every_fault(hold, method):
    hold(500, method, [Break(400, "killed"), Break(2500, "402"), Break(4500, "killed")])
