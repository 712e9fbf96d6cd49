"""Systems with a file of their own: what ships in `text/systems`, one YAML file each, and a user's, in YAML or Python.

A file says what an entry of `evaluate.more_systems` says, with a title and where the system is from. In Python that is
a mapping, or a record of these fields, named `package.module:name`. Knows no model.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text
from selfpriority.own_python import OwnPython, find, load
from selfpriority.plain_text import shown
from selfpriority.recipe.evaluate import OtherSystem
from selfpriority.recipe.mistakes import mistake_lines

SHIPPED = Path(str(files("selfpriority"))) / "text" / "systems"
EVERY, ABLATIONS = "all", "ablations"
"""Stand for every system that ships, and for the method with one part or another left out."""
FIRST, LAST = "{first}", "{last}"
"""Stand in a file for the names of the constitution's first and last objective."""
_NAME = re.compile(r"[a-z0-9_]+")
_PLACE = "evaluate.systems"


class NamedSystem(OtherSystem):
    """A system as its file has it."""

    title: str = Field(min_length=1)
    """What it is, in a few words."""
    source: str = Field(min_length=1)
    """Where it is from: a paper, or whose reading it is."""
    objectives: int | None = None
    """How many objectives a constitution must have for it; none: any number."""
    package: str | None = None
    """A Python package that its training needs; `all` leaves it out where that is not installed."""
    ablation: bool = False
    """The method with a part of it left out: one of `ablations`, and not of `all`."""
    own: bool = False
    """Every run has it: the model as it is, and the policy that the recipe trains."""


