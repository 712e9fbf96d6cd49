"""The tags between a model's thinking and its answer, as models and chat templates write them."""

from __future__ import annotations

_NAME = r"(?:\w+:)?(?:think|thinking|thought)(?::\w+)?"
OPENS = rf"(?:<{_NAME}>|\[THINK\]|<\|channel>thought)"
"""Pattern of what opens it; in any case of letters."""
SHUTS = rf"(?:</{_NAME}>|\[/THINK\]|<channel\|>)"
"""Pattern of what ends it."""


def shutting(tag: str) -> str:
    """What ends the thinking that `tag` opens."""
    return "<channel|>" if tag.startswith("<|") else f"{tag[0]}/{tag[1:]}"
