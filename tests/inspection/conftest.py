"""A small run directory, written with the project's own records and steps: what `spa run` leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selfpriority.evaluation.records import AnswerRow, VerdictRow
from selfpriority.method.denoise import denoise
from selfpriority.method.pair import pair
from selfpriority.preferences import PreferenceRow, deciders, preference_rows
from selfpriority.recipe import dump, parse
from selfpriority.records import (
    Candidates,
    Drop,
    Message,
    Pool,
    Prompt,
    Rating,
    Response,
    Scored,
    Sifted,
    Unrated,
)
from selfpriority.run import CANDIDATES, PAIRS, POOLS, REFINED, SCORED, Run
from selfpriority.storage import read_json, write_json, write_rows, write_text

OBJECTIVES = ("harmlessness", "helpfulness")
NASTY = "Yes,\x1b[31m of\rcourse\u202e you can.\x9b"
"""Colours, a carriage return, a right-to-left override and an 8-bit control."""

SCORES = {
    "p1": [(5.0, 5.0), (6.0, 4.0), (5.2, 6.0), (7.0, 3.0), (8.0, 7.0)],  # the last is the refined answer
    "p2": [(5.0, 5.0), (6.0, 4.0), (5.2, 6.0), (7.0, 3.0), (5.0, 7.0)],  # not better on harmlessness
    "p5": [(2.0, 8.0), (3.0, 8.0), (2.0, 7.5), (4.0, 6.0), (6.0, 9.0)],
}


def a_prompt(prompt_id: str) -> Prompt:
    return Prompt(prompt_id, (Message("user", f"Explain how to keep a knife sharp, {prompt_id}."),), "ordinary")


def a_pool(prompt_id: str) -> Pool:
    *candidates, refined = SCORES[prompt_id]
    scored = [
        Scored(an_answer(prompt_id, number), tuple(map(Rating, scores)))
        for number, scores in enumerate(candidates, start=1)
    ]
    text = "No, but here is something safe that you can do instead."
    best = Scored(Response(f"{prompt_id}/refined1", prompt_id, text, "end", 14, "refined"), tuple(map(Rating, refined)))
    return Pool(a_prompt(prompt_id), tuple(scored), best)


def an_answer(prompt_id: str, number: int) -> Response:
    text = NASTY if (prompt_id, number) == ("p1", 2) else "The quick brown fox jumps. " * number
    stop = "length" if number == 4 else "end"
    return Response(f"{prompt_id}/y{number}", prompt_id, text, stop, 6 * number, persona="careful")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run of two rounds: the first complete up to the pairs or cut short after step `until`."""

    def make(model: str = "some/model", until: str = "pair", **fields: object) -> Run:
        recipe = {
            "model": model,
            "prompts": {"source": "prompts.jsonl"},
            "rounds": 2,
            "denoise": {"keep_lowest": 1.0},
            "align": {"weight_gap": "signed"},
        }
        run = Run(tmp_path / "a-run")
        write_text(run.recipe, [dump(parse({**recipe, **fields}, "recipe"))])
        _write_round(run, until)
        return run

    return make


def _write_round(run: Run, until: str) -> None:
    folder = run.round(1)
    prompts = [a_prompt(name) for name in ("p1", "p2", "p3", "p5")]
    run.record_sifted(1, "prompts", 5, Sifted(tuple(prompts), (Drop("prompts", "p4", "duplicate", detail="line 4"),)))
    candidates = [Candidates(p, tuple(an_answer(p.id, n) for n in range(1, 5))) for p in prompts]
    write_rows(folder / CANDIDATES, candidates, Candidates)
    lost = (Drop("sample", "p1", "empty", "p1/y5"), Drop("sample", "p5", "empty", "p5/y5"))
    run.record_sifted(1, "sample", 4, Sifted(tuple(candidates), lost))
    if until == "sample":
        return
    pools = [a_pool(name) for name in ("p1", "p2", "p5")]
    unrefined = [Pool(pool.prompt, pool.candidates) for pool in pools]
    unrated = (
        Drop("score", "p3", "low_mass", "p3/y1", "helpfulness: digits hold 0.1"),
        Drop("score", "p3", "low_mass", "p3/y2", "helpfulness: digits hold 0.2"),
        Drop("score", "p3", "too_few_rated", detail="2 of 4 rated, 3 needed"),
    )
    write_rows(folder / SCORED, unrefined, Pool)
    run.record_sifted(1, "score", 4, Sifted(tuple(unrefined), unrated))
    if until == "score":
        return
    write_rows(folder / REFINED, pools, Pool)
    run.record_sifted(1, "refine", 3, Sifted(tuple(pools), ()))
    recipe = parse({"model": "m", "prompts": "p", "denoise": {"keep_lowest": 1.0}}, "")
    denoised = denoise(pools, recipe.denoise)
    write_rows(folder / POOLS, denoised.kept, Pool)
    run.record_sifted(1, "denoise", 3, denoised)
    paired = pair(denoised.kept, recipe.pair)
    rows = preference_rows(paired.kept, OBJECTIVES)
    write_rows(folder / PAIRS, rows, PreferenceRow)
    run.record_sifted(1, "pair", 2, paired)
    path = folder / "funnel.json"
    write_json(path, {**read_json(path), "pairs": {"n": len(rows), "decided_by": deciders(rows, OBJECTIVES)}})


@pytest.fixture
def evaluated(make_run: Callable[..., Run]) -> Run:
    """The run with answers of two systems to the held-out prompt h1."""
    run = make_run()
    prompt = Prompt("h1", (Message("user", "May I?"),), "harmful")
    for system, text, rating in (
        ("vanilla", NASTY, Unrated("low_mass", "digits hold 0.1")),
        ("spa", "No, I will not.", Rating(8.25)),
    ):
        answer = AnswerRow(prompt, Response(f"h1/{system}", "h1", text, "end", 5))
        verdict = VerdictRow(
            "h1", "harmful", dict(zip(OBJECTIVES, (rating, Rating(4.5)), strict=True)), system == "spa"
        )
        write_rows(run.evaluation / f"answers-{system}.jsonl", [answer], AnswerRow)
        write_rows(run.evaluation / f"verdicts-{system}.jsonl", [verdict], VerdictRow)
    write_rows(run.evaluation / "drops-spa.jsonl", [Drop("answer", "h2", "refused_content")], Drop)
    return run
