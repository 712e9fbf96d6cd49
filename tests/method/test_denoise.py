"""Consistency and informativeness at their edges."""

from __future__ import annotations

import itertools
import json
import math
import tarfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfpriority.method.denoise import denoise, determinant, inconsistency
from selfpriority.recipe import Denoise
from selfpriority.records import Pool, covariance
from tests.method.pools import pool, pools, score_vectors

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "finished-run-0.1.0.tar.gz"
# det(covariance) of that run's pools as version 0.1.0 gave them, by elimination
DETS_OF_0_1_0 = [
    10.600382710309772,
    5.083476610575928,
    9.076435640159657,
    0.20298467843387683,
    4.422080514927714,
    7.559023959685626,
]
SPREAD = [(2.0, 5.0), (4.0, 3.0), (6.0, 8.0)]


def keep_all(**fields: object) -> Denoise:
    return Denoise.model_validate({"keep_lowest": 1.0, **fields})


def reason_of(candidates: list[tuple[float, ...]], refined: tuple[float, ...] | None, **fields: object) -> str:
    sifted = denoise([pool(candidates, refined)], keep_all(**fields))
    return sifted.dropped[0].reason if sifted.dropped else "kept"


def test_covariance_is_the_population_one() -> None:
    # means 4 and 16/3; var 8/3; products (-2)(-1/3) + 0 + (2)(8/3) = 6 -> 2; var of the second 38/9
    matrix = covariance(SPREAD)
    assert matrix[0][0] == pytest.approx(8 / 3)
    assert matrix[0][1] == matrix[1][0] == pytest.approx(2)
    assert matrix[1][1] == pytest.approx(38 / 9)
    assert determinant(matrix) == pytest.approx(8 / 3 * 38 / 9 - 4)


def test_determinant_of_three_with_a_zero_pivot() -> None:
    assert determinant([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]]) == pytest.approx(12)


def exact_det_of_covariance(rows: Sequence[Sequence[float]]) -> Fraction:
    """In fractions, by the sum over all permutations."""
    columns = [[Fraction(value) for value in column] for column in zip(*rows, strict=True)]
    apart = [[value - sum(column) / len(column) for value in column] for column in columns]
    matrix = [[sum(map(Fraction.__mul__, a, b), Fraction()) / len(rows) for b in apart] for a in apart]
    det = Fraction()
    for order in itertools.permutations(range(len(matrix))):
        swaps = sum(order[i] > order[j] for i, j in itertools.combinations(range(len(order)), 2))
        det += (-1) ** swaps * math.prod(matrix[i][j] for i, j in enumerate(order))
    return det


@given(st.integers(1, 4).flatmap(lambda k: st.lists(score_vectors(k), min_size=k + 1, max_size=8)))
def test_determinant_of_the_covariance_is_the_exact_one(rows: list[tuple[float, ...]]) -> None:
    exact = float(exact_det_of_covariance(rows))
    assert determinant(covariance(rows)) == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_a_run_of_the_version_before_keeps_its_determinants_and_their_order() -> None:
    with tarfile.open(ARCHIVE) as archive:
        member = archive.extractfile("finished/run/round-1/2-scored.jsonl")
        assert member is not None
        rows = [json.loads(line) for line in member]
    scores = [[[r["value"] for r in c["ratings"]] for c in row["candidates"]] for row in rows]
    dets = [determinant(covariance(candidates)) for candidates in scores]
    assert dets == pytest.approx(DETS_OF_0_1_0, rel=0, abs=1e-12)
    assert sorted(range(6), key=dets.__getitem__) == sorted(range(6), key=DETS_OF_0_1_0.__getitem__)


def test_strictly_better_on_every_objective_is_kept() -> None:
    assert reason_of(SPREAD, (6.1, 8.1)) == "kept"


def test_a_tie_is_not_better() -> None:
    assert reason_of(SPREAD, (6.0, 9.0)) == "not_better"


def test_better_on_one_objective_only_is_not_better() -> None:
    assert reason_of(SPREAD, (10.0, 7.9)) == "not_better"


def test_a_candidate_at_the_top_is_a_ceiling() -> None:
    assert reason_of([(10.0, 5.0), (4.0, 3.0), (6.0, 8.0)], (10.0, 9.0)) == "ceiling"


def test_no_refinement_is_its_own_reason_unless_the_test_is_off() -> None:
    assert reason_of(SPREAD, None) == "no_refinement"
    assert reason_of(SPREAD, None, consistency="off") == "kept"


def test_a_quantile_asks_for_a_share_of_the_candidates() -> None:
    candidates = [(2.0, 2.0), (4.0, 3.0), (6.0, 8.0), (8.0, 6.0)]
    assert reason_of(candidates, (5.0, 5.0), consistency=0.5) == "kept"  # beats two of four on both
    assert reason_of(candidates, (5.0, 5.0), consistency=0.51) == "not_better"
    many = [(1.0, 1.0)] * 7 + [(5.0, 5.0)] * 18
    assert inconsistency(pool(many, (3.0, 3.0)), 0.28) == ""  # seven of 25 are 28 %, not a hair less
    assert inconsistency(pool(many, (3.0, 3.0)), 0.29) == "not_better"
    assert inconsistency(pool(candidates, (9.0, 9.0)), 1.0) == inconsistency(pool(candidates, (9.0, 9.0)), "strict")


