"""No field of a recipe is dropped in silence: it makes the judge, or is refused, or is told to be without effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.method.pair import Contested
from selfpriority.phases.align import _priority, _told_of_priority
from selfpriority.phases.judge_names import meant
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.tau import other_judge
from selfpriority.pipeline import start
from selfpriority.recipe import ByProbe, InWords, Recipe, parse, unused_fields
from selfpriority.records import Message, Pair, PairedPool, Pool, Prompt, Rating, Response, Scored
from tests.test_pipeline import write_recipe

HEADS = "demo-train"
SMALL: dict[str, Any] = {"model": "m", "prompts": "p"}
HELD_OUT = {"prompts": {"source": "q"}}


def recipe(**changes: Any) -> Recipe:
    return parse({**SMALL, **changes}, "r.yaml")


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (
            {"method": "reward", "rewards": {"a": "b"}},
            "method reward asks the models that rewards names; say judge=self",
        ),
        ({"method": "battery"}, "method battery asks a model; say judge=self, or name a model"),
        ({"method": "contrast"}, "method contrast makes heads of its own; say judge=self, or name a model"),
        ({"method": "expected"}, "which read no method; leave that out or say method=probe alone, or name a model"),
        ({"method": "verbal", "max_new_tokens": 9}, "which read no method or max_new_tokens; leave"),
        ({"mass_floor": 0.3}, "which read no mass_floor; leave"),
        ({"backend": {"kind": "hf", "device": "cpu"}}, "which read no backend; leave"),
        ({"judge": {"kind": "words", "judge": HEADS}}, "which read no method; leave"),
    ],
)
def test_what_is_said_beside_the_name_of_heads_is_not_dropped(score: dict[str, Any], told: str) -> None:
    given = recipe(score={"judge": HEADS, **score}).score.judge
    with pytest.raises(InputError) as caught:
        meant(given)
    assert told in caught.value.lines[0]
    assert caught.value.lines[0].startswith(f"judge: {HEADS!r} names fitted heads, ")


@pytest.mark.parametrize("score", [{}, {"method": "probe"}, {"rewards": {}, "backend": None}])
def test_the_name_of_heads_alone_means_them(score: dict[str, Any]) -> None:
    assert meant(recipe(score={"judge": HEADS, **score}).score.judge) == ByProbe(kind="probe", judge=HEADS)


def written_out(**changes: Any) -> dict[str, Any]:
    """A judge as version 0.1.0 wrote it into a run, every field of every kind."""
    every = {"method": "expected", "rewards": {}, "backend": None, "mass_floor": 0.5, "max_new_tokens": 512}
    return {"judge": "self", **every, **changes}


def test_what_an_old_run_wrote_out_says_no_more_than_it_did() -> None:
    assert meant(recipe(score=written_out(judge=HEADS)).score.judge) == ByProbe(kind="probe", judge=HEADS)
    assert meant(recipe(score=written_out(judge=HEADS, method="probe")).score.judge) == ByProbe(
        kind="probe", judge=HEADS
    )
    assert recipe(score=written_out()).score.judge == InWords(judge="self")
    idle = {"mass_floor": 0.3, "max_new_tokens": 64, "backend": {"kind": "hf"}}  # read by no judge of this kind then
    assert recipe(score=written_out(judge=HEADS, method="probe", **idle)).score.judge == ByProbe(
        kind="probe", judge=HEADS
    )


def test_the_command_line_asks_heads_as_heads_and_refuses_another_way() -> None:
    assert other_judge(HEADS, None, None, None) == ByProbe(kind="probe", judge=HEADS)
    assert other_judge("big", None, None, None) == InWords(judge="big")
    with pytest.raises(InputError, match="which read no method"):
        other_judge(HEADS, "verbal", None, None)
    with pytest.raises(InputError, match="which read no backend"):
        other_judge(HEADS, None, "http://localhost:1/v1", None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"align": {"method": "dpo", "gamma": 0.3}}, "align.gamma: 0.3 is not used by method dpo"),
        ({"align": {"method": "simpo", "alpha": 2}}, "align.alpha: 2.0 is not used by method simpo"),
        ({"align": {"method": "sft", "beta": 3}}, "align.beta: 3.0 is not used by method sft"),
        (
            {"align": {"learn": "winners"}},
            "align.learn: winners is not used: method spa with nll 0 learns no likelihood",
        ),
        (
            {"score": {"method": "verbal", "mass_floor": 0.3}},
            "score.judge.mass_floor: 0.3 is not used by method verbal",
        ),
        ({"score": {"max_new_tokens": 9}}, "score.judge.max_new_tokens: 9 is not used by method expected"),
        (
            {"refine": {"keep": "consistent"}},
            "refine.keep: consistent is not used by one refinement a prompt (refine.n: 1)",
        ),
        (
            {"evaluate": {"judge": "big"}},
            "evaluate.judge: is not used by a recipe without evaluate.prompts, which evaluates nothing",
        ),
        (
            {"evaluate": {**HELD_OUT, "pairwise": False, "comparer": {"judge": "big"}}},
            "evaluate.comparer: is not used with evaluate.pairwise: false, which compares nothing",
        ),
        (
            {"evaluate": {**HELD_OUT, "comparer": {"judge": "big", "scales": "first"}}},
            "evaluate.comparer.scales: first is not used by a judge that compares",
        ),
    ],
)
def test_a_field_without_effect_is_told(changes: dict[str, Any], told: str) -> None:
    assert unused_fields(recipe(**changes)) == [told]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"align": {"method": "dpo"}},
        {"align": {"method": "sft", "learn": "winners"}},
        {"align": {"nll": 1, "learn": "winners"}},
        {"refine": {"n": 2, "keep": "consistent"}},
        {"evaluate": {**HELD_OUT, "comparer": {"judge": "big"}}},
        {"score": {"scales": "first"}},
    ],
)
def test_a_field_with_effect_is_not(changes: dict[str, Any]) -> None:
    assert unused_fields(recipe(**changes)) == []


class Telling(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_run_tells_it_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    """And of which languages of the prompts there are no personas."""
    italian = "Come posso togliere il nido di vespe numero {} che è sotto il tetto della mia casa?"
    rows = [json.dumps({"prompt": italian.format(n)}) for n in range(4)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    path = write_recipe(
        tmp_path,
        tiny_model,
        prompts=str(tmp_path / "prompts.jsonl"),
        sample={"personas": "default"},
        align={"method": "dpo", "beta": 0.1, "gamma": 0.3},
    )
    run, asked = start(path, [], tmp_path / "run")
    telling = Telling()
    check_inputs(Resources(asked.recipe, run, telling))
    assert "align.gamma: 0.3 is not used by method dpo" in telling.notes
    assert "sample.personas: 100% of the prompts are in it, which has none; they get the English" in telling.notes


@pytest.mark.parametrize(
    ("changes", "of_weight", "n_lines"),
    [
        ({}, 0.23, 2),
        ({}, 0.40, 1),
        ({"align": {"weight_gap": "primary"}}, 0.23, 1),
        ({"pair": {"order": "swapped"}}, 0.23, 1),
        ({"pair": {"order": "sum"}}, 0.23, 1),
    ],
)
def test_that_the_order_speaks_softly_is_told_where_there_is_one_that_could(
    changes: dict[str, Any], of_weight: float, n_lines: int
) -> None:
    lines = list(_told_of_priority(Contested(0.43, of_weight), recipe(**changes)))
    assert len(lines) == n_lines
    assert ("align.weight_gap: primary" in " ".join(lines)) == (n_lines == 2)
    assert not list(_told_of_priority(None, recipe(**changes)))


def test_methods_that_weigh_no_pair_tell_nothing_of_their_weight() -> None:
    rated = ((Rating(8.0), Rating(3.0)), (Rating(4.0), Rating(5.0)))
    answers = tuple(Scored(Response(f"p/y{n}", "p", "No.", "end", 1), each) for n, each in enumerate(rated, start=1))
    paired = PairedPool(Pool(Prompt("p", (Message("user", "?"),)), answers), (Pair(0, 1, 0, distance=6.0, gap=2.0),))
    assert _priority([paired], recipe().align) == Contested(1.0, 1.0)
    assert _priority([paired], recipe(align={"method": "sft"}).align) is None
