"""MetaAligner: a corrector that learns, from a prompt, a worse answer and objectives to improve, the better answer.

arXiv 2403.17141. In an evaluation it takes two passes: the recipe's model answers, and the corrector corrects that on
all objectives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from selfpriority.constitution import Constitution
from selfpriority.recipe import Recipe
from selfpriority.records import Message, PairedPool, Pool, Prompt, Sifted
from selfpriority.rivals.rows import Asking, Means, Rows, to_learn
from selfpriority.wording import fill


def to_correct(prompt: Prompt, answer: str, names: Sequence[str], constitution: Constitution) -> Prompt:
    """The prompt with an answer to it and the wish for one that is better on the objectives `names`."""
    objectives = [objective for objective in constitution.objectives if objective.name in names]
    request = Message("user", fill("correct", objectives=objectives))
    return replace(prompt, messages=(*prompt.messages, Message("assistant", answer), request))


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    """A row a prompt, the answer that wins most of SPA's pairs and the farthest it beats; what SPA drops is dropped.

    Rows of all pairs would be five times the tokens that SPA trains on.
    """
    paired = means.paired(pools)
    return Sifted(tuple((_row(each, means.constitution),) for each in paired.kept), paired.dropped)


def _row(paired: PairedPool, constitution: Constitution) -> Pool:
    answers, names = paired.pool.responses, constitution.names
    wins = Counter(pair.chosen for pair in paired.pairs)
    best = max(wins, key=lambda answer: wins[answer])
    pair = max((pair for pair in paired.pairs if pair.chosen == best), key=lambda pair: pair.distance)
    better, worse = answers[pair.chosen], answers[pair.rejected]
    gained = [name for name, x, y in zip(names, better.scores, worse.scores, strict=True) if x > y]
    return to_learn(to_correct(paired.pool.prompt, worse.response.text, gained, constitution), better)


def _ask(prompts: Sequence[Prompt], asking: Asking) -> Sifted[Prompt]:
    """Every prompt with what the recipe's model answers to it; one that it does not answer is dropped."""
    answered = asking.vanilla(prompts)
    texts = {response.prompt_id: response.text for response in answered.kept}
    constitution = asking.constitution
    kept = [
        to_correct(prompt, texts[prompt.id], constitution.names, constitution)
        for prompt in prompts
        if prompt.id in texts
    ]
    return Sifted(tuple(kept), answered.dropped)


def _reads(recipe: Recipe) -> object:
    rules = {**recipe.pair.in_result, "order": recipe.pair.order}  # as it always was: rows from before keep their keys
    return "one pair a prompt", recipe.denoise.in_result, rules


ROWS = Rows(_make, texts=("correct",), reads=_reads, ask=_ask)
