"""Requests to cache keys, answers to JSON and back without loss (vectors as little-endian float32)."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import asdict
from typing import Any

from selfpriority.language_model import Answer, Choice, Completion, Failure, Request, Text, Value, Vectors


def key_of(fingerprint: str, request: Request) -> str:
    """SHA-256 over the model's fingerprint, the kind of request and all its fields."""
    content = [fingerprint, type(request).__name__, asdict(request)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_json(answer: Answer) -> str:
    """The answer as one JSON object; its first key is the kind."""
    match answer:
        case Completion(texts, missing):
            written: dict[str, object] = {"texts": [[text.text, text.n_tokens, text.stop] for text in texts]}
            if missing:
                written["missing"] = [[failure.reason, failure.detail] for failure in missing]
            return json.dumps(written)
        case Choice(probabilities):
            return json.dumps({"probabilities": probabilities})
        case Vectors(vectors):
            return json.dumps({"vectors": [_packed(vector) for vector in vectors]})
        case Value(value):
            return json.dumps({"value": value})
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
            missing = tuple(Failure(*failure) for failure in content.get("missing", ()))
            return Completion(tuple(Text(text, n_tokens, stop) for text, n_tokens, stop in texts), missing)
        case {"probabilities": probabilities}:
            return Choice(tuple(tuple(row) for row in probabilities))
        case {"vectors": vectors}:
            return Vectors(tuple(_unpacked(vector) for vector in vectors))
        case {"value": value}:
            return Value(value)
        case {"failure": [reason, detail]}:
            return Failure(reason, detail)
    raise ValueError(f"not an answer: {stored[:40]}")


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    data = base64.b64decode(text)
    return struct.unpack(f"<{len(data) // 4}f", data)
