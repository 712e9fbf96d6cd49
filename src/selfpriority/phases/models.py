"""Who runs a model, and what a model is known by before it is opened."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from selfpriority.language_model import LanguageModel
from selfpriority.models.files import resolve
from selfpriority.models.fingerprint import fingerprint
from selfpriority.recipe import (
    Backend,
    HfBackend,
    OpenaiBackend,
    RayBackend,
    ScriptedBackend,
    VllmBackend,
    engine_of,
)


def in_process(backend: Backend) -> Backend:
    """Who runs weights that no server has, as a trained policy's: the engine here, else transformers."""
    return HfBackend() if isinstance(backend, OpenaiBackend) else backend


def reading(backend: Backend) -> Backend:
    """Who shows hidden states, rewards and likelihoods: transformers in this process, whoever writes."""
    return HfBackend() if isinstance(engine_of(backend), OpenaiBackend | VllmBackend) else backend


def arithmetic(backend: Backend) -> dict[str, Any]:
    """What a key says of who computes."""
    return engine_of(backend).model_dump(include={"kind", "dtype", "engine"})


def model_key(name: str, backend: Backend | None = None) -> str:
    """Content hash of a model's files; of a model behind an address, its address and name."""
    if isinstance(backend, OpenaiBackend):
        from selfpriority.backends.openai import openai_fingerprint

        return openai_fingerprint(name, backend)
    return fingerprint(resolve(name))


def _silent(_: str) -> None:
    """Tells nobody."""


def _replicated(opens: Callable[[], LanguageModel], settings: RayBackend, note: Callable[[str], None]) -> LanguageModel:
    from selfpriority.backends.ray import RayModel

    return RayModel(opens, settings, note)


def open_model(name: str, settings: Backend, note: Callable[[str], None] = _silent) -> LanguageModel:
    """The language model `name`, run as the settings say; a server's abilities and costs are told to `note`."""
    if isinstance(settings, RayBackend):
        return _replicated(partial(open_model, name, settings.each), settings, note)
    if isinstance(settings, ScriptedBackend):
        from selfpriority.backends.scripted import ScriptedModel

        return ScriptedModel(settings, model_key(name))
    if isinstance(settings, OpenaiBackend):
        from selfpriority.backends.openai import OpenaiModel

        return OpenaiModel(name, settings, note)
    if isinstance(settings, VllmBackend):
        from selfpriority.backends.vllm import VllmModel

        return VllmModel(name, settings, note)
    from selfpriority.backends.hf import HfModel

    return HfModel(name, settings)


def open_reader(name: str, settings: Backend, note: Callable[[str], None] = _silent) -> LanguageModel:
    """The model `name` for heads that read its hidden states: a language model, or an encoder."""
    if isinstance(settings, RayBackend):
        return _replicated(partial(open_reader, name, settings.each), settings, note)
    if isinstance(settings, HfBackend):
        from selfpriority.models.loading import is_encoder

        if is_encoder(name):
            from selfpriority.backends.encoder import HfEncoder

            return HfEncoder(name, settings)
    return open_model(name, settings, note)


def open_classifier(name: str, settings: Backend) -> LanguageModel:
    """The reward or guard model `name`; it runs here, whoever generates, or in replicas of its own."""
    if isinstance(settings, RayBackend) and not isinstance(settings.each, VllmBackend):
        return _replicated(partial(open_classifier, name, settings.each), settings, _silent)
    if isinstance(settings, ScriptedBackend):
        return open_model(name, settings)
    from selfpriority.backends.guard import HfGuard
    from selfpriority.backends.hf import HfClassifier
    from selfpriority.models.loading import is_guard

    kind = HfGuard if is_guard(name) else HfClassifier
    return kind(name, settings if isinstance(settings, HfBackend) else HfBackend())
