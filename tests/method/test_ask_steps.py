"""Sample, score and refine against small stand-ins for model and judge: nobody vanishes, every reason is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfpriority.constitution import load_constitution
from selfpriority.language_model import Answer, Completion, Failure, Generate, Request, Text
from selfpriority.method.denoise import inconsistency
from selfpriority.method.order import Order
from selfpriority.method.refine import context, refine
from selfpriority.method.sample import sample
from selfpriority.method.score import score
from selfpriority.personas import Persona, load_personas
from selfpriority.rating import Item
from selfpriority.recipe import Refine, Sample
from selfpriority.records import Candidates, Message, Prompt, Rating, Ratings, Response, Unrated
from tests.method.pools import pool, prompt

PERSONAS = (Persona("a", "You are a."), Persona("b", "You are b."), Persona("c", "You are c."))


class Model:
    """Answers every request by a function of it and remembers what it was asked."""

    fingerprint = "test"

    def __init__(self, reply: Callable[[Generate], Answer]) -> None:
        self.reply = reply
        self.asked: list[Generate] = []

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, (request,) in enumerate(batches):
            assert isinstance(request, Generate)
            self.asked.append(request)
            yield number, [self.reply(request)]


class LengthJudge:
    """Rates by the length of the text on both objectives; texts that say so are unrated."""

    fingerprint = "length"
    objectives = ("harmlessness", "helpfulness")

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        return [self._one(item.response.text) for item in items]

    def _one(self, text: str) -> Ratings:
        if "unratable" in text:
            return (Rating(5.0), Unrated("low_mass", "test"))
        return (Rating(min(10.0, len(text) / 4)), Rating(min(10.0, 1 + len(text) / 8)))


def echo(request: Generate) -> Completion:
    return Completion(tuple(Text(f"answer {i} seed {request.seed}", 4, "end") for i in range(request.n)))


def settings(n: int = 6, **fields: object) -> Sample:
    return Sample.model_validate({"n": n, **fields})


def test_personas_share_the_draws_and_each_is_one_request() -> None:
    model = Model(echo)
    sifted = sample([prompt()], model, settings(6), PERSONAS, seed=0)
    assert sorted(request.n for request in model.asked) == [2, 2, 2]
    assert {r.persona for r in sifted.kept[0].responses} == {"a", "b", "c"}
    assert len({r.id for r in sifted.kept[0].responses}) == 6


def test_without_personas_one_request_draws_all() -> None:
    model = Model(echo)
    sample([prompt()], model, settings(6), (), seed=0)
    assert [request.n for request in model.asked] == [6]
    assert model.asked[0].messages == prompt().messages


def test_a_persona_may_begin_the_answer() -> None:
    model = Model(lambda request: Completion((Text(f"{request.opening} I go on.", 4, "end"),)))
    sifted = sample(
        [prompt()], model, settings(2), (Persona("a", opening="No,"), Persona("b", "Be b.", "Yes,")), seed=0
    )
    assert {(r.opening, len(r.messages) - len(prompt().messages)) for r in model.asked} == {("No,", 0), ("Yes,", 1)}
    assert {r.text for r in sifted.kept[0].responses} == {"No, I go on.", "Yes, I go on."}


def test_a_persona_without_an_opening_is_shown_as_it_was() -> None:
    """It stands in the keys of runs from before there were openings."""
    assert str(Persona("a", "Be a.")) == "Persona(name='a', text='Be a.')"


def test_plain_share_is_drawn_without_a_persona() -> None:
    sifted = sample([prompt()], Model(echo), settings(6, plain=0.5), PERSONAS, seed=0)
    assert [r.persona for r in sifted.kept[0].responses].count("plain") == 3


def test_a_system_turn_of_the_prompt_stays_after_the_persona() -> None:
    own = Prompt("p", (Message("system", "Be brief."), Message("user", "Hi")))
    model = Model(echo)
    sample([own], model, settings(2), PERSONAS[:1], seed=0)
    assert model.asked[0].messages[0] == Message("system", "You are a.\n\nBe brief.")
    assert len(model.asked[0].messages) == 2


def test_seed_changes_every_request_and_nothing_else_does() -> None:
    first, again, other = Model(echo), Model(echo), Model(echo)
    sample([prompt("p1"), prompt("p2")], first, settings(), PERSONAS, seed=0)
    sample([prompt("p2"), prompt("p1")], again, settings(), PERSONAS, seed=0)
    sample([prompt("p1"), prompt("p2")], other, settings(), PERSONAS, seed=1)
    assert set(first.asked) == set(again.asked)
    assert not {r.seed for r in first.asked} & {r.seed for r in other.asked}


def test_empty_and_cut_answers_are_lost_one_by_one() -> None:
    def reply(request: Generate) -> Completion:
        return Completion((Text(" ", 1, "end"), Text("cut", 9, "length"), Text("fine", 2, "end")))

    kept = sample([prompt()], Model(reply), settings(3), (), seed=0)
    assert [r.text for r in kept.kept[0].responses] == ["cut", "fine"]
    strict = sample([prompt()], Model(reply), settings(3, keep_cut=False), (), seed=0)
    assert [r.text for r in strict.kept[0].responses] == ["fine"]
    assert sorted(d.reason for d in strict.dropped) == ["cut", "empty"]
    assert all(d.response_id for d in strict.dropped)


def test_missing_answers_are_dropped_one_by_one() -> None:
    def reply(request: Generate) -> Completion:
        return Completion((Text("fine", 2, "end"),), (Failure("refused", "a filter"),) * (request.n - 1))

    sifted = sample([prompt()], Model(reply), settings(3), (), seed=0)
    assert [r.text for r in sifted.kept[0].responses] == ["fine"]
    assert [(d.reason, bool(d.response_id)) for d in sifted.dropped] == [("refused", True)] * 2
    refined = refine([pool([(2.0, 2.0)] * 3)], Model(reply), LengthJudge(), HARMLESS, Refine(n=2), ORDER)
    assert refined.kept[0].refined is not None
    assert [(d.reason, bool(d.response_id)) for d in refined.dropped] == [("refused", True)]


def test_a_prompt_nobody_answered_is_dropped_whole() -> None:
    sifted = sample([prompt()], Model(lambda _: Failure("too_long", "900 of 512")), settings(4), PERSONAS, seed=0)
    assert not sifted.kept
    assert sifted.reasons == {"too_long": 1}
    assert sifted.dropped_prompts[0].detail == "900 of 512"


def test_shipped_personas_load() -> None:
    assert len(load_personas("default")) >= 8
    assert load_personas("none") == ()
    openings = load_personas("openings")
    assert len(openings) >= 8
    assert all(persona.opening and not persona.text for persona in openings)


def candidates(texts: Sequence[str], name: str = "p1") -> Candidates:
    return Candidates(prompt(name), tuple(Response(f"{name}/{i}", name, t, "end", 1) for i, t in enumerate(texts)))


def test_unrated_candidates_leave_the_pool_and_are_never_zero() -> None:
    sifted = score([candidates(["aaaaaaaa", "unratable", "bbbb", "cc"])], LengthJudge())
    assert [c.scores[0] for c in sifted.kept[0].candidates] == [2.0, 1.0, 0.5]
    assert [(d.reason, d.response_id, d.detail) for d in sifted.dropped] == [("low_mass", "p1/1", "helpfulness: test")]


def test_fewer_than_k_plus_one_rated_drops_the_pool() -> None:
    sifted = score([candidates(["aaaa", "unratable", "bbbb"])], LengthJudge())
    assert sifted.reasons == {"too_few_rated": 1}


@given(st.lists(st.lists(st.sampled_from(["a", "unratable", "bb", "ccc"]), min_size=1, max_size=6), max_size=6))
def test_score_loses_nobody(texts: list[list[str]]) -> None:
    entries = [candidates(t, f"p{i}") for i, t in enumerate(texts)]
    sifted = score(entries, LengthJudge())
    assert len(sifted.kept) + len(sifted.dropped_prompts) == len(entries)
    n_rated = sum(len(p.candidates) for p in sifted.kept)
    lost = [d for d in sifted.dropped if d.response_id]
    assert n_rated + len(lost) <= sum(map(len, texts))


HARMLESS = load_constitution("harmless-helpful")
ORDER = Order(1.0)


def test_refine_shows_constitution_prompt_candidates_and_scores_in_one_context() -> None:
    model = Model(echo)
    refine([pool([(6.0, 4.0), (4.0, 5.5), (2.0, 1.0)])], model, LengthJudge(), HARMLESS, Refine(), ORDER)
    (request,) = model.asked
    assert [m.role for m in request.messages] == ["system", "user", *["assistant", "user"] * 3]
    assert "1. Harmlessness: A harmless answer" in request.messages[0].content
    assert request.messages[1].content == "question p1"
    # worst first, so that the best answer is the last one seen
    assert [m.content for m in request.messages[2::2]] == [f"text of p1/y{i}" for i in (3, 2, 1)]
    assert "harmlessness 4.0, helpfulness 5.5 (of 10)" in request.messages[5].content
    assert request.messages[-1].content.endswith("question p1")


@pytest.mark.parametrize(
    ("show", "told"),
    [
        ("all", [("y4", "harmlessness 2.0, helpfulness 1.0"), ("y2", "4.0"), ("y3", "4.0"), ("y1", "6.0")]),
        ("extremes", [("y4", "harmlessness 2.0, helpfulness 1.0"), ("y1", "harmlessness 6.0, helpfulness 4.0")]),
        ("best", [("y1", "harmlessness 6.0, helpfulness 4.0")]),
    ],
)
def test_refine_shows_all_candidates_or_the_worst_and_the_best_or_the_best_alone(
    show: Literal["all", "extremes", "best"], told: list[tuple[str, str]]
) -> None:
    made = pool([(6.0, 4.0), (4.0, 5.5), (4.0, 5.5), (2.0, 1.0)])  # sums 10, 9.5, 9.5, 3
    model = Model(echo)
    refine([made], model, LengthJudge(), HARMLESS, Refine(show=show), ORDER)
    (request,) = model.asked
    assert request.messages[:2] == context(made, HARMLESS)[:2]
    answers, ratings = request.messages[2::2], request.messages[3::2]
    assert [m.content for m in answers] == [f"text of p1/{name}" for name, _ in told]
    for rating, (_, scores) in zip(ratings, told, strict=True):
        assert scores in rating.content
        assert rating.content.endswith("question p1")


def test_showing_all_candidates_asks_what_was_asked_before_there_was_a_choice() -> None:
    """The request's seed is that of its messages, so what is stored of older runs is found again."""
    made, model = pool([(6.0, 4.0), (4.0, 5.5), (2.0, 1.0)]), Model(echo)
    refine([made], model, LengthJudge(), HARMLESS, Refine(n=2), ORDER)
    messages = context(made, HARMLESS)
    seed = int.from_bytes(hashlib.sha256(repr(messages).encode()).digest()[:4], "big")
    assert model.asked == [Generate(messages, 2, 0.7, 0.95, 512, seed)]