def shipped_systems() -> list[str]:
    """Names of the systems that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_system(path: Path, objectives: Sequence[str]) -> NamedSystem:
    """The system in a file.

    Args:
        path: of the YAML file.
        objectives: of the constitution, which the file may name by their rank.

    Raises:
        InputError: file, field, value, what is allowed.
    """
    return _checked(parse_yaml(read_text(path), str(path)), str(path), objectives)


def is_as_shipped(name: str, train: Mapping[str, Any], objectives: Sequence[str]) -> bool:
    """Whether the system of this name is trained as the one that ships under it.

    Args:
        name: of a system.
        train: how it is trained.
        objectives: of the constitution.
    """
    path = SHIPPED / f"{name}.yaml"
    return path.is_file() and read_system(path, objectives).train == train


def own_system(own: OwnPython, objectives: Sequence[str]) -> NamedSystem:
    """The system in a Python module, which is imported.

    Args:
        own: names a mapping of the fields that a file has, a dataclass or a pydantic model.
        objectives: as of `read_system`.

    Raises:
        InputError: module, field, value, what is allowed.
    """
    with _placed():
        found = load(own)
    if isinstance(found, BaseModel):
        found = found.model_dump(exclude_unset=True)
    elif is_dataclass(found) and not isinstance(found, type):
        found = asdict(found)
    place = f"{_PLACE}: {own.name}"
    if not isinstance(found, Mapping):
        raise InputError(f"{place}: a system is a mapping of fields, this is {type(found).__name__}")
    try:
        plain = json.loads(json.dumps(dict(found), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{place}: holds what no file could: {error}") from None
    return _checked(plain, place, objectives)


def _checked(data: object, place: str, objectives: Sequence[str]) -> NamedSystem:
    if not isinstance(data, dict):
        raise InputError(f"{place}: a system is a mapping of fields, this is {type(data).__name__}")
    try:
        return NamedSystem.model_validate(_named(data, objectives))
    except ValidationError as error:
        raise InputError(*dict.fromkeys(mistake_lines(error, place, NamedSystem, data))) from None


@dataclass(frozen=True)
class _Asked:
    """A system that is asked for, and where it is described."""

    name: str
    path: Path
    """Of its file, or of the module that holds it."""
    own: OwnPython | None = None

    @property
    def ships(self) -> bool:
        return self.path.parent == SHIPPED

    def system(self, objectives: Sequence[str]) -> NamedSystem:
        return read_system(self.path, objectives) if self.own is None else own_system(self.own, objectives)


def with_named(
    given: Mapping[str, OtherSystem],
    asked: Sequence[str],
    folders: Sequence[Path],
    objectives: Sequence[str],
    samples: bool = True,
) -> dict[str, OtherSystem]:
    """The systems of a recipe, then those that are asked for by name, each behind those that it needs.

    A system that is needed and not asked for is trained and not evaluated.

    Args:
        given: `evaluate.more_systems`, which goes before what ships under the same name.
        asked: names that ship, `all` of them or the `ablations`, paths of files, or names in Python.
        folders: where paths and modules count from, the first that has the file.
        objectives: of the constitution.
        samples: whether the recipe samples answers; `all` leaves out what needs them where it has pairs of its own.

    Raises:
        InputError: no such system, or a file that is wrong.
    """
    found = dict(given)
    wanted = {each.name: each for each in _wanted(asked, folders, objectives)}
    if not samples:
        idle = {name for name, each in wanted.items() if name not in asked and makes_rows(each.system(objectives))}
        wanted = {name: each for name, each in wanted.items() if name not in idle}
    for name, each in wanted.items():
        if name not in found or (found[name] is given.get(name) and not each.ships):  # a named file is meant
            _add(each, found, objectives)
    for name in wanted:
        if name in found and not found[name].evaluated:
            found[name] = found[name].model_copy(update={"evaluated": True})
    return found


def needs(system: OtherSystem) -> list[str]:
    """Names of the systems that it starts from or is merged of."""
    return [*([system.start] if system.start else []), *system.merge]


def makes_rows(system: OtherSystem) -> bool:
    """Whether it trains on rows of its own, made of the pools of a run (`align.rows`)."""
    align = system.train.get("align")
    return isinstance(align, dict) and align.get("rows", "pairs") != "pairs"


def _add(asked: _Asked, found: dict[str, OtherSystem], objectives: Sequence[str]) -> None:
    """Puts a system into `found`, behind those that it needs: files beside its own, or shipped ones.

    What has no file is left to who trains, who knows what else there is.
    """
    name, system = asked.name, asked.system(objectives)
    if system.own:
        return
    found[name] = OtherSystem.model_validate(
        system.model_dump(exclude={"source", "own", "objectives", "ablation", "package"})
    )
    for other in needs(system):
        places = (folder / f"{other}.yaml" for folder in (asked.path.parent, SHIPPED))
        place = next((place for place in places if place.is_file()), None)
        if other not in found and place is not None:
            _add(_Asked(other, place), found, objectives)
            if other in found and found[other].train:
                found[other] = found[other].model_copy(update={"evaluated": False})
    found[name] = found.pop(name)  # to the end


def _wanted(asked: Sequence[str], folders: Sequence[Path], objectives: Sequence[str]) -> Iterator[_Asked]:
    """Every system that is asked for."""
    for name in asked:
        if name in (EVERY, ABLATIONS):
            every = (_Asked(shipped, SHIPPED / f"{shipped}.yaml") for shipped in shipped_systems())
            yield from (each for each in every if _is_in(name, each.path, objectives))
        elif _NAME.fullmatch(name):
            yield _Asked(name, _shipped_path(name))
        elif ":" in name and not name.endswith((".yaml", ".yml")):
            yield _in_python(name, folders)
        else:
            path = next((path for folder in folders if (path := folder / name).is_file()), Path(name))
            if not _NAME.fullmatch(path.stem):
                raise InputError(f"{_PLACE}: {shown(name)}: a file is called by its system: a-z, 0-9 and _, then .yaml")
            if not path.is_file():
                raise _unknown(name)
            yield _Asked(path.stem, path)


def _in_python(name: str, folders: Sequence[Path]) -> _Asked:
    with _placed():
        own = find(name, folders)
    if not _NAME.fullmatch(own.attribute):
        raise InputError(f"{_PLACE}: {shown(name)}: a system is called as what holds it: a-z, 0-9 and _")
    return _Asked(own.attribute, own.file, own)


@contextmanager
def _placed() -> Iterator[None]:
    """Says of what is wrong with a name in which field it stands."""
    try:
        yield
    except InputError as error:
        raise InputError(*(f"{_PLACE}: {line}" for line in error.lines)) from error


def _is_in(group: str, path: Path, objectives: Sequence[str]) -> bool:
    """Whether the system in a file is of this group, one of so many objectives, and has the package that it needs."""
    system = read_system(path, objectives)
    can_run = system.package is None or find_spec(system.package) is not None
    if not system.evaluated:  # a part of others alone, which name it themselves
        return False
    return can_run and system.ablation == (group == ABLATIONS) and system.objectives in (None, len(objectives))


def _shipped_path(name: str) -> Path:
    path = SHIPPED / f"{name}.yaml"
    if not path.is_file():
        raise _unknown(name)
    return path


def _unknown(name: str) -> InputError:
    known = shipped_systems()
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"shipped: {', '.join(known)}"
    return InputError(f"{_PLACE}: {shown(name)} is neither a shipped system nor a file; {hint}")


def _named(value: Any, objectives: Sequence[str]) -> Any:
    """A file's values with the objectives' names in place of their ranks."""
    if isinstance(value, str):
        return value.replace(FIRST, objectives[0]).replace(LAST, objectives[-1])
    if isinstance(value, list):
        return [_named(item, objectives) for item in value]
    if isinstance(value, dict):
        return {name: _named(item, objectives) for name, item in value.items()}
    return value
