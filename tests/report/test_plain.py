"""Texts lose what could speak to a terminal and nothing else."""

from selfpriority.report.plain import clean, words


def test_clean_keeps_lines_and_letters():
    assert clean("a\n\tb é 漢 🙂\r\x07\x9b") == "a\n\tb é 漢 🙂"


def test_clean_takes_whole_escape_sequences():
    assert clean("\x1b[31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ \u202eback") == "red link back"


def test_clean_takes_what_reorders_text_and_keeps_other_scripts():
    assert clean("a\u202eb\u2066c\u200fd\u200ee\u061cf") == "abcdef"
    assert clean("naïve — 日本 שלום") == "naïve — 日本 שלום"


def test_names_are_written_as_a_reader_would_write_them():
    assert words("not_better") == "not better"
    assert words("HH_5") == "HH, \u03bb\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}5"
