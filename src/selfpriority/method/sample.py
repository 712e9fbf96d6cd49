"""Step 1: sample n diverse candidates y_1..y_n for every prompt x.

Paper: section "Diverse sampling"; docs/method.md. Diversity comes from temperature and personas: system prompts that
are used here only, for training sees the plain prompt, and openings of answers. Knows nothing of ratings.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from selfpriority.language_model import Completion, Failure, Generate, LanguageModel, Text, ask
from selfpriority.personas import PLAIN, Persona, personas_for
from selfpriority.recipe import Sample
from selfpriority.records import Candidates, Drop, Prompt, Response, Sifted, flaw, under


def sample(
    prompts: Sequence[Prompt], model: LanguageModel, settings: Sample, personas: Sequence[Persona] = (), seed: int = 0
) -> Sifted[Candidates]:
    """Candidates of every prompt.

    Draws under one persona are one request, so they share a prefill. Empty answers, and cut ones where
    `settings.keep_cut` is false, are dropped one by one; a prompt that no request answered is dropped whole.

    Args:
        prompts: each with an id of its own.
        model: who answers.
        settings: how many answers a prompt, how long in tokens, at which temperature.
        personas: as `load_personas` reads them, each prompt under those of its language; without any the model
            answers as it is.
        seed: with the prompt's id it decides every draw.

    Examples:
        >>> prompt = Prompt("q", (Message("user", "How do I bake bread?"),))
        >>> found = sample([prompt], open_model("my-model"), Sample(n=4, max_new_tokens=8), load_personas("default"))
        >>> [response.id for response in found.kept[0].responses][:2]
        ['q/y1', 'q/y2']
    """
    heard = personas_for([prompt.text for prompt in prompts], personas)
    shares = [_shares(prompt, settings, own) for prompt, own in zip(prompts, heard, strict=True)]
    requests = [
        _request(prompt, persona, n, settings, seed)
        for prompt, share in zip(prompts, shares, strict=True)
        for persona, n in share
    ]
    answers = iter(ask(model, requests))
    kept: list[Candidates] = []
    dropped: list[Drop] = []
    for prompt, share in zip(prompts, shares, strict=True):
        responses: list[Response] = []
        failures: list[Failure] = []
        for persona, n in share:
            answer = next(answers)
            if isinstance(answer, Completion):
                assert len(answer.texts) + len(answer.missing) == n
                failures += answer.missing
                responses += _responses(prompt, persona, answer.texts, first=len(responses))
            else:
                assert isinstance(answer, Failure)
                failures.append(answer)
        usable = [response for response in responses if not flaw(response, settings.keep_cut)]
        dropped += _lost(prompt, responses, failures, settings.keep_cut)
        if usable:
            kept.append(Candidates(prompt, tuple(usable)))
        else:
            reason = failures[0].reason if failures else "no_usable_answer"
            dropped.append(Drop("sample", prompt.id, reason, detail=failures[0].detail if failures else ""))
    return Sifted(tuple(kept), tuple(dropped))


def _shares(prompt: Prompt, settings: Sample, personas: Sequence[Persona]) -> list[tuple[Persona, int]]:
    """How many of the n draws each persona gets; prompts start at different personas, so all are heard."""
    n_plain = settings.n if not personas else round(settings.plain * settings.n)
    start = _number(prompt.id) % len(personas) if personas else 0
    drawn = Counter(personas[(start + i) % len(personas)] for i in range(settings.n - n_plain))
    return ([(PLAIN, n_plain)] if n_plain else []) + list(drawn.items())


def _request(prompt: Prompt, persona: Persona, n: int, settings: Sample, seed: int) -> Generate:
    return Generate(
        messages=under(persona.text, prompt.messages),
        n=n,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seed=_number(f"{seed}/{prompt.id}/{persona.name}"),
        opening=persona.opening,
    )


def _responses(prompt: Prompt, persona: Persona, texts: Sequence[Text], first: int) -> list[Response]:
    return [
        Response(
            f"{prompt.id}/y{first + i + 1}",
            prompt.id,
            t.text,
            t.stop,
            t.n_tokens,
            persona=persona.name,
            thinking=t.thinking,
        )
        for i, t in enumerate(texts)
    ]


def _lost(prompt: Prompt, responses: Sequence[Response], failures: Sequence[Failure], keep_cut: bool) -> Iterator[Drop]:
    for response in responses:
        if reason := flaw(response, keep_cut):
            yield Drop("sample", prompt.id, reason, response.id)
    for number, failure in enumerate(failures, start=1):
        yield Drop("sample", prompt.id, failure.reason, f"{prompt.id}/failed{number}", failure.detail)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
