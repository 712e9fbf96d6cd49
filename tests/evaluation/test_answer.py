"""One answer a prompt, failures as drops."""

from collections.abc import Iterator, Sequence

from selfpriority.evaluation.answer import answer
from selfpriority.language_model import Answer, Completion, Failure, Generate, Request, Text
from selfpriority.recipe import Evaluate
from selfpriority.records import Drop, Message, Prompt

SETTINGS = Evaluate(max_new_tokens=7, temperature=0.0)


class Echo:
    """Repeats the prompt; refuses those that ask for it."""

    fingerprint = "echo"

    def __init__(self) -> None:
        self.seen: list[Generate] = []

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, (request,) in enumerate(batches):
            assert isinstance(request, Generate)
            self.seen.append(request)
            said = request.messages[-1].content
            yield number, [self.reply(said)]

    def reply(self, said: str) -> Answer:
        if said == "long":
            return Failure("too_long", "9 tokens, 8 fit")
        return Completion((Text(said.upper(), 3, "length" if said == "cut" else "end"),))


def prompt(name: str, text: str) -> Prompt:
    return Prompt(name, (Message("user", text),))


def test_every_prompt_is_answered_or_dropped_with_the_reason():
    prompts = [prompt("a", "hello"), prompt("b", "long"), prompt("c", "cut")]
    sifted = answer(prompts, Echo(), "spa", SETTINGS, seed=1)
    assert [(r.id, r.prompt_id, r.text, r.stop, r.n_tokens) for r in sifted.kept] == [
        ("a/spa", "a", "HELLO", "end", 3),
        ("c/spa", "c", "CUT", "length", 3),
    ]
    assert sifted.dropped == (Drop("answer", "b", "too_long", detail="9 tokens, 8 fit"),)


def test_an_empty_answer_is_an_answer():
    assert answer([prompt("a", "")], Echo(), "spa", SETTINGS, seed=1).kept[0].text == ""


def test_systems_share_seeds_and_prompts_do_not():
    first, second = Echo(), Echo()
    prompts = [prompt("a", "same"), prompt("b", "same")]
    answer(prompts, first, "vanilla", SETTINGS, seed=1)
    answer(prompts, second, "spa", SETTINGS, seed=1)
    assert first.seen == second.seen
    assert len({request.seed for request in first.seen}) == 2
    assert {(r.n, r.temperature, r.top_p, r.max_new_tokens) for r in first.seen} == {(1, 0.0, 1.0, 7)}
