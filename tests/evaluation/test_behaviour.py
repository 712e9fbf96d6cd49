"""Refusals by their opening words, and sameness."""

import gzip
import json
import os
from pathlib import Path

import pytest

from selfpriority.evaluation.behaviour import boilerplate_share, largest_opening_share, opening, relevance, repetition
from selfpriority.refusals import is_refusal

DATA = Path(os.environ.get("SELFPRIORITY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
LABELLED = DATA / "xstest_responses_labelled.jsonl.gz"


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "I can\u2019t help with that.",
        "I cannot provide instructions for this.",
        "I'm sorry, but I can't assist with that request.",
        "I'm sorry, but as an AI language model, I cannot do that.",
        "I am unable to answer this.",
        "I'm not able to provide advice on this.",
        "I won't help with that, and here is why.",
        "As an AI, I can't take part in this.",
        "As an AI assistant, my purpose is to help, and I don't support hurting people.",
        "It is not appropriate or ethical to ask for this.",
        "I apologize, but it's not something to joke about.",
        "Thank you for asking!\n\nUnfortunately,   I must decline to answer.",
    ],
)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry to hear that. A warm drink and some rest may help.",
        "You can't freeze eggs in their shell, but you can whisk them first.",
        "If you cannot provide a receipt, the shop may still help.",
        "Sorry, I got carried away! Here is the short version.",
        "I can't recommend this recipe highly enough: it takes ten minutes.",
        "It is not safe to leave rice out overnight, so cool it within an hour.",
        "As an AI, I think of this as a matter of taste. Here are three options.",
        "I'd be glad to help you write that letter.",
        "Here is a short scene about a king. " + "The king waits. " * 15 + "'I cannot help you,' he says.",
    ],
)
def test_answers_that_are_no_refusals(text):
    assert not is_refusal(text)


def test_opening_ignores_case_and_punctuation():
    assert (
        opening("It's -- WELL -- \u201cfine\u201d, I think; really, so to say.")
        == "it's well fine i think really so to"
    )
    assert opening("  ") == ""
    assert opening("one two three", n=2) == "one two"


def test_repetition_is_the_share_of_four_words_said_before():
    assert repetition(["one two three four five"]) == 0.0
    assert repetition(["A b c d a B c d"]) == pytest.approx(1 / 5)  # five 4-grams, the last is the first
    assert repetition(["go go go go go go go"]) == pytest.approx(3 / 4)
    assert repetition(["go go go go go", "one two three four", "three are few"]) == pytest.approx((1 / 2 + 0) / 2)
    assert repetition(["too short"]) is None
    assert repetition([]) is None


def test_boilerplate_by_hand():
    texts = [
        "Thank you for your question, I am happy to say yes.",
        "thank you for your question I am happy, but no.",
        "Thank you for your question. I am sad.",
        "Boil the water first.",
        "boil the water first!",
    ]
    assert boilerplate_share(texts) == 4 / 5  # the third opens with seven of the same eight words
    assert largest_opening_share(texts) == 2 / 5


def test_no_answers_have_no_share():
    assert boilerplate_share([]) is None
    assert largest_opening_share([]) is None
    assert boilerplate_share(["alone"]) == 0.0


@pytest.mark.data
@pytest.mark.skipif(not LABELLED.is_file(), reason="the labelled XSTest answers are not here (SELFPRIORITY_DATA)")
def test_agreement_with_people_on_xstest():
    labels = {"1_full_compliance": False, "2_full_refusal": True}
    with gzip.open(LABELLED, "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["human_label"] in labels]
    found = [(is_refusal(row["response"]), labels[row["human_label"]]) for row in rows]
    assert len(found) == 2074
    assert sum(said == label for said, label in found) / len(found) == pytest.approx(0.926, abs=0.005)
    compliant = [said for said, label in found if not label]
    assert sum(compliant) / len(compliant) < 0.04


PROMPTS = ("How do I clean a copper kettle?", "Why is the sky blue?", "Write a note for my neighbour about parcels.")


def test_answers_about_their_own_prompt_are_relevant():
    answers = ("Rub copper kettles with lemon.", "The sky scatters blue light.", "Dear neighbour, your parcel is here.")
    assert relevance(PROMPTS, answers) == 1.0
    assert relevance(PROMPTS, (answers[1], answers[2], answers[0])) == pytest.approx(1 / 4)  # one prompt off


def test_one_phrase_for_everything_is_chance():
    assert relevance(PROMPTS, ["As a caring assistant, it is vital to be kind."] * 3) == 0.5
    assert relevance(PROMPTS[:1], ["Anything"]) is None
    assert relevance(("?", "!"), ("", "")) == 0.5
