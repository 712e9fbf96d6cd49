"""Experiment trackers that are shown the numbers of every step: transformers' own callbacks, one a name.

They receive settings, the model's configuration and the numbers of `training.jsonl`, never a text of a pool.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, get_reporting_integration_callbacks

from selfpriority.errors import InputError


def trackers(names: Sequence[str], folder: Path) -> list[TrainerCallback]:
    """A callback for every name.

    Args:
        names: as in `align.report_to`.
        folder: where TensorBoard writes unless its environment variable names another place.

    Raises:
        InputError: the package of that name is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"align.report_to: {name} is not installed; pip install {name}, or leave it out")
    made: list[TrainerCallback] = [kind() for kind in get_reporting_integration_callbacks(list(names))]  # type: ignore[no-untyped-call]
    for callback in made:
        if isinstance(callback, TensorBoardCallback) and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            callback.logging_dir = str(folder)  # its default lies among the checkpoints, which are removed
    return made
