from selfpriority.inspection.folding import barred, printable, shown


def test_printable_keeps_only_newline_and_tab_of_the_control_codes():
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    assert printable(controls) == "\t\n"


def test_printable_removes_what_reorders_text_and_keeps_other_scripts():
    assert printable("a\u202eb\u2066c\u200fd") == "abcd"
    assert printable("naïve — 日本 שלום") == "naïve — 日本 שלום"


def test_shown_folds_to_the_number_of_words():
    assert shown("How to keep a knife sharp", reveal=False) == "[6 words, folded; --reveal shows them]"
    assert shown("How", reveal=False) == "[1 word, folded; --reveal shows them]"
    assert shown("\x1b[2JHow", reveal=True) == "[2JHow"
    assert shown(" \n", reveal=False) == shown("", reveal=True) == "[empty]"


def test_barred_marks_every_line():
    assert barred("one\n\ntwo", "  ") == ["  | one", "  | ", "  | two"]
