"""How long a step takes and what it costs, from rates that were measured or given and prices that were given.

Nothing is guessed: without them there is no time and no cost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from selfpriority.errors import InputError
from selfpriority.planning.requests import PlannedStep
from selfpriority.recipe import OpenaiBackend
from selfpriority.run_records import Manifest

_MILLION = 1_000_000
_SYSTEM = re.compile(r"-[^@]*")


class Pace(Protocol):
    """Whoever knows how long steps take."""

    @property
    def source(self) -> str:
        """Where that comes from, in words."""
        ...

    def seconds(self, step: PlannedStep) -> float | None:
        """Of one step; None where it is not known."""
        ...


@dataclass(frozen=True)
class Rates:
    """Tokens a second that the user gave."""

    prefill: float | None = None
    generate: float | None = None
    train: float | None = None
    source: str = "--rates"

    def seconds(self, step: PlannedStep) -> float | None:
        """The sum of its parts; None if one of them is not known."""
        read = sum(asked.prompt_tokens + asked.forward_tokens for asked in step.asked)
        written = sum(asked.new_tokens for asked in step.asked)
        parts = ((read, self.prefill), (written, self.generate), (step.trained_tokens, self.train))
        if any(n and rate is None for n, rate in parts) or any(asked.settings is None for asked in step.asked):
            return None  # how long a function of the user's own takes is in no rate of tokens
        return sum(n / rate for n, rate in parts if n and rate is not None)


@dataclass(frozen=True)
class _Spent:
    seconds: float = 0.0
    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Earlier:
    """What the steps of an earlier run took, by kind of step."""

    source: str
    kinds: Mapping[str, _Spent] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, name: str) -> Earlier:
        """From the manifest of the run `name`; steps whose answers came from disk say nothing of time."""
        kinds: dict[str, _Spent] = {}
        for step, entry in manifest.steps.items():
            asked = entry.requests - entry.cached
            if entry.requests and not asked:
                continue
            before = kinds.get(kind_of(step), _Spent())
            kinds[kind_of(step)] = _Spent(
                before.seconds + entry.seconds, before.requests + asked, before.tokens + entry.tokens
            )
        return cls(f"the manifest of {name}", kinds)

    def seconds(self, step: PlannedStep) -> float | None:
        """By tokens where the step writes answers or trains, else by requests: what a manifest counts."""
        spent = self.kinds.get(kind_of(step.name), _Spent())
        n_tokens = step.trained_tokens or sum(asked.new_tokens - asked.shown_tokens for asked in step.asked)
        if n_tokens and spent.tokens:
            return n_tokens * spent.seconds / spent.tokens
        if step.requests and spent.requests and not n_tokens:
            return step.requests * spent.seconds / spent.requests
        return None if n_tokens or step.requests else 0.0


@dataclass(frozen=True)
class Prices:
    """Of a million tokens read and written by a server."""

    read: float
    written: float

    def cost(self, step: PlannedStep) -> float:
        """Of what the step asks of servers; 0 for what runs here."""
        served = [asked for asked in step.asked if isinstance(asked.settings, OpenaiBackend)]
        read = sum(asked.prompt_tokens + asked.forward_tokens for asked in served)
        return (read * self.read + sum(asked.new_tokens for asked in served) * self.written) / _MILLION


def rates(text: str) -> Rates:
    """Of `prefill=3000,generate=600,train=500`, one or more of them.

    Raises:
        InputError: another name, or no positive number.
    """
    given = _numbers("--rates", text, ["prefill", "generate", "train"], least=1e-9)
    return Rates(given.get("prefill"), given.get("generate"), given.get("train"))


def prices(text: str) -> Prices:
    """Of `in=0.5,out=1.5`, both of them.

    Raises:
        InputError: another name, one missing, or no number from 0 up.
    """
    given = _numbers("--prices", text, ["in", "out"], least=0.0)
    if len(given) < 2:
        raise InputError(f"--prices: {text!r} is half of in=PRICE,out=PRICE of a million tokens")
    return Prices(given["in"], given["out"])


def _numbers(option: str, text: str, names: list[str], least: float) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in names or not math.isfinite(number) or number < least:
            allowed = ",".join(f"{known}=NUMBER" for known in names)
            raise InputError(f"{option}: {part.strip()!r}; allowed: {allowed}, {'positive' if least else '0 or more'}")
        given[name] = number
    return given


def kind_of(step: str) -> str:
    """What a step is called whatever its round and system: `sample` of every round, `verdicts@name` of every system."""
    return _SYSTEM.sub("", step.rpartition("/")[2])
