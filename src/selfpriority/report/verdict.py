"""What came out in words: the sentence the page opens with, and what a reader must know before believing it.

Claims no more than corrected tests allow. Reads the summary; knows nothing of HTML.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from selfpriority.errors import InputError
from selfpriority.evaluation.decline import alarms_of_decline, falls_elsewhere, notes_of_decline
from selfpriority.evaluation.records import Contest, Difference, Summary
from selfpriority.evaluation.table import lost_in_words
from selfpriority.formats import PAGE, stated
from selfpriority.judges.reports import ObjectiveReport, Report
from selfpriority.languages import MANY, READ, called
from selfpriority.personas import load_personas, without_personas
from selfpriority.plain_text import clean
from selfpriority.report.plain import words
from selfpriority.report.view import View

SMALL = 100
"""Below this many held-out prompts the page says that the sample is small."""


@dataclass(frozen=True)
class Evidence:
    """The numbers behind the headline on one objective, or on what it may have cost."""

    objective: str
    numbers: str


def main_contest(summary: Summary | None) -> Contest | None:
    """The comparison the page leads with: spa, or else the last system, against the first."""
    others = list(summary.systems)[1:] if summary else []
    return Contest("spa" if "spa" in others else others[-1], summary.first) if summary and others else None


def headline(view: View) -> str:
    """What came out on the main set, in one sentence that claims no more than the corrected tests do."""
    if view.summary is None:
        return "This run has no evaluation yet, so nothing can be said about who is better."
    check = _evaluation_check(view)
    doubt = ", by a judge that was not checked" if check is None else ""
    doubt = ", by a judge not shown to be better than chance" if check and not check.usable else doubt
    return result_in_words(view.summary, doubt)


def result_in_words(summary: Summary, doubt: str = "") -> str:
    """The main comparison of one prompt set; `doubt` about its judge stands behind the systems."""
    contest = main_contest(summary)
    if contest is None:
        return "Only one system was evaluated, so there is nothing to compare it with."
    changes = {name: summary.difference[contest][name] for name in summary.objectives}
    n = max(change.n for change in changes.values())
    found = [changes_in_words(changes), *_falls_in_words(summary, contest)]
    return f"On {n} held-out prompts, {contest.a} against {contest.b}{doubt}: {'; but '.join(found)}."


def _falls_in_words(summary: Summary, contest: Contest) -> Iterator[str]:
    """What further judges alone see fall, a clause a judge."""
    falls = falls_elsewhere(summary, contest)
    for judge in dict.fromkeys(fall.judge for fall in falls):
        theirs = [
            f"{words(f.objective)} fall by {PAGE.number(abs(f.change.mean or 0))}" for f in falls if f.judge == judge
        ]
        yield f"{clean(judge)}, a further judge, sees {' and '.join(theirs)}"


def evidence(view: View) -> list[Evidence]:
    """The numbers behind the headline, by objective; then over-refusals, by which harmlessness is cheaply bought."""
    contest = main_contest(view.summary)
    if view.summary is None or contest is None:
        return []
    changes = view.summary.difference[contest]
    return [
        *(Evidence(name, change_in_numbers(changes[name])) for name in view.objectives),
        *_over_refusals(view.summary, contest),
    ]


def _over_refusals(summary: Summary, contest: Contest) -> Iterator[Evidence]:
    """Shares before and after, where prompts were asked that nobody should refuse."""
    before, after = (summary.behaviour[name].over_refusal for name in (contest.b, contest.a))
    if before is None or after is None:
        return
    change = summary.behaviour_difference.get(contest, {}).get("over_refusal")
    p = f", corrected p {stated(change.p_holm)}" if change and change.p_holm is not None else ""
    yield Evidence("over-refusals", f"{PAGE.share(before)} to {PAGE.share(after)} of what nobody should refuse{p}")


def _evaluation_check(view: View) -> Report | None:
    """The check of the judge that rated the answers; None where nobody checked it, or checked another."""
    rated_by = view.summary.judge.key if view.summary and view.summary.judge else None
    check = view.judges.get("evaluate")
    return check if check and check.key == (rated_by or "") else None


def changes_in_words(changes: Mapping[str, Difference]) -> str:
    """Differences by objective, in order of priority; said once where none of several is clear."""
    none_is_clear = all(change.mean is not None and not change.significant for change in changes.values())
    if len(changes) > 1 and none_is_clear:
        return f"no clear change in {' or '.join(map(words, changes))}"
    return "; ".join(f"{words(name)} {change_in_words(change)}" for name, change in changes.items())


def change_in_words(change: Difference) -> str:
    """A difference as the end of a sentence about its objective."""
    if change.mean is None:
        return "could not be rated"
    if not change.significant:
        return "shows no clear change"
    return f"{'rose' if change.mean > 0 else 'fell'} by {PAGE.number(abs(change.mean))}"


def change_in_numbers(change: Difference) -> str:
    """The same with its interval and its p, corrected for the number of comparisons where that is known."""
    if change.mean is None:
        return "could not be rated"
    numbers = PAGE.signed(change.mean)
    if change.low is not None:
        numbers += f", 95\u202f% interval {PAGE.signed(change.low)} to {PAGE.signed(change.high)}"
    if change.p_holm is not None:
        return f"{numbers}, corrected p {stated(change.p_holm)}"
    return numbers if change.p is None else f"{numbers}, p {stated(change.p)}"


def alarms(view: View) -> list[str]:
    """What must be known before all else: the objective that comes first fell, beyond chance."""
    return alarms_of_decline(view.summary) if view.summary else []


def cautions(view: View) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    roles = view.judges
    check = _evaluation_check(view)
    if check and not check.usable:
        yield "The evaluation judge could not be shown to be better than chance. Its ratings below may be noise."
    if "train" in roles and not roles["train"].usable:
        yield (
            "The training judge could not be shown to be better than chance. What the run learned from it may be noise."
        )
    yield from _without_personas(view)
    if view.has_old_utility:
        yield "What `spa utility` found is about other weights than there are now, so it is left out; it can ask anew."
    if view.summary is None:
        return
    if check is None:
        yield "The evaluation judge was not checked against labelled answers. Its ratings below may be noise."
    same = {"train", "evaluate"} <= roles.keys() and _is_same(roles["train"], roles["evaluate"])
    if same and main_contest(view.summary):
        yield "The evaluation judge is also the one that was trained on: expect it to be too kind."
    if "comparer" in roles and not roles["comparer"].usable:
        yield "The comparing judge could not be shown to be better than chance. Wins and losses below may be noise."
    yield from _echoes(roles)
    yield from doubts(view.summary)


def _echoes(roles: Mapping[str, Report]) -> Iterator[str]:
    """Judges that take a question, said back, for an answer to it."""
    for role, report in roles.items():
        for row in report.objectives:
            if isinstance(row, ObjectiveReport) and row.likes_an_echo and row.said_back is not None:
                yield (
                    f"{report.judge} ({role}) rates a good answer above the question, said back, in only "
                    f"{PAGE.share(row.said_back.estimate)} of {row.said_back.n}: its {words(row.objective)} is "
                    f"likeness to the question. A model that answers instead of repeating may lose by it."
                )


def doubts(summary: Summary) -> Iterator[str]:
    """What a reader must know of one prompt set: what is missing, how small it is, where refusals moved."""
    contest = main_contest(summary)
    if contest is not None:
        yield from notes_of_decline(summary, contest)
    yield from lost_in_words(summary)
    prompts = max((cell.n for cells in summary.systems.values() for cell in cells.values()), default=0)
    if 0 < prompts < SMALL:
        yield f"{prompts} prompts are a small sample: only large differences can show."
    yield from _refusals(summary)
    yield from _unread(summary)


def _is_same(one: Report, other: Report) -> bool:
    return (one.judge, one.method) == (other.judge, other.method)


def _refusals(summary: Summary) -> Iterator[str]:
    """Refusals of each kind of prompt, where they moved by ten points or more."""
    contest = main_contest(summary)
    if contest is None:
        return
    before, after = summary.behaviour[contest.b].refusal, summary.behaviour[contest.a].refusal
    for kind in before:
        if kind in after and abs(after[kind] - before[kind]) >= 0.1:
            verb = "rose" if after[kind] > before[kind] else "fell"
            yield f"Refusals of {kind} prompts {verb} from {PAGE.share(before[kind])} to {PAGE.share(after[kind])}."


def _without_personas(view: View) -> Iterator[str]:
    """Languages of training prompts that have no personas, where they are five in a hundred or more."""
    with contextlib.suppress(InputError):  # of a file that is no longer where it was
        personas = load_personas(view.recipe.sample.personas)
        texts = [entry.text for entry in view.entries if not entry.is_held_out and entry.turns]
        for language, share in without_personas(texts, personas).items():
            yield (
                f"{PAGE.share(share)} of the training prompts are in {called(language)}, which has no personas "
                f"(sample.personas): their answers were drawn under the English ones."
            )


def _unread(summary: Summary) -> Iterator[str]:
    """Languages in which refusals cannot be counted, where they are five in a hundred answers or more."""
    found: dict[str, float] = {}
    for behaviour in summary.behaviour.values():
        for language, share in behaviour.unread.items():
            found[language] = max(found.get(language, 0.0), share)
    told = [f"{PAGE.share(share)} in {called(language)}" for language, share in found.items() if share >= MANY]
    if told:
        yield (
            f"Up to {' and '.join(told)}: languages whose refusals are not known here, so of these answers none "
            f"counts as a refusal. Known are {', '.join(READ)}."
        )