def test_refine_keeps_the_prompts_own_system_turn_and_history() -> None:
    turns = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    made = replace(pool([(2.0, 3.0), (4.0, 5.5), (6.0, 1.0)]), prompt=Prompt("p1", turns))
    model = Model(echo)
    refine([made], model, LengthJudge(), HARMLESS, Refine(), ORDER)
    messages = model.asked[0].messages
    assert messages[0].content.endswith("Be brief.")
    assert [m.content for m in messages[1:4]] == ["a", "b", "c"]


def test_the_lexicographically_best_of_several_is_kept_and_the_others_are_not_lost() -> None:
    def reply(request: Generate) -> Completion:
        return Completion((Text("x" * 8, 1, "end"), Text("y" * 24, 1, "end"), Text("", 1, "end")))

    made = [pool([(2.0, 3.0), (4.0, 5.5), (6.0, 1.0)])]
    sifted = refine(made, Model(reply), LengthJudge(), HARMLESS, Refine(n=3), ORDER)
    refined = sifted.kept[0].refined
    assert refined is not None
    assert refined.response.text == "y" * 24
    assert refined.response.origin == "refined"
    assert [s.response.text for s in sifted.kept[0].other_refinements] == ["x" * 8]
    assert [(d.reason, d.response_id) for d in sifted.dropped] == [("empty", "p1/refined3")]


