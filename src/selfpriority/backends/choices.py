"""Which tokens a model would write for a choice, behind a turn that was opened for it.

A tokenizer may put a piece of its own before a choice: SentencePiece, as Llama-2 and Mistral have it, spells "7" as a
space piece and "7". So what follows the opened turn is compared, not what the choice alone is. Knows token ids and a
chat; no model and no request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from selfpriority.backends.batches import n_alike
from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.records import Message

Ids = tuple[int, ...]
_PROBE = (Message("user", "Which one?"),)
"""Any conversation: what counts is how the turn after it is opened, and templates open all alike."""
_USUAL = (*"0123456789", *"AB")


@dataclass(frozen=True)
class Spelled:
    """How some choices continue an opened turn."""

    n_merged: int
    """Last tokens of the opened turn that grow together with every choice, and so are not read before it."""
    leads: tuple[Ids, ...]
    """What is put behind the context, the empty lead first; every beginning of a lead is one too."""
    singles: tuple[Ids, ...]
    """By choice: tokens that spell it at once."""
    led: tuple[tuple[Ids, ...], ...]
    """By choice: a lead and the token that spells the choice behind it, for each lead that it may have."""

    @property
    def longest_lead(self) -> int:
        """Tokens that reading may put behind a context."""
        return max(map(len, self.leads))

    @property
    def n_rows(self) -> int:
        """Sequences that one context takes at most at once: itself, then each of its leads."""
        return max(1, len(self.leads) - 1)

    def before(self, context: Sequence[int]) -> list[int]:
        """Token ids of an opened turn without those that grow together with the choices."""
        return list(context[: len(context) - self.n_merged])

    def read_behind(self, lead: Ids) -> tuple[int, ...]:
        """Tokens whose probability behind a lead a choice depends on, each once, in order."""
        singles = [] if lead else [token for spellings in self.singles for token in spellings]
        n = len(lead)
        led = [path[n] for spellings in self.led for path in spellings if path[:n] == lead and len(path) > n]
        return tuple(sorted({*singles, *led}))

    def weighed(self, chance: Callable[[Ids, int], float]) -> tuple[float, ...]:
        """Probability of each choice: the sum over its spellings, each the product of its tokens'.

        So a lead that the model would not write adds nothing, and a model that declines to choose is not made to.

        Args:
            chance: probability of a token behind a lead, of those in `read_behind`.
        """
        return tuple(
            sum(chance((), token) for token in singles)
            + sum(prod(chance(path[:n], token) for n, token in enumerate(path)) for path in led)
            for singles, led in zip(self.singles, self.led, strict=True)
        )


class Speller:
    """The spellings of one chat's tokenizer, each worked out once."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._known: dict[tuple[str, ...], Spelled] = {}

    def spelled(self, choices: tuple[str, ...]) -> Spelled:
        """How `choices` are spelled behind the turn that is opened for an answer.

        Raises:
            InputError: a choice takes several tokens (as "10" does for many), the space before it not counted.
        """
        if choices not in self._known:
            self._known[choices] = self._compared(choices)
        return self._known[choices]

    @cached_property
    def is_plain(self) -> bool:
        """Whether digits and letters are single tokens, and the same behind an opened turn as alone."""
        for choice in _USUAL:
            try:
                spelled = self.spelled((choice,))
            except InputError:  # said when it is asked for
                continue
            if spelled.n_merged or spelled.led[0] or spelled.singles[0] != tuple(sorted(self._alone(choice))):
                return False
        return True

    def _compared(self, choices: tuple[str, ...]) -> Spelled:
        opened = self._chat.answer_opening(_PROBE)
        before = self._encoded(opened)
        joined = [self._encoded(opened + choice) for choice in choices]
        n_kept = n_alike([before, *joined])
        paths: list[set[Ids]] = [{ids[n_kept:]} for ids in joined]
        if n_kept == len(before):  # else the opened turn already says how the choice begins
            for found, choice in zip(paths, choices, strict=True):
                found |= self._as_written(before, opened, choice)
        merged = before[n_kept:]
        good = [sorted(path for path in found if self._spells(path, merged)) for found in paths]
        for choice, spellings in zip(choices, good, strict=True):
            if not spellings:
                raise InputError(f"choice {choice!r} is not one token of this model; give choices of one token each")
        led = tuple(tuple(path for path in spellings if len(path) > 1) for spellings in good)
        beginnings = {path[:n] for spellings in led for path in spellings for n in range(len(path))} | {()}
        return Spelled(
            n_merged=len(before) - n_kept,
            leads=tuple(sorted(beginnings, key=lambda lead: (len(lead), lead))),
            singles=tuple(tuple(path[0] for path in spellings if len(path) == 1) for spellings in good),
            led=led,
        )

    def _as_written(self, before: Ids, opened: str, choice: str) -> set[Ids]:
        """What follows the opened turn where the template writes an answer, where training does, and without a lead."""
        found = {tuple(self._chat.response_ids(choice, "length"))} | {(token,) for token in self._alone(choice)}
        written = self._encoded(opened + self._chat.template.gap + choice)
        if written[: len(before)] == before:
            found.add(written[len(before) :])
        return found

    def _alone(self, choice: str) -> set[int]:
        """Single tokens that spell `choice` with and without a space before it, pieces of white space left off."""
        found = set()
        for spelling in (choice, f" {choice}"):
            ids = self._encoded(spelling)
            while len(ids) > 1 and self._is_blank(ids[:1]):
                ids = ids[1:]
            if len(ids) == 1 and self._spells(ids):
                found.add(ids[0])
        return found

    def _spells(self, path: Ids, merged: Ids = ()) -> bool:
        """Whether a path is one token, behind nothing but white space or what the opened turn says there."""
        is_known = bool(path) and path[-1] != self._chat.tokenizer.unk_token_id
        return is_known and (path[:-1] == merged or self._is_blank(path[:-1]))

    def _is_blank(self, ids: Ids) -> bool:
        return not str(self._chat.tokenizer.decode(list(ids))).strip()

    def _encoded(self, text: str) -> Ids:
        return tuple(self._chat.tokenizer(text, add_special_tokens=False)["input_ids"])
