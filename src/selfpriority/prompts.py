"""Where prompts come from: a file, a shipped set or a hub data set in, unique prompts with ids out.

A row that holds no usable prompt is a Drop with a reason; a source that is not what it says it is (not JSON,
not UTF-8, no such column) is an InputError that names file and line. Knows nothing of models: a prompt longer
than a model's context is found where the model is.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import random
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError, WorkFailed
from selfpriority.outside import mended_note
from selfpriority.plain_text import one_line
from selfpriority.prompt_rows import FORMATS, ID_COLUMNS, is_readable, read_prompt_rows, wanted_columns
from selfpriority.prompt_sets import prompt_sets, written_out
from selfpriority.recipe import Prompts
from selfpriority.records import Drop, Message, Prompt, Sifted, under
from selfpriority.table_rows import TableRow, first_line, kind_of

SHIPPED = Path(str(files("selfpriority"))) / "text" / "prompts"

_ROLES = ("system", "user", "assistant")
_SECONDS = 5
"""That the hub has to answer at all."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Loaded(Sifted[Prompt]):
    """The prompts of a source, and what was changed in them."""

    n_mended: int = 0
    """Texts in which U+FFFD stands for halves of surrogate pairs."""
    n_cleaned: int = 0
    """Prompts whose id or kind held control codes or ends of lines."""
    remarks: tuple[str, ...] = ()
    """What else there is to tell of the source, a line each."""

    def notes(self, place: str) -> list[str]:
        """What a user is told of it; `place` is the recipe's field."""
        mended = [mended_note(place, self.n_mended)] if self.n_mended else []
        told = f"{place}: {self.n_cleaned} ids or kinds held control codes or ends of lines, which are left out"
        return [*self.remarks, *mended, *([told] if self.n_cleaned else [])]


def load_prompts(source: Prompts, seed: int, place: str = "prompts") -> Loaded:
    """The prompts of a source, each id once, each text once.

    Rows are taken in order (shuffled by `seed` if `source.shuffle`) until `source.limit` prompts are kept;
    rows after that are not looked at. Reasons to drop: `empty`, `duplicate` (same text, outer white space
    aside, as an earlier row).

    Args:
        source: a file, a shipped set or a hub data set, and how it is read.
        seed: of the shuffle.
        place: the recipe's field, as messages call it.

    Raises:
        InputError: the source does not exist, cannot be read, or a row is not a prompt (file and line named).
        WorkFailed: the hub cannot be reached.

    Examples:
        >>> found = load_prompts(Prompts(source="prompts.jsonl", limit=2), seed=0)
        >>> len(found.kept), found.dropped
        (2, ())
    """
    source = written_out(source, place)
    rows = _rows(source, place)
    if not rows:
        raise InputError(f"{source.source}: holds no prompts")
    if source.shuffle:
        random.Random(seed).shuffle(rows)
    sifted = _sift(rows, source)
    if not sifted.kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sifted.reasons.items())
        raise InputError(f"{source.source}: no prompt is left of {len(rows)} rows ({reasons})")
    return sifted


