"""Heads that a model made for itself: found again, healed, and no reason to fail where the cache cannot be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfpriority.judges.heads import Head, Heads, read_heads
from selfpriority.phases import made_heads as room
from selfpriority.phases.made_heads import made_heads

ONE = np.ones(4)
NAMES = ("harmlessness",)


class Somebody:
    fingerprint = "somebody"


class Fitted:
    """Stands for the fit, which is tested by itself, and counts how often it was asked for."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, *_: object) -> Heads:
        self.n += 1
        return Heads("m", {"harmlessness": Head("harmlessness", (1,), "mean", ONE, ONE, ONE, 0.0, 0.0, 1.0)}, {})


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fitted:
    counted = Fitted()
    monkeypatch.setattr(room, "fit_contrast", counted)
    monkeypatch.setattr(room, "n_layers", lambda name: 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return counted


def made(own: Path, notes: list[str] | None = None) -> Heads:
    note = (notes if notes is not None else []).append
    return made_heads("m", Somebody(), NAMES, own, note)  # type: ignore[arg-type]


def test_they_are_made_once_and_kept_twice(fitted: Fitted, tmp_path: Path) -> None:
    first, again, elsewhere = made(tmp_path / "run"), made(tmp_path / "run"), made(tmp_path / "other")
    assert fitted.n == 1
    assert first.fingerprint == again.fingerprint == elsewhere.fingerprint
    assert read_heads(tmp_path / "other").fingerprint == first.fingerprint


@pytest.mark.parametrize("which", ["run", "cache", "both"])
def test_damaged_ones_heal(fitted: Fitted, tmp_path: Path, which: str) -> None:
    whole = made(tmp_path / "run")
    [shared] = (tmp_path / "cache" / "selfpriority" / "heads").iterdir()
    for folder in [tmp_path / "run"] * (which != "cache") + [shared] * (which != "run"):
        (folder / "heads.safetensors").write_bytes(b"{")
    notes: list[str] = []
    assert made(tmp_path / "run", notes).fingerprint == whole.fingerprint
    assert fitted.n == (2 if which == "both" else 1)
    assert len(notes) == {"run": 1, "cache": 0, "both": 2}[which]
    assert made(tmp_path / "run", notes).fingerprint == whole.fingerprint
    assert len(notes) == {"run": 1, "cache": 0, "both": 2}[which]  # nothing is told again


def test_a_cache_folder_that_cannot_be_written_costs_nothing(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert made(tmp_path / "run").model == "m"
    assert made(tmp_path / "run").model == "m"
    assert fitted.n == 1


def test_another_that_was_first_is_taken(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = made(tmp_path / "first")
    write = room.write_heads

    def slow(folder: Path, given: Heads) -> None:
        write(folder, given)
        write(tmp_path / "run", given)  # meanwhile another process has kept the same

    monkeypatch.setattr(room, "write_heads", slow)
    assert made(tmp_path / "run").fingerprint == heads.fingerprint
    assert not list(tmp_path.glob(".heads-*"))
