"""What is found out of a chat template when it is opened: templates like those in the field, and bad ones."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from selfpriority.chat import Chat
from selfpriority.chat_template import PINNED, ChatTemplate, RefusedTurns, fold_system
from selfpriority.errors import InputError
from selfpriority.records import Message
from tests.conftest import CHATML

SYSTEM, USER, AGAIN = Message("system", "Be kind."), Message("user", "Hello"), Message("user", "And now?")
ANSWER, MORE = Message("assistant", "Hi"), Message("assistant", "Yes?")
NO_SYSTEM = "the system's text goes into the first user turn"
NO_FIRST_ANSWER = "not taken: a first turn of the assistant"
NOT_TWICE = ["not taken: two user turns in a row", "not taken: two assistant turns in a row"]
STRICT = [NO_FIRST_ANSWER, *NOT_TWICE]

LOOP, END = "{% for m in messages %}", "{% endfor %}"
OPENS_CHATML = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
# a question opens the answer, and add_generation_prompt is not heard of
INSTRUCTION = (
    LOOP + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('they take turns') }}"
    "{% endif %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content | trim }} "
    "{{ eos_token }}{% endif %}" + END
)
SYSTEM_INSIDE = (
    "{% set sys = '' %}{% if messages[0].role == 'system' %}{% set sys = '<<S>>' ~ messages[0].content ~ '<</S>> ' %}"
    "{% set messages = messages[1:] %}{% endif %}"
    + INSTRUCTION.replace("[INST] {{", "[INST] {{ sys if loop.first else '' }}{{")
)
HEADERS = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set own, rest = messages[0].content, messages[1:] %}"
    "{% else %}{% set own, rest = '', messages %}{% endif %}<h>system</h>\nToday: {{ strftime_now('%d %b %Y') }}\n"
    "{{ own }}{{ eos_token }}{% for m in rest %}<h>{{ m.role }}</h>\n\n{{ m.content | trim }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<h>assistant</h>\n\n{% endif %}"
)
MODEL_TURNS = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + LOOP
    + "{% if (m.role == "
    "'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}<t>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}{{ eos_token }}\n"
    + END
    + "{% if add_generation_prompt %}<t>model\n{% endif %}"
)
# thinking goes from earlier answers, and an empty one stands before a last answer
CUTS_THINKING = (
    LOOP + "{% set text = m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content %}"
    "<|im_start|>{{ m.role }}\n{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last }}{{ text }}"
    "<|im_end|>\n" + END + OPENS_CHATML
)
OPENS_THINKING = (
    LOOP + "{% if m.role == 'user' %}<U>{{ m.content }}{% elif m.role == 'assistant' %}<A>"
    "{{ m.content.split('</think>')[-1].lstrip() }}{{ eos_token }}{% else %}{{ m.content }}{% endif %}"
    + END
    + "{% if add_generation_prompt %}<A><think>\n{% endif %}"
)
SHORT = (
    LOOP
    + "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n"
    + END
    + "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
TEXT_OR_PARTS = TURN.replace(
    "{{ m.content }}",
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}",
)
PARTS = TURN.replace("{{ m.content }}", "{% for part in m.content %}{{ part.text }}{% endfor %}")
SELECTED = TURN.replace(
    "{{ m.content }}", "{% for p in m['content'] | selectattr('type', 'equalto', 'text') %}{{ p['text'] }}{% endfor %}"
)
FIRST_PART = TURN.replace("{{ m.content }}", "{{ m.content[0]['text'] }}")
USER_PARTS = "{% if m.role == 'assistant' %}" + TURN + "{% else %}" + PARTS + "{% endif %}"
PLAIN = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def opened(tokenizer):
    def opened(source: str) -> ChatTemplate:
        tokenizer.chat_template = source
        return ChatTemplate(tokenizer, "m")

    return opened


@pytest.mark.parametrize(
    ("source", "text", "habits"),
    [
        (CHATML, PLAIN, []),
        (INSTRUCTION, "[INST] Hello [/INST]", [NO_SYSTEM, *STRICT]),
        (SYSTEM_INSIDE, "[INST] Hello [/INST]", STRICT),
        (
            HEADERS,
            "<|im_start|><h>system</h>\nToday: 26 Jul 2024\n<|im_end|><h>user</h>\n\nHello<|im_end|>"
            "<h>assistant</h>\n\n",
            ["its date is always 2024-07-26"],
        ),
        (MODEL_TURNS, "<t>user\nHello<|im_end|>\n<t>model\n", [NO_SYSTEM, *STRICT]),
        (CUTS_THINKING, PLAIN, ["thinking is cut from earlier turns"]),
        (
            OPENS_THINKING,
            "<U>Hello<A><think>\n",
            ["an answer begins in its thinking", "thinking is cut from earlier turns"],
        ),
        (
            LOOP
            + "<t>{{ m.role }}\n{{ m.content }}{{ eos_token }}"
            + END
            + "{% if add_generation_prompt %}<t>assistant\n<|channel>thought\n<channel|>{% endif %}",
            "<t>user\nHello<|im_end|><t>assistant\n<|channel>thought\n<channel|>",
            [],
        ),
        (SHORT, "<|user|>\nHello<|im_end|>\n<|assistant|>\n", []),
        ("<|im_start|>system\nYou help.<|im_end|>\n" + CHATML, "<|im_start|>system\nYou help.<|im_end|>\n" + PLAIN, []),
        (LOOP + TURN.replace("content }}", "content | trim }}") + END + OPENS_CHATML, PLAIN, []),
        (LOOP + TEXT_OR_PARTS + END + OPENS_CHATML, PLAIN, []),
        (LOOP + PARTS + END + OPENS_CHATML, PLAIN, ["texts are given as parts"]),
        (LOOP + SELECTED + END + OPENS_CHATML, PLAIN, ["texts are given as parts"]),
        (LOOP + FIRST_PART + END + OPENS_CHATML, PLAIN, ["texts are given as parts"]),
        (LOOP + USER_PARTS + END + OPENS_CHATML, PLAIN, ["texts are given as parts"]),
    ],
    ids=[
        "chatml",
        "instruction",
        "system inside",
        "headers",
        "model turns",
        "cuts thinking",
        "opens thinking",
        "shuts thinking",
        "short",
        "fixed system text",
        "trims",
        "text or parts",
        "parts",
        "selected parts",
        "first part",
        "parts of the user only",
    ],
)
def test_templates_of_the_field_are_taken_as_they_are(opened, source: str, text: str, habits: list[str]) -> None:
    template = opened(source)
    assert template.text([USER]) == text
    assert template.habits() == habits
    told = template.text([SYSTEM, USER, ANSWER, AGAIN])
    assert [said in told for said in ("Be kind.", "Hello", "Hi", "And now?")] == [True] * 4


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (CHATML.replace("message['content']", "message['content'] | upper"), "changes what the user says"),
        (LOOP + TURN.replace("m.content", "m.content | escape") + END + OPENS_CHATML, "changes what the user says"),
        (LOOP + TURN.replace("m.content", "m.content.split() | join(' ')") + END, "changes what the user says"),
        (LOOP + TURN.replace("m.content", "m.content | tojson") + END + OPENS_CHATML, "changes what the user says"),
        (LOOP + TURN.replace("m.content", "m.content[:16]") + END + OPENS_CHATML, "changes what the user says"),
        (
            LOOP + TURN.replace("m.content", "m.content | lower if m.role == 'assistant' else m.content") + END,
            "changes what the assistant says",
        ),
        (
            LOOP + "{% if m.role == 'user' %}" + TURN + "{% endif %}" + END + OPENS_CHATML,
            "loses what the assistant says",
        ),
        (LOOP + TURN.replace("m.content", "m.text") + END + OPENS_CHATML, "loses what the user says"),
        (LOOP + PARTS.replace("part.text", "part.image") + END + OPENS_CHATML, "loses what the user says"),
        (
            LOOP + TURN.replace("{{ m.content }}", "{% if m.content is not string %}{{ m.content }}{% endif %}") + END,
            "loses what the user says",
        ),
        (
            "{% for m in messages[-2:] %}" + TURN + END + OPENS_CHATML,
            "loses what the user says when the conversation goes on",
        ),
        (
            LOOP + "{% if m.role == 'user' or loop.last %}" + TURN + "{% endif %}" + END + OPENS_CHATML,
            "loses what the assistant says when the conversation goes on",
        ),
        (
            "{% if messages | length > 2 %}{{ raise_exception('one question') }}{% endif %}" + CHATML,
            r"fails \(one question\) when the conversation goes on",
        ),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "writes nothing between what the user says and an answer",
        ),
        ("{{ messages | map(attribute='content') | join('\n') }}", "writes nothing between what the user says and"),
        (LOOP + "{{ m.content }}{{ eos_token if m.role == 'assistant' else '  ' }}" + END, "writes nothing between"),
        (LOOP + TURN + END, "ignores add_generation_prompt, so it opens the assistant's turn with '<|im_end|>\n' but"),
        (SHORT.partition("{% if add")[0], "ignores add_generation_prompt"),
        (MODEL_TURNS.partition("{% if add")[0], "ignores add_generation_prompt"),
        (
            LOOP + TURN + END + OPENS_CHATML.replace("assistant", "bot"),
            "opens the assistant's turn with '<|im_end|>\n<|im_start|>bot\n' but writes one with '<|im_end|>",
        ),
        (
            LOOP + TURN.replace("\n{{", "{{ '<final>' if m.role == 'assistant' }}\n{{") + END + OPENS_CHATML,
            "but writes one with '<|im_end|>\n<|im_start|>assistant<final>\n'",
        ),
        (
            LOOP + TURN.replace("m.role", "'user'") + END + OPENS_CHATML,
            "but writes one with '<|im_end|>\n<|im_start|>user",
        ),
        ("{% for m in messages %}{{ m.content }}", r"fails \(Unexpected end of template"),
        ("{{ raise_exception('not for you') }}", r"fails \(not for you\)"),
        ("{{ now().year }}" + CHATML, r"fails \('now' is undefined\)"),
        ("{{ 1 / 0 }}" + CHATML, r"fails \(division by zero\)"),
    ],
)
def test_what_cannot_be_trained_is_one_line(opened, source: str, fault: str) -> None:
    fault = fault.replace("|", r"\|").replace("\n", r"\\n")
    line = f"^model: m: its chat template .*{fault}.*, so it cannot be trained; correct its chat_template.jinja$"
    with pytest.raises(InputError, match=line) as caught:
        opened(source)
    assert "\n" not in str(caught.value)


def test_several_templates_need_a_default(tokenizer) -> None:
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ messages }}"}
    assert ChatTemplate(tokenizer, "m").text([USER]) == PLAIN
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(InputError, match="m has chat templates \\(rag, tool_use\\) but none called 'default'"):
        ChatTemplate(tokenizer, "m")


BY_PAIRS = (
    "{% for i in range(0, messages | length, 2) %}<|im_start|>user\n{{ messages[i].content }}<|im_end|>\n{% if i + 1 < "
    "messages | length and messages[i + 1].role == 'assistant' %}<|im_start|>assistant\n{{ messages[i + 1].content }}"
    "<|im_end|>\n{% endif %}{% endfor %}" + OPENS_CHATML
)
"""Takes every second turn for the user's, and loses in silence what does not fit."""
NO_SECOND_QUESTION = (
    "{% set ns = namespace(role='') %}" + LOOP + "{% if m.role == ns.role == 'user' %}{{ raise_exception('twice') }}"
    "{% endif %}{% set ns.role = m.role %}" + TURN + END + OPENS_CHATML
)


