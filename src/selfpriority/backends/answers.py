"""Requests to cache keys, answers to JSON and back without loss (vectors as little-endian float32), and their check."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

from selfpriority.language_model import (
    PASSING,
    Answer,
    Choice,
    Choose,
    Classify,
    Completion,
    Embed,
    Failure,
    Generate,
    Rate,
    Request,
    Text,
    Value,
    Vectors,
    Verdict,
)
from selfpriority.plain_fields import plain_fields

MOST_TOKENS = 10**9
"""No count of tokens is above it."""
ROUNDING = 1e-6
"""A probability may lie so far above 1."""


def key_of(fingerprint: str, request: Request) -> str:
    """SHA-256 over the model's fingerprint, the kind of request and all its fields."""
    fields = plain_fields(request)
    # what is stored stays known: these were no fields while every response was read as finished and none was begun
    if isinstance(request, Embed) and request.stop == "end":
        del fields["stop"]
    if isinstance(request, Generate | Embed) and not request.opening:
        del fields["opening"]
    content = [fingerprint, type(request).__name__, fields]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_json(answer: Answer) -> str:
    """The answer as one JSON object; its first key is the kind."""
    match answer:
        case Completion(texts, missing):
            return json.dumps({"texts": [_row(text) for text in texts], **_told(missing)})
        case Choice(probabilities, missing, unseen, holes):
            more = {name: value for name, value in (("unseen", unseen), ("holes", holes)) if value}
            return json.dumps({"probabilities": probabilities, **_told(missing), **more})
        case Vectors(vectors):
            return json.dumps({"vectors": [_packed(vector) for vector in vectors]})
        case Value(value, is_rating):
            return json.dumps({"value": value, **({"is_rating": True} if is_rating else {})})
        case Verdict(ratings):
            return json.dumps({"ratings": ratings})
        case Failure(reason, detail):
            return json.dumps({"failure": [reason, detail]})


def from_json(stored: str) -> Answer:
    """The answer that `to_json` was given.

    Raises:
        ValueError: the text is not an answer.
    """
    content: Any = json.loads(stored)
    match content:
        case {"texts": texts}:
            return Completion(tuple(_text(*row) for row in texts), _missing(content))
        case {"probabilities": probabilities}:
            rows = tuple(tuple(row) for row in probabilities)
            return Choice(rows, _missing(content), *(tuple(content.get(name, ())) for name in ("unseen", "holes")))
        case {"vectors": vectors}:
            return Vectors(tuple(_unpacked(vector) for vector in vectors))
        case {"value": value}:
            return Value(value, bool(content.get("is_rating", False)))
        case {"ratings": ratings}:
            return Verdict(tuple(ratings))
        case {"failure": [reason, detail]}:
            return Failure(reason, detail)
    raise ValueError(f"not an answer: {stored[:40]}")


def read_answer(request: Request, stored: str) -> Answer | None:
    """The answer to `request` that was stored; None where it is none that can be used."""
    try:
        answer = from_json(stored)
        return None if fault(request, answer) else answer
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, struct.error):
        return None


