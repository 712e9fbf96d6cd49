"""Heads that a model makes for itself (`method: contrast`): made once for a model's weights, kept in run and cache.

The run's own copy is the one that counts: a run that is continued on another machine goes on with the judge it had.
"""

from __future__ import annotations

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
from selfpriority.run import Run, key_of


def made_heads(
    name: str, model: LanguageModel, objectives: Sequence[str], run: Run, note: Callable[[str], None]
) -> Heads:
    """The heads of `name` for these objectives, made unless they are there.

    Args:
        name: of the model.
        model: the same, behind the run's cache: nothing that was asked is asked again after an interruption.
        objectives: in priority order.
        run: keeps them, in `heads/`.
        note: told in one line of heads that cannot be read and are made anew.

    Raises:
        InputError: an objective that no answers can be made for.
    """
    key = key_of("heads", model.fingerprint, contrast_hash(objectives), tuple(objectives))[:16]
    own, shared = run.folder / "heads" / key, cache_folder() / "heads" / key
    for folder in (own, shared):
        if folder.is_dir():
            try:
                heads = read_heads(folder)
            except InputError as error:
                note(f"{error}; made anew")
                continue
            _keep(own, heads)
            return heads
    heads = fit_contrast(model, name, n_layers(name), objectives)
    for folder in (own, shared):
        _keep(folder, heads)
    return read_heads(own)  # as they are next time: written numbers are shorter


def stand_in_heads(name: str, model: LanguageModel, objectives: Sequence[str]) -> Heads:
    """Heads that rate nothing, for who counts what making them would ask of `model`."""
    from selfpriority.judges.contrast import made_labels, read_contrast
    from selfpriority.judges.fit import Reads
    from selfpriority.language_model import ask

    for objective in objectives:
        labels = made_labels(objective, read_contrast(objective), model)
        reads = Reads((read_contrast(objective).layer(n_layers(name)),), "mean")
        singles = [(row.prompt, row.response) for row in labels.answers]
        pairs = [(row.prompt, text) for row in labels.pairs for text in (row.chosen, row.rejected)]
        ask(model, [reads.request(prompt, text, "length") for prompt, text in [*singles, *pairs]])
    one = np.ones(1)
    return Heads(name, {o: Head(o, (0,), "mean", one, one, one, 0.0, 0.0, 1.0) for o in objectives}, {})


def n_layers(model: str) -> int:
    """Blocks of a model.

    Raises:
        InputError: it cannot be had.
    """
    from selfpriority.models.files import resolve
    from selfpriority.models.loading import describe

    resolve(model)
    described = describe(model)
    assert described is not None, "it is on this machine by now"
    return int(described.config.get_text_config().num_hidden_layers)


def _keep(folder: Path, heads: Heads) -> None:
    """Writes them whole or not at all: another process may be reading."""
    if (folder / "heads.safetensors").is_file() and (folder / "card.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".heads-", dir=folder.parent))
    write_heads(partial, heads)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
