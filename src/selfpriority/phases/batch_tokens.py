"""How many tokens generate together: `backend.tokens_per_batch: auto` as a number, by the memory of the GPU there is.

What a batch draws depends on who is in it, so the number is settled once, as a run starts, and written into its
resolved.yaml; a run that was started keeps it on any machine. Reads configurations and no weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from selfpriority.errors import InputError
from selfpriority.phases.judge_names import comparing, fitted_heads, judge_backend, named_model
from selfpriority.recipe import (
    ByBattery,
    ByContrast,
    ByProbe,
    ByReward,
    HfBackend,
    InWords,
    JudgeSection,
    Recipe,
    load,
)
from selfpriority.run import Run

_FREE = 0.15  # of the memory: for what passes while a layer works and a token is drawn, and for the allocator's gaps
_LEAST, _STEP = 4096, 1024


def with_batch_tokens(recipe: Recipe, run: Run) -> Recipe:
    """The recipe with a number for `auto`: the run's own, else by memory, else 16384.

    Args:
        recipe: its models are on this machine, or the number is not by memory.
        run: new or found.
    """
    backend = recipe.backend
    if not isinstance(backend, HfBackend) or backend.tokens_per_batch != "auto":
        return recipe
    n = _recorded(run) or by_memory(recipe, _memory(backend)) or backend.batch_tokens
    return recipe.model_copy(update={"backend": backend.model_copy(update={"tokens_per_batch": n})})


def by_memory(recipe: Recipe, memory: float) -> int | None:
    """Tokens whose keys and values fit beside all models that a phase may hold; None without GPU or configurations."""
    backend = recipe.backend
    if not memory or not isinstance(backend, HfBackend):
        return None
    from selfpriority.models.arithmetic import bytes_per_weight
    from selfpriority.models.loading import describe
    from selfpriority.training.memory import shape_of
    from selfpriority.training.parameters import n_parameters

    size = bytes_per_weight(backend)
    n_open = 2  # in the evaluation: the model, and one policy at a time
    weights = largest = 0
    for name in dict.fromkeys(_models(recipe)):
        found = describe(name)
        if found is None:
            return None
        weights += size * n_parameters(found.config) * (n_open if name == recipe.model else 1)
        shape = shape_of(found.config)
        largest = max(largest, 2 * shape.layers * shape.key_value * size)
    n = int(((1 - _FREE) * memory - weights) / largest)
    return max(_LEAST, n // _STEP * _STEP)


def _models(recipe: Recipe) -> Iterator[str]:
    """Every model that runs here."""
    yield recipe.model
    comparer = comparing(recipe)
    sections = [recipe.score.judge, recipe.evaluate.judge, *recipe.evaluate.more_judges.values()]
    for section in [*sections, *([comparer] if comparer else [])]:
        yield from _judging(section, recipe)
    for system in recipe.evaluate.more_systems.values():
        yield recipe.model if system.model == "self" else system.model


def _judging(section: JudgeSection, recipe: Recipe) -> Iterator[str]:
    match section:
        case ByProbe():
            yield fitted_heads(section.judge).model
        case ByContrast():
            yield named_model(section, recipe.model)
        case ByReward():
            yield from section.rewards.values()
        case InWords() | ByBattery():
            if isinstance(judge_backend(section, recipe.backend), HfBackend):
                yield named_model(section, recipe.model)


def _recorded(run: Run) -> int | None:
    """What the run was started with."""
    try:
        backend = load(run.recipe).backend
    except InputError:  # there is none, or it is written anew
        return None
    if not isinstance(backend, HfBackend) or backend.tokens_per_batch == "auto":
        return None
    return backend.tokens_per_batch


def _memory(backend: HfBackend) -> float:
    """Bytes of the GPU that the recipe names, or of the one it runs on; 0 without."""
    if backend.memory is not None:
        return backend.memory * 1e9
    import torch

    from selfpriority.models.arithmetic import device_of

    device = device_of(backend.device)
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0.0