@pytest.mark.parametrize("source", [INSTRUCTION, SYSTEM_INSIDE, MODEL_TURNS, BY_PAIRS])
@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([USER, AGAIN], "turn 2 is the user's, as the one before it"),
        ([ANSWER, USER], "turn 1 is the assistant's, before any of the user"),
        ([SYSTEM, ANSWER, USER], "turn 1 is the assistant's, before any of the user"),
        ([USER, ANSWER, MORE, AGAIN], "turn 3 is the assistant's, as the one before it"),
        ([SYSTEM, USER, ANSWER, AGAIN, AGAIN], "turn 4 is the user's, as the one before it"),
    ],
)
def test_turns_that_are_not_taken_are_named(opened, source: str, turns: list[Message], reason: str) -> None:
    with pytest.raises(RefusedTurns) as caught:
        opened(source).text(turns)
    assert caught.value.reason == reason
    assert str(caught.value) == f"model: m: its chat template refuses a conversation: {reason}"


def test_only_the_orders_that_are_not_taken_are_refused(opened) -> None:
    template = opened(NO_SECOND_QUESTION)
    assert template.habits() == ["not taken: two user turns in a row"]
    with pytest.raises(RefusedTurns, match="turn 2 is the user's"):
        template.text([USER, AGAIN])
    for turns in ([ANSWER, USER], [USER, ANSWER, MORE, AGAIN]):
        assert template.text(turns).count("<|im_start|>") == len(turns) + 1


