"""Heads that a model makes for itself (`method: contrast`): made once for a model's weights, kept in run and cache.

The run's own copy is the one that counts: a run that is continued on another machine goes on with the judge it had.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from selfpriority.errors import InputError
from selfpriority.judges.contrast import contrast_hash, fit_contrast
from selfpriority.judges.heads import Head, Heads, read_heads, write_heads
from selfpriority.language_model import LanguageModel
from selfpriority.models.cache import cache_folder
from selfpriority.run import key_of


def made_heads(
    name: str, model: LanguageModel, objectives: Sequence[str], own: Path, note: Callable[[str], None]
) -> Heads:
    """The heads of `name` for these objectives, made unless they are there.

    Args:
        name: of the model.
        model: the same, behind the run's cache: nothing that was asked is asked again after an interruption.
        objectives: in priority order.
        own: the run's folder for them.
        note: told in one line of heads that cannot be read and are made anew.

    Raises:
        InputError: an objective that no answers can be made for.
    """
    shared = cache_folder() / "heads" / key_of(model.fingerprint, contrast_hash(objectives), tuple(objectives))[:16]
    for folder in (own, shared):
        try:
            heads = read_heads(folder) if folder.is_dir() else None
        except InputError as error:
            note(f"{error}; made anew")
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if heads is not None:
            _keep(own, heads)
            return heads
    heads = fit_contrast(model, name, n_layers(name), objectives)
    _keep(own, heads)
    with contextlib.suppress(OSError):  # as all that lies in the cache folder, best effort
        _keep(shared, heads)
    return read_heads(own)  # as they are next time: written numbers are shorter


def stand_in_heads(name: str, model: LanguageModel, objectives: Sequence[str]) -> Heads:
    """Heads that rate nothing, for who counts what making them would ask of `model`."""
    from selfpriority.judges.contrast import made_labels, read_contrast
    from selfpriority.judges.fit import Reads, observe

    depth = _layers(name) or 0  # a plan fetches no model, and counts as many tokens whatever layer is read
    for objective in objectives:
        contrast = read_contrast(objective)
        observe(made_labels(objective, contrast, model), model, Reads((contrast.layer(depth),), "mean"))
    one = np.ones(1)
    return Heads(name, {o: Head(o, (0,), "mean", one, one, one, 0.0, 0.0, 1.0) for o in objectives}, {})


def n_layers(model: str) -> int:
    """Blocks of a model, fetched if it is not here.

    Raises:
        InputError: it cannot be had.
    """
    from selfpriority.models.files import resolve

    resolve(model)
    found = _layers(model)
    assert found is not None, "it is on this machine by now"
    return found


def _layers(model: str) -> int | None:
    """Blocks of a model; None where it is not on this machine."""
    from selfpriority.models.files import described
    from selfpriority.models.loading import describe

    found = describe(model) if described(model) is not None else None
    return None if found is None else int(found.config.get_text_config().num_hidden_layers)


def _keep(folder: Path, heads: Heads) -> None:
    """Writes them whole or not at all, unless they are there; another process may be reading, or keeping the same."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".heads-", dir=folder.parent))
    try:
        write_heads(partial, heads)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
