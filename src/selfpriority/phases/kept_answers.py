"""Where the answers of a model are kept for the commands that have no run of their own: about judges, and fitting one.

A run directory without rounds, in the cache folder. Its store knows models by their fingerprints, so that another
model under the same name finds nothing there. It stays, for the next command asks much of it again: heads with another
penalty, a method beside those that were compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfpriority.models.cache import cache_folder
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import Recipe, dump
from selfpriority.run import Run, key_of
from selfpriority.storage import write_text


@contextmanager
def kept_answers(recipe: Recipe, reporter: Reporter) -> Iterator[Run]:
    """The run without rounds of the recipe's model and backend, in `checks/` of the cache folder.

    Where that cannot be written, as all that lies there, it is done without: the reporter is told that nothing stays.
    """
    folder = (
        cache_folder() / "checks" / key_of("check-judge", recipe.model, recipe.backend.model_dump(mode="json"))[:16]
    )
    if (error := _trouble(folder)) is None:
        yield _described(Run(folder), recipe)
        return
    reporter.note(
        f"{folder}: {error.strerror}; so nothing is kept if this command is interrupted: let XDG_CACHE_HOME name a "
        f"folder that can be written"
    )
    with tempfile.TemporaryDirectory(prefix="spa-") as temporary:
        yield _described(Run(Path(temporary)), recipe)


def _trouble(folder: Path) -> OSError | None:
    """Why nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def _described(run: Run, recipe: Recipe) -> Run:
    if not run.recipe.is_file():
        write_text(run.recipe, [dump(recipe)])
    return run