@pytest.mark.parametrize(
    "condition", ["messages | length > 4", "'5' in messages[-1].content", "messages[-1].content | length > 40"]
)
def test_what_a_template_refuses_for_reasons_of_its_own_is_told_in_its_words(opened, condition: str) -> None:
    template = opened("{% if " + condition + " and 'Zq' not in messages[0].content %}{{ raise_exception('not\nthis') }}"
                      "{% endif %}" + CHATML)  # fmt: skip
    with pytest.raises(RefusedTurns, match=r"it says 'not'$"):
        template.text([USER, ANSWER, USER, ANSWER, Message("user", "Is 5 more than 4? I have asked that before.")])


@pytest.mark.parametrize(
    ("opens", "shuts"),
    [
        ("<think>\n", "</think>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("<|channel>thought\n", "<channel|>"),
    ],
)
def test_an_answer_is_trained_behind_the_end_of_the_thinking_that_a_template_opens(tiny_model, opens, shuts):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = (Message("user", "Why?"),)
    plain = Chat(tokenizer)
    assert plain.answered_ids(asked) == plain.prompt_ids(asked)
    opening = "assistant\n{% endif %}"
    assert opening in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(opening, f"assistant\n{opens}{{% endif %}}")
    chat = Chat(tokenizer)
    ids = [*chat.answered_ids(asked), *chat.response_ids("Yes.", "end")]
    assert tokenizer.decode(ids).endswith(f"assistant\n{opens}\n{shuts}\n\nYes.<|im_end|>")
    assert ids[: len(chat.prompt_ids(asked))] == chat.prompt_ids(asked)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("%d %b %Y", "26 Jul 2024"),
        ("%Y-%m-%d", "2024-07-26"),
        ("%A, %B %-d, %Y", "Friday, July 26, 2024"),
        ("%H:%M", "12:00"),
        ("year %y, day %j", "year 24, day 208"),
        ("no day", "no day"),
    ],
)
@pytest.mark.parametrize(
    "where",
    [
        "Today: {{ strftime_now(FORM) }}\n",
        "{% if strftime_now is defined %}{% set today = strftime_now(FORM) %}{% else %}{% set today = '' %}{% endif %}"
        "Today: {{ today }}\n",
        "{% macro day() %}Today: {{ strftime_now(FORM) }}{% endmacro %}{{ day() }}\n",
        "\n {%- set form = FORM %}Today: {{ strftime_now(format=form) }}\n",
    ],
)
def test_the_date_stands_still(tokenizer, opened, where: str, form: str, told: str) -> None:
    assert PINNED.date() != datetime.now(UTC).date()
    template = opened(where.replace("FORM", repr(form)) + CHATML)
    assert template.text([USER]) == f"Today: {told}\n{PLAIN}"
    assert template.tells_date
    chat = Chat(tokenizer)
    assert tokenizer.decode(chat.prompt_ids([USER])) == template.text([USER])


