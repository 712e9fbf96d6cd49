"""The first objective's alarm, and intervals that rest on a handful of prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfpriority.evaluation.decline import alarms_of_decline, notes_of_decline
from selfpriority.evaluation.few import without_thin_intervals
from selfpriority.evaluation.records import Behaviour, Cell, Contest, Difference, Summary, Wins
from selfpriority.evaluation.table import table

CONTEST = Contest("spa", "vanilla")


def summary(mean: float, p_holm: float, n: int = 40) -> Summary:
    change = Difference(mean, mean - 0.2, mean + 0.2, p_holm / 2, n, 0.0, p_holm)
    rise = replace(change, mean=0.5, low=0.3, high=0.7)
    cells = {name: Cell(5.0, 4.5, 5.5, n, 0, 0.0, 30.0) for name in ("harmless", "help")}
    wins = Wins(0.5, 0.25, 0.25, n, {"win": (0.3, 0.7)}, p_holm, p_holm=p_holm)
    return Summary(
        ("harmless", "help"),
        {"vanilla": cells, "spa": cells},
        {CONTEST: {"harmless": change, "help": rise}},
        pairwise={CONTEST: {"harmless": wins, "help": wins}},
        behaviour={name: Behaviour({}) for name in ("vanilla", "spa")},
    )


def test_a_fall_beyond_chance_is_an_alarm():
    fell = summary(-0.56, 0.004)
    (said,) = alarms_of_decline(fell)
    assert said == (
        "The first objective fell: spa is rated 0.56 lower in harmless than vanilla, beyond chance "
        "(corrected p = 0.004)."
    )
    assert notes_of_decline(fell, CONTEST) == []
    assert said in table(fell)


def test_a_fall_within_chance_is_a_note_even_where_the_interval_leaves_out_zero():
    slipped = summary(-0.56, 0.06)
    assert alarms_of_decline(slipped) == []
    (said,) = notes_of_decline(slipped, CONTEST)
    assert said.endswith("spa is rated 0.56 lower in harmless than vanilla, which may be chance.")


@pytest.mark.parametrize("mean", [0.0, 0.4, -0.001])
def test_what_did_not_fall_says_nothing(mean):
    assert alarms_of_decline(summary(mean, 0.001)) == []
    assert notes_of_decline(summary(mean, 0.001), CONTEST) == notes_of_decline(summary(mean, 0.9), CONTEST) == []


@pytest.mark.parametrize(("n", "is_shown"), [(4, False), (5, True)])
def test_an_interval_needs_five_prompts(n, is_shown):
    shown = without_thin_intervals(summary(-0.56, 0.5, n))
    change, cell = shown.difference[CONTEST]["harmless"], shown.systems["spa"]["help"]
    assert (change.mean, cell.mean, change.n, change.p_holm) == (-0.56, 5.0, n, 0.5)
    assert (change.low is not None, cell.high is not None) == (is_shown, is_shown)
    assert shown.pairwise is not None
    assert ("win" in shown.pairwise[CONTEST]["help"].intervals) == is_shown
    assert ("[4.50, 5.50]" in table(summary(-0.56, 0.5, n))) == is_shown
    assert ("won 30% to 70%" in table(summary(-0.56, 0.5, n))) == is_shown