def said_in(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """(role, text) of every turn, outer white space aside: what makes two prompts the same."""
    return tuple((message.role, message.content.strip()) for message in prompt.messages)


def row_places(source: Prompts) -> dict[str, str]:
    """Id -> place of its row, as messages call it (`prompts.jsonl:12`). Reads the source once more."""
    places: dict[str, str] = {}
    source = written_out(source)
    for row in _rows(source, "prompts"):
        with contextlib.suppress(InputError):  # a bad row past the limit holds no prompt that anybody took
            places.setdefault(_prompt(row, source).id, row.place)
    return places


def shipped_prompts() -> list[str]:
    """Names of the prompt sets that ship with the package.

    Examples:
        >>> "demo" in shipped_prompts()
        True
    """
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def lies_elsewhere(source: Prompts) -> bool:
    """Whether the prompts are those of a hub data set, or of a file that is not on this machine."""
    path = Path(source.source)
    if source.source in shipped_prompts() or path.exists():
        return False
    return is_readable(path) or _is_hub_set(source)


def _is_hub_set(source: Prompts) -> bool:
    path = Path(source.source)
    is_here = source.source in shipped_prompts() or path.exists() or is_readable(path)
    return not is_here and bool(_HUB_ID.fullmatch(source.source))


def _rows(source: Prompts, place: str) -> list[TableRow]:
    if _is_hub_set(source):
        return _hub_rows(source, place)
    ships = source.source in shipped_prompts()
    path = SHIPPED / f"{source.source}.jsonl" if ships else Path(source.source)
    if source.config is not None:
        raise InputError(f"{place}.config: {source.config!r} is for hub data sets, {source.source} is not one")
    _check_file(path)
    rows = read_prompt_rows(path, source)
    split = source.split or ("train" if ships else None)
    return rows if split is None else _split(rows, split, path, f"{place}.split")


def _split(rows: list[TableRow], split: str, path: Path, place: str) -> list[TableRow]:
    known = sorted({str(row.columns["split"]) for row in rows if row.columns.get("split") is not None})
    if split not in known:
        hint = f"its splits: {', '.join(known)}" if known else "it has no column 'split'"
        raise InputError(f"{place}: {path} has no split {split!r}; {hint}")
    return [row for row in rows if row.columns.get("split") == split]


def _check_file(path: Path) -> None:
    """Raises InputError for one that there is not, or of no format that is read."""
    formats = ", ".join(FORMATS)
    if path.is_dir():
        raise InputError(f"{path}: is a directory, prompts are a file: {formats}")
    if path.exists() and not is_readable(path):
        raise InputError(f"{path}: cannot tell its format from its name; known: {formats}")
    if path.exists():
        return
    if not path.parent.is_dir():
        raise InputError(f"{path}: no such file, nor the folder {path.parent}")
    near = [entry.name for entry in path.parent.iterdir() if entry.is_file() and is_readable(entry)]
    named = [*shipped_prompts(), *prompt_sets()]
    close = difflib.get_close_matches(path.name, [*near, *named], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"known sets: {', '.join(named)}"
    raise InputError(f"{path}: no such file; {hint}")


def _hub_rows(source: Prompts, place: str) -> list[TableRow]:
    import datasets
    import datasets.exceptions

    name = source.source
    try:
        with _hub_asked_if_there(datasets):
            loaded = datasets.load_dataset(name, source.config, split=source.split)
    except ConnectionError as error:
        raise WorkFailed(f"{name}: neither a file here nor reachable on the hub: {error}") from None
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: neither a file here nor a hub data set that loads: {first_line(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if len(loaded) > 1:
            raise InputError(f"{place}.split: {name} has several splits, name one: {', '.join(map(str, loaded))}")
        loaded = next(iter(loaded.values()))
    rows = loaded.select_columns(wanted_columns(loaded.column_names, name, source)).to_list()
    return [TableRow(f"{name}: row {number}", number, columns) for number, columns in enumerate(rows, start=1)]


@contextlib.contextmanager
def _hub_asked_if_there(datasets: Any) -> Iterator[None]:
    """The hub is asked for what lies in no cache, unless nobody is there: its library would try for half a minute."""
    from huggingface_hub import constants

    settings: tuple[Any, Any] = (constants, datasets.config)
    before = [each.HF_HUB_OFFLINE for each in settings]
    try:
        if not any(before) and not hub_is_there():
            for each in settings:
                each.HF_HUB_OFFLINE = True
        yield
    finally:
        for each, offline in zip(settings, before, strict=True):
            each.HF_HUB_OFFLINE = offline


@cache
def hub_is_there() -> bool:
    """Whether the hub answers anything to its library's own client within five seconds; asked once a process."""
    outcome: list[bool] = []
    asking = threading.Thread(target=lambda: outcome.append(_answers()), daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return bool(outcome and outcome[0])


def _answers() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception as error:  # of one client or another; whatever is no failure to connect is left to the library
        kinds = {kind.__name__ for kind in type(error).__mro__}
        return not kinds & {"TransportError", "OSError"}
    return True


def _sift(rows: Iterable[TableRow], source: Prompts) -> Loaded:
    kept: list[Prompt] = []
    dropped: list[Drop] = []
    seen_texts: dict[tuple[tuple[str, str], ...], str] = {}
    used_ids: set[str] = set()
    n_mended = n_cleaned = 0
    for row in rows:
        if source.limit is not None and len(kept) == source.limit:
            break
        written = _prompt(row, source)
        prompt = replace(written, id=one_line(written.id), kind=one_line(written.kind))
        n_mended, n_cleaned = n_mended + row.n_mended, n_cleaned + (prompt != written)
        text = said_in(prompt)
        if not text[-1][1]:
            dropped.append(Drop("prompts", _unused(prompt.id, row, used_ids), "empty", detail=row.place))
        elif text in seen_texts:
            detail = f"{row.place}: same text as {seen_texts[text]}"
            dropped.append(Drop("prompts", _unused(prompt.id, row, used_ids), "duplicate", detail=detail))
        elif prompt.id in used_ids:
            raise InputError(f"{row.place}: the id {prompt.id!r} belongs to another prompt already; ids must be unique")
        else:
            kept.append(prompt)
            seen_texts[text] = prompt.id
        used_ids.add(prompt.id)
    return Loaded(tuple(kept), tuple(dropped), n_mended, n_cleaned)


def _unused(prompt_id: str, row: TableRow, used_ids: set[str]) -> str:
    """An id for a dropped row: a second row of an id is told from the first by its number."""
    return f"{prompt_id}#{row.number}" if prompt_id in used_ids else prompt_id


def _prompt(row: TableRow, source: Prompts) -> Prompt:
    messages = _messages(row, source.column)
    written = row.columns.get(source.kind_column)
    kind = ("" if written is None else str(written)) or source.kind
    # the id is the row's, so that one prompt has one id under every system prompt
    return Prompt(_id(row, messages), under(source.system or "", messages), kind)


def _messages(row: TableRow, column: str) -> tuple[Message, ...]:
    value = row.columns[column]
    if value is None or isinstance(value, str):
        messages: tuple[Message, ...] = (Message("user", value or ""),)
    elif isinstance(value, list):
        messages = tuple(_message(turn, row, column) for turn in value) or (Message("user", ""),)
    else:
        raise InputError(f"{row.place}: {column!r} is {kind_of(value)}, it must be text or a list of messages")
    roles = [message.role for message in messages]
    if roles[-1] != "user" or "system" in roles[1:]:
        raise InputError(f"{row.place}: {column!r} must end with a user turn and hold a system turn only at its start")
    return messages


def _message(turn: object, row: TableRow, column: str) -> Message:
    if isinstance(turn, dict) and turn.get("role") in _ROLES and isinstance(turn.get("content"), str):
        return Message(turn["role"], turn["content"])
    raise InputError(
        f"{row.place}: {column!r} is a list, so each entry must be {{role, content}} with role one of "
        f"{', '.join(_ROLES)} and text as content"
    )


def _id(row: TableRow, messages: tuple[Message, ...]) -> str:
    for column in ID_COLUMNS:
        value = row.columns.get(column)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{row.place}: {column!r} is {kind_of(value)}, an id is text or a whole number")
        return str(value)
    return id_of(messages)


def id_of(messages: tuple[Message, ...]) -> str:
    """The id of a prompt that nobody named: a hash of what it says."""
    text = messages[0].content if len(messages) == 1 else json.dumps([[m.role, m.content] for m in messages])
    return f"p-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:12]}"
