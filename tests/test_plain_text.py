"""What others wrote cannot speak to a terminal, nor reorder a line; terminal and page agree on it."""

from __future__ import annotations

import base64
import io
import json
import zlib

import pytest
from rich.console import Console

from selfpriority.cli.entry import tell
from selfpriority.inspection.folding import shown
from selfpriority.plain_text import clean, message
from selfpriority.plain_text import shown as shown_in_message
from selfpriority.records import Message
from selfpriority.report.catalogue import Entry
from selfpriority.report.packing import pack
from selfpriority.terminal import LiveReporter

HOSTILE = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "erasing": ("\x1b[2J\x1b[1;1Hgone", "gone"),
    "link": ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    "title": ("\x1b]0;title\x07text", "text"),
    "one-byte introducer": ("a\x9b31mb", "a31mb"),
    "reordered": ("a\u202eb\u2066c\u200fd\u200ee\u061cf", "abcdef"),
}
hostile = pytest.mark.parametrize(("text", "plain"), HOSTILE.values(), ids=HOSTILE)


def test_of_the_control_codes_only_newline_and_tab_stay():
    codes = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
    assert "".join(map(clean, codes)) == "\t\n"


def test_lines_letters_and_other_scripts_stay():
    assert clean("a\n\tb é 漢 🙂\r\x07\x9b") == "a\n\tb é 漢 🙂"
    assert clean("naïve — 日本 שלום") == "naïve — 日本 שלום"


@pytest.mark.parametrize("start", ["\x1b", "\x1b[", "\x1b[3", "\x1b]", "\x1b]8;;http://x", "\x1b[1;"])
def test_an_unfinished_sequence_hides_nothing_of_the_next_line(start):
    assert clean(f"a{start}\nb").endswith("\nb")


@hostile
def test_a_shown_answer_is_clean(text, plain):
    assert clean(text) == shown(text, reveal=True) == plain


@hostile
def test_a_note_and_an_error_are_clean(text, plain, capsys):
    out = io.StringIO()
    LiveReporter(Console(file=out), "align").note(text)
    tell(text)
    assert out.getvalue() == capsys.readouterr().err == f"{plain}\n"


@hostile
def test_a_text_on_the_page_is_clean(text, plain):
    packed = pack([Entry(text, "round 1", "a", "kept", (Message("user", text),))], {})
    index, body = (json.loads(zlib.decompress(base64.b64decode(part))) for part in (packed.index, *packed.blocks))
    assert index["id"] == [plain]
    assert body[0]["turns"] == [["user", plain]]


def test_a_message_is_one_line_with_both_of_its_ends():
    assert message("a\nb\u2028c\x1b[31m\td") == "a b c d"
    long = message(f"recipe.yaml: {'x' * 100_000}; remedy")
    assert len(long) < 1300
    assert long.startswith("recipe.yaml: x")
    assert long.endswith("x; remedy")
    assert message("y" * 1200) == "y" * 1200


@pytest.mark.parametrize("value", ["x" * 25_000_000, ["x" * 1000] * 1000, {str(n): n for n in range(10_000)}, 10**4000])
def test_a_value_in_a_message_is_short(value):
    assert len(shown_in_message(value)) < 700


def test_a_value_in_a_message_is_as_python_writes_it():
    assert [shown_in_message(value) for value in ("a", -1, None, [1.5, "b"])] == ["'a'", "-1", "None", "[1.5, 'b']"]
