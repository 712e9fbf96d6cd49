"""The view of a whole run on a terminal: stages done and to come, the step in hand, what is known so far, the rest.

Pure: a state goes in, lines of text come out. Knows no files, no processes and no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from selfpriority.plain_text import clean

BAR = 24
"""Columns of a bar; half of it on a narrow terminal."""
NARROW = 100
"""Columns under which a terminal is narrow."""
QUIET = 3.0
"""Seconds without a word after which a step whose work is done says that it is finishing."""
MARKS = {"to come": "·", "now": "▸", "done": "✓", "failed": "✗"}
STYLES = {"to come": "dim", "now": "bold", "done": "green", "failed": "red"}


@dataclass
class Now:
    """The step in hand."""

    step: str
    done: int
    total: int
    rate: str
    """In words, with its unit."""
    seconds: float = 0.0
    """Since it began, when it was last heard of."""
    rest: float | None = None
    """Seconds that remain of it; None: not known yet."""


@dataclass
class Stage:
    """One part of the run, such as the collection of a round; several may be under way at once."""

    title: str
    state: str = "to come"
    """A key of `MARKS`."""
    seconds: float | None = None
    """How long it took; None: not known, or not done."""
    said: str = ""
    """What became known: the judge's verdict, or where the prompts went."""
    now: Now | None = None
    """Its step in hand; None: its process has not said a word."""
    silence: float = 0.0
    """Seconds since that step was last heard of."""
    starting: float = 0.0
    """Seconds since it began."""
    planned: float | None = None
    """Seconds the step in hand takes by the plan and the pace of the steps before it; None: not known."""


@dataclass
class Screen:
    """All that the view shows."""

    title: str
    stages: list[Stage] = field(default_factory=list)
    seconds: float = 0.0
    """Since the command began."""
    rest: str = ""
    """Of the whole run, in words; empty: not known yet."""
    starting: float = 0.0
    """Seconds since the last stage ended, or since the command began."""
    usual_start: float | None = None
    """Seconds the last stage took to say its first word; None: no stage has said one."""

    def lines(self, width: int, height: int) -> list[Text]:
        """The view in at most `height` lines of at most `width` columns; of many stages those around the present ones.

        Args:
            width: columns of the terminal.
            height: lines of the terminal.
        """
        told = [_fitted(Text(f"{clean(self.title)} · {self._time()}", "bold"), width)]
        stages = _around_the_present(self.stages, max(1, (height - 6) // 2))
        for stage in stages:
            told += _stage(stage, width)
            if stage.state == "now":
                told.append(_now(stage, self, width))
        if not any(stage.state == "now" for stage in stages) and not self._end():
            told.append(_starting(self.starting, self, width))
        return told[: max(2, height - 1)]

    def _end(self) -> str:
        """How the run ended; empty: it goes on."""
        states = {stage.state for stage in self.stages}
        return "stopped" if "failed" in states else "done" if states == {"done"} else ""

    def _time(self) -> str:
        if end := self._end():
            return f"{end} after {duration(self.seconds)}"
        return f"{duration(self.seconds)} so far, {f'{self.rest} to go' if self.rest else 'the rest is not known yet'}"


def duration(seconds: float) -> str:
    """A time in words, of two units at most: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def _around_the_present(stages: Sequence[Stage], most: int) -> Sequence[Stage]:
    if sum(stage.state == "now" for stage in stages) > 1:  # of several those are shown that go on, and what comes
        stages = [stage for stage in stages if stage.state != "done"]
    present = next((n for n, stage in enumerate(stages) if stage.state != "done"), len(stages) - 1)
    first = max(0, min(present - most // 2, len(stages) - most))
    return stages[first : first + most]


def _stage(stage: Stage, width: int) -> Iterator[Text]:
    took = f" {duration(stage.seconds)}" if stage.seconds and stage.state == "done" else ""
    yield _fitted(Text(f" {MARKS[stage.state]} {clean(stage.title)}{took}", STYLES[stage.state]), width)
    if stage.said:
        yield from (Text(f"     {line}", "dim") for line in _wrapped(clean(stage.said), width - 5))


def _starting(seconds: float, screen: Screen, width: int) -> Text:
    rest = _about(screen.usual_start, seconds)
    return _fitted(
        Text(f"     {'|/-'[int(screen.seconds) % 3]} starting: reading code and model, {rest}", "dim"), width
    )


def _now(stage: Stage, screen: Screen, width: int) -> Text:
    if (now := stage.now) is None:
        return _starting(stage.starting, screen, width)
    bar = BAR if width >= NARROW else BAR // 2
    full = round(bar * now.done / now.total) if now.total else 0
    if 0 < now.total <= now.done and stage.silence >= QUIET:  # all are answered; what they say is being worked out
        rest = f"finishing for {duration(stage.silence)}"
    elif now.rest is None:
        rest = _about(stage.planned, now.seconds + stage.silence)
    else:
        rest = f"{duration(max(now.rest - stage.silence, 0.0))} to go"
    line = Text(f"     {clean(now.step)} ")
    line.append("━" * full, "green").append("╌" * (bar - full), "dim")
    line.append(f" {now.done:,}/{now.total:,}, {rest}")
    if now.rate:
        line.append(f", {now.rate}", "dim")
    return _fitted(line, width)


def _about(usual: float | None, gone: float) -> str:
    """What is likely to remain; where that is not known or over, how long it has been."""
    if usual is None or gone >= usual:
        return f"{duration(gone)} so far"
    return f"about {duration(usual - gone)} to go"


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Words in lines; at most three of them."""
    lines, line = 0, ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            if lines == 2:
                break
            yield line
            lines, line = lines + 1, ""
        line = f"{line} {word}".strip()
    if line:
        yield line[:width]


def _fitted(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
