from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.inspection.doctor import diagnose, diagnosis_text
from selfpriority.inspection.run_files import paired_of, stored_pairs
from selfpriority.inspection.sequence_checks import (
    Sequences,
    begin_tokens,
    cut_answers,
    empty_answers,
    end_tokens,
    equal_prefix,
    length_difference,
    safe_answers,
    too_long,
)
from selfpriority.preferences import PreferenceRow
from selfpriority.recipe import Align
from selfpriority.records import Message, PairedPool, Pool
from selfpriority.run import PAIRS, POOLS
from selfpriority.storage import read_rows, write_rows


@pytest.fixture
def sequences(make_run, tiny_model) -> Sequences:
    from transformers import AutoTokenizer

    run = make_run(str(tiny_model))
    chat = Chat(AutoTokenizer.from_pretrained(tiny_model))
    return Sequences(paired_of(run, 1), stored_pairs(run, 1), chat, {chat.end_id}, max_length=512)


def with_text(sequences: Sequences, response_id: str, text: str) -> Sequences:
    """The same round, one candidate's text replaced in the pools and not in the rows."""

    def changed(pool: Pool) -> Pool:
        candidates = tuple(
            replace(c, response=replace(c.response, text=text)) if c.response.id == response_id else c
            for c in pool.candidates
        )
        return replace(pool, candidates=candidates)

    paired = [PairedPool(changed(entry.pool), entry.pairs) for entry in sequences.paired]
    return replace(sequences, paired=paired)


def test_a_healthy_round(make_run, tiny_model):
    found = diagnose(make_run(str(tiny_model)), None)
    assert {check.name: check.ok for check in found.checks} == {
        "chat template": True,
        "end tokens": True,
        "begin tokens": True,
        "equal prefix": True,
        "cut answers": True,
        "empty answers": True,
        "too long": True,
        "length": True,
        "first loss": True,
    }
    assert found.ok
    assert (found.round, found.n_pools, found.n_pairs, found.n_responses) == (1, 2, 19, 10)
    sentences = {check.name: check.sentence for check in found.checks}
    between = "'<|im_end|>\\n<|im_start|>assistant\\n' and '<|im_end|>\\n'"
    assert sentences["chat template"] == f"an answer stands between {between}"
    assert sentences["end tokens"] == "8 finished answers hold exactly one, 2 cut ones none"
    assert "19 pairs of 2 pools" in sentences["first loss"]


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0.0},
        {"alpha": 2.0, "weight_gap": "l1"},
        {"count": "pools", "weight_gap": "primary", "beta": 10.0, "gamma": 0.5},
        {"lora": {"r": 4}},
        {"nll": 0.5},
        {"method": "simpo"},
        {"method": "dpo"},
        {"method": "ipo"},
        {"method": "sft"},
        {"method": "sft", "learn": "winners"},
        {"nll": 0.5, "learn": "best"},
        {"weights": "bfloat16"},
        {"lora": {"r": 4, "quantize": "nf4"}},
    ],
    ids=[
        "alpha 0",
        "l1",
        "pools",
        "lora",
        "nll",
        "simpo",
        "dpo",
        "ipo",
        "sft",
        "winners",
        "nll, best",
        "bfloat16 weights",
        "qlora",
    ],
)
def test_both_first_losses_agree_whatever_the_settings(make_run, tiny_model, settings):
    found = diagnose(make_run(str(tiny_model), align=settings), 1)
    check = found.checks[-1]
    assert check.ok
    assert check.figures["difference"] < 1e-5
    assert check.figures["independent"] > 0.1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft
@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["merged", "continued"])
def test_a_second_round_starts_from_the_adapter_of_the_first(make_run, tiny_model, lora):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    run = make_run(str(tiny_model), align={"lora": lora})
    shutil.copytree(run.round(1), run.round(2))
    vanilla = diagnose(run, 1).checks[-1]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(run.policy(1))
    found = diagnose(run, None)
    assert (found.round, found.model) == (2, str(run.policy(1)))
    check = found.checks[-1]
    assert check.figures["difference"] < 1e-5
    assert abs(check.figures["independent"] - vanilla.figures["independent"]) > 1e-3


