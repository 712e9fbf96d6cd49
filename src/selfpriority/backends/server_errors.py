"""What a server's error means: of this request, of the moment, of the recipe, or of the account.

Status and words are weighed together, for servers use either one loosely: a moderation comes as 403, a used-up account
as 400, an overload as 200 with an error inside. The words are looked at for known signs and never shown: they may quote
the request, which may be harmful, or the key. Knows no connection.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

Kind = Literal["key", "account", "model", "moved", "again", "refused", "too_long", "form", "rejected"]
"""`key`, `model`, `moved`, `form`: the recipe's; `account`: the account's; `again`: of the moment; the rest: of the
request, `rejected` where nothing says why."""

_ACCOUNT = (
    "insufficient_quota", "insufficient balance", "insufficient_balance", "insufficient credits", "credit balance",
    "out of credits", "usage limit", "spending limit", "billing", "exceeded your current quota", "payment required",
    "arrearage", "account_deactivated", "quota exceeded for", "free tier",
)  # fmt: skip
_KEY = (
    "api key not valid", "invalid api key", "invalid_api_key", "incorrect api key", "api_key_invalid",
    "authentication", "unauthorized", "no api key",
)  # fmt: skip
_FILTER = (
    "content_filter", "content filter", "content_policy", "content policy", "responsibleai",
    "content management policy", "moderation", "flagged", "safety system", "safety_settings", "prohibited_content",
    "data_inspection_failed",
    "inappropriate content",
)  # fmt: skip
_TOO_LONG = (
    "context_length", "context length", "context_size", "context size", "context window", "maximum context", "too long",
    "too many tokens", "max_model_len", "exceeds the model", "input length", "token limit", "string_above_max_length",
)  # fmt: skip
_NOT_TAKEN = (
    "unsupported", "not supported", "does not support", "unrecognized", "unknown parameter", "unknown field",
    "extra inputs", "extra fields", "not permitted", "only the default", "unexpected keyword", "not allowed", "invalid",
)  # fmt: skip
PARAMETERS = ("max_completion_tokens", "max_tokens", "top_logprobs", "logprobs", "temperature", "top_p", "seed", "n")
"""What a request says beside model and messages; a longer name before one that it holds."""
_CODES = {"rate_limit": 429, "overloaded": 503, "server_error": 500, "unavailable": 503, "timeout": 408}
_LENGTH = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


@dataclass(frozen=True)
class ServerError:
    """One error, as far as it can be told."""

    kind: Kind
    status: int
    parameter: str = ""
    """Of a `form` that is refused: the parameter."""
    pause: float = 0.0
    """Seconds that the server asks to wait."""
    is_asked: bool = False
    """Whether `Retry-After` says so; else the pause is read off the limits, of which another may be the one."""


def server_error(status: int, words: str, headers: Mapping[str, str] | None = None) -> ServerError:
    """What an HTTP error, or an error inside a reply, means.

    Args:
        status: HTTP status, or the code that stands for one.
        words: the body.
        headers: names in any case.
    """
    known = words.lower()
    kind, parameter = _kind(status, known), ""
    if kind == "rejected" and (parameter := _parameter(words)):
        kind = "form"
    if kind != "again":
        return ServerError(kind, status, parameter)
    is_asked = any(name.lower().startswith("retry-after") for name in headers or {})
    return ServerError(kind, status, parameter, pause_wanted(headers or {}), is_asked)


def _kind(status: int, known: str) -> Kind:
    def says(signs: tuple[str, ...]) -> bool:
        return any(sign in known for sign in signs)

    if 300 <= status < 400:
        return "moved"
    if status == 401:
        return "key"
    if status == 402 or (status in (400, 403, 429) and says(_ACCOUNT)):
        return "account"
    if status == 413 or (status != 429 and says(_TOO_LONG)):
        return "too_long"
    if status == 403:
        return "refused" if says(_FILTER) and not says(_KEY) else "key"
    if status == 404:
        return "model"
    if status in (408, 409, 425, 429) or status >= 500:
        return "again"
    if says(_KEY):
        return "key"
    return "refused" if says(_FILTER) else "rejected"


def error_inside(reply: Any) -> ServerError | None:
    """The error in a reply that came as a success; None where there is none."""
    error = reply.get("error") if isinstance(reply, dict) and not reply.get("choices") else None
    if not error:
        return None
    words = json.dumps(error)
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    if status is None and isinstance(code, str) and code.isdecimal() and 400 <= int(code[:4]) < 600:
        status = int(code)
    named = (number for sign, number in _CODES.items() if sign in words.lower())
    return server_error(status or next(named, 400), words)


def _parameter(words: str) -> str:
    """The parameter that an error says is not taken; empty where it names none."""
    known = words.lower()
    if not any(sign in known for sign in _NOT_TAKEN):
        return ""
    named = re.search(r'"param"\s*:\s*"(\w+)"', words)
    if named and named[1] in PARAMETERS:
        return named[1]
    quoted = {name for name in PARAMETERS if re.search(rf"[`'\"]{name}[`'\"]", words)}
    plain = {name for name in PARAMETERS if len(name) > 1 and re.search(rf"\b{name}\b", words)}
    # "use 'max_completion_tokens' instead of 'max_tokens'": the one that was sent is the one refused
    found = [name for name in PARAMETERS if name in quoted or (not quoted and name in plain)]
    return "max_tokens" if {"max_tokens", "max_completion_tokens"} <= set(found) else found[0] if found else ""


def pause_wanted(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait before the next try; 0 where it does not say.

    `Retry-After` counts seconds or names a date; `retry-after-ms` counts milliseconds; the headers of limits
    (`x-ratelimit-reset-requests`, `anthropic-ratelimit-tokens-reset`, `ratelimit-reset`) hold a length of time such as
    `1m30s`, a number of seconds, a moment since 1970 in seconds or milliseconds, or a date. Of several limits those
    count of which nothing remains, where the server says so.
    """
    low = {name.lower(): value.strip() for name, value in headers.items()}
    if "retry-after-ms" in low:
        return _number(low["retry-after-ms"]) / 1000.0
    if "retry-after" in low:
        return _number(low["retry-after"]) or _until_date(low["retry-after"])
    resets = {name: value for name, value in low.items() if "ratelimit" in name and "reset" in name}
    used_up = [value for name, value in resets.items() if low.get(name.replace("reset", "remaining")) in ("0", "0.0")]
    return max((_until_reset(value) for value in used_up or resets.values()), default=0.0)


def _until_date(text: str) -> float:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _until_reset(text: str) -> float:
    number = _number(text)
    if number > 1e11:
        return max(0.0, number / 1000.0 - time.time())
    if number > 1e8:
        return max(0.0, number - time.time())
    parts = _LENGTH.fullmatch(text)
    if number:
        return number
    if parts is None:
        return _until_iso_date(text)
    hours, minutes, seconds, milliseconds = (float(part or 0.0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000


def _until_iso_date(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        return max(0.0, moment.timestamp() - time.time()) if moment.tzinfo else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0.0 < number < float("inf") else 0.0
