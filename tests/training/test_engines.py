"""The shipped accelerate files say what accelerate reads, and what the recipe's engine is told."""

from __future__ import annotations

import pytest
import torch
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn

from selfpriority.errors import InputError
from selfpriority.recipe import Align
from selfpriority.training.engines import CONFIGS, FILES, accelerator_for, shard_arguments
from selfpriority.training.logps import called_as


@pytest.mark.parametrize(
    ("parallel", "kind"),
    [("ddp", DistributedType.MULTI_GPU), ("fsdp", DistributedType.FSDP)],
)
def test_accelerate_reads_what_ships(parallel, kind):
    config = load_config_from_file(str(CONFIGS / FILES[parallel]))
    assert config.distributed_type == kind
    assert config.mixed_precision == "no"
    assert sorted(path.name for path in CONFIGS.iterdir()) == sorted(FILES.values())


def test_one_process_has_no_shards(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert [shard_arguments(Align(parallel=parallel)) for parallel in FILES] == [{}] * 2


def test_several_processes_are_told_the_recipes_engine(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shard_arguments(Align(parallel="ddp")) == {}
    told = shard_arguments(Align(parallel="fsdp"))
    assert FullyShardedDataParallelPlugin(**told).fsdp_version == 2
    assert told["reshard_after_forward"] is True
    assert told["cpu_offload"] is False
    assert told["cpu_ram_efficient_loading"] is True
    assert shard_arguments(Align(parallel="hsdp")) == told
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # the launcher has said it
    assert shard_arguments(Align(parallel="fsdp")) == {}


@pytest.mark.parametrize("started", ["2", "3"])
def test_a_copy_on_every_node_wants_several_processes_on_each(monkeypatch, started):
    monkeypatch.setenv("WORLD_SIZE", started)
    with pytest.raises(InputError, match=rf"two or more processes on each of 2 nodes .*, and {started} were started"):
        accelerator_for(Align(parallel="hsdp", nodes=2, processes=2))


def test_a_launcher_that_shards_is_refused_what_needs_the_whole_model(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"align\.average needs parallel: ddp"):
        shard_arguments(Align(average=0.9))
    with pytest.raises(InputError, match=r"align\.weights needs parallel: ddp"):
        shard_arguments(Align(weights="bfloat16"))


def test_a_launcher_with_deepspeed_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match=r"DeepSpeed is not supported; .*FSDP2"):
        shard_arguments(Align())


def test_hooks_see_one_call_of_a_module_that_computes_something_else():
    module, seen = nn.Linear(2, 2), []
    module.register_forward_hook(lambda *given: seen.append(given[-1]))
    given = torch.ones(3, 2)
    got = called_as(module, lambda forward, x: forward(x) + forward(2 * x), given)
    torch.testing.assert_close(got, module.forward(given) + module.forward(2 * given))
    assert len(seen) == 1
    assert "forward" not in vars(module)


def test_a_module_keeps_its_forward_when_the_call_fails():
    module = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError):
        called_as(module, lambda forward: torch.ones(1) * (1 / 0))
    assert module(torch.ones(1, 2)).shape == (1, 2)


def test_attention_is_kept_off_the_kernel_that_makes_a_plan_a_shape() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    accelerator_for(Align())
    assert not torch.backends.cuda.cudnn_sdp_enabled()
