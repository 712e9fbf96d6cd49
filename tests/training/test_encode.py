"""Token ids of a pool: end tokens, special tokens, what is left out and what is dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from selfpriority.chat import Chat
from selfpriority.recipe import Align
from selfpriority.records import Drop, Pair, PairedPool
from selfpriority.training.encode import EncodedPool, encode, encode_all

END, START = 2, 1


@pytest.fixture(scope="module")
def chat(tiny_model):
    return Chat(AutoTokenizer.from_pretrained(tiny_model), (END,))


def test_prompt_is_plain_and_opens_the_assistant_turn(chat, paired_pool):
    pool = encode(paired_pool("Is it safe?"), chat, 100, Align())
    expected = "<|im_start|>user\nIs it safe?<|im_end|>\n<|im_start|>assistant\n"
    assert chat.tokenizer.decode(list(pool.prompt_ids)) == expected


def test_finished_answers_carry_exactly_one_end_token(chat, paired_pool):
    pool = encode(paired_pool(texts=("No.", "Yes.", "Maybe.<|im_end|>")), chat, 100, Align())
    assert [ids.count(END) for ids in pool.response_ids] == [1, 1, 1]
    assert [ids[-1] for ids in pool.response_ids] == [END] * 3


def test_cut_answers_carry_no_end_token(chat, paired_pool):
    pool = encode(paired_pool(texts=("No, I", "Yes, yo", "May<|im_end|>"), stop="length"), chat, 100, Align())
    assert [ids.count(END) for ids in pool.response_ids] == [0, 0, 0]


def test_no_start_token_inside_prompt_and_response(chat, paired_pool):
    pool = encode(paired_pool("Is it safe?", ("No.", "Yes.")), chat, 100, Align())
    assert pool.prompt_ids.count(START) == 2  # the user's turn and the assistant's
    assert all(START not in ids for ids in pool.response_ids)


def test_responses_decode_to_the_whole_text(chat, paired_pool):
    texts = ("No, I will not help with that.", "The quick brown fox.")
    pool = encode(paired_pool(texts=texts), chat, 100, Align())
    assert tuple(chat.tokenizer.decode(list(ids[:-1])) for ids in pool.response_ids) == texts


def test_answers_in_no_pair_are_left_out_and_pairs_renumbered(chat, paired_pool):
    paired = paired_pool(texts=("Zero.", "One.", "Two.", "Three."))
    pairs = (Pair(1, 3, 0, 2.0, 1.5), Pair(0, 3, 1, 4.0, 0.5))
    pool = encode(replace(paired, pairs=pairs), chat, 100, Align())
    assert [chat.tokenizer.decode(list(ids[:-1])) for ids in pool.response_ids] == ["Zero.", "One.", "Three."]
    assert pool.pairs == ((1, 2), (0, 2))
    assert pool.gaps == (1.5, 0.5)


@pytest.mark.parametrize(("weight_gap", "gaps"), [("signed", (1.0,)), ("l1", (3.0,)), ("primary", (2.0,))])
def test_weight_gap_variants(chat, paired_pool, weight_gap, gaps):
    assert encode(paired_pool(), chat, 100, Align(weight_gap=weight_gap)).gaps == gaps  # scores (9, 5) against (7, 6)


def test_primary_gap_is_that_of_the_deciding_objective(chat, paired_pool):
    paired = paired_pool()
    paired = replace(paired, pairs=(replace(paired.pairs[0], chosen=1, rejected=0, decided_by=1),))
    assert encode(paired, chat, 100, Align(weight_gap="primary")).gaps == (1.0,)


def test_over_long_is_dropped_whole_with_its_reason_and_never_cut(chat, paired_pool):
    paired = paired_pool("The quick brown fox " * 9)
    longest = encode(paired, chat, 10_000, Align()).longest
    assert isinstance(encode(paired, chat, longest, Align()), EncodedPool)
    drop = encode(paired, chat, longest - 1, Align())
    assert isinstance(drop, Drop)
    assert (drop.step, drop.prompt_id, drop.reason) == ("align", paired.pool.prompt.id, "too_long")
    assert f"{longest} tokens, at most {longest - 1}" in drop.detail


@pytest.mark.parametrize(("text", "stop"), [("", "end"), ("", "length"), ("<|im_end|>", "end")])
def test_an_empty_answer_drops_the_pool(chat, paired_pool, text, stop):
    drop = encode(paired_pool(texts=("No.", text), stop=stop), chat, 100, Align())
    assert isinstance(drop, Drop)
    assert drop.reason == "empty_response"


def test_every_pool_is_kept_or_dropped(chat, paired_pool):
    paired: list[PairedPool] = [paired_pool("short"), paired_pool("long " * 99), paired_pool("brief")]
    sifted = encode_all(paired, chat, 60, Align())
    assert [pool.prompt_id for pool in sifted.kept] == ["short", "brief"]
    assert sifted.reasons == {"too_long": 1}


def test_the_answers_that_are_learned_follow_the_field_and_the_method(paired_pool, chat):
    paired = paired_pool(texts=("Zero.", "One.", "Two.", "Three.", "Four."))
    paired = replace(paired, pairs=tuple(pair for pair in paired.pairs if 2 not in (pair.chosen, pair.rejected)))
    weights = {
        Align(): (1.0, 1.0, 1.0, 0.0),
        Align(nll=0.5): (1.0, 1.0, 1.0, 0.0),
        Align(nll=0.5, learn="best"): (1.0, 0.0, 0.0, 0.0),
        Align(method="sft"): (1.0, 0.0, 0.0, 0.0),
        Align(method="sft", learn="winners"): (0.5, 0.5, 0.0, 0.0),
        Align(method="sft", learn="chosen"): (1.0, 1.0, 1.0, 0.0),
    }
    assert {settings: encode(paired, chat, 100, settings).learned for settings in weights} == weights


def test_pairs_of_safedpo_are_turned_and_a_pool_without_a_safe_answer_is_dropped(chat, paired_pool):
    paired = paired_pool(texts=("Zero.", "One.", "Two."))  # rated 9, 7 and 5 on the first objective
    pairs = (Pair(2, 0, 1, 2.0, 1.5), Pair(2, 1, 1, 4.0, 0.5), Pair(1, 0, 1, 4.0, 0.5))
    given = replace(paired, pairs=pairs)
    pool = encode(given, chat, 100, Align(method="safedpo"))
    assert pool.pairs == ((0, 2), (1, 2), (1, 0))
    assert pool.safe == (True, True, False)
    pool = encode(given, chat, 100, Align(method="safedpo", safe_from=8.0))
    assert pool.pairs == ((0, 2), (0, 1))
    dropped = encode(given, chat, 100, Align(method="safedpo", safe_from=9.5))
    assert isinstance(dropped, Drop)
    assert (dropped.reason, dropped.detail) == ("unsafe", "no pair has an answer rated 9.5 or more (align.safe_from)")
    assert encode(given, chat, 100, Align(method="bfpo", safe_from=9.5)).pairs == ((2, 0), (2, 1), (1, 0))
    assert encode(given, chat, 100, Align(method="dpo")).safe == ()


def test_a_pool_without_pairs_is_learned_whole_and_never_compared(chat, paired_pool):
    alone = replace(paired_pool(texts=("No.", "Yes.", "Maybe.")), pairs=())
    learned = encode(alone, chat, 100, Align(method="sft"))
    assert (learned.pairs, learned.gaps, learned.learned) == ((), (), (1.0, 1.0, 1.0))
    assert learned.response_ids == encode(paired_pool(texts=("No.", "Yes.", "Maybe.")), chat, 100, Align()).response_ids
    dropped = encode(alone, chat, 100, Align())
    assert (dropped.reason, dropped.detail) == ("no_pairs", "method spa compares answers")


def test_a_prompt_that_is_too_long_under_a_persona_is_dropped(chat, paired_pool):
    pool, settings = paired_pool("Is it safe?", ("No.", "Yes.")), Align(method="tis_dpo")
    fits = encode(pool, chat, 200, settings)
    good, bad = map(chat.tokenizer.decode, map(list, fits.persona_ids))
    assert "careful assistant" in good
    assert "careless assistant" in bad
    assert good.endswith(chat.tokenizer.decode(list(fits.prompt_ids)))
    assert encode(pool, chat, 60, Align()).prompt_ids == fits.prompt_ids
    assert encode(pool, chat, 60, settings).reason == "too_long"
