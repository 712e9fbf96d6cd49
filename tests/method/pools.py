"""Builders of pools for the tests of the method."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from selfpriority.records import Message, Pool, Prompt, Rating, Response, Scored

Scores = Sequence[float]


def prompt(name: str = "p1") -> Prompt:
    return Prompt(name, (Message("user", f"question {name}"),))


def scored(scores: Scores, name: str, prompt_id: str = "p1", origin: str = "sampled") -> Scored:
    response = Response(name, prompt_id, f"text of {name}", "end", 3, origin)  # type: ignore[arg-type]
    return Scored(response, tuple(Rating(s) for s in scores))


def pool(candidates: Sequence[Scores], refined: Scores | None = None, name: str = "p1") -> Pool:
    return Pool(
        prompt(name),
        tuple(scored(s, f"{name}/y{i}", name) for i, s in enumerate(candidates, start=1)),
        None if refined is None else scored(refined, f"{name}/refined1", name, "refined"),
    )


def score_vectors(k: int) -> st.SearchStrategy[tuple[float, ...]]:
    number = st.one_of(st.integers(1, 10).map(float), st.floats(1, 10, allow_nan=False))
    return st.tuples(*[number] * k)


@st.composite
def pools(draw: st.DrawFn, k: int | None = None) -> list[Pool]:
    """Up to eight pools of one K in 2..4, with or without a refined answer."""
    k = k or draw(st.integers(2, 4))
    n_pools = draw(st.integers(0, 8))
    return [
        pool(
            draw(st.lists(score_vectors(k), min_size=k + 1, max_size=6)),
            draw(st.one_of(st.none(), score_vectors(k))),
            f"p{i}",
        )
        for i in range(n_pools)
    ]