def test_the_date_is_all_that_changes_in_a_template(tokenizer, opened) -> None:
    for start in ("\n\n", "  ", "", "{# no #}\n x"):
        tokenizer.chat_template = start + HEADERS.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")
        turns = [{"role": m.role, "content": m.content} for m in (SYSTEM, USER, ANSWER, AGAIN)]
        as_it_is = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert opened(start + HEADERS).text([SYSTEM, USER, ANSWER, AGAIN]) == as_it_is


@pytest.mark.parametrize(
    ("opening", "opens"),
    [
        ("<think>\n", True),
        ("<think>", True),
        ("<seed:think>", True),
        ("<think:open>", True),
        ("</mm:think>", False),
        ("[THINK]", True),
        ("<|channel>thought\n", True),
        ("<|channel>thought\n<channel|>", False),
        ("<think>\n\n</think>\n\n", False),
        ("</think>", False),
        ("", False),
    ],
)
def test_a_prompt_that_ends_in_thinking_is_known(tokenizer, opening: str, opens: bool) -> None:
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\n" + opening)
    chat = Chat(tokenizer)
    assert chat.opens_thinking is opens
    assert chat.text([USER]) == PLAIN + opening
    assert chat.end_id == tokenizer.eos_token_id


def test_folding_leaves_other_turns() -> None:
    assert fold_system([SYSTEM, USER, ANSWER]) == [Message("user", "Be kind.\n\nHello"), ANSWER]
    assert fold_system([USER]) == [USER]
    assert fold_system([SYSTEM, ANSWER, USER]) == [ANSWER, Message("user", "Be kind.\n\nHello")]
    assert fold_system([SYSTEM]) == [Message("user", "Be kind.")]


def test_a_template_without_a_date_is_rendered_as_it_was(tokenizer) -> None:
    before = copy.deepcopy(tokenizer)
    turns = [SYSTEM, USER, ANSWER, AGAIN]
    as_it_is = before.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in turns], tokenize=False, add_generation_prompt=True
    )
    assert Chat(tokenizer).text(turns) == as_it_is
