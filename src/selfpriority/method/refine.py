"""Step 3: write one improved answer from all candidates, their scores and the constitution, and rate it.

Paper: section "Self-refinement"; docs/method.md, docs/deviations.md 7. One context holds the candidates, all of them
unless the recipe shows fewer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from selfpriority.constitution import Constitution
from selfpriority.language_model import Answer, Completion, Failure, Generate, LanguageModel, ask
from selfpriority.method.order import Order
from selfpriority.method.score import scored
from selfpriority.rating import Item, Judge
from selfpriority.recipe import PairRules, Refine
from selfpriority.recipe.method import Show
from selfpriority.records import Drop, Message, Pool, Response, Scored, Sifted, flaw
from selfpriority.wording import fill


def refine(
    pools: Sequence[Pool],
    model: LanguageModel,
    judge: Judge,
    constitution: Constitution,
    settings: Refine,
    order: Order | None = None,
) -> Sifted[Pool]:
    """The same pools with `refined` set to one of `settings.n` refinements, by default the lexicographically best.

    A pool whose refinements all failed stays, with `refined` None: whether it may train is denoise's business.

    Args:
        pools: rated candidates.
        model: who writes; the policy itself in the method.
        judge: who rates what is written.
        constitution: what the model reads before it writes.
        settings: how many refinements, how long in tokens, which is kept.
        order: which of several refinements is the best, by their K ratings; None: that of `PairRules()`.

    Examples:
        >>> constitution = load_constitution("harmless-helpful")
        >>> from selfpriority.recipe import ScriptedBackend  # stands for a model that can read all of it
        >>> model = open_model("my-model", ScriptedBackend(kind="scripted"))
        >>> judge = open_judge("my-heads", constitution)
        >>> found = refine(Results("runs/my").scored()[:1], model, judge, constitution, Refine(n=2))
        >>> found.kept[0].refined.response.origin
        'refined'
    """
    order = order or Order.of(PairRules())
    answers = ask(model, [_request(pool, constitution, settings) for pool in pools])
    written = [_usable(pool, answer, settings.keep_cut) for pool, answer in zip(pools, answers, strict=True)]
    dropped = [drop for each in written for drop in each.dropped]
    items = [Item(pool.prompt, r) for pool, each in zip(pools, written, strict=True) for r in each.kept]
    verdicts = iter(judge.rate(items))
    kept: list[Pool] = []
    for pool, each in zip(pools, written, strict=True):
        rated: list[Scored] = []
        for response in each.kept:
            verdict = scored(response, next(verdicts), "refine", judge.objectives)
            if isinstance(verdict, Drop):
                dropped.append(verdict)
            else:
                rated.append(verdict)
        kept.append(_with_best(pool, rated, order, settings.keep))
    return Sifted(tuple(kept), tuple(dropped))


def _request(pool: Pool, constitution: Constitution, settings: Refine) -> Generate:
    messages = context(pool, constitution, settings.show)
    # The seed follows from the candidates, so equal pools are refined equally and another draw is another draw.
    seed = int.from_bytes(hashlib.sha256(repr(messages).encode()).digest()[:4], "big")
    return Generate(
        messages=messages,
        n=settings.n,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seed=seed,
    )


def context(pool: Pool, constitution: Constitution, show: Show = "all") -> tuple[Message, ...]:
    """The constitution and the candidates with their scores, worst first, as a conversation that asks for better ones.

    A small model cannot read a list of drafts and write about none of them; asked the question again after each rated
    answer, it answers the question (docs/deviations.md). "Worst" is by the sum of the scores, not by the recipe's
    order: a changed threshold must not ask for new refinements.
    """
    system = fill("refine_system", constitution=constitution)
    turns = list(pool.prompt.messages)
    if turns[0].role == "system":
        system = f"{system}\n\n{turns.pop(0).content}"
    question = turns[-1].content
    for candidate in _shown(pool, show):
        scores = dict(zip(constitution.names, candidate.scores, strict=True))
        turns.append(Message("assistant", candidate.response.text))
        turns.append(Message("user", fill("refine_again", scores=scores, question=question)))
    return (Message("system", system), *turns)


def _shown(pool: Pool, show: Show) -> list[Scored]:
    """The candidates that the model reads, worst first; of equal sums the one sampled later counts as the better."""
    ranked = sorted(pool.candidates, key=lambda c: sum(c.scores))
    if show == "best":
        return ranked[-1:]
    return [ranked[0], ranked[-1]] if show == "extremes" and len(ranked) > 1 else ranked


def _usable(pool: Pool, answer: Answer, keep_cut: bool) -> Sifted[Response]:
    """The refinements in an answer that may enter the pool."""
    if isinstance(answer, Failure):
        return Sifted((), (Drop("refine", pool.prompt.id, answer.reason, f"{pool.prompt.id}/refined", answer.detail),))
    assert isinstance(answer, Completion)
    missing = [
        Drop("refine", pool.prompt.id, failure.reason, f"{pool.prompt.id}/missing{i}", failure.detail)
        for i, failure in enumerate(answer.missing, start=1)
    ]
    flaws = {r: flaw(r, keep_cut) for r in _responses(pool, answer)}
    flawed = [Drop("refine", r.prompt_id, reason, r.id) for r, reason in flaws.items() if reason]
    return Sifted(tuple(r for r, reason in flaws.items() if not reason), (*missing, *flawed))


def n_beaten(pool: Pool, refined: Scored) -> int:
    """How many candidates it beats on the objective on which it beats the fewest: what consistency asks for."""
    return min(sum(score > c.scores[k] for c in pool.candidates) for k, score in enumerate(refined.scores))


def _responses(pool: Pool, completion: Completion) -> list[Response]:
    return [
        Response(f"{pool.prompt.id}/refined{i}", pool.prompt.id, t.text, t.stop, t.n_tokens, "refined", "", t.thinking)
        for i, t in enumerate(completion.texts, start=1)
    ]


def _with_best(pool: Pool, rated: Sequence[Scored], order: Order, keep: str) -> Pool:
    if not rated:
        return pool
    best = max(rated, key=lambda s: (n_beaten(pool, s) if keep == "consistent" else 0, order.key(s.scores)))
    return Pool(pool.prompt, pool.candidates, best, tuple(s for s in rated if s is not best))
