"""A step taken shard by shard makes what it makes at once, goes on behind its last whole shard, and holds few rows."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.backends.progress import Progress
from selfpriority.errors import WorkFailed
from selfpriority.language_model import Answer, Completion, LanguageModel, Request
from selfpriority.phases.collect import collect
from selfpriority.phases.models import open_model
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.shards import Growing, Grown
from selfpriority.recipe import load
from selfpriority.records import Drop, Sifted
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.storage import append_rows, read_record, read_rows

N = 7


class Told(Reporter):
    """Keeps which shards it was told of."""

    def __init__(self) -> None:
        self.shards: dict[str, list[tuple[int, int]]] = {}

    def progress(self, step: str, progress: Progress) -> None:
        told = self.shards.setdefault(step, [])
        if (progress.shard, progress.shards) not in told:
            told.append((progress.shard, progress.shards))


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    said = {
        "model": str(tiny_model),
        "prompts": {"source": "demo", "split": "train", "limit": N},
        "sample": {"n": 4, "max_new_tokens": 12},
        "refine": {"n": 2, "max_new_tokens": 12},
        "denoise": {"consistency": 0.25, "keep_lowest": 0.8},
        "pair": {"margin": 0.1},
        "backend": {"kind": "scripted"},
    }
    path.write_text(yaml.safe_dump(said))
    return path


def collected(recipe: Path, folder: Path, reporter: Reporter | None = None) -> Run:
    run = Run(folder)
    run.round(1).mkdir(parents=True, exist_ok=True)
    run.recipe.touch()
    collect(run, Resources(load(recipe), run, reporter or Reporter()), 1)
    return run


def made(run: Run) -> dict[str, Any]:
    """Content of the round's files; drops in any order, and the funnel."""
    files = {path.name: path.read_bytes() for path in run.round(1).glob("[1-5]-*.jsonl")}
    return {**files, "drops": sorted(map(repr, run.drops(1))), "funnel": run.funnel(1)}


@pytest.fixture
def at_once(recipe: Path, tmp_path: Path) -> dict[str, Any]:
    return made(collected(recipe, tmp_path / "at-once"))


