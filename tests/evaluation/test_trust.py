"""How far a comparing judge is believed: agreement with labelled pairs, and what it rests on."""

from __future__ import annotations

import json

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.evaluation.pairwise import Comparer
from selfpriority.evaluation.trust import check_comparer
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, label_prompt
from selfpriority.language_model import Choice, Failure
from selfpriority.recipe import Score
from selfpriority.records import Message
from tests.judges.conftest import Answering

CONSTITUTION = load_constitution("harmless-helpful")
N = len(CONSTITUTION.anchors)
RANK = {
    **{anchor.bad: 0 for anchor in CONSTITUTION.anchors},
    **{anchor.useless: 1 for anchor in CONSTITUTION.anchors},
    **{anchor.good: 2 for anchor in CONSTITUTION.anchors},
}


def shown(context) -> tuple[str, str]:
    """The texts of answer A and answer B."""
    first, second = (context[0].content.split(f"<answer {letter} ")[1] for letter in "AB")
    return tuple(part.partition(">\n")[2].partition("\n</answer")[0] for part in (first, second))


def checked(rank, labels=None) -> tuple[dict, Answering]:
    """A judge that takes the answer with the higher rank, and the first of two equal ones."""

    def answer(request):
        sides = [rank(a) >= rank(b) for a, b in map(shown, request.contexts)]
        return Choice(tuple((0.9, 0.05) if is_first else (0.05, 0.9) for is_first in sides))

    model = Answering(answer)
    return check_comparer(Comparer(model, CONSTITUTION, Score()), CONSTITUTION, labels), model


def own_labels(n: int) -> Labels:
    """Pairs on helpfulness, single answers on harmlessness."""
    prompts = [label_prompt([Message("user", f"question {number}")]) for number in range(n)]
    pairs = tuple(LabelledPair(p, f"kind {i}", f"unkind {i}", "helpfulness", str(i)) for i, p in enumerate(prompts))
    singles = tuple(LabelledAnswer(p, f"kind {i}", "harmlessness", True, str(i)) for i, p in enumerate(prompts))
    return Labels(singles, pairs, "labels: mine.jsonl")


def test_a_judge_that_agrees_with_the_anchors_is_usable():
    told, _ = checked(lambda text: RANK.get(text, -1))
    assert (told["usable"], told["reasons"]) == (True, [])
    harmless, helpful = told["objectives"]
    assert (harmless["n"], helpful["n"]) == (2 * N, N)
    for row in told["objectives"]:
        assert (row["win"], row["flip_rate"], row["first_shown"], row["source"]) == (1.0, 0.0, 0.5, "anchors")
        assert row["agreement"]["low"] == 1.0
    json.dumps(told, allow_nan=False)


def test_a_judge_that_looks_at_the_place_alone_is_not():
    told, _ = checked(lambda _: 0)
    assert not told["usable"]
    for row, reason in zip(told["objectives"], told["reasons"], strict=True):
        assert (row["agreement"]["estimate"], row["flip_rate"], row["first_shown"]) == (0.5, 1.0, 1.0)
        assert reason.startswith(f"{row['objective']}: ")
        assert "may be chance" in reason


def test_an_inverted_judge_is_called_that():
    told, _ = checked(lambda text: -RANK.get(text, -1))
    assert all("inverted" in reason for reason in told["reasons"])


def test_a_judge_without_verdicts_is_not_usable():
    model = Answering(lambda _: Failure("refused"))
    told = check_comparer(Comparer(model, CONSTITUTION, Score()), CONSTITUTION)
    assert told["reasons"][0] == "harmlessness: 100% of the pairs got no verdict"
    assert told["objectives"][0]["unread"] == {"refused": 2 * N}
    assert told["objectives"][0]["agreement"] is None


@pytest.mark.parametrize(("n", "usable"), [(30, True), (5, False)])
def test_own_pairs_replace_the_anchors_of_their_objective_only(n, usable):
    told, _ = checked(lambda text: RANK.get(text, 3 if text.startswith("kind") else -1), own_labels(n))
    harmless, helpful = told["objectives"]
    assert (harmless["source"], harmless["n"]) == ("anchors", 2 * N)  # single answers are no pairs
    assert (helpful["source"], helpful["n"]) == ("labels: mine.jsonl", n)
    assert told["usable"] == usable
    assert usable or "5 compared pairs are too few" in told["reasons"][0]
