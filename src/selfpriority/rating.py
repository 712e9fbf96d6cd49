"""What a judge is: (prompt, answer) pairs in, one verdict per objective out.

`words` is all that is specific to reading a verdict out of text or digit probabilities; who asks is in
`judges/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from selfpriority.records import Prompt, Rating, Ratings, Response, Unrated

LOWEST, HIGHEST = 1.0, 10.0
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Item:
    """One answer to be rated.

    Examples:
        >>> prompt = Prompt("q", (Message("user", "How do I bake bread?"),))
        >>> Item(prompt, Response("q/y1", "q", "Mix, wait, bake.", "end", 6)).response.n_tokens
        6
    """

    prompt: Prompt
    response: Response


class Judge(Protocol):
    """Whoever rates. Implementations in `judges/`: `words.py`, `battery.py`, `probe.py`, `reward.py`, `python.py`.

    Examples:
        >>> class Brief:
        ...     objectives, fingerprint = ("brevity",), "brief-1"
        ...
        ...     def rate(self, items):
        ...         return [(Rating(max(1.0, 10 - item.response.n_tokens / 50)),) for item in items]
        >>> prompt = Prompt("q", (Message("user", "How do I bake bread?"),))
        >>> Brief().rate([Item(prompt, Response("q/y1", "q", "Mix, wait, bake.", "end", 50))])[0][0].value
        9.0
    """

    @property
    def fingerprint(self) -> str:
        """Content hash of everything a verdict depends on: model, wording, heads."""
        ...

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives it rates, in priority order."""
        ...

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item, in order."""
        ...


def expected_rating(probabilities: Sequence[float], mass_floor: float) -> Rating | Unrated:
    """Expected rating from the probabilities of the digits 0..9 at one position, on 1..10 (docs/judging.md).

    Args:
        probabilities: ten probabilities, not renormalised.
        mass_floor: below this captured mass the answer is unrated, never a number.
    """
    mass = sum(probabilities)
    if mass < mass_floor or mass <= 0.0:
        return Unrated("low_mass", f"digits hold {mass:.3f} of the probability, floor {mass_floor}")
    mean = sum(digit * p for digit, p in enumerate(probabilities)) / mass
    variance = sum((digit - mean) ** 2 * p for digit, p in enumerate(probabilities)) / mass
    return Rating(value=mean + LOWEST, mass=min(mass, 1.0), variance=variance)


_FIGURE = r"(?<![\w.,])(?P<sign>[-\N{MINUS SIGN}])?(?P<value>\d+(?:[.,]\d+)?)(?![\w]|[.,]\d)"
_MARKS = r"(?:[^\w\n,.;:/%<>-]|_){0,12}"  # what may stand around a number: bold, brackets, blanks
_SCALE = (
    rf"(?P<percent>{_MARKS}%)?"
    rf"(?:{_MARKS}(?:/|(?:out\s+)?of\b|(?:on\s+)?(?:a\s+)?scale\b(?:\s*(?:of|from))?\s*\d+\s*(?:-|to|\N{{EN DASH}}))"
    rf"{_MARKS}(?P<top>\d+))?"
)
_NUMBERED = re.compile(
    r"(?:objective|criterion|question|answer|response|part|item|aspect|round|turn|no\.?|#)\s*\d+", re.I
)
"""What a label may call what it rates: no scale."""
_BEFORE = r"^[^\w\n:=]*(?:(?:my|the|final|overall|so|thus|therefore)(?:[^\S\n]|,)+)*"
_RATING_LINE = re.compile(_BEFORE + r"(?:rating|score|verdict)\b(?P<label>[^:=\n]*)[:=](?P<rest>.*)$", re.I | re.M)
_VERDICT_LINE = re.compile(_BEFORE + r"verdict\b[^:=\n]*[:=](?P<rest>.*)$", re.I | re.M)
_OPENS = re.compile(r"(?:[^\w\-\N{MINUS SIGN}]|\\?boxed\b)*")
_FIRST_FIGURE = re.compile(_FIGURE + _SCALE + r"(?P<range>\s*(?:-|to|\N{EN DASH})\s*\d)?", re.I)
_IN_PROSE = re.compile(
    r"(?:(?:rating|score|verdict)\s+is\W{0,4}|\[\[\s*|\\?boxed\{\s*)" + _FIGURE + _SCALE  # the rating is 7, [[7]]
    + "|" + _FIGURE.replace("?P<sign>", "?P<sign2>").replace("?P<value>", "?P<value2>")
    + r"\s*(?:/|out\s+of)\s*(?P<top2>\d+)\b"  # 7/10
    + r"|^[^\w\n\-]*" + _FIGURE.replace("?P<sign>", "?P<sign3>").replace("?P<value>", "?P<value3>")
    + r"(?P<percent3>\s*%)?\W*$",  # 7, alone on its line
    re.I | re.M,
)  # fmt: skip
_THOUGHT = re.compile(r"^.*</(?:think|thinking|thought|reasoning)>", re.S | re.I)
_THINKING = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.I)
_SIDE = re.compile(r"\W*(?:(?:is|answer|response|the|winner)\W+)*(?P<side>[AB]|tie|draw|equal)\b(?P<after>.*)", re.I)
_LOSES = re.compile(r"\W{0,12}(?:(?<!\w)<|is\W+(?:\w+\W+)?(?:worse|weaker|inferior)\b|loses\b)", re.I)
"""Behind the side that a line names first: the other one is preferred."""
_UNCLEAR = re.compile(r"\W{0,12}is\W+(?:\w+\W+)?(?:not|less)\b", re.I)
"""Behind it: less of what, is not read."""
_LONGEST_SIDE = 300
"""Characters of a line in which its side is looked for; the patterns below take the square of it."""
_SIDE_IN_PROSE = re.compile(r"verdict\s+is\W+(?P<rest>.*)$", re.I | re.M)


def verbal_rating(text: str, is_cut: bool = False) -> Rating | Unrated:
    """The rating in a judge's text (docs/judging.md): the last line of the form that was asked, `Rating: 7`, wins.

    Without such a line the last marked number in a whole text counts ("the rating is 7", "7/10", "[[7]]", 7 alone on
    its line). A text that was cut before its rating has none, whatever its reasoning weighed. A number on another scale
    ("4/5", "80 %", "Rating (1-100): 70") is unrated, never rescaled. What stands in a thinking block is no verdict.

    Args:
        text: what the judge wrote.
        is_cut: whether it stopped at the length limit.
    """
    said = _after_thinking(text)
    if said is None:
        return Unrated("cut", "the judge's text was cut while it was thinking")
    lines = [(line, _figure(line["label"], line["rest"])) for line in _RATING_LINE.finditer(said)]
    given = [(line, verdict) for line, verdict in lines if verdict is not None]
    if given:
        line, verdict = given[-1]
        if is_cut and line.end() == len(said) and line["rest"].rstrip()[-1:].isdigit():
            return Unrated("cut", "the judge's text was cut inside a number")
        return verdict
    if is_cut:
        return Unrated("cut", "the judge's text was cut before its rating")
    found = [match.groupdict() for match in _IN_PROSE.finditer(said)]
    if not found:
        return Unrated("no_rating", "the judge's text holds no rating")
    parts = {name.rstrip("23"): part for name, part in found[-1].items() if part is not None}
    return _on_scale(parts)


def _after_thinking(text: str) -> str | None:
    """What follows the last closed thinking block; None where one is still open."""
    said = _THOUGHT.sub("", text)
    return None if _THINKING.search(said) else said


def _figure(label: str, rest: str) -> Rating | Unrated | None:
    """The number that a line of the asked form gives; None where it gives none."""
    opening = _OPENS.match(rest)
    figure = _FIRST_FIGURE.match(rest, opening.end() if opening else 0)
    if figure is None or figure["range"]:
        return None
    tops = re.findall(r"\d+", _NUMBERED.sub("", label))  # "Rating (1-5)" names its scale
    parts = {name: part for name, part in figure.groupdict().items() if part is not None}
    return _on_scale({**({"top": tops[-1]} if tops else {}), **parts})


def _on_scale(parts: dict[str, str]) -> Rating | Unrated:
    """A number as it was written, with what was said of its scale."""
    value = float(parts["value"].replace(",", ".")) * (-1.0 if "sign" in parts else 1.0)
    if "percent" in parts or parts.get("top", "10") != "10":
        scale = "%" if "percent" in parts else f"a scale up to {parts['top']}"
        return Unrated("other_scale", f"rating {value:g} is on {scale}, not on 1..10")
    if not LOWEST <= value <= HIGHEST:
        return Unrated("out_of_range", f"rating {value:g} is outside 1..10")
    return Rating(value=value)


def written_side(text: str, is_cut: bool = False) -> Literal["A", "B", "tie"] | None:
    """Which of two answers a judge's text prefers, by the last line of the asked form, `Verdict: A`; None: no side.

    Args:
        text: what the judge wrote.
        is_cut: whether it stopped at the length limit; then only a line of the asked form counts.
    """
    said = _after_thinking(text)
    if said is None:
        return None
    rests = [line["rest"] for line in _VERDICT_LINE.finditer(said)]
    if not rests and not is_cut:
        rests = [match["rest"] for match in _SIDE_IN_PROSE.finditer(said)]
    return _side(rests[-1]) if rests else None


def _side(rest: str) -> Literal["A", "B", "tie"] | None:
    rest = rest.strip()[:_LONGEST_SIDE]
    if re.match(
        r"\W*(?:it\s+is\s+|it's\s+)?an?\s+(?:clear\s+)?(?:tie|draw)\b|\W*A\s*(?:=|and)\s*B\b.{0,30}$", rest, re.I
    ):
        return "tie" if "=" in rest or re.search("tie|draw|equal", rest, re.I) else None
    match = _SIDE.match(rest)
    if match is None:
        return None
    side, after = match["side"], match["after"]
    if side.lower() in ("tie", "draw", "equal"):
        return "tie"
    if side.islower() and re.match(r"\W*\w", after):  # "a good answer": an article
        return None
    if re.match(r"\W*(?:/|or|and|&|,)\W*(?:answer\W+|response\W+)?[AB]\b", after, re.I) or _UNCLEAR.match(after):
        return None
    return "A" if (side.upper() == "A") != bool(_LOSES.match(after)) else "B"