def test_samples_mark_what_carries_loss(make_run, tiny_model):
    run = make_run(str(tiny_model))
    found = diagnose(run, 1, n=1, reveal=True)
    (sample,) = found.samples
    assert sample.prompt_id == "p1"
    # the first pair of p1 is y2 over y1
    assert sample.chosen == (
        "<|im_start|>user\nExplain how to keep a knife sharp, p1.<|im_end|>\n<|im_start|>assistant\n"
        "\u27e6Yes, ofcourse you can.<|im_end|>\u27e7"
    )
    assert sample.rejected.endswith("\u27e6The quick brown fox jumps. <|im_end|>\u27e7")
    folded = diagnose(run, 1, n=5)
    assert [s.prompt_id for s in folded.samples] == ["p1", "p5"]
    assert folded.samples[0].chosen.startswith(f"[{sample.prompt_tokens} prompt tokens, folded; --reveal")
    assert folded.samples[0].chosen.endswith("tokens, folded; --reveal shows them] <|im_end|>\u27e7")
    assert "knife" not in diagnosis_text(folded)
    assert "fox" not in diagnosis_text(folded)


def test_diagnosis_text(make_run, tiny_model):
    found = diagnose(make_run(str(tiny_model)), 1, reveal=True)
    lines = diagnosis_text(found).split("\n")
    assert lines[0] == "round 1: 19 pairs over 10 answers to 2 prompts"
    assert "  ok   end tokens     8 finished answers hold exactly one, 2 cut ones none" in lines
    assert lines[-1] == "all checks passed"
    first, *others = found.checks
    found = replace(found, checks=(replace(first, ok=False), *others))
    assert diagnosis_text(found).endswith("1 of 9 checks failed")


def with_ids(sequences, response_id, ids):
    made = replace(sequences)
    made.__dict__["responses"] = {**sequences.responses, response_id: tuple(ids)}  # where cached_property keeps it
    return made


def test_a_second_end_token_is_found(sequences):
    assert end_tokens(sequences).ok
    assert end_tokens(with_text(sequences, "p1/y1", "Yes.<|im_end|> And more.")).ok  # letters, not the token
    bad = end_tokens(with_ids(sequences, "p1/y1", [5, sequences.chat.end_id, sequences.chat.end_id]))
    assert not bad.ok
    assert bad.sentence == "1 of 10 answers hold a wrong number: p1/y1"
    cut = end_tokens(with_ids(sequences, "p1/y4", [5, sequences.chat.end_id]))
    assert not cut.ok


def test_an_added_begin_token_is_found(sequences):
    assert "opens every turn" in begin_tokens(sequences).sentence
    tokenizer = sequences.chat.tokenizer
    tokenizer.bos_token = "<|endoftext|>"
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ bos_token }}" + template
    once = replace(sequences, chat=Chat(tokenizer))
    assert begin_tokens(once).sentence == "10 sequences: none but at the start, none in an answer"
    tokenizer.chat_template = template.replace("<|im_start|>assistant", "<|im_start|><|endoftext|>assistant").replace(
        "{{ message['role'] }}", "{{ '<|endoftext|>' if message['role'] == 'assistant' }}{{ message['role'] }}"
    )
    assert not begin_tokens(replace(sequences, chat=Chat(tokenizer))).ok
    inside = with_ids(once, "p1/y1", [5, tokenizer.bos_token_id, 6, sequences.chat.end_id])
    tokenizer.chat_template = "{{ bos_token }}" + template
    assert begin_tokens(inside).sentence.endswith("in the wrong place: p1/y1")


def test_a_pair_that_is_not_its_pool_is_found(sequences):
    assert equal_prefix(sequences).ok
    assert not equal_prefix(with_text(sequences, "p1/y1", "another text")).ok
    first, *rest = sequences.rows
    moved = replace(first, prompt=(Message("user", "another question"),))
    bad = equal_prefix(replace(sequences, rows=[moved, *rest]))
    assert bad.sentence == "2 sides of pairs differ from their pool: p1/y2, p1/y1"


