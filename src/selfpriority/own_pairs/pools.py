"""A file of preference data as pools: the rows of one prompt together, every answer in them once.

A row that cannot be read stops everything and is named; one that makes no pair is left out, counted and told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.own_pairs.forms import FLAWS, OwnAnswer, OwnRow, read_row
from selfpriority.own_pairs.turns import with_cells_read
from selfpriority.plain_text import one_line
from selfpriority.preferences import UNRATED
from selfpriority.prompts import Loaded, id_of, said_in
from selfpriority.recipe import Pairs, Prompts
from selfpriority.recipe.pairs import is_read
from selfpriority.records import Drop, Pair, Pool, Prompt, Rating, Response, Scored, under
from selfpriority.storage import content_of
from selfpriority.table_rows import (
    Table,
    TableRow,
    csv_rows,
    file_content,
    json_list_rows,
    jsonl_rows,
    parquet_rows,
    suffix_of,
)

FORMATS: Mapping[str, Callable[[Path, bytes, Table], Iterator[TableRow]]] = {
    ".jsonl": jsonl_rows,
    ".jsonl.gz": jsonl_rows,
    ".json": json_list_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
_MOST_MISTAKES = 20
_FEW = 3
"""Places that one remark names."""


@dataclass(frozen=True)
class OwnPairs:
    """What a file holds."""

    objectives: tuple[str, ...]
    """What its scores are called, in priority order; `preference` alone where there are none."""
    prompts: Loaded
    pools: tuple[Pool, ...]
    pairs: Mapping[str, tuple[Pair, ...]] | None
    """By prompt; None: the file holds lists of rated answers, whose order makes the pairs."""
    places: Mapping[str, str]
    """Prompt -> its first row, as messages call it."""

    @property
    def is_rated(self) -> bool:
        """Whether the answers have scores."""
        return bool(self.pools[0].candidates[0].ratings)


@dataclass
class _Group:
    """The rows of one prompt so far."""

    prompt: Prompt
    place: str
    answers: list[Scored] = field(default_factory=list)
    places: dict[tuple[object, ...], int] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    lost: list[OwnRow] = field(default_factory=list)

    def index_of(self, answer: OwnAnswer, objectives: Sequence[str]) -> int:
        """The answer's place in the pool, where one with the same text, scores and end counts once."""
        scores = tuple(answer.scores[name] for name in objectives)
        key = (answer.text, scores, answer.stop)
        if key not in self.places:
            self.places[key] = len(self.answers)
            name = f"{self.prompt.id}/y{len(self.answers) + 1}"
            response = Response(name, self.prompt.id, answer.text, answer.stop, 0)
            self.answers.append(Scored(response, tuple(map(Rating, scores))))
        return self.places[key]


def is_readable(path: Path) -> bool:
    """Whether its name says that its format is one of `FORMATS`."""
    return suffix_of(path) in FORMATS


def file_key(pairs: Pairs, prompts: Prompts) -> object:
    """What the pools of a file depend on.

    Raises:
        InputError: there is no such file.
    """
    _check_file(Path(pairs.source))
    how = prompts.model_dump(include={"system", "kind"})
    return content_of(Path(pairs.source)).sha256, pairs.model_dump(exclude={"source"}), how


def own_pairs(pairs: Pairs, prompts: Prompts) -> OwnPairs:
    """The pools of a file and their pairs; read once while nobody changes it.

    Args:
        pairs: the recipe's section.
        prompts: their system prompt and kind.

    Raises:
        InputError: there is no such file, rows cannot be read (each named), or no pair is left.
    """
    _check_file(Path(pairs.source))
    return _read(content_of(Path(pairs.source)).sha256, pairs.model_dump_json(), prompts.model_dump_json())