class Told(LengthJudge):
    """Rates a text by the numbers in it."""

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        return [tuple(Rating(float(n)) for n in item.response.text.split()) for item in items]


@pytest.mark.parametrize(("keep", "kept"), [("order", "9 4"), ("consistent", "7 7")])
def test_of_several_the_one_that_beats_most_candidates_is_kept_if_asked(
    keep: Literal["order", "consistent"], kept: str
) -> None:
    """9 4 beats all three on the first objective and one on the second; 7 7 and 7 6 beat all on both."""
    texts = tuple(Text(text, 1, "end") for text in ("9 4", "7 6", "7 7", "3 9"))
    made = [pool([(2.0, 3.0), (4.0, 5.5), (6.0, 5.0)])]
    judge = Told()
    sifted = refine(made, Model(lambda _: Completion(texts)), judge, HARMLESS, Refine(n=4, keep=keep), ORDER)
    refined = sifted.kept[0].refined
    assert refined is not None
    assert refined.response.text == kept
    assert inconsistency(sifted.kept[0], "strict") == ("" if keep == "consistent" else "not_better")


def test_a_failed_or_unrated_refinement_leaves_the_pool_unrefined() -> None:
    made = [pool([(2.0, 3.0), (4.0, 5.5), (6.0, 1.0)])]
    failed = refine(made, Model(lambda _: Failure("too_long")), LengthJudge(), HARMLESS, Refine(), ORDER)
    unrated = refine(
        made, Model(lambda r: Completion((Text("unratable", 1, "end"),))), LengthJudge(), HARMLESS, Refine(), ORDER
    )
    for sifted in (failed, unrated):
        assert sifted.kept[0].refined is None
        assert not sifted.dropped_prompts
        assert len(sifted.dropped) == 1
