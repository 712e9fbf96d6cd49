"""Of several processes' failures the one the others follow from is told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from selfpriority.errors import InputError, WorkFailed
from selfpriority.phases.launch import _decisive_error, check_alone, check_started, is_heard, is_main, rank
from selfpriority.recipe import Align


def failures(folder, *given):
    """Process by process: the signal that ended it (negative), or the error it kept."""
    found = {}
    for number, what in enumerate(given):
        file = folder / f"{number}.json"
        if isinstance(what, str):
            file.write_text(json.dumps({"message": {"message": what}}))
        found[number] = SimpleNamespace(exitcode=what if isinstance(what, int) else 1, error_file=str(file))
    return found


BROKEN = "RuntimeError: Connection closed by peer\nmore"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((BROKEN, -9), "align: process 1 was killed by SIGKILL; the same command continues"),
        ((-15, "WorkFailed: out of memory"), "out of memory"),
        ((BROKEN, "WorkFailed: out of memory"), "out of memory"),
        (
            (-15, BROKEN),
            "align: process 1: unexpected RuntimeError: Connection closed by peer; --debug tells more",
        ),
        ((-15, 1), "align: process 1: unexpected exit: code 1; --debug tells more"),
    ],
)
def test_the_cause_is_told(tmp_path, given, told):
    error = _decisive_error(failures(tmp_path, *given), "align")
    assert isinstance(error, WorkFailed)
    assert str(error) == told


@pytest.mark.parametrize(("given", "found"), [("", None), ("0", 0), ("3", 3)])
def test_a_rank_that_is_set_and_empty_is_none(monkeypatch, given, found):
    monkeypatch.setenv("RANK", given)
    assert rank() == found
    assert is_main() is (found != 3)
    assert is_heard() is (found != 3)


def test_what_is_wrong_with_the_input_stays_that(tmp_path):
    error = _decisive_error(failures(tmp_path, -15, "InputError: model: x cannot be loaded\nnor y"), "align")
    assert isinstance(error, InputError)
    assert error.lines == ("model: x cannot be loaded", "nor y")


@pytest.mark.parametrize("started", ["1", "4", "8"])
def test_a_recipe_that_names_no_number_leaves_it_to_the_launcher(monkeypatch, tmp_path, started):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", started)
    check_started(Align(), tmp_path)
    many = Align(nodes=2, processes=2)
    if started == "4":
        check_started(many, tmp_path)
    else:
        with pytest.raises(InputError, match=rf"processes: 2 is 4, and {started} processes were started; run on every"):
            check_started(many, tmp_path)


def test_what_one_process_does_is_refused_to_several(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_alone()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RANK: 2 processes were started, and a run has one"):
        check_alone()