@lru_cache(maxsize=2)
def _read(_: str, pairs_json: str, prompts_json: str) -> OwnPairs:
    pairs, prompts = Pairs.model_validate_json(pairs_json), Prompts.model_validate_json(prompts_json)
    path = Path(pairs.source)
    raw = _raw_rows(path, pairs)
    rows = _rows(raw, pairs, path)
    objectives = _objectives(rows, path)
    groups = _groups(rows, prompts, objectives)
    kept = [group for group in groups if group.answers]
    if not kept:
        lost = ", ".join(f"{n} {reason}" for reason, n in Counter(row.flaw for row in rows).items())
        raise InputError(f"{path}: no pair is left of {len(rows)} rows ({lost})")
    is_list = any(row.is_list for row in rows)
    n_mended = sum(row.n_mended for row in raw)
    loaded = Loaded(
        tuple(group.prompt for group in kept), tuple(_drops(groups)), n_mended, 0, tuple(_remarks(rows, kept, path))
    )
    return OwnPairs(
        objectives=objectives or (UNRATED,),
        prompts=loaded,
        pools=tuple(Pool(group.prompt, tuple(group.answers)) for group in kept),
        pairs=None if is_list else {group.prompt.id: tuple(group.pairs) for group in kept},
        places={group.prompt.id: group.place for group in kept},
    )


def _check_file(path: Path) -> None:
    known = ", ".join(FORMATS)
    if path.is_dir():
        raise InputError(f"pairs: {path}: is a directory; name a file: {known}")
    if not path.exists():
        raise InputError(f"pairs: {path}: no such file; name one of {known}")
    if not is_readable(path):
        raise InputError(f"pairs: {path}: cannot tell its format from its name; known: {known}")


def _raw_rows(path: Path, pairs: Pairs) -> list[TableRow]:
    named = set(pairs.columns.values())
    table = Table(
        "an object with chosen and rejected answers", lambda names: [n for n in names if is_read(n) or n in named]
    )
    found = list(FORMATS[suffix_of(path)](path, file_content(path), table))
    if not found:
        raise InputError(f"{path}: holds no rows")
    return found


def _rows(raw: Sequence[TableRow], pairs: Pairs, path: Path) -> list[OwnRow]:
    """Every row as a record; all that cannot be read are told at once."""
    rows: list[OwnRow] = []
    wrong: dict[str, list[str]] = {}
    for row in raw:
        try:
            rows.append(read_row(with_cells_read(row) if suffix_of(path) == ".csv" else row, pairs))
        except InputError as error:
            for line in error.lines:
                wrong.setdefault(line.removeprefix(row.place), []).append(row.place)
    if wrong:
        n_wrong = sum(map(len, wrong.values()))
        lines = [f"{places[0]}{what}{_also(places[1:])}" for what, places in wrong.items()]
        more = [f"{path}: {n_wrong:,} of {len(raw):,} rows cannot be read"] if len(lines) > _MOST_MISTAKES else []
        raise InputError(*lines[:_MOST_MISTAKES], *more)
    return rows


def _also(places: Sequence[str]) -> str:
    """In which further rows the same is wrong."""
    return f" (so in {_counted(len(places), 'more row')}: {_some(places)})" if places else ""


def _objectives(rows: Sequence[OwnRow], path: Path) -> tuple[str, ...]:
    """What the scores are called in every row; empty without scores.

    Raises:
        InputError: rows differ, in form or in what is rated.
    """
    sound = [row for row in rows if not row.flaw]
    if not sound:
        return ()
    first = sound[0]
    names = tuple(first.answers[0].scores)
    for row in sound:
        if row.is_list != first.is_list:
            forms = {True: "a list of rated answers", False: "a pair"}
            raise InputError(
                f"{row.place}: {forms[row.is_list]}, but {first.place} is {forms[first.is_list]}; split the file"
            )
        for answer in row.answers:
            if set(answer.scores) != set(names):
                ours, theirs = (", ".join(each) or "none" for each in (answer.scores, names))
                raise InputError(
                    f"{row.place}: scores: {ours}, but {first.place} has {theirs}; give all rows the same, or read "
                    f"none with pairs.scores=false"
                )
    return names


