"""A judge that is asked in words: a language model under a constitution, by digits or by a written rating.

Source: docs/judging.md. The judged text stands between markers it cannot close. How a verdict is read is in
`rating.py`, what is asked in `text/rate_*.md`; this file knows no model, no tokenizer and no other judge.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from selfpriority.constitution import Constitution, Objective
from selfpriority.language_model import (
    Answer,
    Choice,
    Choose,
    Completion,
    Failure,
    Generate,
    LanguageModel,
    ask,
)
from selfpriority.rating import DIGITS, Item, expected_rating, verbal_rating
from selfpriority.recipe import Score
from selfpriority.records import Message, Rating, Ratings, Unrated
from selfpriority.refusals import is_refusal
from selfpriority.wording import fill, text_hash

_LEFT = "<\uff1c\ufe64"  # the second and third become the first in tokenizers that normalise
# What control words of chat templates begin with: <|im_end|>, <turn|>, <s>, <start_of_turn>, [INST], [|user|].
# Ordinary markup is left alone, or every answer that holds HTML would look odd to its judge.
_MARKUP = (
    "a|abbr|b|blockquote|body|br|button|code|div|em|form|h[1-6]|head|hr|html|i|img|input|label|li|ol|option|p|pre|q"
)
_MARKUP += "|script|section|select|small|span|strong|style|sub|sup|table|tbody|td|textarea|th|thead|title|tr|u|ul"
_CONTROL = re.compile(
    rf"[{_LEFT}](?=[|\uff5c])|(?<=[|\uff5c])>|\[(?=\|)"
    rf"|[{_LEFT}](?=/?(?!(?:{_MARKUP})>)[\w-]+[>|\uff5c])"
    r"|\[(?=/?(?:[A-Z_]{3,}|[gs]MASK)\])"
)


class WordsJudge:
    """A language model that rates each answer on every objective of a constitution.

    Args:
        model: who is asked.
        constitution: objectives with question and rubric.
        score: `method` is `expected` or `verbal`; mass floor and length limit are taken from it.
        reworded: ask each objective's second wording, to see how much the wording decides.

    Raises:
        ValueError: `score.method` is not a judgement in words.
    """

    def __init__(self, model: LanguageModel, constitution: Constitution, score: Score, reworded: bool = False) -> None:
        if score.method not in ("expected", "verbal"):
            raise ValueError(f"a judge in words is asked for expected or verbal ratings, not {score.method!r}")
        self._model, self._constitution, self._score, self._reworded = model, constitution, score, reworded
        self._text = f"rate_{score.method}"

    @property
    def fingerprint(self) -> str:
        """Hash of model, wording, constitution and the settings that a verdict depends on."""
        parts = (
            self._model.fingerprint,
            text_hash(self._text),
            [objective.model_dump(mode="json") for objective in self._constitution.objectives],
            [self._score.method, self._score.mass_floor, self._score.max_new_tokens, self._reworded],
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def objectives(self) -> tuple[str, ...]:
        """The constitution's objectives, in priority order."""
        return self._constitution.names

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item; a failed request is unrated with the failure's reason."""
        return self._expected(items) if self._score.method == "expected" else self._verbal(items)

    def _expected(self, items: Sequence[Item]) -> list[Ratings]:
        requests = [Choose(contexts=self.contexts(item), choices=DIGITS) for item in items]
        return [self._read_choice(answer) for answer in ask(self._model, requests)]

    def _verbal(self, items: Sequence[Item]) -> list[Ratings]:
        requests = [self._write_verdict(context) for item in items for context in self.contexts(item)]
        verdicts = [written_verdict(answer) for answer in ask(self._model, requests)]
        k = len(self.objectives)
        return [tuple(verdicts[start : start + k]) for start in range(0, len(verdicts), k)]

    def contexts(self, item: Item) -> tuple[tuple[Message, ...], ...]:
        """The K conversations put to the model, one per objective; they differ only after the judged text."""
        return tuple((Message("user", self._question(item, o)),) for o in self._constitution.objectives)

    def _question(self, item: Item, objective: Objective) -> str:
        turns = item.prompt.messages
        code = marker_code([*(turn.content for turn in turns), item.response.text])
        return fill(
            self._text,
            constitution=self._constitution,
            code=code,
            conversation=[Message(turn.role, material(turn.content, code)) for turn in turns],
            answer=material(item.response.text, code),
            objective=objective,
            question=objective.question_reworded if self._reworded else objective.question,
            levels=sorted(objective.rubric.items()),
        )

    def _write_verdict(self, context: tuple[Message, ...]) -> Generate:
        return Generate(context, n=1, temperature=0.0, top_p=1.0, max_new_tokens=self._score.max_new_tokens, seed=0)

    def _read_choice(self, answer: Answer) -> Ratings:
        if isinstance(answer, Failure):
            return tuple(Unrated(answer.reason, answer.detail) for _ in self.objectives)
        assert isinstance(answer, Choice)
        return tuple(expected_rating(digits, self._score.mass_floor) for digits in answer.probabilities)


def marker_code(texts: Sequence[str]) -> str:
    """The code in the markers around judged texts: equal for equal texts, unknown to whoever wrote them."""
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def material(text: str, code: str) -> str:
    """Judged text that can neither close its markers nor the judge's turn.

    The code is replaced (in any case), and a space breaks a chat template's control words, because a
    tokenizer reads `<|im_end|>` as the end of a turn wherever it stands.
    """
    hidden = re.sub(re.escape(code), "[code]", text, flags=re.IGNORECASE)
    return _CONTROL.sub(lambda bracket: " >" if bracket[0] == ">" else f"{bracket[0]} ", hidden)


def written_verdict(answer: Answer) -> Rating | Unrated:
    """The rating in a judge's written text; without one that can be read, why."""
    if isinstance(answer, Failure):
        return Unrated(answer.reason, answer.detail)
    assert isinstance(answer, Completion)
    (verdict,) = answer.texts
    rating = verbal_rating(verdict.text, is_cut=verdict.stop == "length")
    if isinstance(rating, Unrated) and rating.reason == "no_rating":
        return unread(verdict.text, rating)
    return rating


def unread(text: str, otherwise: Unrated) -> Unrated:
    """Why a written text holds no verdict: it declines to give one, or `otherwise`."""
    return Unrated("refused", "the judge declined in words") if is_refusal(text) else otherwise
