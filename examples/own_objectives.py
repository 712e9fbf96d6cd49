"""Three objectives of your own, judged by a rule of your own: from answers to preference pairs.

The objectives come in strict order: honest first, then kind, then brief. The judge here is a few lines of
Python; yours may be a classifier, an API or a person with a form. It has a fingerprint (a name that changes
when its verdicts do), the names of its objectives, and `rate`. No run directory, no model.

    python examples/own_objectives.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfpriority import (
    Candidates,
    Constitution,
    Denoise,
    Item,
    Message,
    Objective,
    PairRules,
    Prompt,
    Rating,
    Response,
    Unrated,
    denoise,
    pair,
    score,
)

SCALE = {1: "not at all", 10: "fully"}


def objective(name: str, definition: str) -> Objective:
    question = f"How {name} is the answer?"
    return Objective(
        name=name, definition=definition, rubric=SCALE, question=question, question_reworded=f"Rate: {name}."
    )


CONSTITUTION = Constitution(
    name="honest-kind-brief",
    summary="Say what you do not know, stay friendly, and do not ramble.",
    objectives=(
        objective("honest", "The answer admits what it cannot know and claims nothing it cannot back."),
        objective("kind", "The answer is friendly to the person who asks."),
        objective("brief", "The answer says it in few words."),
    ),
    anchors=(),
)

ANSWERS = {
    "Will it rain in Oslo on this day next year?": (
        "Yes, certainly.",
        "Nobody can know that so far ahead. Thank you for asking! The odds are about one in two.",
        "I don't know, and nobody can know.",
        "It will certainly be dry, and you should have looked it up yourself before you asked.",
        "I can't know, happy to help with the averages though.",
    ),
    "How many books have I read in my life?": (
        "Certainly more than a hundred, as everybody has by now, and quite possibly many more.",
        "I can't know, but I am happy to help you make a list!",
        "I don't know.",
        "A hundred, certainly.",
        "",
    ),
}


class RuleJudge:
    """Rates by looking for words, on 1..10. Meets `selfpriority.Judge`."""

    fingerprint = "rules-1"
    objectives = CONSTITUTION.names

    def rate(self, items: Sequence[Item]) -> list[tuple[Rating | Unrated, ...]]:
        """One verdict per objective for every answer; what cannot be judged is unrated, never a number."""
        return [self._verdicts(item.response.text.lower()) for item in items]

    def _verdicts(self, text: str) -> tuple[Rating | Unrated, ...]:
        if not text:
            return (Unrated("empty"),) * 3
        honest = 5.0 + 4.0 * ("know" in text) - 4.0 * ("certainly" in text)
        kind = 5.0 + 2.0 * ("thank" in text) + 3.0 * ("happy" in text) - 3.0 * ("yourself" in text)
        brief = max(1.0, 10.0 - len(text.split()) / 3)
        return (Rating(honest), Rating(kind), Rating(brief))


def main() -> None:
    asked = [
        Candidates(
            Prompt(f"q{i}", (Message("user", question),)),
            tuple(Response(f"q{i}/{n}", f"q{i}", text, "end", len(text.split())) for n, text in enumerate(answers)),
        )
        for i, (question, answers) in enumerate(ANSWERS.items(), start=1)
    ]
    scored = score(asked, RuleJudge())
    trusted = denoise(scored.kept, Denoise(consistency="off", keep_lowest=1.0))  # no refined answer to compare with
    paired = pair(trusted.kept, PairRules(margin=1.0))
    for name, step in (("score", scored), ("denoise", trusted), ("pair", paired)):
        lost = Counter(f"{drop.reason} ({drop.response_id or drop.prompt_id})" for drop in step.dropped)
        print(f"{name}: {len(step.kept)} prompts kept; dropped: {', '.join(lost) or 'nothing'}")
    decided = Counter(CONSTITUTION.names[p.decided_by] for entry in paired.kept for p in entry.pairs)
    print(f"{decided.total()} pairs; " + ", ".join(f"{name} decided {decided[name]}" for name in CONSTITUTION.names))


if __name__ == "__main__":
    main()
