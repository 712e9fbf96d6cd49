"""Two turns: the second is asked after the system's own first answer, and never without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfpriority.evaluation.conversation import Question, converse
from selfpriority.language_model import Answer, Completion, Failure, Generate, Request, Text
from selfpriority.rating import Item

QUESTIONS = [
    Question("a", "writing", ("Name a colour.", "Another.")),
    Question("b", "math", ("Seven plus five?", "Double it."), ("12", "24")),
]


class Echo:
    """Answers with the number of messages it saw; fails at texts that hold `fails_at`."""

    fingerprint = "echo"

    def __init__(self, fails_at: str = "\0") -> None:
        self.asked: list[Generate] = []
        self._fails_at = fails_at

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in reversed(range(len(requests)))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in enumerate(batches):
            yield number, [self._answer(request) for request in batch]

    def _answer(self, request: Request) -> Answer:
        assert isinstance(request, Generate)
        self.asked.append(request)
        if self._fails_at in request.messages[-1].content:
            return Failure("too_long", "300 tokens")
        return Completion((Text(f"{request.messages[-1].content} {len(request.messages)}", 3, "end"),))


def test_the_second_turn_follows_the_own_first_answer():
    model = Echo()
    both, other = converse(QUESTIONS, model, 64)
    first, second = both.turns
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert first.response.text == "Name a colour. 1"
    assert [(m.role, m.content) for m in second.prompt.messages] == [
        ("user", "Name a colour."),
        ("assistant", "Name a colour. 1"),
        ("user", "Another."),
    ]
    assert second.response.text == "Another. 3"
    assert isinstance(other.second, Item)
    assert other.second.response.text == "Double it. 3"
    assert {(request.temperature, request.max_new_tokens, request.n) for request in model.asked} == {(0.0, 64, 1)}


def test_without_a_first_answer_the_second_is_not_asked():
    model = Echo("Seven")
    whole, failed = converse(QUESTIONS, model, 64)
    assert all(isinstance(item, Item) for item in whole.turns)
    assert failed.turns == (Failure("too_long", "300 tokens"),) * 2
    assert len(model.asked) == 3


def test_a_second_turn_may_fail_alone():
    both, _ = converse(QUESTIONS, Echo("Another"), 64)
    first, second = both.turns
    assert isinstance(first, Item)
    assert isinstance(second, Failure)
