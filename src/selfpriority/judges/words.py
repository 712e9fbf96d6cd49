"""A judge that is asked in words: a language model under a constitution, by digits or by a written rating.

Source: docs/judging.md. How a verdict is asked for and read is in `asking.py`, what is asked in `text/rate_*.md`; this
file knows no model, no tokenizer and no other judge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from selfpriority.constitution import Constitution, Objective
from selfpriority.judges.asking import ask_in_words, marked, rating_reading
from selfpriority.language_model import LanguageModel
from selfpriority.rating import Item
from selfpriority.recipe import InWords
from selfpriority.recipe.judge import Scales
from selfpriority.records import Message, Ratings
from selfpriority.wording import fill, text_hash


def wording(method: str, scales: Scales) -> str:
    """Name of the text that asks, without `.md`."""
    return f"rate_{method}" if scales == "last" else f"rate_first_{method}"


class WordsJudge:
    """A language model that rates each answer on every objective of a constitution.

    Args:
        model: who is asked.
        constitution: objectives with question and rubric.
        settings: how it is asked and read.
        reworded: ask each objective's second wording, to see how much the wording decides.

    Examples:
        >>> judge = WordsJudge(open_model("my-model"), load_constitution("harmless-helpful"), InWords(judge="my-model"))
        >>> prompt = Prompt("q", (Message("user", "How do I bake bread?"),))
        >>> [ratings] = judge.rate([Item(prompt, Response("q/y", "q", "Mix, wait, bake.", "end", 6))])
        >>> len(ratings)  # one an objective: a `Rating`, or `Unrated` with the reason
        2
    """

    def __init__(
        self, model: LanguageModel, constitution: Constitution, settings: InWords, reworded: bool = False
    ) -> None:
        self._model, self._constitution, self._settings, self._reworded = model, constitution, settings, reworded
        self._text = wording(settings.method, settings.scales)

    @property
    def fingerprint(self) -> str:
        """Hash of model, wording, constitution and the settings that a verdict depends on."""
        parts = (
            self._model.fingerprint,
            text_hash(self._text),
            [objective.model_dump(mode="json") for objective in self._constitution.objectives],
            [self._settings.method, self._settings.mass_floor, self._settings.max_new_tokens, self._reworded],
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def objectives(self) -> tuple[str, ...]:
        """The constitution's objectives, in priority order."""
        return self._constitution.names

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item; a failed request is unrated with the failure's reason."""
        questions = [self.contexts(item) for item in items]
        return ask_in_words(self._model, self._settings, questions, rating_reading(self._settings))

    def contexts(self, item: Item) -> tuple[tuple[Message, ...], ...]:
        """The K conversations put to the model, one per objective; they differ only after the judged text."""
        return tuple((Message("user", self._question(item, o)),) for o in self._constitution.objectives)

    def _question(self, item: Item, objective: Objective) -> str:
        judged = marked(item.prompt.messages, item.response.text, is_shared=self._settings.scales == "first")
        (answer,) = judged.texts
        return fill(
            self._text,
            constitution=self._constitution,
            code=judged.code,
            conversation=judged.conversation,
            answer=answer,
            objective=objective,
            question=objective.question_reworded if self._reworded else objective.question,
            levels=objective.levels,
        )
