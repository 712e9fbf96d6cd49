"""The house's rules that can be read off the source: who imports whom, how long, how many, who prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "selfpriority"
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NAMES = {path: path.relative_to(ROOT).as_posix() for path in FILES}

# from the top down: a room imports from rooms on lower lines only
LINE = (
    "__main__",
    "cli",
    "library run_view",
    "terminal screen result_table",
    "inspection planning",
    "pipeline",
    "inputs side_by_side",
    "stages",
    "phases",
    "report results",
    "review",
    "rivals training evaluation",
    "method judges",
    "models",
    "own_pairs",
    "run prompts preferences rating chat constitution personas wording intervals languages refusals shipped text_table",
    "run_records",
    "chat_template",
    "storage locks",
    "language_model prompt_rows prompt_sets",
    "records",
    "recipe",
    "table_rows",
    "outside own_python",
    "errors formats interrupts plain_fields plain_text thinking",
)
HEIGHT = {room: -number for number, line in enumerate(LINE) for room in line.split()}
# beside the line: the outside world, opened by phases; the others know its progress and how it counts
BACKENDS_MAY_IMPORT = {
    "language_model",
    "chat",
    "chat_template",
    "records",
    "recipe",
    "outside",
    "errors",
    "models",
    "interrupts",
    "plain_fields",
}
MAY_IMPORT_BACKENDS = {"library", "phases", "run_view", "terminal", "inspection", "planning"}
# inside one line
NEIGHBOURS = {("shipped", "constitution"), ("refusals", "wording"), ("personas", "languages")}

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "pyarrow",
    "pandas",
    "safetensors",
    "sklearn",
    "lm_eval",
}
MAY_BE_HEAVY = re.compile(r"backends/.*|models/.*|training/.*|judges/.*|method/(rival_losses|loss)\.py")
MAX_LINES, MAX_METHOD_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 150, 60, 6

every_file = pytest.mark.parametrize("path", FILES, ids=NAMES.values())


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def own_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of the package's own modules, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "selfpriority":
                yield node.lineno, rest[0] if rest else "__init__"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_at_top(statements: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of what importing the module imports at once."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.If | ast.Try) and not is_only_for_types(node):
            yield from imported_at_top(node.body)


def forbidden(importer: str, imported: str) -> bool:
    if importer in ("__init__", imported) or (importer, imported) in NEIGHBOURS:
        return False
    if importer == "backends":
        return imported not in BACKENDS_MAY_IMPORT
    if imported == "backends":
        return importer not in MAY_IMPORT_BACKENDS
    return HEIGHT[imported] >= HEIGHT[importer]


def test_every_room_has_its_place():
    rooms = {room_of(path) for path in FILES} - {"__init__", "backends"}
    assert rooms == set(HEIGHT), f"in LINE or on the disk alone: {sorted(rooms ^ set(HEIGHT))}"


@every_file
def test_imports_go_one_way(path):
    wrong = [
        f"{NAMES[path]}:{line} imports {room}"
        for line, room in own_imports(TREES[path])
        if room in {*HEIGHT, "backends"} and forbidden(room_of(path), room)
    ]
    assert not wrong


def test_the_rule_can_fail():
    assert forbidden("method", "judges")
    assert forbidden("records", "method")
    assert forbidden("judges", "backends")
    assert forbidden("backends", "training")
    assert not forbidden("phases", "backends")
    assert not forbidden("cli", "errors")


def test_method_knows_the_judge_protocol_and_not_the_judges():
    for path in FILES:
        if room_of(path) == "method":
            assert "judges" not in {room for _, room in own_imports(TREES[path])}


@every_file
def test_heavy_libraries_are_imported_where_they_are_used(path):
    if MAY_BE_HEAVY.fullmatch(NAMES[path]):
        return
    assert not [f"line {line}: {name}" for line, name in imported_at_top(TREES[path].body) if name in HEAVY]


@every_file
def test_files_are_short(path):
    limit = MAX_METHOD_LINES if room_of(path) == "method" else MAX_LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@every_file
def test_functions_are_short_and_take_few_parameters(path):
    for function in functions(TREES[path]):
        where = f"{NAMES[path]}:{function.lineno} {function.name}"
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < MAX_FUNCTION_LINES, f"{where} is too long"
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
        assert len(named) <= MAX_PARAMETERS, f"{where} takes {len(named)} parameters"


@every_file
def test_modules_open_with_their_scope(path):
    docstring = ast.get_docstring(TREES[path])
    assert docstring, f"{NAMES[path]} has no docstring"
    assert len(docstring.split()) >= 3


@every_file
def test_only_the_command_line_prints(path):
    if room_of(path) == "cli":
        return
    calls = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


@every_file
def test_a_broad_except_says_why(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if re.match(r"\s*except( BaseException| Exception)?( as \w+)?:", line):
            assert "#" in line, f"{NAMES[path]}:{number} catches everything and does not say why"


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle"}
UNSAFE_CALLS = re.compile(r"(torch|joblib|pickle)\.load|torch\.jit\.load|.*\.read_pickle|eval|exec")


def unsafe(tree: ast.Module) -> Iterator[str]:
    """What could run code that stands in a file."""
    yield from (
        f"line {line}: {name}" for line, name in imported_at_top(list(ast.walk(tree))) if name in UNSAFE_MODULES
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            is_asked = any(word.arg == "allow_pickle" for word in node.keywords)
            if is_asked or UNSAFE_CALLS.fullmatch(ast.unparse(node.func)):
                yield f"line {node.lineno}: {ast.unparse(node.func)}"
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("from_pretrained", "from_config") and not trusts_as_told(node):
                yield f"line {node.lineno}: {name} without trust_remote_code"


def trusts_as_told(call: ast.Call) -> bool:
    """Whether it is peft's, which knows no such thing, or says it, or passes on named arguments that do."""
    is_pefts = ast.unparse(call.func).startswith("PeftModel.")
    return is_pefts or any(word.arg in ("trust_remote_code", None) for word in call.keywords)


@every_file
def test_no_file_can_run_code(path):
    assert not [*unsafe(TREES[path])]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def f():\n    from pickle import load",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pandas.read_pickle(path)",
        "AutoConfig.from_pretrained(name)",
        "AutoModelForCausalLM.from_config(config)",
    ],
)
def test_that_rule_can_fail(code):
    assert [*unsafe(ast.parse(code))]


IMPORTS_BY_NAME = {"own_python.py", "training/extras.py", "rivals/known.py", "backends/vllm_process.py"}
"""What a recipe names as package.module:name, packages whose names stand in the code, and files of the package."""


def test_a_module_is_imported_by_name_in_one_place():
    calls = re.compile(r"(importlib\.)?import_module|__import__|runpy\.\w+|(importlib\.util\.)?module_from_spec")
    found = {
        NAMES[path]
        for path in FILES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call) and calls.fullmatch(ast.unparse(node.func))
    }
    assert found == IMPORTS_BY_NAME


def test_no_room_for_leftovers():
    assert not {path.stem for path in FILES} & {"utils", "util", "common", "helpers", "misc"}