def fault(request: Request, answer: Answer) -> str:
    """Why an answer cannot be the one to `request`; empty where it can."""
    match request, answer:
        case _, Failure(reason, detail):
            return _not_text((reason, detail))
        case Generate(n=n), Completion(texts, missing):
            said = chain.from_iterable((text.text, text.thinking) for text in texts)
            told = chain.from_iterable((failure.reason, failure.detail) for failure in missing)
            is_counted = all(type(text.n_tokens) is int and 0 <= text.n_tokens <= MOST_TOKENS for text in texts)
            return (
                _not_text(chain(said, told))
                or ("" if texts and len(texts) + len(missing) == n else f"{len(texts)} texts where {n} were asked for")
                or ("" if is_counted else "a count of tokens is none")
                or ("" if all(text.stop in ("end", "length") for text in texts) else "an end of no known kind")
            )
        case Choose(contexts, choices), Choice(rows, missing, unseen, holes):
            told = chain.from_iterable((failure.reason, failure.detail) for failure in missing)
            is_whole = len(rows) + len(missing) == len(contexts) and all(len(row) == len(choices) for row in rows)
            is_probable = is_whole and all(0.0 <= p <= 1.0 + ROUNDING for row in (*rows, unseen) for p in row)
            is_placed = not holes or (len({*holes}) == len(missing) and {*holes} <= {*range(len(contexts))})
            if len(unseen) not in (0, len(rows)) or not is_placed:
                return "what is missing has no place"
            return _not_text(told) or ("" if is_probable else "a probability is none, or is missing")
        case Embed(layers=layers, spans=spans), Vectors(vectors):
            is_whole = len(vectors) == len(layers) * len(spans) and all(vectors)
            return "" if is_whole and all(map(_finite, vectors)) else "a hidden state is not finite, or is missing"
        case Classify(), Value(value):
            return "" if math.isfinite(value) else "the value is not finite"
        case Rate(objectives=objectives), Verdict(ratings):
            is_whole = len(ratings) == len(objectives) and all(r is None or 1.0 <= r <= 10.0 for r in ratings)
            return "" if is_whole else "a rating is not on 1..10, or is missing"
    return "an answer of another kind"


def n_passing(answer: Answer) -> int:
    """Draws or contexts that failed for a reason that may pass, where others did not."""
    missing = answer.missing if isinstance(answer, Completion | Choice) else ()
    return sum(map(_may_pass, missing))


def rest_of(request: Request, came: Answer) -> Request:
    """The request for those draws or contexts alone that did not come."""
    if isinstance(request, Choose):
        assert isinstance(came, Choice)
        both = zip(request.contexts, came.by_context, strict=True)
        return replace(request, contexts=tuple(context for context, found in both if _may_pass(found)))
    assert isinstance(request, Generate)
    n = n_passing(came)
    return replace(request, n=n, seed=request.seed + request.n - n)


def together(came: Answer, rest: Answer) -> Answer:
    """What came and the rest, as if it had come at once."""
    match came, rest:
        case Completion(), Completion():
            kept = tuple(failure for failure in came.missing if not _may_pass(failure))
            return Completion(came.texts + rest.texts, kept + rest.missing)
        case Completion(), Failure():
            return replace(came, missing=tuple(rest if _may_pass(failure) else failure for failure in came.missing))
        case Choice(), Choice() | Failure():
            found = iter(rest.by_context if isinstance(rest, Choice) else (rest,) * n_passing(came))
            return Choice.of([next(found) if _may_pass(old) else old for old in came.by_context])
    raise AssertionError(f"{type(came).__name__} and {type(rest).__name__} are no answers to one request")


def _may_pass(found: object) -> bool:
    return isinstance(found, Failure) and found.reason in PASSING


def _told(missing: Iterable[Failure]) -> dict[str, list[list[str]]]:
    told = [[failure.reason, failure.detail] for failure in missing]
    return {"missing": told} if told else {}


def _missing(content: dict[str, Any]) -> tuple[Failure, ...]:
    return tuple(Failure(*failure) for failure in content.get("missing", ()))


def _not_text(parts: Iterable[object]) -> str:
    for part in parts:
        if not isinstance(part, str):
            return "a text is none"
        try:
            part.encode()
        except UnicodeEncodeError:
            return "a text holds half a character"
    return ""


def _finite(vector: tuple[float, ...]) -> bool:
    return all(map(math.isfinite, vector))


def _row(text: Text) -> list[object]:
    """Thinking, where there is any, stands last: older versions wrote none."""
    return [text.text, text.n_tokens, text.stop, *([text.thinking] if text.thinking else [])]


def _text(written: str, n_tokens: int, stop: Any, thinking: str = "") -> Text:
    """Older versions left the thinking in the text."""
    return Text(written, n_tokens, stop, thinking) if thinking else Text.of(written, n_tokens, stop)


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    data = base64.b64decode(text)
    return struct.unpack(f"<{len(data) // 4}f", data)
