from pathlib import Path

import pytest
from transformers import AutoTokenizer

from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.records import Message

SYSTEM, USER = Message("system", "Be kind."), Message("user", "Hello")


@pytest.fixture
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_prompt_opens_the_assistants_turn(tokenizer) -> None:
    chat = Chat(tokenizer)
    assert chat.text([SYSTEM, USER]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = chat.prompt_ids([USER])
    assert ids.count(tokenizer.bos_token_id) == 2
    assert tokenizer.decode(ids) == chat.text([USER])


@pytest.mark.parametrize("text", ["Hello", "x", "Is it so?\nYes.", "user", "", "assistant"])
@pytest.mark.parametrize("before", [(), (SYSTEM,), (USER, Message("assistant", "Hi"))])
def test_the_last_turn_lies_where_its_text_is(tokenizer, before: tuple[Message, ...], text: str) -> None:
    chat = Chat(tokenizer)
    messages = [*before, Message("user", text)]
    ids, turn = chat.prompt_ids(messages), chat.last_turn(messages)
    assert 0 < turn.start < turn.stop <= len(ids)
    if text:
        assert tokenizer.decode(ids[turn.start : turn.stop]) == text
    else:  # never empty: a mean needs a token
        assert len(turn) == 1


def test_a_finished_answer_ends_in_one_end_token(tokenizer) -> None:
    chat = Chat(tokenizer)
    assert chat.end_id == tokenizer.eos_token_id == 2
    assert chat.response_ids("Yes", "end")[-1] == 2
    assert chat.response_ids("Yes<|im_end|>", "end") == chat.response_ids("Yes", "end")
    assert 2 not in chat.response_ids("Yes", "length")
    assert chat.response_text([*chat.response_ids(" Yes ", "end")]) == "Yes"


@pytest.mark.parametrize(
    "refusal",
    ["{{ raise_exception('no system role') }}", ""],
    ids=["raises", "drops"],
)
def test_system_role_is_folded_where_the_template_refuses_it(tokenizer, refusal: str) -> None:
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}" + refusal + "{% else %}"
        "[{{ message['role'] }}]{{ message['content'] }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert Chat(tokenizer).text([SYSTEM, USER]) == "[user]Be kind.\n\nHello<|im_end|>[assistant]"


def test_the_models_own_end_ids_count(tokenizer) -> None:
    tokenizer.eos_token = "<|endoftext|>"
    assert Chat(tokenizer, end_ids=[2]).end_id == 2


def test_an_ambiguous_end_token_is_refused(tokenizer) -> None:
    tokenizer.eos_token = "<|endoftext|>"
    with pytest.raises(InputError, match=r"model: m: its chat template closes a turn with '<\|im_end\|>"):
        Chat(tokenizer, name="m")


def test_a_missing_end_token_is_refused(tokenizer) -> None:
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="m has no end-of-sequence token"):
        Chat(tokenizer, name="m")


def test_a_missing_template_is_refused(tokenizer) -> None:
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="m has no chat template"):
        Chat(tokenizer, name="m")
