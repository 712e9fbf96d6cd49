"""Trackers are made where their package is, named where it is not, and see numbers only."""

from __future__ import annotations

import importlib.util

import pytest

from selfpriority.errors import InputError
from selfpriority.recipe import Align
from selfpriority.training.align import Places, train
from selfpriority.training.trackers import Trackers, check_trackers

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")


def test_none_asked_for_none_made(tmp_path):
    assert Trackers(Align(), tmp_path).trackers == []


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named(name):
    if importlib.util.find_spec(name):
        pytest.skip("is installed")
    with pytest.raises(InputError, match=rf"align.report_to: {name} is not installed; pip install {name}"):
        check_trackers((name,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_numbers_of_every_step_beside_the_log(tiny_model, paired_pool, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pools = [paired_pool(f"Forbidden question {number}?") for number in range(4)]
    settings = Align(dtype="float32", learning_rate=1e-3, epochs=3, report_to=("tensorboard",))
    train(pools, tiny_model, settings, 0, Places(tmp_path / "policy", tmp_path / "log", tmp_path / "checkpoints"))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/margin", "train/grad_norm"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert not any(b"Forbidden" in path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
