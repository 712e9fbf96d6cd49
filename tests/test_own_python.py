"""Python of a user's own: where it is found, what its hash sees, and that what runs is what was hashed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.own_python import find, load, source_hash


@pytest.fixture(autouse=True)
def tidy() -> object:
    """The modules and folders that a test brings in go with it."""
    modules, path = dict(sys.modules), [*sys.path]
    yield
    sys.path[:] = path
    for name in {*sys.modules} - {*modules}:
        del sys.modules[name]


def write(folder: Path, more: dict[str, str] | None = None, **files: str) -> Path:
    for name, text in {**files, **(more or {})}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_folder_goes_before_what_is_installed_and_an_earlier_one_before_a_later(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", colorsys="WHO = 'a'"), write(tmp_path / "b", colorsys="", shelf="WHO = 'b'")
    assert find("colorsys:WHO", (first, second)).file == first / "colorsys.py"
    assert find("shelf:WHO", (first, second)).folder == second
    installed = find("colorsys:rgb_to_hls", (tmp_path,))
    assert installed.is_installed
    assert load(installed)(0, 0, 0) == (0, 0, 0)
    assert load(find("shelf:WHO", (first, second))) == "b"


def test_finding_and_hashing_run_nothing(tmp_path: Path) -> None:
    loud = "raise AssertionError('it ran')"
    write(tmp_path, {"pkg/__init__": loud, "pkg/deep/inner": loud})
    own = find("pkg.deep.inner:f", (tmp_path,))
    assert own.file == tmp_path / "pkg" / "deep" / "inner.py"
    assert len(source_hash(own)) == 64
    with pytest.raises(InputError, match=r"'pkg.deep.inner:f': its module cannot be imported: AssertionError: it ran"):
        load(own)


@pytest.mark.parametrize("changed", ["judge", "pkg/__init__", "pkg/words", "pkg/late", "beside", "pkg/inner/far"])
def test_the_hash_sees_every_file_of_ones_own_that_is_imported(tmp_path: Path, changed: str) -> None:
    sources = {
        "judge": "from pkg import words\nimport beside\nimport json",
        "pkg/__init__": "",
        "pkg/words": "from .inner import far\ndef f():\n    from pkg.late import x",
        "pkg/late": "x = 1",
        "pkg/inner/far": "from .. import words",
        "beside": "",
        "stranger": "",
    }
    write(tmp_path, sources)
    own = find("judge:f", (tmp_path,))
    before = source_hash(own)
    write(tmp_path, stranger="a = 1")
    assert source_hash(own) == before
    write(tmp_path, {changed: f"{sources[changed]}\nchanged = True"})
    assert source_hash(own) != before


def test_the_hash_of_what_is_installed_stays_in_its_package(tmp_path: Path) -> None:
    """It ends where another package begins, or the hash of a judge would be that of numpy too."""
    own = find("email.utils:parseaddr", ())
    assert own.is_installed
    assert own.folder.joinpath("email", "utils.py") == own.file
    assert len(source_hash(own)) == 64


def test_what_runs_is_what_the_file_holds_now(tmp_path: Path) -> None:
    write(tmp_path, mine="from words import W\ndef f():\n    return W", words="W = 1")
    own = find("mine:f", (tmp_path,))
    first = load(own)
    assert (first(), load(own) is first) == (1, True)
    write(tmp_path, words="W = 2")  # in the same second, and as long: no date tells it
    assert load(own)() == 2
    other = write(tmp_path / "other", mine="def f():\n    return 3")
    assert load(find("mine:f", (other,)))() == 3


def test_a_folder_hides_nothing_and_is_not_written_to(tmp_path: Path) -> None:
    write(tmp_path, mine="import beside", beside="", chunk="")
    sys.modules.pop("chunk", None)
    with pytest.raises(InputError, match="holds no f"):
        load(find("mine:f", (tmp_path,)))
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1
    assert not [*tmp_path.rglob("__pycache__")]


def test_what_a_module_prints_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, speaks="print('hello')\nf = 1")
    assert load(find("speaks:f", (tmp_path,))) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("judging", "'judging': is not of the form package.module:name"),
        ("a b:c", "is not of the form"),
        (
            "nowhere:f",
            "there is no module nowhere with a source file, neither in {folder} nor installed; write nowhere.py",
        ),
        ("mine.deeper:f", "there is no module mine.deeper with a source file"),
        ("bare:f", "there is no module bare with a source file"),
        ("math:sin", "there is no module math with a source file"),
        ("mine:rat", "mine.py holds no rat; did you mean rate?"),
        ("needs:f", "cannot be imported: ModuleNotFoundError: No module named 'not_there' (needs.py, line 2)"),
        ("odd:f", "cannot be imported: SyntaxError"),
        ("leaves:f", "cannot be imported: SystemExit: 0 (leaves.py, line 1)"),
        ("re:f", "for another module is called re ("),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(tmp_path: Path, name: str, told: str) -> None:
    write(tmp_path, mine="def rate(): ...", needs="\nimport not_there", odd="def", leaves="raise SystemExit(0)", re="")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError) as caught:
        load(find(name, (tmp_path,)))
    (line,) = caught.value.lines
    assert told.format(folder=tmp_path) in line
