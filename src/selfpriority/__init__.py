"""Self-priority alignment: a language model improves itself on objectives in strict order of priority.

The public names, each loaded when it is first used: importing the package imports none of its files and no
torch. The steps of the method work on a user's own records, without a run directory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfpriority.constitution import (
        Anchor,
        Constitution,
        Objective,
        load_constitution,
        shipped_constitutions,
    )
    from selfpriority.errors import InputError, JudgeRefused, SelfPriorityError, WorkFailed
    from selfpriority.judges.heads import Heads, read_heads
    from selfpriority.judges.probe import ProbeJudge
    from selfpriority.judges.reward import RewardJudge
    from selfpriority.judges.words import WordsJudge
    from selfpriority.language_model import LanguageModel
    from selfpriority.method.denoise import denoise
    from selfpriority.method.loss import gap_weights, pair_losses, pair_shares, reward
    from selfpriority.method.pair import pair
    from selfpriority.method.refine import refine
    from selfpriority.method.sample import sample
    from selfpriority.method.score import score
    from selfpriority.personas import Persona, load_personas
    from selfpriority.prompts import load_prompts, shipped_prompts
    from selfpriority.rating import Item, Judge
    from selfpriority.recipe import Align, Denoise, InWords, PairRules, Prompts, Recipe, Refine, Sample, Score
    from selfpriority.recipe import load as load_recipe
    from selfpriority.records import (
        Candidates,
        Drop,
        Message,
        Pair,
        PairedPool,
        Pool,
        Prompt,
        Rating,
        Response,
        Scored,
        Sifted,
        Unrated,
    )

__version__ = "0.1.0"

__all__ = [
    "Align",
    "Anchor",
    "Candidates",
    "Constitution",
    "Denoise",
    "Drop",
    "Heads",
    "InWords",
    "InputError",
    "Item",
    "Judge",
    "JudgeRefused",
    "LanguageModel",
    "Message",
    "Objective",
    "Pair",
    "PairRules",
    "PairedPool",
    "Persona",
    "Pool",
    "ProbeJudge",
    "Prompt",
    "Prompts",
    "Rating",
    "Recipe",
    "Refine",
    "Response",
    "RewardJudge",
    "Sample",
    "Score",
    "Scored",
    "SelfPriorityError",
    "Sifted",
    "Unrated",
    "WordsJudge",
    "WorkFailed",
    "__version__",
    "denoise",
    "gap_weights",
    "load_constitution",
    "load_personas",
    "load_prompts",
    "load_recipe",
    "pair",
    "pair_losses",
    "pair_shares",
    "read_heads",
    "refine",
    "reward",
    "sample",
    "score",
    "shipped_constitutions",
    "shipped_prompts",
]

_HOMES = {
    "constitution": "Anchor Constitution Objective load_constitution shipped_constitutions",
    "errors": "InputError JudgeRefused SelfPriorityError WorkFailed",
    "judges.heads": "Heads read_heads",
    "judges.probe": "ProbeJudge",
    "judges.reward": "RewardJudge",
    "judges.words": "WordsJudge",
    "language_model": "LanguageModel",
    "method.denoise": "denoise",
    "method.loss": "gap_weights pair_losses pair_shares reward",
    "method.pair": "pair",
    "method.refine": "refine",
    "method.sample": "sample",
    "method.score": "score",
    "personas": "Persona load_personas",
    "prompts": "load_prompts shipped_prompts",
    "rating": "Item Judge",
    "recipe": "Align Denoise InWords PairRules Prompts Recipe Refine Sample Score",
    "records": "Candidates Drop Message Pair PairedPool Pool Prompt Rating Response Scored Sifted Unrated",
}
_NAMES = {name: (module, name) for module, names in _HOMES.items() for name in names.split()} | {
    "load_recipe": ("recipe", "load"),
}


def __getattr__(name: str) -> Any:
    """The public name, loaded from its module."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _NAMES[name]
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
