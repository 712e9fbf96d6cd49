"""benchmarks/collect.py: what its ways are measured by, and the texts that another program's pipeline fills."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from selfpriority.constitution import load_constitution
from tests.scripts import opened

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; those beside it are found as they are when it runs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return opened("benchmarks/collect.py")


def timed(collect: ModuleType, way: str, seconds: float, **others: float):
    return collect.Timed(way, seconds, tokens=100, cpu_seconds=2 * seconds, peak_mb=1.0, **others)


def test_ratios_are_of_seconds_and_against_the_faster_engine(collect: ModuleType) -> None:
    case = collect.Case("m", "python", 4, 8, 48, "bfloat16", 0.9, True)
    rows = [
        timed(collect, "ours", 10.0, rating_seconds=4.0, busy_seconds=9.0, requests=44),
        timed(collect, "engine", 12.0),
        timed(collect, "engine-1", 9.0),
        timed(collect, "distilabel", 30.0),
        timed(collect, "ours", 20.0, rating_seconds=4.0, busy_seconds=19.0, requests=44),
        timed(collect, "engine-1", 15.0),
    ]
    found = collect.told(case, rows)
    assert found["ratio_to_engine"] == pytest.approx(12.0 / 15.0)
    assert found["ratio_to_engine_by_cpu"] == pytest.approx(24.0 / 30.0)
    assert found["ratio_to_peer"] == pytest.approx(30.0 / 15.0)
    assert found["rating_share"] == pytest.approx((4 / 10 + 4 / 20) / 2)
    assert found["idle_share"] == pytest.approx((1 / 10 + 1 / 20) / 2)
    assert found["requests_per_prompt"] == 11
    assert "ratio_to_plain" not in found


@pytest.mark.parametrize("scales", ["first", "last"])
def test_the_texts_to_fill_hold_the_prompt_every_answer_and_every_objective(collect: ModuleType, scales: str) -> None:
    import collection

    told = collection.texts(collect.Case("m", "python", 4, 3, 48, "bfloat16", 0.9, True, scales))
    assert len(told.rate) == len(load_constitution("harmless-helpful").objectives)
    for context in told.rate:
        (turn,) = context
        assert turn["role"] == "user"
        assert turn["content"].count(told.prompt) == 1
        assert turn["content"].count(told.answer.format(0)) == 1
    answers = [turn["content"] for turn in told.refine if turn["role"] == "assistant"]
    assert sorted(answers) == [told.answer.format(i) for i in range(3)]
    assert sum(turn["content"].count(told.prompt) for turn in told.refine) == 4  # asked, and again after every answer
