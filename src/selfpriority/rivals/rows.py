"""What a rival trains on, where that is not the pairs of the pools: one record a rival, and the means it is made with.

Rows are pools under prompts of the rival's own. Of a pool with pairs the answers are compared; of one without, every
answer is learned. Knows no run directory, and no rival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfpriority.constitution import Constitution
from selfpriority.language_model import LanguageModel
from selfpriority.method.denoise import denoise
from selfpriority.method.pair import pair
from selfpriority.recipe import Recipe
from selfpriority.records import Pair, PairedPool, Pool, Prompt, Response, Scored, Sifted


@dataclass(frozen=True)
class Means:
    """What rows are made with."""

    recipe: Recipe
    constitution: Constitution
    model: Callable[[], LanguageModel]
    """Opens the model that the round starts from, behind the run's cache."""
    is_planned: bool = False
    """Whether rows are only counted: texts are stand-ins, as long as they may be."""

    def paired(self, pools: Sequence[Pool]) -> Sifted[PairedPool]:
        """The pools with the pairs that SPA would train on under this recipe."""
        kept = denoise(pools, self.recipe.denoise)
        made = pair(kept.kept, self.recipe.pair, self.constitution.names)
        return Sifted(made.kept, kept.dropped + made.dropped)


@dataclass(frozen=True)
class Asking:
    """What the prompts of an evaluation may be made with, for a rival that is asked in a way of its own."""

    constitution: Constitution
    trained: Callable[[], Sequence[Pool]]
    """The rows that the rival was trained on; none where a run is only planned."""
    vanilla: Callable[[Sequence[Prompt]], Sifted[Response]]
    """What the recipe's model answers, as the system `vanilla` does."""


def no_pairs(pool: Pool, means: Means) -> tuple[Pair, ...]:
    """Every answer of every row is learned."""
    return ()


def reads_nothing(recipe: Recipe) -> object:
    """Rows follow from the rated pools alone."""
    return ()


@dataclass(frozen=True)
class Rows:
    """How a rival's rows are made, and how it is asked."""

    make: Callable[[Sequence[Pool], Means], Sifted[tuple[Pool, ...]]]
    """All pools of a round, rated and refined -> the rows of every prompt. Row ids are unique in a round."""
    texts: tuple[str, ...] = ()
    """Names of the texts for models that this takes; another wording is another training."""
    reads: Callable[[Recipe], object] = reads_nothing
    """What of a recipe the rows depend on, beside all that the pools do."""
    pairs: Callable[[Pool, Means], tuple[Pair, ...]] = no_pairs
    """The pairs of a row."""
    ask: Callable[[Sequence[Prompt], Asking], Sifted[Prompt]] | None = None
    """The prompts of an evaluation as the rival is asked them, under their own ids; None: as everybody is."""


def to_learn(prompt: Prompt, *answers: Scored) -> Pool:
    """A row whose answers are learned under `prompt`."""
    return Pool(prompt, answers)
