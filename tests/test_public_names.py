"""The public names: one list, in the stub, all of them there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import selfpriority

STUB = Path(selfpriority.__file__).with_suffix(".pyi")


@pytest.mark.parametrize("name", selfpriority.__all__)
def test_every_public_name_loads(name):
    assert getattr(selfpriority, name) is not None


def test_the_stub_is_the_list_and_renames_nothing():
    imports = [node for node in ast.parse(STUB.read_text("utf-8")).body if isinstance(node, ast.ImportFrom)]
    names = [alias for node in imports for alias in node.names]
    assert sorted(selfpriority.__all__) == sorted([*(alias.name for alias in names), "__version__"])
    # the same name again: what makes it public to type checkers, and all that lazy_loader can do
    assert [alias.asname for alias in names] == [alias.name for alias in names]


def test_a_wrong_name_is_an_attribute_error_that_can_say_what_was_meant():
    with pytest.raises(AttributeError, match="No selfpriority attribute denoize") as caught:
        _ = selfpriority.denoize
    # python suggests from these: "Did you mean: 'denoise'?"
    assert (caught.value.name, caught.value.obj) == ("denoize", selfpriority)
    assert "denoise" in dir(selfpriority)


def test_a_star_takes_the_public_names():
    taken: dict[str, object] = {}
    exec("from selfpriority import *", taken)
    assert set(selfpriority.__all__) == set(taken) - {"__builtins__"}


def test_public_functions_and_classes_are_documented():
    undocumented = [
        name for name in selfpriority.__all__ if name != "__version__" and not getattr(selfpriority, name).__doc__
    ]
    assert undocumented == []
