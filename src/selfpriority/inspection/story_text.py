"""The way of one prompt as text for a terminal. Folds nothing: what it is given may be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfpriority.inspection.folding import barred
from selfpriority.inspection.story import (
    AnswerStory,
    DenoisingTests,
    DropStory,
    HeldOutAnswer,
    HeldOutDrop,
    PairStory,
    PromptStory,
    RoundStory,
)
from selfpriority.plain_text import clean
from selfpriority.records import Message
from selfpriority.text_table import text_table


def prompt_text(story: PromptStory) -> str:
    """`prompt_story` for a terminal."""
    lines = [f"prompt {story.prompt_id}"]
    for entry in story.rounds:
        lines += ["", *_round_lines(entry)]
    if story.held_out:
        prompts = (answer.prompt for answer in story.held_out.values() if isinstance(answer, HeldOutAnswer))
        lines += ["", "held out", *_message_lines(next(prompts, ()))]
    for system, answer in story.held_out.items():
        lines += _held_out_lines(system, answer)
    return clean("\n".join(lines))


def _round_lines(entry: RoundStory) -> Iterator[str]:
    kind = f" ({entry.kind})" if entry.kind else ""
    yield f"round {entry.round}{kind}: {entry.outcome}"
    yield from _message_lines(entry.prompt)
    for answer in entry.candidates:
        yield from _answer_lines("candidate", answer)
    if entry.refined:
        yield from _answer_lines("refined", entry.refined)
    for answer in entry.other_refinements:
        yield from _answer_lines("refined, not the best", answer)
    if entry.tests:
        yield from _test_lines(entry.tests)
    yield from map(_drop_line, entry.drops)
    if entry.pairs:
        yield from _pair_lines(entry.pairs)


def _test_lines(tests: DenoisingTests) -> Iterator[str]:
    for name, test in tests.consistency.items():
        yield (
            f"  {name}: refined {test.refined:.2f}, best candidate {test.best:.2f}, beats {test.beaten} of {test.of}"
        )
    yield f"  det of the candidates' covariance: {tests.det:.4g}"


def _drop_line(drop: DropStory) -> str:
    kind = "row" if drop.step == "prompts" else "answer"
    what = f"{kind} {drop.response}" if drop.response else "prompt"
    return f"  dropped by {drop.step}: {what}, {drop.reason}" + (f" ({drop.detail})" if drop.detail else "")


def _pair_lines(pairs: Sequence[PairStory]) -> list[str]:
    heads = ["chosen", "over", "distance", "gap", "decided by"]
    cells = [[p.chosen, p.rejected, f"{p.distance:.2f}", f"{p.gap:.2f}", p.decided_by] for p in pairs]
    return ["  " + line for line in text_table([heads, *cells], "<>>><")]


def _message_lines(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield f"  {message.role}"
        yield from barred(message.content, "    ")


def _answer_lines(title: str, answer: AnswerStory) -> Iterator[str]:
    counted = f"{answer.n_tokens} tokens, " if answer.n_tokens else ""  # nobody counted those of one's own pairs
    facts = [f"{counted}stop: {answer.stop}"]
    if answer.persona:
        facts.append(f"persona {answer.persona}")
    facts += [f"{name} {score:.2f}" for name, score in (answer.scores or {}).items()]
    if answer.lost:
        facts.append(f"lost by {answer.lost}")
    yield f"  {title} {answer.id}: {'; '.join(facts)}"
    yield from barred(answer.text, "    ")


def _held_out_lines(system: str, answer: HeldOutAnswer | HeldOutDrop) -> Iterator[str]:
    if isinstance(answer, HeldOutDrop):
        yield f"  {system}: no answer ({answer.dropped})"
        return
    facts = [f"{answer.n_tokens} tokens, stop: {answer.stop}"]
    facts += [f"{name} {r if isinstance(r, str) else format(r, '.2f')}" for name, r in (answer.ratings or {}).items()]
    yield f"  {system}: {'; '.join([*facts, 'a refusal'] if answer.refusal else facts)}"
    yield from barred(answer.text, "    ")
