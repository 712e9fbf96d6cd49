"""Python of a user's own, named `package.module:name`: where it lies, what it depends on, and the one place to run it.

Finding a module and hashing its source runs none of it, not even the package's `__init__`; `load` does. Knows nothing
of what is named.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from selfpriority.errors import InputError
from selfpriority.plain_text import one_line, shown

FORM = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
"""Of a name."""
_LONGEST_WHY = 200
"""Characters of an exception's message that are told."""


@dataclass(frozen=True)
class OwnPython:
    """A name and the file in which its module lies."""

    module: str
    attribute: str
    file: Path
    folder: Path
    """What the module's dotted name counts from."""
    is_installed: bool
    """Whether it is of the environment, and in no folder that was looked through before."""

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.module}:{self.attribute}"


@dataclass(frozen=True)
class _Imported:
    """A source file as it was when it was imported."""

    file: Path
    content: str


_imported: dict[str, _Imported] = {}
"""The user's modules that `load` has brought in, by name."""


def find(name: str, folders: Sequence[Path]) -> OwnPython:
    """Where the module of `package.module:name` lies; nothing of it is run.

    Args:
        name: as the user wrote it.
        folders: looked through in order, before what is installed.

    Raises:
        InputError: it is no such name, or there is no such module with a source file.
    """
    if not FORM.fullmatch(name):
        raise InputError(f"{shown(name)}: is not of the form package.module:name")
    module, _, attribute = name.partition(":")
    importlib.invalidate_caches()  # a file may be younger than the last look into its folder
    places = list(dict.fromkeys(folder.resolve() for folder in folders))  # as the import will name them
    for folder in places:
        if (file := _file(module, folder)) is not None:
            return OwnPython(module, attribute, file, folder, is_installed=False)
    file = _file(module, None)
    if file is None:
        looked = [str(folder) for folder in places] or ["the working directory", "the recipe's folder"]
        raise InputError(
            f"{shown(name)}: there is no module {module} with a source file, neither in {' nor in '.join(looked)} nor "
            f"installed; write {module.replace('.', '/')}.py there, or install its package into this environment"
        )
    depth = module.count(".") + (file.stem == "__init__")
    return OwnPython(module, attribute, file, file.parents[depth], is_installed=True)


def source_hash(own: OwnPython) -> str:
    """Hash of the module's source file and of its own modules that it imports, wherever in a file the import stands.

    Its own are those of the same package and, of a module that lies in a folder of the user's, those beside it. Code
    that is installed apart, data files and a model behind an address are not in it.
    """
    digest = hashlib.sha256()
    for path in sorted(_sources(own)):
        digest.update(path.relative_to(own.folder).as_posix().encode() + b"\0")
        digest.update(_content(path).encode())
    return digest.hexdigest()


def load(own: OwnPython) -> Any:
    """What is named, its module imported: this runs the module's code.

    Where a file of the user's has changed since it was loaded, all of them are loaded anew.

    Raises:
        InputError: the import fails, another module has that name, or the module holds no such name.
    """
    if any(_is_stale(name, own) for name in _imported):
        for name in _imported:
            sys.modules.pop(name, None)
        _imported.clear()
    module = _module(own)
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != own.file.resolve():
        raise InputError(
            f"{shown(own.name)}: {own.file} cannot be imported, for another module is called {own.module} "
            f"({found or 'built in'}); rename yours"
        )
    if not hasattr(module, own.attribute):
        close = difflib.get_close_matches(own.attribute, vars(module), n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"{shown(own.name)}: {own.file} holds no {own.attribute}{hint}")
    return getattr(module, own.attribute)


def _module(own: OwnPython) -> ModuleType:
    """The module, imported; what came with it from the user's files is remembered as it was."""
    before = {*sys.modules}
    contents = {path: _content(path) for path in _sources(own)}
    try:
        with _importable(own), redirect_stdout(sys.stderr):  # results alone go to stdout
            return importlib.import_module(own.module)
    except (Exception, SystemExit) as error:  # whatever a user's module may do, it is told in one line
        raise InputError(f"{shown(own.name)}: its module cannot be imported: {why(error, own.file)}") from error
    finally:
        for name in {*sys.modules} - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file) in contents:
                _imported[name] = _Imported(Path(file), contents[Path(file)])


def _is_stale(name: str, own: OwnPython) -> bool:
    """Whether an imported module is no longer what its file holds, or hides another one in the folder of `own`."""
    known = _imported[name]
    if not known.file.is_file() or _content(known.file) != known.content:
        return True
    return _file(name, own.folder) not in (None, known.file)


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def why(error: BaseException, file: Path) -> str:
    """An exception in a few words: kind, message, and the last line of the user's file that it passed."""
    text = one_line(str(error))
    said = f": {text[:_LONGEST_WHY]}{' [...]' if len(text) > _LONGEST_WHY else ''}" if text else ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f"{type(error).__name__}{said}{f' ({file.name}, line {frames[-1].lineno})' if frames else ''}"


@contextmanager
def _importable(own: OwnPython) -> Iterator[None]:
    """The user's folder goes first while its module is imported, as for a script, and last from then on.

    So that a file in it hides no library that is imported later. Nothing is written into it.
    """
    folder, writes = str(own.folder), sys.dont_write_bytecode
    if own.is_installed:
        yield
        return
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _file(module: str, folder: Path | None) -> Path | None:
    """The source file of a module in a folder, or of an installed one; None where there is none."""
    first, *rest = module.split(".")
    if folder is not None:
        return _in_folder(folder, [first, *rest])
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # of a module without a spec, as the program's own main one
        return None
    if spec is None:
        return None
    if rest:
        found = (_in_folder(Path(place), rest) for place in spec.submodule_search_locations or ())
        return next(filter(None, found), None)
    path = Path(spec.origin) if spec.has_location and spec.origin else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _in_folder(folder: Path, parts: Sequence[str]) -> Path | None:
    """The source file that importing a dotted name reads last; a package goes before a module, as Python has it."""
    place = folder.joinpath(*parts)
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def _sources(own: OwnPython) -> set[Path]:
    """The module's file and those of its own modules that it imports, and they."""
    found: set[Path] = set()
    waiting = [*_files_of(own, own.module)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imports(path, own.folder):
            if not own.is_installed or name.partition(".")[0] == own.module.partition(".")[0]:
                waiting += _files_of(own, name)
    return found


def _files_of(own: OwnPython, module: str) -> Iterator[Path]:
    """Files that importing a module reads in the folder: its own, and the `__init__` of each package on the way."""
    parts = module.split(".")
    found = (_in_folder(own.folder, parts[:length]) for length in range(1, len(parts) + 1))
    yield from filter(None, found)


def _imports(path: Path, folder: Path) -> Iterator[str]:
    """Dotted names that a source file imports; what follows `from ... import` may be a module too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # told where it is imported
        return
    package = path.parent.relative_to(folder).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            before = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*before, *([node.module] if node.module else [])])
            yield from filter(None, (base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)))
