"""MetaAligner: a corrector that learns, from a prompt, a worse answer and objectives to improve, the better answer.

arXiv 2403.17141. In an evaluation it takes two passes: the recipe's model answers, and the corrector corrects that on
all objectives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """A row a pair that SPA would train on; the prompts that SPA drops are dropped."""
    paired = means.paired(pools)
    return Sifted(tuple(tuple(_rows(each, means.constitution)) for each in paired.kept), paired.dropped)


def _rows(paired: PairedPool, constitution: Constitution) -> Iterator[Pool]:
    answers, names = paired.pool.responses, constitution.names
    for number, pair in enumerate(paired.pairs, start=1):
        better, worse = answers[pair.chosen], answers[pair.rejected]
        gained = [name for name, x, y in zip(names, better.scores, worse.scores, strict=True) if x > y]
        prompt = to_correct(paired.pool.prompt, worse.response.text, gained, constitution)
        yield to_learn(replace(prompt, id=f"{prompt.id}/pair{number}"), better)


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
    return recipe.denoise.in_result, recipe.pair.model_dump()


ROWS = Rows(_make, texts=("correct",), reads=_reads, ask=_ask)
