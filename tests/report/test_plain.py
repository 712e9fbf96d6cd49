"""Texts lose what could speak to a terminal and nothing else; numbers read well."""

from selfpriority.report.plain import clean, number, percent, probability, signed, words


def test_clean_keeps_lines_and_letters():
    assert clean("a\n\tb é 漢 🙂\r\x07\x9b") == "a\n\tb é 漢 🙂"


def test_clean_takes_whole_escape_sequences():
    assert clean("\x1b[31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ \u202eback") == "red link back"


def test_clean_takes_what_reorders_text_and_keeps_other_scripts():
    assert clean("a\u202eb\u2066c\u200fd\u200ee\u061cf") == "abcdef"
    assert clean("naïve — 日本 שלום") == "naïve — 日本 שלום"


def test_numbers_and_names():
    assert signed(-0.256) == "\u22120.26"
    assert signed(0.0) == "+0.00"
    assert percent(0.305) == "30\u2009%"
    assert percent(None) == "\N{EN DASH}"
    assert probability(0.0004) == "< 0.001"
    assert [probability(0.0123), probability(None)] == ["0.012", ""]
    assert words("not_better") == "not better"
    assert words("HH_5") == "HH, \u03bb\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}5"
    assert [number(0.12345), number(3.14159), number(1234567), number(True), number(None)] == [
        "0.123",
        "3.14",
        "1,234,567",
        "True",
        "\N{EN DASH}",
    ]
