"""What a model is called where others read it, and under which licence it stands: never by a place on this machine."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import yaml

from selfpriority.models.embedded import EMBEDDED
from selfpriority.models.files import folder_of

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_IN_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_LICENCE = re.compile(r"Apache-2\.0|MIT|BSD-3-Clause", re.IGNORECASE)


def hub_id(name: str) -> str | None:
    """The id by which the hub knows a model, of an embedded name and of a folder in the hub's cache too; else None."""
    if name in EMBEDDED:
        return EMBEDDED[name].hub_id
    for part in Path(name).parts if Path(name).is_absolute() else ():
        if found := _IN_CACHE.fullmatch(part):
            return f"{found[1]}/{found[2]}"
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def public_name(name: str) -> str:
    """The hub's id; of a folder that nobody else has, its last name alone; any other name as it is."""
    known = hub_id(name)
    if known is not None:
        return known
    return f"{Path(name).name} (a local folder)" if "/" in name or Path(name).exists() else name


def licence(name: str) -> str | None:
    """The licence that the model's own card or package names; None where neither is on this machine."""
    folder = folder_of(name) if name not in EMBEDDED else None
    card = folder / "README.md" if folder is not None else None
    if card is not None and card.is_file():
        head = card.read_text("utf-8", errors="replace").removeprefix("---\n").partition("\n---")[0]
        try:
            told = yaml.safe_load(head)
        except yaml.YAMLError:
            told = None
        if isinstance(told, dict) and isinstance(told.get("license"), str):
            return str(told["license"])
    return _of_package(EMBEDDED[name].distribution) if name in EMBEDDED else None


def _of_package(distribution: str) -> str | None:
    try:
        told = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    found = _LICENCE.search(" ".join(told.get_all("License-Expression") or told.get_all("License") or []))
    return found[0].lower() if found else None