@pytest.mark.parametrize("size", [1, 3, N, N + 1])
def test_shards_make_what_is_made_at_once(
    recipe: Path, tmp_path: Path, at_once: dict[str, Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpriority.phases.collect.SHARD", size)
    told = Told()
    run = collected(recipe, tmp_path / "run", told)
    assert made(run) == at_once
    assert at_once["funnel"].steps["denoise"].dropped, "the threshold is that of all pools"
    assert not list(run.round(1).glob(".*")), "nothing lies beside the files in the end"
    of = -(-N // size)
    assert told.shards["sample"] == [(number, of) for number in range(1, of + 1)]


@dataclass
class Counting:
    """Scripted answers; stops behind so many requests."""

    model: LanguageModel
    left: int
    asked: int = 0

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[number] for number in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for answered in self.model.answer(batches):
            if self.asked == self.left:
                raise KeyboardInterrupt
            self.asked += len(answered[1])
            yield answered


def test_what_is_stopped_anywhere_goes_on_behind_its_last_shard(
    recipe: Path, tmp_path: Path, at_once: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpriority.phases.collect.SHARD", 2)
    models: list[Counting] = []

    def opened(left: int) -> Any:
        def open_counting(name: str, settings: Any, note: Any) -> Counting:
            models.append(Counting(open_model(name, settings, note), left))
            return models[-1]

        return open_counting

    done = 0
    for _ in range(100):
        monkeypatch.setattr("selfpriority.phases.resources.open_model", opened(5))
        try:
            run = collected(recipe, tmp_path / "run")
        except KeyboardInterrupt:
            done += 1
            continue
        break
    assert done > 10
    assert made(run) == at_once
    n_asked, models = sum(model.asked for model in models), []
    monkeypatch.setattr("selfpriority.phases.resources.open_model", opened(10**6))
    other = collected(recipe, tmp_path / "other")
    assert n_asked == sum(model.asked for model in models), "nothing is asked twice"
    steps = run.manifest.steps
    assert max(entry.cached for entry in steps.values()) > 0
    n_requests = {name: entry.requests for name, entry in other.manifest.steps.items()}
    assert {name: entry.requests for name, entry in steps.items()} == n_requests, "of finished shards no cache is asked"


@dataclass(frozen=True)
class Row:
    """A row of a file."""

    name: str


def grown(folder: Path, key: str = "key") -> Growing[Row]:
    return Growing(folder / "rows.jsonl", Row, key)


def shard(
    *names: str, dropped: Sequence[str] = (), why: str = "why", spent: Spent | None = None
) -> tuple[int, list[Row], Sifted[Any], Spent]:
    drops = tuple(Drop("step", name, why) for name in dropped)
    return len(names) + len(drops), [Row(name) for name in names], Sifted(names, drops), spent or Spent()


def test_what_a_failure_that_may_pass_took_is_asked_for_again_at_the_next_start(tmp_path: Path) -> None:
    first = grown(tmp_path)
    first.add(*shard("a"))
    first.add(*shard("b", dropped=["c"], why="timeout"))
    first.add(*shard("d"))
    assert first.so_far.counts.n_in == 4  # this process goes on
    again = grown(tmp_path)
    assert again.so_far.counts.n_in == 1  # the next one has only what lacks nothing
    again.add(*shard("b", "c"))
    again.add(*shard("d"))
    again.finish()
    assert read_rows(tmp_path / "rows.jsonl", Row) == [Row("a"), Row("b"), Row("c"), Row("d")]
    assert list(again.drops()) == []
    first_again = grown(tmp_path / "other")
    first_again.add(*shard("x", dropped=["y"], why="timeout"))
    first_again.finish()  # nobody killed it: the drop counts
    assert [drop.prompt_id for drop in first_again.drops()] == ["y"]


def test_what_a_step_cost_is_the_sum_of_all_that_worked_on_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collected(recipe, tmp_path / "whole").manifest.steps["round-1/sample"]
    monkeypatch.setattr("selfpriority.phases.collect.SHARD", 2)
    with monkeypatch.context() as killing:
        killing.setattr(
            "selfpriority.phases.resources.open_model",
            lambda name, settings, note: Counting(open_model(name, settings, note), 9),
        )
        with pytest.raises(KeyboardInterrupt):
            collected(recipe, tmp_path / "run")
    note = read_record(next((tmp_path / "run" / "round-1").glob(".*-note")), Grown)
    assert 0 < note.spent.requests < whole.requests
    after = collected(recipe, tmp_path / "run").manifest.steps["round-1/sample"]
    assert after.requests == whole.requests
    assert (
        note.spent.tokens < after.tokens <= whole.tokens
    )  # of the shard in hand what the killed one drew is not counted
    assert after.seconds >= note.spent.seconds


def test_what_an_unfinished_shard_left_is_cut_off(tmp_path: Path) -> None:
    grown(tmp_path).add(*shard("a", "b", dropped=["c"]))
    for path in tmp_path.glob(".rows.jsonl.growing*"):
        if not path.name.endswith("note"):
            with path.open("a") as file:
                file.write('{"name": "half')
    again = grown(tmp_path)
    assert again.so_far.counts.n_in == 3
    again.add(*shard("d"))
    again.finish()
    assert read_rows(tmp_path / "rows.jsonl", Row) == [Row("a"), Row("b"), Row("d")]
    assert [drop.prompt_id for drop in again.drops()] == ["c"]
    assert (again.so_far.counts.out, again.so_far.counts.dropped) == (3, {"why": 1})
    again.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("harm", ["other key", "no note", "half a note", "short rows", "no rows", "no drops", "whole"])
def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path: Path, harm: str) -> None:
    grown(tmp_path).add(*shard("a", "b", dropped=["c"]))
    rows, drops, note = (tmp_path / f".rows.jsonl.growing{kind}" for kind in ("", "-drops", "-note"))
    match harm:
        case "no note":
            note.unlink()
        case "half a note":
            note.write_text(note.read_text()[:20])
        case "short rows":
            os.truncate(rows, 5)
        case "no rows":
            rows.unlink()
        case "no drops":
            drops.unlink()
        case "whole":
            grown(tmp_path).finish()  # killed before the manifest knew
    again = grown(tmp_path, "other" if harm == "other key" else "key")
    assert again.so_far.counts.n_in == 0
    again.add(*shard("x"))
    again.finish()
    assert read_rows(tmp_path / "rows.jsonl", Row) == [Row("x")]


@dataclass
class Others(Counting):
    """Writes other texts than the scripted model, under its name."""

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, answers in super().answer(batches):
            yield number, [_in_capitals(each) for each in answers]


def _in_capitals(answer: Answer) -> Answer:
    if not isinstance(answer, Completion):
        return answer
    return replace(answer, texts=tuple(replace(text, text=text.text.upper()) for text in answer.texts))


def test_rows_of_another_input_are_not_gone_on_with(
    recipe: Path, tmp_path: Path, at_once: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates that were lost and drawn anew have the same key: what was rated of the old ones is none of theirs."""
    monkeypatch.setattr("selfpriority.phases.collect.SHARD", 2)
    with monkeypatch.context() as other:
        other.setattr("selfpriority.phases.resources.open_model", lambda *given: Others(open_model(*given), 45))
        with pytest.raises(KeyboardInterrupt):
            collected(recipe, tmp_path / "run")
    folder = tmp_path / "run"
    begun = read_record(folder / "round-1" / ".2-scored.jsonl.growing-note", Grown)
    assert begun.counts.n_in, "a shard of the other candidates was rated"
    (folder / "round-1" / "1-candidates.jsonl").unlink()
    for path in folder.glob("cache.sqlite*"):
        path.unlink()
    assert made(collected(recipe, folder)) == at_once


def test_no_link_is_followed_and_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    aim = tmp_path / "aim"
    aim.write_text("mine")
    (tmp_path / "rows").symlink_to(aim)
    with pytest.raises(WorkFailed, match="cannot write"):
        append_rows(tmp_path / "rows", 0, [Row("a")], Row)
    assert aim.read_text() == "mine"
    monkeypatch.setattr("selfpriority.storage.os.fsync", full)
    with pytest.raises(WorkFailed, match="No space left on device; free space and run the same command"):
        append_rows(tmp_path / "others", 0, [Row("a")], Row)
