"""Names read well."""

from selfpriority.report.plain import words


def test_names_are_written_as_a_reader_would_write_them():
    assert words("not_better") == "not better"
    assert words("HH_5") == "HH, \u03bb\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}5"
