"""Configurations of well-known models that are not on this machine, for who only counts. Opens no weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from selfpriority.wording import FOLDER


def known_config(name: str) -> Any | None:
    """What transformers would read of the model's files; None: its shape is not known here.

    Args:
        name: a hub id.
    """
    found = _shapes().get(name)
    if found is None:
        return None
    from transformers import AutoConfig

    config = AutoConfig.for_model(**found)
    config.name_or_path = name
    return config


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    shapes: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "shapes.yaml").read_text(encoding="utf-8"))
    return shapes
