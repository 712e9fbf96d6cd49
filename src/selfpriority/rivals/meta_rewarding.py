"""Meta-rewarding: a model learns from its answers and from its own judgement of them. DPO on both sorts of pairs.

arXiv 2407.19594. Of the answers of a prompt the best by the mean of its ratings is chosen and the worst rejected,
without any order of objectives. Of several verdicts in words that the model writes on one of them, the one that agrees
with most others is chosen and the farthest from them rejected. Which answer and which objective goes round by prompts:
verdicts on all of them would be more to write than the whole run before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfpriority.judges.asking import written_rating
from selfpriority.judges.words import WordsJudge
from selfpriority.language_model import Answer, Completion, Failure, Generate, LanguageModel, Text, ask
from selfpriority.rating import Item
from selfpriority.recipe import InWords, Recipe
from selfpriority.records import Drop, Message, Pair, Pool, Prompt, Rating, Response, Scored, Sifted
from selfpriority.rivals.rows import Means, Rows
from selfpriority.rivals.self_rewarding import best_against_worst, to_compare

VERDICT = "verdict"
"""Kind of the prompts that ask for one. A row of either sort has two answers, the chosen first."""


@dataclass(frozen=True)
class _Question:
    """What is asked about one answer on one objective."""

    answer: Response
    objective: str
    messages: tuple[Message, ...]

    @property
    def id(self) -> str:
        """Of its row."""
        return f"{self.answer.id}/{self.objective}"


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    """Of every prompt a row of answers, and a row of verdicts where they differ."""
    compared = to_compare(pools, means.recipe.pair.choose_cut)
    answers, dropped = compared.kept, list(compared.dropped)
    model = means.model()
    judge = WordsJudge(model, means.constitution, InWords(judge="self", method="verbal"))
    questions = [_question(row, judge, number) for number, row in enumerate(answers)]
    kept: list[tuple[Pool, ...]] = []
    for row, question, given in zip(answers, questions, _verdicts(questions, model, means), strict=True):
        found = _agreed_and_farthest(question, given.rated)
        if found is None:
            reason = given.failure.reason if given.failure and len(given.rated) < 2 else "no_verdicts"
            dropped.append(Drop("rows", row.prompt.id, reason, question.id))
        kept.append((row, found) if found else (row,))
    return Sifted(tuple(kept), tuple(dropped))


def _question(row: Pool, judge: WordsJudge, number: int) -> _Question:
    """The best answer on the first objective, the worst on it, the best on the next, and so on round."""
    objective, answer = divmod(number % (2 * len(judge.objectives)), 2)
    response = row.candidates[answer].response
    return _Question(response, judge.objectives[objective], judge.contexts(Item(row.prompt, response))[objective])


@dataclass(frozen=True)
class _Given:
    """The verdicts on one answer and objective."""

    rated: tuple[tuple[Text, float], ...] = ()
    """Those that can be read, with their ratings."""
    failure: Failure | None = None
    """Why some are not there."""


def _verdicts(questions: Sequence[_Question], model: LanguageModel, means: Means) -> list[_Given]:
    """Those that can be read, with their ratings: as many are drawn as answers, and as diversely."""
    sample, longest = means.recipe.sample, means.recipe.refine.max_new_tokens
    requests = [
        Generate(each.messages, sample.n, sample.temperature, sample.top_p, longest, _seed(each.id, means.recipe.seed))
        for each in questions
    ]
    return [_given(reply, means.is_planned) for reply in ask(model, requests)]


def _given(reply: Answer, is_planned: bool) -> _Given:
    if isinstance(reply, Completion):
        return _Given(tuple(_rated(reply.texts, is_planned)), next(iter(reply.missing), None))
    assert isinstance(reply, Failure)
    return _Given(failure=reply)


def _rated(texts: Sequence[Text], is_planned: bool) -> Iterator[tuple[Text, float]]:
    for number, text in enumerate(texts):
        rating = Rating(float(number)) if is_planned else written_rating(text)
        if isinstance(rating, Rating):
            yield text, rating.value


def _seed(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _agreed_and_farthest(question: _Question, verdicts: Sequence[tuple[Text, float]]) -> Pool | None:
    """The verdict nearest to all others and the farthest, of equal ones the first; None where all are as near."""
    apart = [sum(abs(rating - other) for _, other in verdicts) for _, rating in verdicts]
    if not apart or min(apart) == max(apart):
        return None
    texts = [verdicts[apart.index(end)][0] for end in (min(apart), max(apart))]
    answers = tuple(
        Scored(Response(f"{question.id}/{name}", question.id, text.text, text.stop, text.n_tokens), ())
        for name, text in zip(("agreed", "farthest"), texts, strict=True)
    )
    return Pool(Prompt(question.id, question.messages, VERDICT), answers)


def _pairs(row: Pool, means: Means) -> tuple[Pair, ...]:
    """The one pair of a row. Nobody rated verdicts, so they are a distance of 1 apart."""
    if row.prompt.kind == VERDICT:
        return (Pair(0, 1, means.constitution.names.index(row.prompt.id.rpartition("/")[2]), 1.0, 1.0),)
    return best_against_worst(row)


def _reads(recipe: Recipe) -> object:
    sample = recipe.sample
    return (
        "one question a prompt",
        sample.n,
        sample.temperature,
        sample.top_p,
        recipe.refine.max_new_tokens,
        recipe.seed,
        *(() if recipe.pair.choose_cut else ("the best of those that ended",)),
    )


ROWS = Rows(_make, texts=("rate_verbal",), reads=_reads, pairs=_pairs)
