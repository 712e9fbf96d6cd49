"""A paired pool to token ids, or a drop with its reason. Nothing is ever cut to fit.

Knows records and the chat template, and no tensors: prompts are written without persona, a finished answer
ends in exactly one end token, a cut one in none (docs/deviations.md 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from selfpriority.chat import Chat
from selfpriority.chat_template import RefusedTurns
from selfpriority.method.learned import learned
from selfpriority.method.pair import weighing_gap
from selfpriority.method.safe_pairs import as_trained, is_safe
from selfpriority.recipe import Align
from selfpriority.records import Drop, PairedPool, Sifted, under
from selfpriority.wording import fill

_PERSONAS = ("tis_good", "tis_bad")
"""Texts of `tis_dpo`."""


@dataclass(frozen=True)
class EncodedPool:
    """Token ids of one prompt and of its answers that take part in a pair, or of all where there is no pair."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, int], ...]
    """(chosen, rejected), indices into `response_ids`."""
    gaps: tuple[float, ...]
    """What weighs each pair, before division by the mean of the optimizer batch."""
    learned: tuple[float, ...] = field(repr=False)  # a checkpoint is known by the others, and by this where it counts
    """Weight of each answer's likelihood, 0 where it is only compared."""
    safe: tuple[bool, ...] = field(default=(), repr=False)
    """Whether each answer is safe; empty for methods that do not ask."""
    persona_ids: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    """For `tis_dpo` the prompt under the good and under the bad persona; else empty."""
    token_weights: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    """For `tis_dpo`, once they are measured, a weight for every token of every answer where it is chosen."""

    @property
    def n_tokens(self) -> int:
        """Distinct tokens: the prompt once and every answer."""
        return len(self.prompt_ids) + sum(map(len, self.response_ids))

    @property
    def n_tokens_as_rows(self) -> int:
        """Tokens if every pair were a row of its own, with its prompt before either answer."""
        pairs = ((self.response_ids[i], self.response_ids[j]) for i, j in self.pairs)
        return sum(2 * len(self.prompt_ids) + len(chosen) + len(rejected) for chosen, rejected in pairs)

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest answer."""
        return max(map(len, (self.prompt_ids, *self.persona_ids))) + max(map(len, self.response_ids))


def answers_of(paired: PairedPool) -> list[int]:
    """The answers that training sees, by index in `Pool.responses`: those in a pair, or all where there is no pair."""
    if not paired.pairs:
        return list(range(len(paired.pool.responses)))
    return sorted({index for pair in paired.pairs for index in (pair.chosen, pair.rejected)})


def encode_all(paired: Sequence[PairedPool], chat: Chat, max_length: int, settings: Align) -> Sifted[EncodedPool]:
    """Every pool encoded or dropped, in order."""
    encoded = [encode(pool, chat, max_length, settings) for pool in paired]
    kept = tuple(pool for pool in encoded if isinstance(pool, EncodedPool))
    return Sifted(kept, tuple(pool for pool in encoded if isinstance(pool, Drop)))


def encode(paired: PairedPool, chat: Chat, max_length: int, settings: Align) -> EncodedPool | Drop:
    """One pool as token ids; answers in no pair are left out, unless none is in any: then all are there to be learned.

    Args:
        paired: a pool.
        chat: writes prompts and answers as the model was made to read them.
        max_length: longest prompt plus answer in tokens, at most `settings.max_length`.
        settings: which gap of a pair becomes its weight (docs/deviations.md 5), and which answers are learned.

    Returns:
        The pool, or a drop of the whole prompt: `too_long`, `turns`, `empty_response`, `no_pairs` or `unsafe`.
    """
    prompt, given = paired.pool.prompt, paired
    paired = as_trained(paired, settings)
    if given.pairs and not paired.pairs:
        detail = f"no pair has an answer rated {settings.safe_from:g} or more (align.safe_from)"
        return Drop("align", prompt.id, "unsafe", detail=detail)
    if not paired.pairs and settings.method != "sft":
        return Drop("align", prompt.id, "no_pairs", detail=f"method {settings.method} compares answers")
    used = answers_of(paired)
    try:
        prompt_ids = tuple(chat.answered_ids(prompt.messages))
        personas = _PERSONAS if settings.method == "tis_dpo" else ()
        persona_ids = tuple(tuple(chat.answered_ids(under(fill(name), prompt.messages))) for name in personas)
    except RefusedTurns as error:  # a server that wrote the answers may have another template
        return Drop("align", prompt.id, "turns", detail=error.reason)
    response_ids: list[tuple[int, ...]] = []
    for index in used:
        response = paired.pool.responses[index].response
        ids = tuple(chat.response_ids(response.text, response.stop))
        if not response.text or ids in ((), (chat.end_id,)):
            return Drop("align", prompt.id, "empty_response", detail=f"response {response.id} has no tokens")
        n_tokens = max(map(len, (prompt_ids, *persona_ids))) + len(ids)
        if n_tokens > max_length:
            detail = f"prompt and response {response.id}: {n_tokens} tokens, at most {max_length}"
            return Drop("align", prompt.id, "too_long", detail=detail)
        response_ids.append(ids)
    place = {index: new for new, index in enumerate(used)}
    weights = learned(paired, settings.learns)
    return EncodedPool(
        prompt.id,
        prompt_ids,
        tuple(response_ids),
        pairs=tuple((place[pair.chosen], place[pair.rejected]) for pair in paired.pairs),
        gaps=tuple(weighing_gap(paired, pair, settings.weight_gap) for pair in paired.pairs),
        learned=tuple(weights.get(index, 0.0) for index in used),
        safe=tuple(is_safe(paired, index, settings.safe_from) for index in used) if settings.asks_for_safety else (),
        persona_ids=persona_ids,
    )
