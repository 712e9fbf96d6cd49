"""Checks of a round's token ids: end and begin tokens, prompts, cut and empty answers, lengths.

Each is a name, a flag and a sentence; the thresholds decide only what is remarked on, nothing in training depends on
them. Knows pairs and a tokenizer, and opens no model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Annotated, Any

from pydantic import PlainSerializer

from selfpriority.chat import Chat
from selfpriority.chat_template import ChatTemplate
from selfpriority.method.safe_pairs import as_trained
from selfpriority.preferences import PreferenceRow
from selfpriority.recipe import Align
from selfpriority.records import Message, PairedPool, Response
from selfpriority.training.encode import answers_of

MANY_CUT = 0.5
"""Share of chosen answers cut at the length limit from which training hardly sees how an answer ends."""
MANY_TOO_LONG = 0.1
"""Share of answers over `align.max_length` from which training loses too much."""
MANY_UNSAFE = 0.5
"""Share of pools without a safe answer from which training sees too little."""
ONE_SIDED = 0.95
"""Share of pairs with the longer (or the shorter) answer chosen from which length alone tells them apart."""


def _flat(check: Check) -> dict[str, Any]:
    return {"name": check.name, "ok": check.ok, "sentence": check.sentence, **check.figures}


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    sentence: str
    figures: dict[str, float] = field(default_factory=dict)
    """The numbers behind the sentence; in JSON they stand beside it."""


Checks = tuple[Annotated[Check, PlainSerializer(_flat)], ...]


@dataclass(frozen=True)
class Sequences:
    """Everything a check looks at: the stored pairs of a round and their token ids, encoded afresh."""

    paired: Sequence[PairedPool]
    rows: Sequence[PreferenceRow]
    chat: Chat
    ends: Collection[int]
    """Every id that ends a sequence for this model, the end of a turn among them."""
    max_length: int

    @cached_property
    def used(self) -> list[tuple[tuple[Message, ...], Response]]:
        """Every answer that training sees, once, with its prompt."""
        return [
            (entry.pool.prompt.messages, entry.pool.responses[index].response)
            for entry in self.paired
            for index in answers_of(entry)
        ]

    @cached_property
    def prompts(self) -> dict[tuple[Message, ...], tuple[int, ...]]:
        """Token ids of every prompt, those of the pools and those in the rows."""
        messages = {messages for messages, _ in self.used} | {row.prompt for row in self.rows}
        return {m: tuple(self.chat.answered_ids(m)) for m in messages}

    @cached_property
    def responses(self) -> dict[str, tuple[int, ...]]:
        """Token ids of every used answer, by its id."""
        return {r.id: tuple(self.chat.response_ids(r.text, r.stop)) for _, r in self.used}


def all_checks(sequences: Sequences) -> list[Check]:
    """Every check that needs no model."""
    return [
        end_tokens(sequences),
        begin_tokens(sequences),
        equal_prefix(sequences),
        cut_answers(sequences),
        empty_answers(sequences),
        too_long(sequences),
        length_difference(sequences),
    ]


def template_check(template: ChatTemplate, refused: Mapping[str, str]) -> Check:
    """What the chat template does to a conversation; bad if it takes no such turns as some prompts have.

    Args:
        template: of the model that trains.
        refused: prompt id -> why its turns are not taken.
    """
    told = [f"an answer stands between {template.opening!r} and {template.closing!r}", *template.habits()]
    if refused:
        name, why = next(iter(refused.items()))
        told.append(f"{len(refused)} prompts have turns it does not take, so their pools do not train ({name}: {why})")
    return Check("chat template", not refused, "; ".join(told))


def end_tokens(sequences: Sequences) -> Check:
    """Exactly one end token, the last, where the model ended its turn; none where it was cut (docs/deviations.md 8).

    Scars: trl#4481, unsloth#3228, a second end token.
    """
    wrong = []
    for _, response in sequences.used:
        ids = sequences.responses[response.id]
        n_ends = sum(token in sequences.ends for token in ids)
        good = n_ends == 1 and ids[-1] == sequences.chat.end_id if response.stop == "end" else n_ends == 0
        if not good:
            wrong.append(response.id)
    n_ended = sum(response.stop == "end" for _, response in sequences.used)
    n_cut = len(sequences.used) - n_ended
    if wrong:
        return Check(
            "end tokens",
            False,
            f"{len(wrong)} of {n_ended + n_cut} answers hold a wrong number: {_some(wrong)}",
        )
    return Check("end tokens", True, f"{n_ended} finished answers hold exactly one, {n_cut} cut ones none")


def begin_tokens(sequences: Sequences) -> Check:
    """BOS at most once and only at the start, never in an answer (axolotl#1616).

    A template may open every turn with it (ChatML of some models); then its count is that of the text.
    """
    tokenizer, name = sequences.chat.tokenizer, "begin tokens"
    if tokenizer.bos_token_id is None:
        return Check(name, True, "the tokenizer has none")
    bos, opens_turns = tokenizer.bos_token_id, _opens_turns(sequences.chat)
    wrong = []
    for messages, response in sequences.used:
        prompt_ids = sequences.prompts[messages]
        if opens_turns:
            good = prompt_ids.count(bos) == sequences.chat.text(messages).count(tokenizer.bos_token)
        else:
            good = bos not in prompt_ids[1:]
        in_answer = bos not in sequences.ends and bos in sequences.responses[response.id]
        if not good or in_answer:
            wrong.append(response.id)
    if wrong:
        return Check(name, False, f"{len(wrong)} sequences hold one too many or in the wrong place: {_some(wrong)}")
    usual = "none but at the start" if not opens_turns else "it opens every turn of this template, none was added"
    return Check(name, True, f"{len(sequences.used)} sequences: {usual}, none in an answer")


def _opens_turns(chat: Chat) -> bool:
    bos = chat.tokenizer.bos_token_id
    return chat.prompt_ids([Message("user", "a")]).count(bos) > 1


def equal_prefix(sequences: Sequences) -> Check:
    """Each stored pair, encoded from its own row, is the pool's prompt followed by the pool's two answers."""
    wrong = []
    prompts = {entry.pool.prompt.id: entry.pool.prompt.messages for entry in sequences.paired}
    for row in sequences.rows:
        prefix = sequences.prompts[prompts[row.prompt_id]]
        own = sequences.prompts[row.prompt]
        for message, stop, response_id in (
            (row.chosen[0], row.chosen_stop, row.chosen_id),
            (row.rejected[0], row.rejected_stop, row.rejected_id),
        ):
            ids = own + tuple(sequences.chat.response_ids(message.content, "end" if stop == "end" else "length"))
            if ids != prefix + sequences.responses[response_id]:
                wrong.append(response_id)
    if wrong:
        return Check("equal prefix", False, f"{len(wrong)} sides of pairs differ from their pool: {_some(wrong)}")
    return Check(
        "equal prefix",
        True,
        f"chosen and rejected of {len(sequences.rows)} pairs follow the same prompt tokens",
    )


def cut_answers(sequences: Sequences) -> Check:
    """How many chosen and rejected answers were cut; bad when few of the chosen ones show how to stop."""
    sides = [(row.chosen_stop, row.rejected_stop) for row in sequences.rows]
    sides = sides or [(response.stop, "end") for _, response in sequences.used]  # all are learned
    chosen, rejected = (fmean(stop == "length" for stop in side) for side in zip(*sides, strict=True))
    sentence = f"cut at the length limit: {chosen:.0%} of the chosen, {rejected:.0%} of the rejected answers"
    if chosen > MANY_CUT:
        how_little = "nothing" if chosen == 1.0 else "little"
        sentence += f"; {how_little} teaches the policy to stop, raise sample.max_new_tokens and refine.max_new_tokens"
    return Check("cut answers", chosen <= MANY_CUT, sentence, {"chosen": chosen, "rejected": rejected})


def empty_answers(sequences: Sequences) -> Check:
    """No answer in a pair is empty; such a pool would be dropped by training."""
    empty = [r.id for _, r in sequences.used if not r.text.strip()]
    if empty:
        return Check("empty answers", False, f"{len(empty)} answers in pairs are empty: {_some(empty)}")
    return Check("empty answers", True, "none")


def too_long(sequences: Sequences) -> Check:
    """Answers that do not fit with their prompt; training drops their pools whole, never cuts."""
    used = sequences.used
    long = [r.id for m, r in used if len(sequences.prompts[m]) + len(sequences.responses[r.id]) > sequences.max_length]
    share = len(long) / len(used)
    where = f"over {sequences.max_length} tokens with their prompt"
    sentence = (
        f"{len(long)} answers are {where}: {_some(long)}; their pools do not train" if long else f"no answer is {where}"
    )
    if share > MANY_TOO_LONG:
        sentence += "; raise align.max_length"
    return Check("too long", share <= MANY_TOO_LONG, sentence)


def safe_answers(paired: Sequence[PairedPool], settings: Align) -> Check | None:
    """Pools that training drops as `unsafe`, for no pair has a safe answer; None where the method asks for none."""
    if settings.method != "safedpo":
        return None
    lost = [entry.pool.prompt.id for entry in paired if entry.pairs and not as_trained(entry, settings).pairs]
    floor = f"no answer rated {settings.safe_from:g} or more on the first objective (align.safe_from)"
    if not lost:
        return Check("safe answers", True, f"every one of {len(paired)} pools has a pair with one", {"unsafe": 0})
    sentence = f"{len(lost)} of {len(paired)} pools have {floor}: {_some(lost)}; they do not train"
    return Check("safe answers", len(lost) / len(paired) <= MANY_UNSAFE, sentence, {"unsafe": len(lost)})


def length_difference(sequences: Sequences) -> Check:
    """How often the chosen answer is the longer one."""
    if not sequences.rows:
        return Check("length", True, "no answer is compared with another")
    lengths = [(len(sequences.responses[r.chosen_id]), len(sequences.responses[r.rejected_id])) for r in sequences.rows]
    longer = fmean(chosen > rejected for chosen, rejected in lengths)
    shorter = fmean(chosen < rejected for chosen, rejected in lengths)
    chosen, rejected = fmean(c for c, _ in lengths), fmean(r for _, r in lengths)
    means = f"{chosen:.0f} against {rejected:.0f} tokens"
    sentence = f"the chosen answer is longer in {longer:.0%} of the pairs ({means})"
    good = max(longer, shorter) <= ONE_SIDED
    if not good:
        sentence += "; length alone tells chosen from rejected"
    return Check("length", good, sentence, {"chosen_longer": longer})


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
