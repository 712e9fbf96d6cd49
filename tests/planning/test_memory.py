"""Memory of a training as planned: what goes through the model at once, and what copies of it exchange."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import distributed, nn

from selfpriority.phases.resources import Reporter
from selfpriority.planning.memory import Trained, trained
from selfpriority.planning.requests import Rehearsal
from selfpriority.recipe import Align, load
from selfpriority.run import Run
from selfpriority.training.adapters import load_policy
from selfpriority.training.encode import EncodedPool
from selfpriority.training.ranks import in_pieces

POOL = EncodedPool("p", tuple(range(20)), (tuple(range(30)),) * 5, ((0, 1),), (1.0,), (1.0,) + (0.0,) * 4)


@pytest.fixture
def chosen(written, tmp_path):
    """What is planned for a training that may meet `POOL`."""

    def plan(**align) -> tuple[Trained, Align]:
        recipe = load(written(align=align))
        rows = trained(recipe.align, Rehearsal(recipe, Run(tmp_path / "run"), Reporter()), 10_000, POOL.n_tokens)
        return next(row for row in rows if row.is_chosen), recipe.align

    return plan


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_those_of_the_largest_pass(chosen, dropout):
    lora = {"dropout": dropout}
    row, settings = chosen(lora=lora, tokens_per_batch=60)
    n_largest = max(sum(pool.n_tokens for pool in piece) for piece in in_pieces([POOL], settings))
    assert n_largest == (POOL.n_tokens if dropout else 50)
    wanted, _ = chosen(lora=lora, tokens_per_batch=n_largest if dropout else 60)
    assert row.activations == wanted.activations
    assert (row.activations > chosen(lora={}, tokens_per_batch=60)[0].activations) == bool(dropout)


@pytest.mark.parametrize(("parallel", "parts"), [("ddp", 1), ("fsdp", 6), ("hsdp", 3)])
def test_a_card_holds_its_part_of_a_model_on_several_nodes(chosen, parallel, parts):
    (one, _), (row, _) = chosen(), chosen(nodes=2, processes=3, parallel=parallel)
    assert (row.weights, row.optimizer) == (one.weights / parts, one.optimizer / parts)
    assert row.gradients == one.gradients * (2 if parallel == "ddp" else 1) / parts


@pytest.fixture
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("align", [{}, {"lora": {"r": 4}}, {"dtype": "auto", "weights": "bfloat16"}], ids=str)
def test_copies_hold_their_gradients_twice(chosen, tiny_model, align):
    alone, settings = chosen(**align)
    together, _ = chosen(**align, processes=2)
    model = nn.parallel.DistributedDataParallel(load_policy(tiny_model, settings, seed=0).model)
    sent: list[torch.Tensor] = []

    def note(_, bucket):
        sent.append(bucket.buffer())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    model.register_comm_hook(None, note)
    model(torch.tensor([[1, 2, 3]])).logits.float().sum().backward()
    buckets = {buffer.untyped_storage().data_ptr(): buffer.untyped_storage().nbytes() for buffer in sent}
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert not buckets.keys() & {gradient.untyped_storage().data_ptr() for gradient in gradients}
    assert sum(buckets.values()) == together.gradients - alone.gradients
    assert sum(gradient.nbytes for gradient in gradients) == alone.gradients
    other = {name for name, value in asdict(together).items() if value != asdict(alone)[name]}
    assert other <= {"gradients", "activations", "activations_checkpointed", "total"}
