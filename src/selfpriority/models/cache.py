"""The folder for what is made of models once. Knows nothing of what lies there."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where converted models and digests are kept: $XDG_CACHE_HOME/selfpriority or ~/.cache/selfpriority."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "selfpriority"
