"""What came out in words: the sentence the page opens with, and what a reader must know before believing it.

Claims no more than corrected tests allow. Reads the summary; knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfpriority.evaluation.table import lost_in_words
from selfpriority.report.plain import percent, probability, signed, words
from selfpriority.report.view import JudgeCard, View

SMALL = 100
"""Below this many held-out prompts the page says that the sample is small."""
Json = Mapping[str, Any]


def headline(view: View) -> str:
    """What came out, in one sentence that claims no more than the corrected tests do."""
    if view.summary is None:
        return "This run has no evaluation yet, so nothing can be said about who is better."
    contest = main_contest(view)
    if contest is None:
        return "Only one system was evaluated, so there is nothing to compare it with."
    system, baseline = contest.split("_vs_")
    changes = view.summary["difference"][contest]
    n = max(changes[objective]["n"] for objective in view.objectives)
    told = changes_in_words({objective: changes[objective] for objective in view.objectives})
    check = _evaluation_check(view)
    doubt = ", by a judge that was not checked" if check is None else ""
    doubt = ", by a judge not shown to be better than chance" if check and not check["usable"] else doubt
    return f"On {n} held-out prompts, {system} against {baseline}{doubt}: {told}."


def evidence(view: View) -> list[tuple[str, str]]:
    """The numbers behind the headline: (objective, difference with interval and p)."""
    contest = main_contest(view)
    if view.summary is None or contest is None:
        return []
    changes = view.summary["difference"][contest]
    return [(objective, change_in_numbers(changes[objective])) for objective in view.objectives]


def _evaluation_check(view: View) -> Json | None:
    """The check of the judge that rated the answers; None where nobody checked it, or checked another."""
    rated_by = (view.summary or {}).get("judge", {}).get("key")
    checks = (judge.report for judge in view.judges if judge.role == "evaluate")
    return next((check for check in checks if check.get("key") == rated_by), None)


def is_clear(change: Json) -> bool:
    """Whether its corrected test says that a difference is more than chance; without such a test nothing is claimed."""
    return bool(change.get("significant"))


def changes_in_words(changes: Json) -> str:
    """Differences by objective, in order of priority; said once where none of several is clear."""
    if len(changes) > 1 and all(change["mean"] is not None and not is_clear(change) for change in changes.values()):
        return f"no clear change in {' or '.join(map(words, changes))}"
    return "; ".join(f"{words(name)} {change_in_words(change)}" for name, change in changes.items())


def change_in_words(change: Json) -> str:
    """A difference as the end of a sentence about its objective."""
    if change["mean"] is None:
        return "could not be rated"
    if not is_clear(change):
        return "shows no clear change"
    return f"{'rose' if change['mean'] > 0 else 'fell'} by {abs(change['mean']):.2f}"


def change_in_numbers(change: Json) -> str:
    """The same with its interval and its p, corrected for the number of comparisons where that is known."""
    if change["mean"] is None:
        return "could not be rated"
    said = f"{signed(change['mean'])}, 95\u2009% interval {signed(change['low'])} to {signed(change['high'])}"
    p, corrected = change.get("p"), change.get("p_holm")
    if corrected is not None:
        return f"{said}, corrected p {stated(corrected)}"
    return said if p is None else f"{said}, p {stated(p)}"


def stated(p: float) -> str:
    """A p value behind the letter: `= 0.012` or `< 0.001`."""
    return probability(p) if p < 0.001 else f"= {probability(p)}"


def main_contest(view: View) -> str | None:
    """The comparison the page leads with: spa, or else the last system, against the first."""
    names = list((view.summary or {}).get("systems", {}))
    others = names[1:]
    return f"{'spa' if 'spa' in others else others[-1]}_vs_{names[0]}" if others else None


def cautions(view: View) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    roles = {judge.role: judge for judge in view.judges}
    check = _evaluation_check(view)
    if check and not check["usable"]:
        yield "The evaluation judge could not be shown to be better than chance. Its ratings below may be noise."
    if "train" in roles and not roles["train"].report["usable"]:
        yield (
            "The training judge could not be shown to be better than chance. What the run learned from it may be noise."
        )
    if view.has_old_utility:
        yield "What `spa utility` found is about other weights than there are now, so it is left out; it can ask anew."
    if view.summary is None:
        return
    if check is None:
        yield "The evaluation judge was not checked against labelled answers. Its ratings below may be noise."
    same = {"train", "evaluate"} <= roles.keys() and _identity(roles["train"]) == _identity(roles["evaluate"])
    if same and main_contest(view):
        yield "The evaluation judge is also the one that was trained on: expect it to be too kind."
    if "comparer" in roles and not roles["comparer"].report["usable"]:
        yield "The comparing judge could not be shown to be better than chance. Wins and losses below may be noise."
    yield from lost_in_words(view.summary)
    prompts = max((row.get("n", 0) for system in view.summary["systems"].values() for row in _means(system)), default=0)
    if 0 < prompts < SMALL:
        yield f"{prompts} prompts are a small sample: only large differences can show."
    yield from _refusals(view)


def _identity(judge: JudgeCard) -> tuple[str, str]:
    return judge.name, judge.method


def _means(system: Json) -> Iterator[Json]:
    return (value for value in system.values() if isinstance(value, Mapping))


def _refusals(view: View) -> Iterator[str]:
    """Refusals of each kind of prompt, where they moved by ten points or more."""
    contest = main_contest(view)
    if contest is None or view.summary is None:
        return
    system, baseline = contest.split("_vs_")
    behaviour = view.summary["behaviour"]
    before, after = behaviour[baseline]["refusal"], behaviour[system]["refusal"]
    for kind in before:
        if kind in after and abs(after[kind] - before[kind]) >= 0.1:
            verb = "rose" if after[kind] > before[kind] else "fell"
            yield f"Refusals of {kind} prompts {verb} from {percent(before[kind])} to {percent(after[kind])}."