def test_cut_answers_by_side(sequences):
    check = cut_answers(sequences)
    # y4 is cut; of 19 pairs it is chosen in 3 (p1) and 3 (p5), rejected once in each
    assert check.figures["chosen"] == pytest.approx(6 / 19)
    assert check.figures["rejected"] == pytest.approx(2 / 19)
    assert check.ok
    often = [replace(row, chosen_stop="length") for row in sequences.rows[:16]]
    mostly = cut_answers(replace(sequences, rows=[*often, *sequences.rows[16:]]))
    assert not mostly.ok  # 84 % of them say nothing of how to stop
    assert "little teaches the policy to stop, raise sample.max_new_tokens" in mostly.sentence
    never_stops = replace(sequences, rows=[replace(row, chosen_stop="length") for row in sequences.rows])
    assert not cut_answers(never_stops).ok


def test_empty_answers_are_found(sequences):
    assert empty_answers(sequences).sentence == "none"
    assert empty_answers(with_text(sequences, "p1/y1", "  ")).sentence.endswith("are empty: p1/y1")


def test_long_answers_are_told_and_many_are_bad(sequences):
    assert too_long(sequences).sentence == "no answer is over 512 tokens with their prompt"
    one = too_long(with_text(sequences, "p1/y1", "no " * 600))
    assert one.ok
    assert one.sentence.startswith("1 answers are over 512 tokens with their prompt: p1/y1")
    many = too_long(replace(sequences, max_length=10))
    assert not many.ok
    assert many.sentence.endswith("raise align.max_length")


def test_length_alone_is_remarked(sequences):
    assert length_difference(sequences).ok
    longest_wins = [row for row in sequences.rows if (row.chosen_id, row.rejected_id) == ("p5/y4", "p5/y1")]
    check = length_difference(replace(sequences, rows=longest_wins))
    assert not check.ok
    assert check.figures["chosen_longer"] == 1.0


def test_nothing_to_train_on(make_run, tiny_model):
    found = diagnose(make_run(str(tiny_model), align={"max_length": 8}), 1)
    assert not found.ok
    assert found.checks[-1].sentence.startswith("training would drop every pool")


def test_pairs_older_than_their_pools(make_run):
    run = make_run()
    pools = read_rows(run.round(1) / POOLS, Pool)
    write_rows(run.round(1) / POOLS, pools[:1], Pool)
    with pytest.raises(InputError, match=r"does not belong to 4-pools\.jsonl beside it"):
        diagnose(run, 1)


def test_a_round_without_pairs(make_run):
    run = make_run()
    with pytest.raises(InputError, match=r"rounds with pairs: 1\)"):
        diagnose(run, 2)
    write_rows(run.round(1) / PAIRS, [], PreferenceRow)
    with pytest.raises(InputError, match="holds no pair"):
        diagnose(run, None)


def test_pools_without_a_safe_answer_are_listed(sequences):
    assert safe_answers(sequences.paired, Align(method="dpo", beta=0.1)) is None
    n = len(sequences.paired)
    every = safe_answers(sequences.paired, Align(method="safedpo", safe_from=1.0))
    assert (every.ok, every.figures) == (True, {"unsafe": 0})
    some = safe_answers(sequences.paired, Align(method="safedpo", safe_from=6.5))
    assert (some.ok, some.figures) == (True, {"unsafe": 1})
    assert f"1 of {n} pools have no answer rated 6.5 or more" in some.sentence
    assert ": p5; they do not train" in some.sentence
    assert not safe_answers(sequences.paired, Align(method="safedpo", safe_from=9.5)).ok


def test_the_diagnosis_tells_of_pools_that_are_dropped_as_unsafe(make_run, tiny_model):
    align = {"method": "safedpo", "safe_from": 9.5, "weight_gap": "signed"}
    found = diagnose(make_run(str(tiny_model), align=align), None)
    [check] = [check for check in found.checks if check.name == "safe answers"]
    assert not check.ok
