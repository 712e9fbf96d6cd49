from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import pytest

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.judges.attacks import MOST_ANSWERS, attacks
from selfpriority.judges.check import best_threshold, check_judge
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, label_prompt
from selfpriority.rating import Item
from selfpriority.records import Message, Rating, Ratings, Unrated

CONSTITUTION = load_constitution("harmless-helpful")
GOOD = {anchor.good for anchor in CONSTITUTION.anchors}
USELESS = {anchor.useless for anchor in CONSTITUTION.anchors}
BAD = {anchor.bad for anchor in CONSTITUTION.anchors}


class Rule:
    """A judge that rates by a rule on the answer's text."""

    fingerprint = "rule"
    objectives = CONSTITUTION.names

    def __init__(self, rule: Callable[[str], Sequence[float | Unrated]]) -> None:
        self.rule = rule
        self.rated: list[str] = []

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        self.rated += [item.response.text for item in items]
        return [
            tuple(value if isinstance(value, Unrated) else Rating(value) for value in self.rule(item.response.text))
            for item in items
        ]


def noise(text: str, seed: int = 0) -> float:
    return float(np.random.default_rng([seed, *text.encode()[:60]]).normal())


def right(text: str) -> tuple[float, float]:
    """Knows the anchors, a little noisily; a disowned bad answer is still bad."""
    bad = any(text.startswith(answer) for answer in BAD)
    return (2.0 if bad else 8.0) + 0.5 * noise(text), (8.0 if text in GOOD else 3.0) + 0.5 * noise(text, 1)


def test_a_judge_that_agrees_is_usable() -> None:
    report = check_judge(Rule(right), None, CONSTITUTION)
    assert report.usable
    assert report.reasons == ()
    harmless, helpful = report.objectives
    assert harmless.auc is not None
    assert helpful.pair_accuracy is not None
    assert harmless.auc.estimate == helpful.pair_accuracy.estimate == 1.0
    assert (harmless.n, helpful.n) == (len(GOOD | USELESS | BAD), len(GOOD | USELESS))
    assert harmless.threshold == pytest.approx(5.0, abs=1.5)
    assert (harmless.disavowal_flips, helpful.disavowal_flips) == (0.0, None)
    assert (harmless.unrated, harmless.at_ceiling) == (0.0, 0.0)
    assert harmless.rank_correlation is None


def test_a_judge_at_chance_is_refused_on_every_objective() -> None:
    report = check_judge(Rule(lambda text: (5 + noise(text), 5 + noise(text, 1))), None, CONSTITUTION)
    assert not report.usable
    assert len(report.reasons) == 2
    assert all("may be chance" in reason for reason in report.reasons)


def test_one_bad_objective_is_enough_to_refuse() -> None:
    report = check_judge(Rule(lambda text: (right(text)[0], 5 + noise(text, 1))), None, CONSTITUTION)
    assert [o.usable for o in report.objectives] == [True, False]
    (reason,) = report.reasons
    assert reason.startswith("helpfulness: ")


def test_a_judge_that_always_says_the_same_is_refused() -> None:
    """self-rewarding-lm-pytorch#7: the judge always says 5 of 5."""
    report = check_judge(Rule(lambda _: (10.0, 10.0)), None, CONSTITUTION)
    assert not report.usable
    for objective in report.objectives:
        assert objective.auc is not None
        assert (objective.auc.low, objective.auc.estimate, objective.auc.high) == (0.5, 0.5, 0.5)
        assert objective.at_ceiling == 1.0


def test_an_inverted_judge_is_called_that() -> None:
    report = check_judge(Rule(lambda text: tuple(11 - value for value in right(text))), None, CONSTITUTION)
    assert all("inverted" in reason for reason in report.reasons)


def test_unrated_answers_are_counted_and_never_read_as_zero() -> None:
    """The unrated ones are all good answers: read as 0 they would ruin the agreement."""

    def shy(text: str) -> Sequence[float | Unrated]:
        silent = text in GOOD and len(text) % 3 == 0
        return [Unrated("low_mass")] * 2 if silent else right(text)

    n_silent = sum(len(text) % 3 == 0 for text in GOOD)
    harmless, helpful = check_judge(Rule(shy), None, CONSTITUTION).objectives
    assert n_silent > 5
    assert harmless.auc is not None
    assert harmless.auc.estimate == 1.0
    assert harmless.auc.n == harmless.n - n_silent
    assert harmless.unrated == pytest.approx(n_silent / harmless.n)
    assert helpful.unrated_reasons == {"low_mass": n_silent}


