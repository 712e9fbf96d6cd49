"""Answers of one system to held-out prompts, one each, without a persona.

See docs/evaluation.md. Knows nothing of ratings or of who else is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from selfpriority.language_model import Completion, Failure, Generate, LanguageModel, ask
from selfpriority.recipe import Evaluate
from selfpriority.records import Drop, Prompt, Response, Sifted


def answer(
    prompts: Sequence[Prompt], model: LanguageModel, system: str, settings: Evaluate, seed: int
) -> Sifted[Response]:
    """One answer a prompt, id `<prompt id>/<system>`.

    Every system draws with the same seed for the same prompt. A prompt whose request failed is dropped with
    the failure's reason; an empty answer is an answer, and judged as one.
    """
    requests = [_request(prompt, settings, seed) for prompt in prompts]
    kept: list[Response] = []
    dropped: list[Drop] = []
    for prompt, reply in zip(prompts, ask(model, requests), strict=True):
        if isinstance(reply, Failure):
            dropped.append(Drop("answer", prompt.id, reply.reason, detail=reply.detail))
            continue
        assert isinstance(reply, Completion)
        text = reply.texts[0]
        kept.append(Response(f"{prompt.id}/{system}", prompt.id, text.text, text.stop, text.n_tokens))
    return Sifted(tuple(kept), tuple(dropped))


def _request(prompt: Prompt, settings: Evaluate, seed: int) -> Generate:
    digest = hashlib.sha256(f"{seed}/answer/{prompt.id}".encode()).digest()
    return Generate(
        messages=prompt.messages,
        n=1,
        temperature=settings.temperature,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        seed=int.from_bytes(digest[:4], "big"),
    )
