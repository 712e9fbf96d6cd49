from selfpriority.inspection.folding import barred, shown


def test_shown_folds_to_the_number_of_words():
    assert shown("How to keep a knife sharp", reveal=False) == "[6 words, folded; --reveal shows them]"
    assert shown("How", reveal=False) == "[1 word, folded; --reveal shows them]"
    assert shown("\x1b[2JHow", reveal=True) == "How"
    assert shown(" \n", reveal=False) == shown("", reveal=True) == "[empty]"


def test_barred_marks_every_line():
    assert barred("one\n\ntwo", "  ") == ["  | one", "  | ", "  | two"]
