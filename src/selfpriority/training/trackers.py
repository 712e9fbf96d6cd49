"""Experiment trackers that are shown the numbers of every step: accelerate's, one a name.

They receive settings and the numbers of `training.jsonl`, never a text of a pool.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from selfpriority.errors import InputError
from selfpriority.recipe import Align
from selfpriority.training.extras import missing_trackers

_PROJECTS = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME", "trackio": "TRACKIO_PROJECT"}
"""Environment variables that name the project, as these packages' users know them."""


class Trackers:
    """The trackers of a training; called on its main process.

    Args:
        settings: `report_to` names the trackers, and all fields are reported.
        folder: where TensorBoard writes unless its environment variable names another place.

    Raises:
        InputError: the package of a name is not installed.
    """

    def __init__(self, settings: Align, folder: Path) -> None:
        check_trackers(settings.report_to)
        self.trackers = [_tracker(name, folder) for name in settings.report_to]
        for tracker in self.trackers:
            tracker.start()
            tracker.store_init_configuration({key: str(value) for key, value in settings.model_dump().items()})

    def log(self, record: Mapping[str, Any]) -> None:
        """Shows the numbers of a step."""
        numbers = {f"train/{name}": value for name, value in record.items() if name not in ("step", "epoch")}
        for tracker in self.trackers:
            tracker.log(numbers, step=record["step"])

    def finish(self) -> None:
        """Closes them."""
        for tracker in self.trackers:
            tracker.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError when a tracker's package cannot be imported."""
    if lines := list(missing_trackers(names)):
        raise InputError(*lines)


def _tracker(name: str, folder: Path) -> GeneralTracker:
    kind: Any = LOGGER_TYPE_TO_CLASS[name]
    if kind.requires_logging_directory:
        made = kind("", logging_dir=os.environ.get("TENSORBOARD_LOGGING_DIR", str(folder)))
    else:
        made = kind(os.environ.get(_PROJECTS[name], "huggingface"))
    tracker: GeneralTracker = made
    return tracker
