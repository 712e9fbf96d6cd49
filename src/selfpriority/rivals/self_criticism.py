"""Self-Criticism: one answer, its judgement in words by the model itself, one refined answer from that alone; SFT.

EMNLP 2023 industry track, as its abstract has it: no ratings, no denoising, no pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from selfpriority.language_model import Completion, Failure, Generate, LanguageModel, Text, ask
from selfpriority.method.sample import sample
from selfpriority.personas import PLAIN
from selfpriority.recipe import Refine
from selfpriority.records import Drop, Message, Pool, Prompt, Response, Scored, Sifted, flaw
from selfpriority.rivals.rows import Means, Rows, to_learn
from selfpriority.wording import fill

_Turns = tuple[Message, ...]


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    """One row a prompt, its refined answer; a prompt without one is dropped with the reason."""
    model, settings, prompts = means.model(), means.recipe.refine, [pool.prompt for pool in pools]
    criticism = fill("criticise", constitution=means.constitution)
    refinement = fill("refine_criticised")
    first = _first(pools, means, model)
    turns = {pool.prompt.id: _asked(pool.prompt, text, criticism) for pool in pools if (text := _text(first, pool))}
    judged = _written(turns, model, settings)
    turns = {
        name: (*turns[name], Message("assistant", found.text), Message("user", refinement))
        for name, found in judged.items()
        if isinstance(found, Text)
    }
    none = {name: failure for name, failure in first.items() if isinstance(failure, Failure)}
    refined = {**none, **judged, **_written(turns, model, settings)}
    rows = [_row(prompt, refined.get(prompt.id), settings) for prompt in prompts]
    kept = tuple((row,) for row in rows if isinstance(row, Pool))
    return Sifted(kept, tuple(row for row in rows if isinstance(row, Drop)))


def _first(pools: Sequence[Pool], means: Means, model: LanguageModel) -> dict[str, str | Failure]:
    """By the prompt's id its first answer without a persona, one drawn where none was sampled, or why there is none."""
    found: dict[str, str | Failure] = {}
    for pool in pools:
        plain = [each.response.text for each in pool.candidates if each.response.persona == PLAIN.name]
        if plain:
            found[pool.prompt.id] = plain[0]
    others = [pool.prompt for pool in pools if pool.prompt.id not in found]
    drawn = sample(others, model, means.recipe.sample.model_copy(update={"n": 1}), (), means.recipe.seed)
    found |= {drop.prompt_id: Failure(drop.reason, drop.detail) for drop in drawn.dropped}
    return found | {each.prompt.id: each.responses[0].text for each in drawn.kept}


def _text(first: Mapping[str, str | Failure], pool: Pool) -> str:
    found = first.get(pool.prompt.id)
    return found if isinstance(found, str) else ""


def _asked(prompt: Prompt, answer: str, request: str) -> _Turns:
    return (*prompt.messages, Message("assistant", answer), Message("user", request))


def _written(turns: Mapping[str, _Turns], model: LanguageModel, settings: Refine) -> dict[str, Text | Failure]:
    """What the model says next in every conversation."""
    replies = ask(model, [_request(each, settings) for each in turns.values()])
    return {
        name: reply.texts[0] if isinstance(reply, Completion) else _failure(reply)
        for name, reply in zip(turns, replies, strict=True)
    }


def _failure(reply: object) -> Failure:
    assert isinstance(reply, Failure)
    return reply


def _request(messages: _Turns, settings: Refine) -> Generate:
    seed = int.from_bytes(hashlib.sha256(repr(messages).encode()).digest()[:4], "big")
    return Generate(messages, 1, settings.temperature, settings.top_p, settings.max_new_tokens, seed)


def _row(prompt: Prompt, refined: Text | Failure | None, settings: Refine) -> Pool | Drop:
    if refined is None:
        return Drop("rows", prompt.id, "no_usable_answer")
    if isinstance(refined, Failure):
        return Drop("rows", prompt.id, refined.reason, detail=refined.detail)
    name, text = f"{prompt.id}/criticised", refined
    response = Response(name, prompt.id, text.text, text.stop, text.n_tokens, "refined", thinking=text.thinking)
    if reason := flaw(response, settings.keep_cut):
        return Drop("rows", prompt.id, reason)
    return to_learn(prompt, Scored(response, ()))


ROWS = Rows(_make, texts=("criticise", "refine_criticised"))
