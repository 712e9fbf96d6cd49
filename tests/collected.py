"""A run that was collected once, to be trained in many ways."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfpriority.pipeline import follow, start
from tests.test_pipeline import spa, write_recipe


@pytest.fixture(scope="module")
def collected(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a recipe and its run, ready to align."""
    folder = tmp_path_factory.mktemp("collected")
    follow(*start(write_recipe(folder, tiny_model), [], folder / "run"))
    spa("collect", folder / "run")
    return folder


def ready(collected: Path, folder: Path, *overrides: str) -> Path:
    """A copy of the collected run under a changed recipe."""
    run = folder / "run"
    shutil.copytree(collected / "run", run)
    follow(*start(collected / "recipe.yaml", overrides, run))
    return run
