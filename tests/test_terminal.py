"""What a person sees where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from selfpriority.terminal import LiveReporter


def test_a_note_stays_one_line_however_long():
    out = io.StringIO()
    LiveReporter(Console(file=out, width=40), "align").note("a note of many words " * 10)
    assert out.getvalue().count("\n") == 1
