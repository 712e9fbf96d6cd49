"""What is hashed by the hundred thousand is written as `dataclasses.asdict` would, or every key would change."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from selfpriority.language_model import Choose, Classify, Embed, Generate, Rate
from selfpriority.plain_fields import plain_fields
from selfpriority.records import Message, Pair, PairedPool, Pool, Prompt, Rating, Response, Scored

HELLO = (Message("system", "Be brief."), Message("user", "Hello \u201cyou\u201d"))
PROMPT = Prompt("q", HELLO, "ordinary")
RATED = Scored(Response("q/y1", "q", "Hi.", "end", 3), (Rating(7.5), Rating(2.0)))

RECORDS = [
    Generate(HELLO, n=2, temperature=0.5, top_p=0.9, max_new_tokens=8, seed=3, opening="No,"),
    Choose((HELLO, HELLO[:1]), ("0", "1")),
    Embed(HELLO, "Hi.", (3, 7)),
    Classify(HELLO, "Hi."),
    Rate(HELLO, "Hi.", ("harmlessness", "helpfulness")),
    PROMPT,
    PairedPool(Pool(PROMPT, (RATED,), None), (Pair(0, 1, 0, 1.5, 0.5),)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_written_as_ever(record):
    assert json.dumps(plain_fields(record), sort_keys=True) == json.dumps(asdict(record), sort_keys=True)


def test_several_are_a_list():
    assert plain_fields((HELLO[1], HELLO[1])) == [asdict(HELLO[1])] * 2
