"""The one entrance of text that others wrote: a user's files, JSON and YAML, and what a server says.

What is no text, no regular file or of no sane size is an InputError of one line that names its place. Halves of
surrogate pairs, which no encoding holds, are replaced and counted in rows of data, and refused in what a person writes.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfpriority.errors import InputError
from selfpriority.plain_text import shown

MOST_UNPACKED_MIB = 512
"""The most that a gzip file may hold: a small one can hold more than any memory."""
MOST_YAML_MIB = 1
MOST_YAML_VALUES = 50_000
"""Every use of an alias counts as all that it stands for."""
DEEPEST = 100
"""Levels of lists and mappings; a parser that runs out of stack instead would harm what runs beside it."""

_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[][{}]")
_LINE_END = re.compile(r"\r\n|\n|\r")
NO_TEXT = "holds half of a surrogate pair, which is not text"


@dataclass(frozen=True)
class Row:
    """One JSON value of a file of lines."""

    place: str
    """File and line, as messages call it."""
    number: int
    value: Any
    n_mended: int
    """Texts in it in which U+FFFD stands for halves of surrogate pairs."""


@dataclass(frozen=True)
class Mended:
    """A JSON value whose texts are sound."""

    value: Any
    n_mended: int


def sound(text: str) -> str:
    """The text with U+FFFD in place of every half of a surrogate pair."""
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", text)


def mended_note(place: str, n_mended: int) -> str:
    """What a user is told of replaced halves."""
    texts = "1 text" if n_mended == 1 else f"{n_mended} texts"
    return f"{place}: {texts} held halves of surrogate pairs; U+FFFD stands in their place"


def read_bytes(path: Path, missing: str = "no such file") -> bytes:
    """The content of a regular file; `missing` is what is said, after its name, of one that there is not.

    Raises:
        InputError: there is none, or it is a directory, a pipe or a device, which may never end.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a directory, it must be a file")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is a pipe or a device; write what it gives into a file and name that")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: cannot be read: no file name holds the character NUL") from None


def unpacked(path: Path, raw: bytes) -> bytes:
    """What a gzip file holds.

    Raises:
        InputError: it is none, is cut short, or holds more than is sane.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            content = file.read(MOST_UNPACKED_MIB * 2**20 + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not gzip, or cut short: {error}") from None
    if len(content) > MOST_UNPACKED_MIB * 2**20:
        raise InputError(
            f"{path}: holds more than {MOST_UNPACKED_MIB} MiB once unpacked; unpack it yourself, or take a part of it"
        )
    return content


def decode(path: Path, raw: bytes) -> str:
    """The bytes of a file as text, without the mark that some editors put before it."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def read_text(path: Path, missing: str = "no such file") -> str:
    """The text of a regular file; InputError as of `read_bytes` and `decode`."""
    return decode(path, read_bytes(path, missing))


def lines(text: str) -> list[str]:
    """The lines, whichever of the three ends they have; not those ends that a text may hold (U+2028, ...)."""
    found = _LINE_END.split(text)
    return found if found[-1] else found[:-1]


def json_rows(path: Path, text: str) -> Iterator[Row]:
    """The value of every line that is not blank; InputError as of `parse_json`."""
    for number, line in enumerate(lines(text), start=1):
        if line.strip():
            parsed = parse_json(line, f"{path}:{number}")
            yield Row(f"{path}:{number}", number, parsed.value, parsed.n_mended)


def written_rows(path: Path, text: str) -> Iterator[Row]:
    """As `json_rows`, of a file that a person wrote: what is no text there is refused."""
    for row in json_rows(path, text):
        if row.n_mended:
            raise InputError(f"{row.place}: {NO_TEXT}")
        yield row


def parse_json(raw: str, place: str) -> Mended:
    """One JSON value.

    Raises:
        InputError: it is none, is nested too deep, holds a number that JSON has not or nobody can hold, or an object
            with one key twice.
    """
    if raw.count("[") + raw.count("{") > DEEPEST and _depth(raw) > DEEPEST:
        raise InputError(f"{place}: not JSON that can be read: nested too deep, more than {DEEPEST} levels")
    try:
        value = json.loads(raw, object_pairs_hook=_object, parse_constant=_no_constant)
        return _mended(value) if _HALF_ESCAPED.search(raw) else Mended(value, 0)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error.msg} (column {error.colno})") from None
    except _Wrong as error:
        raise InputError(f"{place}: not JSON that can be read: {error}") from None
    except ValueError:
        raise InputError(f"{place}: not JSON that can be read: a number of more than 4300 digits") from None


def _depth(raw: str) -> int:
    """The most brackets that are open at once, outside of texts."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_JSON_STRING.sub("", raw)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


class _Wrong(ValueError):
    """What is wrong with a JSON value, for whoever knows its place."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _Wrong(f"the key {shown(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise _Wrong(f"{name} is no number; write null")


def _mended(value: Any) -> Mended:
    if isinstance(value, str):
        text = sound(value)
        return Mended(text, int(text != value))
    if isinstance(value, list):
        items = [_mended(item) for item in value]
        return Mended([item.value for item in items], sum(item.n_mended for item in items))
    if isinstance(value, dict):
        inner = {name: _mended(item) for name, item in value.items()}
        n_keys = sum(sound(name) != name for name in inner)
        found = {sound(name): item.value for name, item in inner.items()}
        return Mended(found, n_keys + sum(item.n_mended for item in inner.values()))
    return Mended(value, 0)


def parse_yaml(text: str, place: str) -> Any:
    """The value of a YAML text; a date is text too, and numbers have at most 64 bits.

    Raises:
        InputError: it is none, holds a key twice, is nested too deep or too large, aliases written out.
    """
    if len(text) > MOST_YAML_MIB * 2**20:
        raise InputError(f"{place}: not a file of settings: longer than {MOST_YAML_MIB} MiB")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be read"
        raise InputError(f"{place}:{mark.line + 1 if mark else 1}: not YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{place}: not YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """YAML's safe values without its traps: keys that replace others, aliases that grow, dates, values of odd forms."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.yaml_implicit_resolvers = {
            first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        self._n_values = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Counts the levels, and the values, those that an alias stands for each time."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._n_values
        self._n_values += 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise _no_value(event, f"nested too deep, more than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._sizes[id(node)] = self._n_values - before
        elif id(node) in self._sizes:
            self._n_values += self._sizes[id(node)]
        else:
            raise _no_value(event, "an alias inside of what it stands for")
        if self._n_values > MOST_YAML_VALUES:
            problem = f"more than {MOST_YAML_VALUES} values, aliases written out"
            raise _no_value(event, problem)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuses a key that stands twice, for the second would replace the first."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            said = (key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key))
            if said in seen:
                problem = f"the key {shown(key.value)} stands twice; the second would replace the first"
                raise _no_value(key, problem)
            seen.add(said)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Tells where a value of no form stands."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            raise _no_value(node, f"{shown(node.value)} is no {kind}") from None
        if isinstance(value, int) and value.bit_length() > 64:
            raise _no_value(node, "a number of more than 64 bits")
        if isinstance(value, str) and (_HALF.search(value) or "\0" in value):
            raise _no_value(node, f"{shown(sound(value))} holds what is no text: NUL, or half of a surrogate pair")
        return value


def _no_value(where: Any, problem: str) -> yaml.MarkedYAMLError:
    """Of a node or an event."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)
