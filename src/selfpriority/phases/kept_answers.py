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
from typing import Any

from selfpriority.models.cache import cache_folder
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import Backend, OpenaiBackend, Recipe, VllmBackend, dump, engine_of
from selfpriority.run import Run, key_of
from selfpriority.storage import write_text


@contextmanager
def kept_answers(recipe: Recipe, reporter: Reporter) -> Iterator[Run]:
    """The run without rounds of the recipe's model and backend, in `checks/` of the cache folder.

    Where that cannot be written, as all that lies there, it is done without: the reporter is told that nothing stays.
    """
    folder = cache_folder() / "checks" / key_of("check-judge", recipe.model, _asked(recipe.backend))[:16]
    if (error := _trouble(folder)) is None:
        run = Run(folder)
        if isinstance(recipe.backend, OpenaiBackend) and run.cache.is_file():
            reporter.note(f"what {recipe.backend.base_url} answered before is in {folder}; delete it to ask anew")
        yield _described(run, recipe)
        return
    reporter.note(
        f"{folder}: {error.strerror}; so nothing is kept if this command is interrupted: let XDG_CACHE_HOME name a "
        f"folder that can be written"
    )
    with tempfile.TemporaryDirectory(prefix="spa-") as temporary:
        yield _described(Run(Path(temporary)), recipe)


def _asked(backend: Backend) -> dict[str, Any]:
    """Who is asked; where it runs, how fast and at what price is left out, which changes no answer."""
    backend = engine_of(backend)
    fields: set[str] | None = None
    if isinstance(backend, OpenaiBackend):
        fields = {"kind", "base_url", "leave_out", "limit_field"}
    if isinstance(backend, VllmBackend):
        fields = {"kind", "dtype", "engine"}
    return backend.model_dump(mode="json", include=fields)


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
