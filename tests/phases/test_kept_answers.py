"""Commands about judges that have no run: stopped in the middle, they go on where they were and ask nothing twice."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfpriority.backends.progress import Progress
from selfpriority.judges import contrast
from selfpriority.phases.judge_check import check_recipe, fit, fit_without_labels
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import Prompts, Recipe
from tests.test_pipeline import write_recipe

Ask = Callable[[Reporter], object]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "selfpriority"


class Stopping(Reporter):
    """Interrupts once so many requests were answered; counts those that were, and what was told."""

    def __init__(self, after: int | None) -> None:
        self.after, self.n_asked, self.notes = after, 0, list[str]()
        self._last = Progress(0, 0, 0, 0, 0.0)

    def progress(self, step: str, progress: Progress) -> None:
        before = self._last if progress.done > self._last.done else Progress(0, 0, 0, 0, 0.0)
        self.n_asked += (progress.done - progress.cached) - (before.done - before.cached)
        self._last = progress
        if self.after is not None and self.n_asked >= self.after:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


def labels(folder: Path) -> Path:
    rows = [
        {"prompt": f"Question {n}?", "response": f"Answer {n} {label}.", "objective": "harmlessness", "label": label}
        for n in range(10)
        for label in (0, 1)
    ]
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def few_prompts(kinds: tuple[str, ...], all_of: Any = contrast._asked) -> Any:
    return all_of(kinds)[:6]


@pytest.fixture(params=["labels", "contrast", "check"])
def ask(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What each of the commands does, on a model whose answers are scripted."""
    monkeypatch.setattr(contrast, "_asked", few_prompts)
    scripted: dict[str, Any] = {"model": str(tiny_model), "backend": {"kind": "scripted"}}
    recipe, to = Recipe.model_validate({**scripted, "prompts": "none"}), tmp_path / "heads"
    path = write_recipe(tmp_path, tiny_model)
    given: dict[str, Ask] = {
        "labels": lambda reporter: fit([labels(tmp_path)], recipe, to, (1,), None, reporter),
        "contrast": lambda reporter: fit_without_labels(recipe, to, reporter),
        "check": lambda reporter: check_recipe(path, [], None, reporter),
    }
    return given[request.param]


def test_what_was_asked_before_an_interrupt_is_not_asked_again(ask: Ask, cache: Path) -> None:
    stopped, again, once_more = Stopping(9), Stopping(None), Stopping(None)
    with pytest.raises(KeyboardInterrupt):
        ask(stopped)
    assert stopped.n_asked >= 9
    found = ask(again)
    assert again.n_asked > 0, "it was stopped before the end"
    [store] = cache.glob("checks/*/cache.sqlite")
    with sqlite3.connect(store) as answers:
        assert answers.execute("SELECT max(times_asked), count(*) FROM answers").fetchone()[0] == 1
    assert ask(once_more) == found
    assert once_more.n_asked == 0
    assert not again.notes


def test_a_cache_folder_that_cannot_be_written_is_told_and_no_hindrance(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reporter = Stopping(None)
    recipe = Recipe(model=str(tiny_model), prompts=Prompts(source="none"))
    assert fit([labels(tmp_path)], recipe, tmp_path / "heads", (1,), None, reporter)["objectives"]
    assert len(reporter.notes) == 1
    assert "Not a directory; so nothing is kept if this command is interrupted" in reporter.notes[0]


def test_a_killed_check_goes_on_where_it_was(tiny_model: Path, tmp_path: Path, cache: Path) -> None:
    """By the real command and SIGKILL, which leaves a command no time to keep anything."""
    slow = write_recipe(tmp_path, tiny_model, backend={"kind": "scripted", "delay": 0.01})
    with subprocess.Popen(
        [sys.executable, "-m", "selfpriority", "check-judge", str(slow)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "check, other wording" in line)
        process.kill()
    [store] = cache.glob("checks/*/cache.sqlite")
    with sqlite3.connect(store) as answers:
        n_kept = answers.execute("SELECT count(*) FROM answers").fetchone()[0]
    assert n_kept > 0
    assert check_recipe(slow, [], None, Reporter()).train is not None
    with sqlite3.connect(store) as answers:
        most, n = answers.execute("SELECT max(times_asked), count(*) FROM answers").fetchone()
    assert most == 1
    assert n > n_kept
