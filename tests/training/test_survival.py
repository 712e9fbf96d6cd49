"""What of a training's movement is saved: by hand, and of whole trainings whose steps bfloat16 cannot resolve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.models.loading import load_causal
from selfpriority.models.weights import open_model
from selfpriority.recipe import Align, HfBackend, Lora, ScriptedBackend
from selfpriority.training.adapters import load_policy
from selfpriority.training.align import Places, Trained, train
from selfpriority.training.survival import Starting, Survival, Tally, adapted_layers

SMALL = Align(learning_rate=1e-6, dtype="float32", tokens_per_step=60)
LORA = SMALL.model_copy(update={"lora": Lora(r=4, alpha=8.0), "learning_rate": 1e-4})


def test_the_share_is_the_projection():
    """d = (1, 2, -2), s = (1, 0, -4): <s, d> / <d, d> = (1 + 8) / 9; then d = (3), s = (0): 9 / 18."""
    tally = Tally()
    before = torch.tensor([8.0, 8.0, 8.0])
    tally.add(before, before + torch.tensor([1.0, 2.0, -2.0]), before + torch.tensor([1.0, 0.0, -4.0]))
    assert tally.survival("float32").share == 1.0
    tally.add(torch.tensor([[1.0]]), torch.tensor([[4.0]]), torch.tensor([[1.0]]))
    assert tally.survival("float32").share == 0.5


def test_nearest_is_what_plain_rounding_leaves():
    """Above 1 a bfloat16's last place is 2^-7: a third of it is lost, two thirds become one: 1.5 of d = 2/3."""
    place = 2.0**-7
    tally = Tally()
    tally.add(torch.ones(1), torch.tensor([1 + place / 3]), torch.ones(1))
    assert tally.survival("float32") == Survival(0.0, 0.0, "float32")
    tally = Tally()
    tally.add(torch.ones(1), torch.tensor([1 + place * 2 / 3]), torch.ones(1))
    assert tally.survival("float32").nearest == pytest.approx(1.5, rel=1e-5)


def test_what_did_not_move_lost_nothing():
    tally = Tally()
    tally.add(torch.ones(3), torch.ones(3), torch.ones(3))
    assert tally.survival("bfloat16") == Survival(1.0, 1.0, "bfloat16")


@pytest.mark.parametrize(
    ("survival", "reader", "told"),
    [
        (Survival(0.91, 0.1, "bfloat16"), HfBackend(dtype="bfloat16", device="cpu"), None),
        (Survival(0.89, 0.1, "bfloat16"), HfBackend(device="cpu"), "only 0.890 of the training's movement"),
        (Survival(1.0, 0.1, "float32"), HfBackend(dtype="bfloat16", device="cpu"), "0.100 of the training's movement"),
        (Survival(1.0, 0.1, "float32"), HfBackend(dtype="float32", device="cpu"), None),
        (Survival(1.0, 0.95, "float32"), HfBackend(dtype="bfloat16", device="cpu"), None),
        (Survival(1.0, 0.1, "float32"), ScriptedBackend(kind="scripted"), None),
    ],
)
def test_a_warning_says_value_and_remedy(survival, reader, told):
    warning = survival.warning(reader)
    assert (told is None) == (warning is None)
    if told and warning:
        assert told in warning
        assert "align.save=" in warning


