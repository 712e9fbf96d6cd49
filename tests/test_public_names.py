"""The public names: one list, kept in three places, all of them there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import selfpriority

TREE = ast.parse(Path(selfpriority.__file__).read_text(encoding="utf-8"))


def names_for_type_checkers() -> set[str]:
    (block,) = [node for node in TREE.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("name", selfpriority.__all__)
def test_every_public_name_loads(name):
    assert getattr(selfpriority, name) is not None


def test_the_three_lists_are_one():
    assert set(selfpriority.__all__) - {"__version__"} == names_for_type_checkers() == set(selfpriority._NAMES)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'denoize'"):
        _ = selfpriority.denoize


def test_public_functions_and_classes_are_documented():
    undocumented = [
        name for name in selfpriority.__all__ if name != "__version__" and not getattr(selfpriority, name).__doc__
    ]
    assert undocumented == []
