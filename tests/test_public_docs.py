"""Every public name says what it takes and raises, and shows an example; the examples run as they are printed."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

import selfpriority
from selfpriority import errors
from selfpriority.judges.heads import Head, Heads, write_heads

NAMES = [name for name in sorted(selfpriority.__all__) if name != "__version__"]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(selfpriority, name))]


def doc(name: str) -> str:
    return inspect.getdoc(getattr(selfpriority, name)) or ""


def part(name: str, heading: str) -> str:
    found = re.search(rf"^{heading}:\n((?:    .*\n|\n)+)", doc(name) + "\n", re.M)
    return found.group(1) if found else ""


def raises(name: str) -> bool:
    """Whether it raises something itself; a section of a recipe does, in pydantic's hands."""
    public = getattr(selfpriority, name)
    if inspect.isfunction(public):
        return _raises(public)
    if getattr(public, "_is_protocol", False):
        return False
    made = [vars(public).get(each) for each in ("__init__", "__post_init__")]
    return issubclass(public, BaseModel) or any(map(_raises, filter(inspect.isfunction, made)))


def _raises(function: object) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except OSError:  # dataclasses make some that stand in no file
        return False
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_shows_an_example_that_is_run(name):
    shown = [line for line in part(name, "Examples").splitlines() if ">>>" in line]
    assert shown, f"{name}: no example"
    assert not [line for line in shown if "SKIP" in line]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_each_argument_is(name):
    told = re.findall(r"^    (\w+): ", part(name, "Args"), re.M)
    assert told == list(inspect.signature(getattr(selfpriority, name)).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_says_what_it_raises(name):
    told = re.findall(r"^    (\w+): ", part(name, "Raises"), re.M)
    known = {*vars(errors), "ValidationError", "KeyboardInterrupt"}
    assert set(told) <= known
    assert told or not raises(name), f"{name}: raises, and does not say so"


def test_the_sections_stand_in_one_order():
    order = ["Args", "Returns", "Raises", "Examples"]
    for name in NAMES:
        found = re.findall(r"^(Args|Returns|Raises|Examples):$", doc(name), re.M)
        assert found == [heading for heading in order if heading in found], name


@pytest.fixture
def desk(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the examples are run in, as the page of the reference says."""
    (finished_run / "runs").mkdir()
    shutil.move(finished_run / "run", finished_run / "runs" / "my")
    for path in (finished_run / "recipe.yaml", finished_run / "runs" / "my" / "resolved.yaml"):
        path.write_text(path.read_text("utf-8").replace(f"{finished_run}/run", f"{finished_run}/runs/my"), "utf-8")
    (finished_run / "recipe.yaml").rename(finished_run / "my.yaml")
    (finished_run / "my-model").symlink_to(finished_run / "model")
    write_heads(finished_run / "my-heads", _heads(hidden_size=32))
    monkeypatch.chdir(finished_run)
    return finished_run


def _heads(hidden_size: int) -> Heads:
    draw = np.random.default_rng(0)
    zeros, ones = np.zeros(hidden_size), np.ones(hidden_size)
    names = ("harmlessness", "helpfulness")
    heads = {
        name: Head(name, (1,), "mean", zeros, ones, draw.normal(size=hidden_size), 0.0, 0.0, 1.0) for name in names
    }
    return Heads("my-model", heads, {})


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_as_it_is_printed(name, desk):
    given = {each: getattr(selfpriority, each) for each in selfpriority.__all__}
    example = doctest.DocTestParser().get_doctest(doc(name), given, name, None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 0