@pytest.fixture
def exact(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with weights that bfloat16 holds exactly, as published models have."""
    folder = tmp_path / "exact"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture
def trained(exact, paired_pool, tmp_path):
    """A training of a few steps -> what it says and where its policy lies."""
    answers = ("No, that is not safe.", "Yes, go.", "The lazy dog.")
    pools = [paired_pool(f"Question {number}?", answers) for number in range(6)]

    def run(settings: Align, start: Path = exact, name: str = "run") -> tuple[Trained, Path]:
        folder = tmp_path / name
        folder.mkdir()
        places = Places(folder / "policy", folder / "training.jsonl", folder / "checkpoints")
        return train(pools, start, settings, 0, places), places.policy

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def share_by_hand(before: Path, whole: Path, saved: Path, cast=lambda weight: weight) -> float:
    """From three files, in float64."""
    old, new, kept = ({name: w.double() for name, w in weights(folder).items()} for folder in (before, whole, saved))
    moved = sum((new[name] - old[name]).square().sum().item() for name in old)
    return sum(((cast(kept[name]) - old[name]) * (new[name] - old[name])).sum().item() for name in old) / moved


def nearest(weight: torch.Tensor) -> torch.Tensor:
    return weight.to(torch.bfloat16).double()


def test_saved_in_bfloat16_a_small_movement_survives(trained, exact):
    """Steps of 1e-6 are far below bfloat16's last place: rounding to the nearest takes nearly all of them back."""
    whole, in_float32 = trained(SMALL.model_copy(update={"save": "float32"}), name="float32")
    done, saved = trained(SMALL.model_copy(update={"save": "bfloat16"}), name="bfloat16")
    assert whole.survival is not None
    assert done.survival is not None
    assert (whole.survival.form, done.survival.form) == ("float32", "bfloat16")
    assert {weight.dtype for weight in weights(saved).values()} == {torch.bfloat16}
    assert json.loads((saved / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((in_float32 / "config.json").read_text())["dtype"] == "float32"
    assert whole.survival.share == 1.0
    assert share_by_hand(exact, in_float32, in_float32, nearest) < 0.5
    assert done.survival.nearest == pytest.approx(share_by_hand(exact, in_float32, in_float32, nearest), abs=1e-4)
    assert done.survival.share == pytest.approx(share_by_hand(exact, in_float32, saved), abs=1e-4)
    assert 0.9 < done.survival.share < 1.1


def test_bfloat16_weights_are_saved_from_their_masters(trained, exact):
    for average in (0.0, 0.5):
        settings = SMALL.model_copy(update={"dtype": "auto", "weights": "bfloat16", "average": average})
        low, saved = trained(settings, name=f"low {average}")
        high, whole = trained(settings.model_copy(update={"save": "float32"}), name=f"high {average}")
        assert low.survival is not None
        assert high.survival is not None
        assert high.survival.share == 1.0
        assert low.survival.nearest < 0.5
        assert low.survival.share == pytest.approx(share_by_hand(exact, whole, saved), abs=1e-4)
        assert 0.9 < low.survival.share < 1.1


def test_auto_saves_in_the_type_that_is_read(trained):
    assert trained(SMALL, name="a")[0].survival.form == "float32"
    assert trained(SMALL.model_copy(update={"dtype": "bfloat16"}), name="b")[0].survival.form == "bfloat16"


def test_adapters_survive_their_merge(trained, exact):
    """`open_model` is what answers with a policy: its bfloat16 weights against those merged in float32."""
    done, policy = trained(LORA.model_copy(update={"dtype": "bfloat16"}))
    assert done.survival is not None
    before, whole, merged = (
        {name: w.double() for name, w in open_model(str(folder), dtype).model.state_dict().items()}
        for folder, dtype in ((exact, torch.float32), (policy, torch.float32), (policy, torch.bfloat16))
    )
    moved = {name: whole[name] - before[name] for name in before}
    size = sum(change.square().sum() for change in moved.values())
    share = sum(((merged[name] - before[name]) * moved[name]).sum() for name in moved) / size
    plain = sum(((nearest(whole[name]) - before[name]) * moved[name]).sum() for name in moved) / size
    assert done.survival.share == pytest.approx(share.item(), abs=1e-3)
    assert done.survival.nearest == pytest.approx(plain.item(), abs=1e-3)
    assert done.survival.nearest < 0.5
    assert 0.9 < done.survival.share < 1.1
    settings = HfBackend(device="cpu", dtype="bfloat16")
    assert load_causal(str(policy), settings).fingerprint.endswith(" bfloat16 drawn")
    assert load_causal(str(exact), settings).fingerprint.endswith(" bfloat16")


def test_adapters_are_measured_from_the_base_in_every_round(trained):
    first, policy = trained(LORA)
    second, _ = trained(LORA, policy, "second")
    assert first.survival is not None
    assert second.survival is not None
    assert (first.survival.share, second.survival.share) == (1.0, 1.0)
    assert second.survival.nearest > first.survival.nearest  # it moved further from the base


def test_full_fine_tuning_of_a_merged_adapter_starts_at_the_merge(trained):
    _, policy = trained(LORA)
    # a start that bfloat16 cannot hold is rounded too, noise that so few weights average out at larger steps only
    larger = SMALL.model_copy(update={"save": "bfloat16", "learning_rate": 1e-4})
    done, saved = trained(larger, policy, "second")
    assert done.survival is not None
    assert 0.9 < done.survival.share < 1.1
    start = open_model(str(policy), torch.float32).model.state_dict()
    starting = Starting(str(policy), torch.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(starting.weight(name, start[name]), start[name])
    assert not torch.equal(weights(saved)[name].float(), start[name])


def test_the_layers_under_adapters_are_those_that_peft_merges(exact):
    policy = load_policy(exact, LORA, 0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    layers = {layer.name: layer.weight + layer.change for layer in adapted_layers(policy.model, None)}
    merged = policy.model.merge_and_unload().state_dict()
    assert len(layers) == 14
    assert all(torch.allclose(merged[name], weight, atol=1e-6) for name, weight in layers.items())
