from selfpriority.text_table import text_table


def test_numbers_stand_to_the_right():
    assert text_table([["step", "in", "why"], ["a", "1000", "b"]], "<><") == ["step    in  why", "a     1000  b"]


def test_no_line_ends_in_blanks():
    assert text_table([["a", "long"], ["b", ""]], "<<") == ["a  long", "b"]


def test_a_sentence_in_a_short_row_runs_on():
    rows = [["phase", "size", "all"], ["x", "no size is known of this"], ["longer", "1", "2"]]
    assert text_table(rows, "<>>") == ["phase   size  all", "x       no size is known of this", "longer     1    2"]
