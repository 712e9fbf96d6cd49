"""What the anchors make of a model's answers (`method: battery`): asked for once, kept in the run and in the cache.

The run's own copy is the one that counts, as of heads. Models behind an address are kept in the run alone: what they
are is known by no content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.judges.battery import Battery, battery_hash, fit_battery
from selfpriority.language_model import LanguageModel
from selfpriority.models.cache import cache_folder
from selfpriority.run import key_of
from selfpriority.storage import read_record, write_record


@dataclass(frozen=True)
class Kept:
    """Where a battery lies."""

    own: Path
    """In the run."""
    shared: Path | None
    """In the cache folder, where the model is known by its content."""


def places(own: Path, model: LanguageModel, constitution: Constitution, *, is_local: bool) -> Kept:
    """Where the battery of a model and a constitution lies; `own` is the run's file for it."""
    key = key_of(model.fingerprint, battery_hash(constitution))[:16]
    return Kept(own, cache_folder() / "battery" / f"{key}.json" if is_local else None)


def made_battery(
    name: str, model: LanguageModel, constitution: Constitution, kept: Kept, note: Callable[[str], None]
) -> Battery:
    """The battery of a model, fitted unless it is there.

    Args:
        name: of the model.
        model: the same, behind the run's cache: nothing that was asked is asked again after an interruption.
        constitution: objectives and anchors.
        kept: where it lies.
        note: told in one line of a file that cannot be read and is made anew.

    Raises:
        InputError: an objective without questions, no anchors, or nothing could be asked about any.
    """
    for path in filter(None, (kept.own, kept.shared)):
        try:
            battery = read_record(path, Battery, "made anew") if path.is_file() else None
        except InputError as error:
            note(str(error))
            continue
        if battery is not None:
            _keep(kept, battery)
            return battery
    battery = fit_battery(model, name, constitution)
    _keep(kept, battery)
    return battery


def _keep(kept: Kept, battery: Battery) -> None:
    if not _is_sound(kept.own):
        write_record(kept.own, battery)
    if kept.shared is not None and not _is_sound(kept.shared):
        with contextlib.suppress(OSError, SelfPriorityError):  # as all that lies in the cache folder, best effort
            write_record(kept.shared, battery)


def _is_sound(path: Path) -> bool:
    try:
        return path.is_file() and bool(read_record(path, Battery).by_objective)
    except InputError:
        return False
