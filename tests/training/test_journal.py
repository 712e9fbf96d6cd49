"""The log of a training that is stopped and continued."""

from __future__ import annotations

import json

from selfpriority.training.journal import Journal


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_continues_behind_the_checkpoint_without_duplicates(tmp_path):
    path = tmp_path / "round-1" / "training.jsonl"
    first = Journal(path, resumed_from=0)
    for step in (1, 2, 3, 4):
        first.write({"step": step})
    second = Journal(path, resumed_from=2)
    assert steps(path) == [1, 2]
    second.write({"step": 3})
    assert steps(path) == [1, 2, 3]


def test_a_line_cut_short_by_a_kill_is_removed(tmp_path):
    path = tmp_path / "training.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    Journal(path, resumed_from=5)
    assert path.read_text() == '{"step": 1}\n'


def test_a_fresh_start_empties_the_log(tmp_path):
    path = tmp_path / "training.jsonl"
    Journal(path, resumed_from=0).write({"step": 1})
    Journal(path, resumed_from=0)
    assert path.read_text() == ""


def test_alarms_are_counted_also_those_before_a_stop(tmp_path):
    path = tmp_path / "training.jsonl"
    first = Journal(path, 0)
    for step, more in enumerate([{}, {"alarm": "collapse"}, {"alarm": "gradient_norm, collapse"}], start=1):
        first.write({"step": step, **more})
    second = Journal(path, resumed_from=2)
    second.write({"step": 3, "alarm": "gradient_norm"})
    assert first.alarms == {"collapse": 2, "gradient_norm": 1}
    assert second.alarms == {"collapse": 1, "gradient_norm": 1}


def test_listener_hears_a_record_after_it_is_written(tmp_path):
    path = tmp_path / "training.jsonl"
    heard = []
    Journal(path, 0, lambda record: heard.append((record, steps(path)))).write({"step": 1, "loss": 0.5})
    assert heard == [({"step": 1, "loss": 0.5}, [1])]