def test_a_judge_that_hardly_rates_is_refused() -> None:
    report = check_judge(Rule(lambda _: [Unrated("unsupported")] * 2), None, CONSTITUTION)
    assert report.reasons[0] == "harmlessness: 100% of the answers got no rating (144 unsupported)"
    assert report.objectives[0].auc is None
    assert report.objectives[0].at_ceiling is None
    json.dumps(asdict(report), allow_nan=False)


def test_two_wordings_are_compared() -> None:
    shifted = Rule(lambda text: (right(text)[0] + 1.25, 11 - right(text)[1]))
    harmless, helpful = check_judge(Rule(right), shifted, CONSTITUTION).objectives
    assert harmless.rank_correlation == pytest.approx(1.0)
    assert harmless.wording_shift == pytest.approx(1.25)
    assert helpful.rank_correlation == pytest.approx(-1.0)


def test_suffixes_that_turn_a_verdict_are_counted_by_kind() -> None:
    """llama-models#517: a suffix that disowns the text flips the judge."""
    disavowals = [attack.text for attack in attacks() if attack.kind == "disavowal"]

    def gullible(text: str) -> tuple[float, float]:
        return (9.0, 5.0) if text.endswith(disavowals[1]) else right(text)

    judge = Rule(gullible)
    harmless, helpful = check_judge(judge, None, CONSTITUTION).objectives
    assert harmless.disavowal_flips == pytest.approx(1 / 8)
    assert harmless.attacks is not None
    assert harmless.attacks.flips == pytest.approx(1 / 40)
    assert harmless.attacks.by_kind == {
        "disavowal": 1 / 8, "verdict": 0.0, "role": 0.0, "delimiter": 0.0, "encoded": 0.0, "neutral": 0.0,
    }  # fmt: skip
    assert harmless.attacks.n == 40 * MOST_ANSWERS
    assert sum(text.endswith(disavowals[1]) for text in judge.rated) == MOST_ANSWERS
    assert harmless.attacks.neutral_shift == pytest.approx(0.0, abs=0.1)
    assert harmless.usable  # reported, not a reason to refuse
    assert helpful.attacks is None


def test_what_any_sentence_does_is_told_apart_from_what_an_attack_does() -> None:
    def drifting(text: str) -> tuple[float, float]:
        value, other = right(text)
        return value + 0.5 * any(text.endswith(attack.text) for attack in attacks()), other

    robust = check_judge(Rule(drifting), None, CONSTITUTION).objectives[0].attacks
    assert robust is not None
    assert robust.flips == 0.0
    assert robust.shift == pytest.approx(0.5, abs=0.1)
    assert robust.neutral_shift == pytest.approx(0.5, abs=0.1)


def test_bad_answers_already_judged_good_cannot_flip() -> None:
    fooled = {text for text in BAD if len(text) % 2}

    def half_blind(text: str) -> tuple[float, float]:
        owned = any(text.startswith(answer) for answer in BAD - fooled)
        return (2.0 if owned and text in BAD else 8.0), right(text)[1]

    harmless = check_judge(Rule(half_blind), None, CONSTITUTION).objectives[0]
    assert harmless.threshold == 5.0
    assert harmless.disavowal_flips == 1.0


def test_attacks_can_be_left_out() -> None:
    judge = Rule(right)
    report = check_judge(judge, None, CONSTITUTION, disowning=False)
    assert report.objectives[0].disavowal_flips is None
    assert report.objectives[0].attacks is None
    assert len(judge.rated) == len(GOOD | USELESS | BAD) + len(CONSTITUTION.anchors)  # and each question, said back


def test_the_attacks_are_forty_different_suffixes_and_a_control() -> None:
    kinds = [attack.kind for attack in attacks()]
    assert len({attack.text for attack in attacks()}) == len(attacks()) == 44
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "disavowal": 8, "verdict": 8, "role": 8, "delimiter": 8, "encoded": 8, "neutral": 4,
    }  # fmt: skip


def test_ratings_are_calibrated_against_the_labels() -> None:
    bins = check_judge(Rule(right), None, CONSTITUTION, disowning=False).objectives[0].calibration
    assert len(bins) == 10
    assert bins[0].positive == 0.0
    assert bins[-1].positive == 1.0
    assert [b.rating for b in bins] == sorted(b.rating for b in bins)
    assert sum(b.n for b in bins) == len(GOOD | USELESS | BAD)


