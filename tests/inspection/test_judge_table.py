"""The check of the judges as text."""

from __future__ import annotations

from selfpriority.constitution import load_constitution
from selfpriority.evaluation.wins import wins_by_comparing
from selfpriority.inspection.judge_table import trust_table
from selfpriority.intervals import Interval
from selfpriority.judges.check import check_judge
from selfpriority.judges.comparer import Compared
from selfpriority.judges.reports import ComparedObjective, ComparerReport, JudgeChecks, Turned
from selfpriority.records import Rating, Unrated

CONSTITUTION = load_constitution("harmless-helpful")
BAD = {anchor.bad for anchor in CONSTITUTION.anchors}
GOOD = {anchor.good for anchor in CONSTITUTION.anchors}


class Knowing:
    """Knows the anchors, and is talked over by any claim of a rating."""

    fingerprint = "knowing"
    objectives = CONSTITUTION.names

    def rate(self, items):
        return [tuple(map(Rating, self.one(item.response.text))) for item in items]

    def one(self, text: str) -> tuple[float, float]:
        bad = any(text.startswith(answer) for answer in BAD) and "ating" not in text
        return 2.0 if bad else 8.0, 8.0 if text in GOOD else 3.0


def told() -> str:
    report = check_judge(Knowing(), None, CONSTITUTION).named("knowing", "verbal", "")
    rows = [Compared("first", "second")] * 6 + [Compared("first", "first")] * 2 + [Compared(Unrated("refused"), "tie")]
    counted = wins_by_comparing(rows)
    names = ("win", "tie", "lose", "n", "flip_rate", "first_shown", "unread")
    shares = {name: getattr(counted, name) for name in names}
    row = ComparedObjective(
        objective="harmlessness",
        source="labels: mine.jsonl",
        agreement=Interval(0.875, 0.7, 1.0, 8),
        attacks=Turned(0.4, 0.1, {"verdict": 0.4, "neutral": 0.05}, 160),
        usable=False,
        reason="too few",
        **shares,
    )
    comparing = ComparerReport(False, ("too few",), (row,), "big", "verbal")
    return trust_table(JudgeChecks({"train": report, "more_judges.small": report}, comparing))


def test_the_table_shows_agreement_attacks_and_calibration():
    text = told()
    assert "training judge harmlessness 1.00" in " ".join(text.split())
    assert "attacks on bad answers succeed (disavowal 0%, verdict" in text
    assert "under a neutral sentence by +0.00" in text
    assert "share labelled good by rating: 2.0: 0%, 8.0: 100%" in text
    assert "training judge (knowing, verbal): usable" in text


def test_a_comparing_judge_is_told_with_its_flips_and_its_place():
    line = next(line for line in told().splitlines() if line.startswith("comparing judge"))
    assert "agrees with 75% of 8 pairs, contradicts 0%, ties 25%; with ties as half 0.88 (0.70 to 1.00)" in line
    assert "orders disagree on 25%, first place gets 62%" in line  # 6 + 2 x 2 of 16 verdicts
    assert (
        "40% of 160 attacks on the worse answer take the verdict from the better one (verdict 40%, neutral 5%)" in line
    )
    assert "10% give it to the worse one" in line
    assert line.endswith("unread: 1 refused; pairs from labels: mine.jsonl")
    assert told().endswith("comparing judge (big, verbal): not usable: too few")


class Silent(Knowing):
    """Gives no rating to some answers, for one reason or another."""

    def __init__(self, every: int) -> None:
        self.every = every

    def rate(self, items):
        rows = super().rate(items)
        for number in range(0, len(rows), self.every):
            rows[number] = (Unrated("cut" if number % 2 else "no_rating"), rows[number][1])
        return rows


def test_why_answers_got_no_rating_stands_in_the_lines_that_people_read():
    report = check_judge(Silent(3), None, CONSTITUTION, disowning=False).named("silent", "verbal", "")
    reasons = report.objectives[0].unrated_reasons
    n, n_cut = sum(reasons.values()), reasons["cut"]
    line = f"{n} of {report.objectives[0].n} unrated: {n_cut} cut, {n - n_cut} no rating"
    assert f"training judge, harmlessness: {line}\n" in trust_table(JudgeChecks({"train": report}))
    assert "helpfulness: 0" not in trust_table(JudgeChecks({"train": report}))
    refused = check_judge(Silent(1), None, CONSTITUTION, disowning=False)
    assert "100% of the answers got no rating (" in refused.reasons[0]
    assert " cut, " in refused.reasons[0]


def test_a_further_judge_is_called_by_its_name():
    assert "further judge small harmlessness 1.00" in " ".join(told().split())
    assert "further judge small (knowing, verbal): usable" in told()


def test_every_figure_is_told_with_its_source():
    head, *rows = told().splitlines()[:3]
    assert head.split()[-1] == "source"
    assert [row.split()[-1] for row in rows] == ["anchors", "anchors"]