def _groups(rows: Sequence[OwnRow], source: Prompts, objectives: Sequence[str]) -> list[_Group]:
    """The rows by prompt, in the order in which the prompts first appear; an empty prompt stands alone."""
    groups: dict[object, _Group] = {}
    ids: set[str] = set()
    for row in rows:
        key: object = row.place if row.flaw == "empty_prompt" else said_in(Prompt("", row.prompt))
        if key not in groups:
            name = _free_id(row, ids)
            ids.add(name)
            kind = one_line(row.kind) or source.kind
            groups[key] = _Group(Prompt(name, under(source.system or "", row.prompt), kind), row.place)
        _take(groups[key], row, objectives)
    return list(groups.values())


def _free_id(row: OwnRow, taken: set[str]) -> str:
    """The row's own id of its prompt, where no other prompt has it; else a hash of the prompt, else with its place."""
    by_text = id_of(row.prompt)
    names = (one_line(row.prompt_id), by_text, f"{by_text}#{one_line(row.place)}")
    return next(name for name in names if name and name not in taken)


def _take(group: _Group, row: OwnRow, objectives: Sequence[str]) -> None:
    if row.flaw:
        group.lost.append(row)
        return
    indices = [group.index_of(answer, objectives) for answer in row.answers]
    if row.is_list:
        return
    chosen, rejected = indices
    if (chosen, rejected) not in group.seen:
        group.seen.add((chosen, rejected))
        group.pairs.append(_pair(chosen, rejected, row, objectives))


def _pair(chosen: int, rejected: int, row: OwnRow, names: Sequence[str]) -> Pair:
    """The pair that a row states; without scores all are as far apart."""
    better, worse = (answer.scores for answer in row.answers)
    if not better:
        return Pair(chosen, rejected, 0, 1.0, 1.0)
    differing = next((k for k, name in enumerate(names) if better[name] != worse[name]), 0)
    decided_by = list(names).index(row.decided_by) if row.decided_by in names else differing
    distance = sum(abs(better[name] - worse[name]) for name in names)
    gap = abs(sum(better.values()) - sum(worse[name] for name in names))
    return Pair(chosen, rejected, decided_by, distance, gap)


def _drops(groups: Sequence[_Group]) -> Iterator[Drop]:
    """A prompt without a pair is dropped; of one that has some, the rows that make none are."""
    for group in groups:
        if not group.answers:
            first = group.lost[0]
            yield Drop("prompts", group.prompt.id, first.flaw, detail=f"{first.place}: {FLAWS[first.flaw]}")
        else:
            for row in group.lost:
                yield Drop("prompts", group.prompt.id, row.flaw, row.place, FLAWS[row.flaw])


def _remarks(rows: Sequence[OwnRow], kept: Sequence[_Group], path: Path) -> Iterator[str]:
    """What a user should know of the file, a line each."""
    n_answers = sum(len(group.answers) for group in kept)
    n_rows = 2 * sum(len(group.pairs) for group in kept)
    saved = f" instead of {n_rows:,}" if n_rows > n_answers else ""
    yield f"pairs: {path.name}: {len(rows):,} rows: {len(kept):,} pools, {n_answers:,} answers{saved}"
    for flaw, why in FLAWS.items():
        places = [row.place for row in rows if row.flaw == flaw]
        if places:
            yield f"pairs: {_counted(len(places), 'row')} left out: {why} ({_some(places)})"
    if n_lost := sum(row.n_lost for row in rows):
        yield f"pairs: {_counted(n_lost, 'answer')} without a text or a score left out of their lists"
    n_said = sum(not row.flaw and not row.is_list for row in rows)
    if repeated := n_said - sum(len(group.pairs) for group in kept if n_said):
        yield f"pairs: {_counted(repeated, 'row')} left out: the same pair stands in an earlier row"
    if n_opposite := sum((b, a) in group.seen for group in kept for a, b in group.seen) // 2:
        yield f"pairs: {_counted(n_opposite, 'pair')} in the file the other way round too; both train, as they stand"
    if n_lower := sum(_is_lower(group, pair) for group in kept for pair in group.pairs):
        yield f"pairs: in {_counted(n_lower, 'pair')} the chosen answer has the lower score; they train as they stand"


def _is_lower(group: _Group, pair: Pair) -> bool:
    return sum(group.answers[pair.chosen].scores) < sum(group.answers[pair.rejected].scores)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:_FEW]) + (", ..." if len(places) > _FEW else "")
