"""Counting: by the tokenizer, by characters, and what stands for many."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfpriority.backends.batches import Cost, cut
from selfpriority.backends.counting import MOST_COUNTED, Asked, Counting, Ruler
from selfpriority.chat import Chat
from selfpriority.judges.contrast import made_labels, read_contrast
from selfpriority.language_model import Choose, Completion, Embed, Generate, ask
from selfpriority.models.loading import describe
from selfpriority.recipe import HfBackend, OpenaiBackend
from selfpriority.records import Message

SERVER = OpenaiBackend(kind="openai", base_url="http://localhost/v1")


def told(text):
    return (Message("user", text),)


def request(text, n=2, most=5):
    return Generate(told(text), n, 1.0, 1.0, most, 0)


@pytest.fixture
def chat(tiny_model):
    return describe(str(tiny_model)).chat


def test_answers_are_as_long_as_they_may_be_and_never_alike():
    asked = Asked("m", HfBackend())
    answers = ask(Counting(asked, Ruler(None)), [request(str(i), n=30, most=2) for i in range(10)])
    texts = [text.text for answer in answers if isinstance(answer, Completion) for text in answer.texts]
    assert len(set(texts)) == len(texts) == 300
    assert {len(text.split()) for text in texts} == {2}
    assert (asked.requests, asked.new_tokens) == (10, 10 * 30 * 2)


def test_an_answer_that_is_begun_begins_so_and_costs_its_beginning(chat):
    opening = "Please think about the risks"
    begun = replace(request("Hello", most=5), opening=opening)
    asked = Asked("m", HfBackend())
    ruler = Ruler(chat)
    [answer] = ask(Counting(asked, ruler), [begun])
    assert answer.texts[0].text.startswith(f"{opening} ")
    assert answer.texts[0].n_tokens == ruler.response(opening) + 5
    alone = Asked("m", HfBackend())
    ask(Counting(alone, ruler), [request("Hello", most=5)])
    assert asked.prompt_tokens == alone.prompt_tokens + ruler.response(opening)


def test_what_contrast_asks_is_planned_in_full():
    """Its heads are fitted on answers that begin as they were begun; a plan must not lose them."""
    model = Counting(Asked("m", HfBackend()), Ruler(None))
    made = made_labels("harmlessness", read_contrast("harmlessness"), model)
    assert len({label.opening for label in made.answers}) > 10
    assert len(made.answers) > 2000


def test_tokens_are_the_tokenizer_s(chat):
    asked = Asked("m", HfBackend(tokens_per_batch=1))
    contexts = (told("Is it safe? Yes or no"), told("Is it safe? Rate it"))
    embed = Embed(told("Rate it"), "No.", (1,))
    ask(Counting(asked, Ruler(chat)), [request("Rate the answer"), Choose(contexts, ("0",)), embed])
    assert asked.prompt_tokens == len(chat.prompt_ids(told("Rate the answer")))
    ids = [chat.prompt_ids(context) for context in contexts]
    n_shared = next(i for i, pair in enumerate(zip(*ids, strict=False)) if len(set(pair)) > 1)
    embedded = len(chat.prompt_ids(embed.messages)) + len(chat.response_ids("No.", "end"))
    assert asked.forward_tokens == sum(map(len, ids)) - n_shared + embedded
    assert asked.cache_tokens == max(2 * (asked.prompt_tokens + 5), 2 * max(map(len, ids)))


def test_turns_that_the_template_refuses_are_counted_by_characters(chat):
    tokenizer = chat.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{% for message in messages %}",
        "{% for message in messages %}{% if loop.previtem and loop.previtem.role == message.role %}"
        "{{ raise_exception('take turns') }}{% endif %}",
    )
    strict = Ruler(Chat(tokenizer))
    twice = (*told("a" * 39), *told("b" * 41))
    assert strict.conversation(twice) == Ruler(None).conversation(twice) == 20
    assert strict.conversation(told("a")) == Ruler(chat).conversation(told("a"))
    assert strict.shared(Choose((twice, told("a")), ("0",))) == 20 + strict.conversation(told("a"))


@pytest.mark.parametrize("place", [0, 1, 599])
def test_the_one_long_request_of_many_is_found_wherever_it_stands(chat, place):
    settings, ruler = HfBackend(tokens_per_batch=500), Ruler(chat)
    requests = [request("word " * (300 if i == place else 5) + str(i), n=8, most=20) for i in range(600)]
    asked = Asked("m", settings)
    ask(Counting(asked, ruler), requests)
    costs = [Cost("", r.n, ruler.conversation(r.messages) + r.max_new_tokens) for r in requests]
    batches = cut(costs, settings.tokens_per_batch, settings.max_batch)
    assert asked.cache_tokens == max(
        sum(costs[i].sequences for i in b) * max(costs[i].length for i in b) for b in batches
    )


def test_a_server_reads_every_context_and_writes_a_token_of_each():
    asked = Asked("m", SERVER)
    ask(Counting(asked, Ruler(None)), [Choose((told("a" * 40), told("a" * 40)), ("0",))])
    assert (asked.forward_tokens, asked.new_tokens, asked.cache_tokens) == (20, 2, 0)
    assert asked.shown_tokens == 2


def test_some_requests_stand_for_many():
    asked = Asked("m", HfBackend())
    requests = [replace(request("x" * 400), seed=seed) for seed in range(3 * MOST_COUNTED)]
    ask(Counting(asked, Ruler(None)), requests)
    assert asked.prompt_tokens == 100 * len(requests)