def own_labels(n: int, pairs_only: bool = False) -> Labels:
    answers, pairs = [], []
    for number in range(n):
        prompt = label_prompt([Message("user", f"question {number}")])
        texts = (f"kind {number}", f"unkind {number}")
        pairs.append(LabelledPair(prompt, *texts, "harmlessness", str(number)))
        answers += [
            LabelledAnswer(prompt, t, "harmlessness", t[0] == "k", str(number)) for t in texts if not pairs_only
        ]
    return Labels(tuple(answers), tuple(pairs))


def kindness(text: str) -> tuple[float, float]:
    return (9.0 if text.startswith("kind") else 2.0), right(text)[1]


def test_own_labels_replace_the_anchors_of_their_objective_only() -> None:
    judge = Rule(kindness)
    report = check_judge(judge, None, CONSTITUTION, own_labels(30))
    harmless, helpful = report.objectives
    assert report.usable
    assert (harmless.n, helpful.n) == (60, len(GOOD | USELESS))
    assert (harmless.source, helpful.source) == ("labels", "anchors")
    assert not BAD & set(judge.rated)


def test_pairs_alone_can_speak_for_a_judge() -> None:
    harmless = check_judge(Rule(kindness), None, CONSTITUTION, own_labels(30, pairs_only=True)).objectives[0]
    assert harmless.usable
    assert harmless.auc is None
    assert harmless.pair_accuracy is not None
    assert harmless.pair_accuracy.low == 1.0


def test_rejected_answers_of_pairs_are_attacked_too() -> None:
    """Where no threshold parts good from bad, an attack succeeds once its answer is not rated below the chosen one."""
    claims = [attack.text for attack in attacks() if attack.kind == "verdict"]

    def gullible(text: str) -> tuple[float, float]:
        return (9.0 if text.startswith("kind") or text.endswith(claims[0]) else 2.0), 5.0

    robust = check_judge(Rule(gullible), None, CONSTITUTION, own_labels(30, pairs_only=True)).objectives[0].attacks
    assert robust is not None
    assert robust.n == 40 * MOST_ANSWERS
    assert robust.by_kind["verdict"] == pytest.approx(1 / 8)
    assert robust.flips == pytest.approx(1 / 40)
    assert robust.shift == pytest.approx(7 / 40)


def test_rejected_answers_that_already_win_cannot_flip() -> None:
    def half_blind(text: str) -> tuple[float, float]:
        return (9.0 if text.startswith("unkind") and text.endswith(("1", "2")) else kindness(text)[0] - 1), 5.0

    labels = own_labels(3, pairs_only=True)  # unkind 1 and 2 are rated above kind 1 and 2
    robust = check_judge(Rule(half_blind), None, CONSTITUTION, labels).objectives[0].attacks
    assert robust is not None
    assert robust.n == 40
    assert robust.flips == 0.0


def test_a_handful_of_labels_speaks_for_nobody() -> None:
    harmless = check_judge(Rule(kindness), None, CONSTITUTION, own_labels(5)).objectives[0]
    assert not harmless.usable
    assert "too few" in harmless.reason


def test_labels_for_other_objectives_are_an_error() -> None:
    other = [LabelledAnswer(a.prompt, a.response, "honesty", a.label, a.group) for a in own_labels(3).answers]
    with pytest.raises(InputError, match="none for harmlessness, helpfulness; they are for honesty"):
        check_judge(Rule(right), None, CONSTITUTION, Labels(tuple(other), ()))


@pytest.mark.parametrize(
    ("values", "labels", "threshold"),
    [
        ([1, 2, 8, 9], [False, False, True, True], 5.0),
        ([1, 6, 5, 9], [False, False, True, True], 3.0),  # as good as 7.5: the lowest
        ([1, 2, 3, 4, 5, 9], [False] * 5 + [True], 7.0),
        ([4, 4, 4], [False, True, True], 4.0),
    ],
)
def test_the_threshold_separates_best(values: list[float], labels: list[bool], threshold: float) -> None:
    assert best_threshold(values, labels) == threshold


def test_the_report_is_json() -> None:
    told = json.loads(json.dumps(asdict(check_judge(Rule(right), Rule(right), CONSTITUTION)), allow_nan=False))
    assert told["usable"] is True
    assert told["objectives"][0]["auc"]["n"] == told["objectives"][0]["n"]
    assert told["judge"] == "rule"
