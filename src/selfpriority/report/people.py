"""What people decided about the held-out answers, and how far the judge and they agree.

Reads the reviews of a run; a verdict on a text that is no longer the system's answer does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfpriority.report.catalogue import HELD_OUT, Entry
from selfpriority.review.agreement import Agreement, Correlation, between_raters, correlations, preferences, with_judge
from selfpriority.review.questions import Answer
from selfpriority.review.reviews import Review, read_reviews

EVERYBODY = "all raters"


@dataclass(frozen=True)
class People:
    """The raters of a run and their agreement."""

    raters: dict[str, int]
    """Questions each has decided."""
    with_judge: tuple[Agreement, ...]
    """All raters together and, where there are several, each on their own."""
    ranks: tuple[Correlation, ...]
    """Of every rater who rated answers one by one."""
    between: tuple[Agreement, ...]
    n_outdated: int
    """Verdicts left out because the answer has changed since."""


def read_people(folder: Path, entries: Sequence[Entry], objectives: Sequence[str]) -> People | None:
    """The reviews in an `evaluation` folder against the judge's ratings; None where nobody has reviewed."""
    reviews = read_reviews(folder)
    if not reviews:
        return None
    answers = {(entry.prompt_id, a.name): a for entry in entries if entry.part == HELD_OUT for a in entry.answers}
    digests = {place: Answer(place[1], answer.text).digest for place, answer in answers.items()}
    ratings = {place: dict(zip(objectives, answer.scores, strict=False)) for place, answer in answers.items()}
    valid = [review for review in reviews if _is_current(review, digests)]
    made = preferences(valid)
    raters = dict(sorted(Counter(review.rater for review in valid).items()))
    judged = with_judge(made, ratings, EVERYBODY, objectives)
    for rater in raters if len(raters) > 1 else ():
        judged += with_judge([row for row in made if row.rater == rater], ratings, rater, objectives)
    who_rated = sorted({review.rater for review in valid if review.mode == "rate"})
    ranks = [row for rater in who_rated for row in correlations(valid, ratings, rater, objectives)]
    between = between_raters(made, objectives)
    return People(raters, tuple(judged), tuple(ranks), tuple(between), len(reviews) - len(valid))


def _is_current(review: Review, digests: dict[tuple[str, str], str]) -> bool:
    shown = zip(review.systems, review.digests, strict=True)
    return all(digests.get((review.prompt_id, system)) == digest for system, digest in shown)
