"""How far a comparing judge is believed: agreement with labelled pairs, and what it rests on."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.judges.attacks import attacks
from selfpriority.judges.comparer import Comparer
from selfpriority.judges.comparer_check import MOST_PAIRS, ask_all_pairs, check_comparer
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, label_prompt
from selfpriority.judges.reports import ComparerReport, Turned
from selfpriority.language_model import Choice, Failure
from selfpriority.recipe import InWords
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


def checked(rank, labels=None) -> tuple[ComparerReport, Answering]:
    """A judge that takes the answer with the higher rank, and the first of two equal ones."""

    def answer(request):
        sides = [rank(a) >= rank(b) for a, b in map(shown, request.contexts)]
        return Choice(tuple((0.9, 0.05) if is_first else (0.05, 0.9) for is_first in sides))

    model = Answering(answer)
    return check_comparer(Comparer(model, CONSTITUTION, InWords(judge="self")), CONSTITUTION, labels), model


def own_labels(n: int) -> Labels:
    """Pairs on helpfulness, single answers on harmlessness."""
    prompts = [label_prompt([Message("user", f"question {number}")]) for number in range(n)]
    pairs = tuple(LabelledPair(p, f"kind {i}", f"unkind {i}", "helpfulness", str(i)) for i, p in enumerate(prompts))
    singles = tuple(LabelledAnswer(p, f"kind {i}", "harmlessness", True, str(i)) for i, p in enumerate(prompts))
    return Labels(singles, pairs, "labels: mine.jsonl")


def test_a_judge_that_agrees_with_the_anchors_is_usable():
    told, _ = checked(next_best)
    assert (told.usable, told.reasons) == (True, ())
    harmless, helpful = told.objectives
    assert (harmless.n, helpful.n) == (2 * N, N)
    for row in told.objectives:
        assert (row.win, row.flip_rate, row.first_shown, row.source) == (1.0, 0.0, 0.5, "anchors")
        assert row.agreement.low == 1.0
    json.dumps(asdict(told), allow_nan=False)


def test_suffixes_on_the_worse_answer_that_turn_the_verdict_are_counted_by_kind():
    suffixes = {kind: [a.text for a in attacks() if a.kind == kind] for kind in ("verdict", "disavowal")}

    def gullible(text: str) -> int:
        if text.endswith(suffixes["verdict"][0]):
            return 5  # now the best
        return 2 if text.endswith(suffixes["disavowal"][0]) else RANK.get(text, next_best(text))

    told, model = checked(gullible)
    harmless, helpful = (row.attacks for row in told.objectives)
    assert helpful is None  # the last objective is not attacked
    assert harmless.n == 40 * MOST_PAIRS
    assert harmless.by_kind["verdict"] == 1 / 8
    assert harmless.by_kind["neutral"] == harmless.by_kind["encoded"] == 0.0
    assert 0 < harmless.by_kind["disavowal"] <= 1 / 8  # a draw with a good answer, and above a useless one
    assert harmless.to_worse < harmless.flips == pytest.approx(sum(harmless.by_kind[kind] for kind in suffixes) / 5)
    assert told.usable  # reported, not a reason to refuse
    n_pairs = sum(row.n for row in told.objectives)
    assert len(model.asked) == 2 * (n_pairs + 44 * MOST_PAIRS)


def next_best(text: str) -> int:
    """The rank of the anchor that the text begins with."""
    return next(rank for answer, rank in RANK.items() if text.startswith(answer))


def test_only_verdicts_that_were_right_can_turn():
    told, model = checked(lambda _: 0)
    assert told.objectives[0].attacks == Turned(flips=None, to_worse=None, by_kind={}, n=0)
    assert len(model.asked) == 2 * sum(row.n for row in told.objectives)


def test_the_plan_counts_what_the_check_asks():
    _, model = checked(next_best)
    planned = Answering(lambda request: Choice(((0.5, 0.5),) * len(request.contexts)))
    ask_all_pairs(Comparer(planned, CONSTITUTION, InWords(judge="self")), CONSTITUTION)
    assert len(planned.asked) == len(model.asked)


def test_a_judge_that_looks_at_the_place_alone_is_not():
    told, _ = checked(lambda _: 0)
    assert not told.usable
    for row, reason in zip(told.objectives, told.reasons, strict=True):
        assert (row.agreement.estimate, row.flip_rate, row.first_shown) == (0.5, 1.0, 1.0)
        assert reason.startswith(f"{row.objective}: ")
        assert "may be chance" in reason


def test_an_inverted_judge_is_called_that():
    told, _ = checked(lambda text: -next_best(text))
    assert all("inverted" in reason for reason in told.reasons)


def test_a_judge_without_verdicts_is_not_usable():
    model = Answering(lambda _: Failure("refused"))
    told = check_comparer(Comparer(model, CONSTITUTION, InWords(judge="self")), CONSTITUTION)
    assert told.reasons[0] == "harmlessness: 100% of the pairs got no verdict"
    assert told.objectives[0].unread == {"refused": 2 * N}
    assert told.objectives[0].agreement is None


@pytest.mark.parametrize(("n", "usable"), [(30, True), (5, False)])
def test_own_pairs_replace_the_anchors_of_their_objective_only(n, usable):
    told, _ = checked(lambda text: RANK.get(text, 3 if text.startswith("kind") else -1), own_labels(n))
    harmless, helpful = told.objectives
    assert (harmless.source, harmless.n) == ("anchors", 2 * N)  # single answers are no pairs
    assert (helpful.source, helpful.n) == ("labels: mine.jsonl", n)
    assert told.usable == usable
    assert usable or "5 compared pairs are too few" in told.reasons[0]


def test_every_pair_is_asked_about_on_its_own_objective_alone():
    _, model = checked(next_best)
    assert all(len(request.contexts) == 1 for request in model.asked)
    texts = [request.contexts[0][0].content for request in model.asked]
    found = [[o.name for o in CONSTITUTION.objectives if o.question in text] for text in texts]
    assert sorted({tuple(names) for names in found}) == [("harmlessness",), ("helpfulness",)]
