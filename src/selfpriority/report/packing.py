"""Packs every prompt of a run into what one page can carry: an index to search, and blocks to open one at a time.

Both are JSON, deflated and in base64, so that no text can end the script element it stands in. What does not fit is cut
by a rule that the page states, never chosen. Knows nothing of run directories.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from selfpriority.plain_text import clean
from selfpriority.report.catalogue import Entry, Shown

Json = dict[str, Any]

MOST_BYTES = 14_000_000
"""Of index and blocks in base64; figures and tables come on top, and the file stays under 15 MB."""
BLOCK_CHARACTERS = 400_000
"""A block is unpacked when one of its prompts is opened: large enough to compress well, small enough to be quick."""
SEARCHED_CHARACTERS = 400
INDEX_CHARACTERS = 4_000_000
SAMPLE = 200


@dataclass(frozen=True)
class Cut:
    """Longest texts, in characters; None is whole."""

    candidates: int | None = None
    answers: int | None = None


CUTS = (
    Cut(),
    *(Cut(n) for n in (2000, 1400, 1000, 700, 500, 350, 250, 180, 120)),
    *(Cut(120, n) for n in (2000, 1000)),
    *(Cut(0, n) for n in (1000, 500, 100)),
)
"""Tried in this order: what every system answered to the held-out prompts stays whole the longest."""


@dataclass(frozen=True)
class Packed:
    """What the page embeds."""

    index: str
    blocks: tuple[str, ...]
    notes: tuple[str, ...]
    """What is not as whole as in the run directory, in words."""

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.index) + sum(map(len, self.blocks))


def pack(entries: Sequence[Entry], about: Json, most: int = MOST_BYTES) -> Packed:
    """The entries within `most` bytes; `about` goes into the index as it is."""
    kept = list(entries)
    while True:
        columns = _index(kept)
        room = most - len(_deflated({**about, **columns}))
        for cut in CUTS:
            if _estimate(kept, cut) <= room:
                packed = _packed(kept, cut, {**about, **columns}, len(entries))
                if packed.size <= most or len(kept) <= 1:
                    return packed
        kept = kept[::2]  # evenly, so that nobody chose them


def _estimate(entries: Sequence[Entry], cut: Cut) -> float:
    """Bytes of the blocks, from a sample of the entries spread evenly over all."""
    sample = entries[:: max(1, len(entries) // SAMPLE)]
    if len(entries) <= 1:
        return 0.0
    return len(_deflated([_body(entry, cut) for entry in sample])) / len(sample) * len(entries)


def _packed(entries: Sequence[Entry], cut: Cut, index: Json, n_all: int) -> Packed:
    blocks, starts = [], []
    for start, bodies in _blocks(entries, cut):
        starts.append(start)
        blocks.append(_deflated(bodies))
    return Packed(_deflated({**index, "blocks": starts}), tuple(blocks), tuple(_notes(entries, cut, n_all)))


def _blocks(entries: Sequence[Entry], cut: Cut) -> Iterator[tuple[int, list[Json]]]:
    """(number of the first entry, bodies) of each block."""
    start, bodies, size = 0, [], 0
    for number, entry in enumerate(entries):
        body = _body(entry, cut)
        bodies.append(body)
        size += sum(len(answer["text"]) for answer in body["answers"]) + len(entry.text) + 40 * len(entry.pairs)
        if size >= BLOCK_CHARACTERS:
            yield start, bodies
            start, bodies, size = number + 1, [], 0
    if bodies:
        yield start, bodies


def _body(entry: Entry, cut: Cut) -> Json:
    return {
        "turns": [[clean(turn.role), clean(turn.content)] for turn in entry.turns],
        "answers": [_answer(answer, cut) for answer in entry.answers],
        "pairs": [[p.chosen, p.rejected, p.decided_by, round(p.distance, 3), round(p.gap, 3)] for p in entry.pairs],
        "drops": [[clean(part) for part in (d.answer, d.reason, d.detail)] for d in entry.drops],
    }


def _answer(answer: Shown, cut: Cut) -> Json:
    limit = cut.answers if answer.role == "system" else cut.candidates
    text = clean(answer.text if limit is None else answer.text[:limit])
    packed: Json = {
        "name": clean(answer.name),
        "role": answer.role,
        "text": text,
        "scores": [None if score is None else round(score, 3) for score in answer.scores],
        "tags": [clean(tag) for tag in answer.tags],
    }
    if limit is not None and len(answer.text) > limit:
        packed["length"] = len(answer.text)
    return packed


def _index(entries: Sequence[Entry]) -> Json:
    """One column a field, so that ten thousand rows stay small and quick to read."""
    parts, kinds, outcomes = (
        list(dict.fromkeys(clean(getattr(entry, name)) for entry in entries)) for name in ("part", "kind", "outcome")
    )
    systems = list(dict.fromkeys(answer.name for e in entries if e.is_held_out for answer in e.answers))
    tested = {clean(entry.part) for entry in entries if entry.is_held_out}
    searched = min(SEARCHED_CHARACTERS, INDEX_CHARACTERS // max(1, len(entries)))
    return {
        "parts": parts,
        "held_out": [part in tested for part in parts],
        "kinds": kinds,
        "outcomes": outcomes,
        "systems": [clean(system) for system in systems],
        "id": [clean(entry.prompt_id) for entry in entries],
        "part": [parts.index(clean(entry.part)) for entry in entries],
        "kind": [kinds.index(clean(entry.kind)) for entry in entries],
        "outcome": [outcomes.index(clean(entry.outcome)) for entry in entries],
        "pairs": [len(entry.pairs) for entry in entries],
        "text": [clean(entry.text[:searched]) for entry in entries],
        "scores": [_scores(entry, systems) for entry in entries],
    }


def _scores(entry: Entry, systems: Sequence[str]) -> list[Any]:
    """Of a held-out prompt the ratings of every system; of a collected one its candidates' mean, and the refined."""
    if entry.is_held_out:
        by_system = {answer.name: answer.scores for answer in entry.answers}
        # six digits: a win or loss counted here must be the one that the tables count
        return [[_rounded(score, 6) for score in by_system.get(system, ())] for system in systems]
    rated = [answer.scores for answer in entry.answers if answer.role == "candidate" and answer.scores]
    refined = next((answer.scores for answer in entry.answers if answer.role == "refined"), ())
    means = [fmean(score for score in column if score is not None) for column in zip(*rated, strict=True)]
    return [[round(mean, 2) for mean in means], [_rounded(score, 2) for score in refined]]


def _rounded(score: float | None, digits: int) -> float | None:
    return None if score is None else round(score, digits)


def _notes(entries: Sequence[Entry], cut: Cut, n_all: int) -> Iterator[str]:
    if len(entries) < n_all:
        yield f"{len(entries):,} of {n_all:,} prompts, evenly spaced in their order: more would not fit one file."
    for limit, name in ((cut.answers, "Held-out answers"), (cut.candidates, "Candidates and refined answers")):
        if limit is not None:
            how = "left out" if limit == 0 else f"cut after {limit:,} characters"
            yield f"{name} are {how} to keep this file under 15 MB."


def _deflated(value: object) -> str:
    """JSON, deflated, in base64. Half a surrogate pair, which no encoding holds, becomes a question mark."""
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
