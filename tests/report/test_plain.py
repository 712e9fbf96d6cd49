"""Numbers and names read well."""

from selfpriority.report.plain import number, percent, probability, signed, words


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