@pytest.mark.parametrize(
    ("refined", "noise", "reason"),
    [
        ((5.5, 7.5), 0.0, "not_better"),  # 0.5 behind the best on both
        ((5.5, 7.5), 0.5, "not_better"),  # noise is what a candidate must be ahead by to win
        ((5.5, 7.5), 0.75, "kept"),
        ((6.0, 8.0), 0.0, "not_better"),  # equal to the best on both
        ((6.0, 8.0), 0.25, "kept"),
        ((9.0, 7.0), 0.75, "not_better"),  # a point behind on one objective alone
    ],
)
def test_a_candidate_ahead_by_less_than_the_noise_is_a_tie(
    refined: tuple[float, ...], noise: float, reason: str
) -> None:
    assert reason_of(SPREAD, refined, noise=noise) == reason


def test_noise_counts_for_every_candidate_of_a_share() -> None:
    candidates = [(2.0, 2.0), (4.0, 3.0), (6.0, 8.0), (8.0, 6.0)]
    made = pool(candidates, (5.0, 5.0))
    # on the first objective 2 and 4 are beaten, 6 within 1.5 and 8 not; on the second 2 and 3, 6 within 1.5 and 8 not
    assert [inconsistency(made, share, 1.5) for share in (0.75, 0.76)] == ["", "not_better"]
    assert inconsistency(made, 0.75) == "not_better"


def test_with_noise_the_highest_rating_can_be_tied_with() -> None:
    top = [(10.0, 5.0), (4.0, 3.0), (6.0, 8.0)]
    assert reason_of(top, (9.8, 9.0), noise=0.5) == "kept"
    assert reason_of(top, (9.2, 9.0), noise=0.5) == "not_better"  # a higher rating would have done: no ceiling
    assert reason_of(top, (9.2, 9.0)) == "ceiling"


def test_det_zero_is_no_spread() -> None:
    # n = 2 is always singular; equal ratings too; so are ratings on a line
    assert reason_of([(2.0, 5.0), (4.0, 3.0)], (9.0, 9.0)) == "no_spread"
    assert reason_of([(5.0, 5.0)] * 3, (9.0, 9.0)) == "no_spread"
    assert reason_of([(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)], (9.0, 9.0)) == "no_spread"


def test_epsilon_counts_as_zero() -> None:
    candidates = [(5.0, 5.0), (5.001, 5.0), (5.0, 5.001)]
    assert reason_of(candidates, (9.0, 9.0)) == "no_spread"
    assert reason_of(candidates, (9.0, 9.0), epsilon=0.0) == "kept"


def test_det_equal_to_tau_is_kept_and_above_is_not() -> None:
    det = determinant(covariance(SPREAD))
    settings = Denoise(max_det=det)
    assert settings.keep_lowest is None
    assert len(denoise([pool(SPREAD, (9.0, 9.0))], settings).kept) == 1
    dropped = denoise([pool(SPREAD, (9.0, 9.0))], Denoise(max_det=det * 0.999)).dropped
    assert [drop.reason for drop in dropped] == ["too_much_spread"]


def test_keep_lowest_takes_the_quantile_of_what_is_left() -> None:
    def wide(width: float, name: str) -> Pool:
        return pool([(1.0, 1.0), (1.0 + width, 1.0), (1.0, 1.0 + width)], (9.0, 9.0), name)

    made = [wide(float(i), f"p{i}") for i in range(1, 5)] + [pool(SPREAD, (1.0, 1.0), "bad")]
    sifted = denoise(made, Denoise(keep_lowest=0.5))
    assert [p.prompt.id for p in sifted.kept] == ["p1", "p2"]
    assert sifted.reasons == {"not_better": 1, "too_much_spread": 2}


@given(pools(), st.sampled_from(["strict", "off", 0.5]), st.sampled_from([0.3, 0.5, 1.0]))
def test_in_is_kept_plus_dropped(made: list[Pool], rule: str | float, share: float) -> None:
    sifted = denoise(made, Denoise(consistency=rule, keep_lowest=share))  # type: ignore[arg-type]
    kept = [p.prompt.id for p in sifted.kept]
    dropped = [drop.prompt_id for drop in sifted.dropped_prompts]
    assert sorted(kept + dropped) == sorted(p.prompt.id for p in made)


@given(pools())
def test_strict_keeps_only_pools_whose_refined_beats_every_candidate(made: list[Pool]) -> None:
    for p in denoise(made, keep_all()).kept:
        assert p.refined is not None
        for k, value in enumerate(p.refined.scores):
            assert all(value > c.scores[k] for c in p.candidates)
        assert determinant(covariance([c.scores for c in p.candidates])) > 1e-6
