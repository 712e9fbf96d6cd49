"""The view of a run: what stands where, in any width and height, and what the other processes tell it."""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from selfpriority.backends.progress import Progress
from selfpriority.phases.resources import Announced, Reporter
from selfpriority.result_table import print_result
from selfpriority.run import Run
from selfpriority.run_view import RunView
from selfpriority.screen import Now, Screen, Stage, duration
from selfpriority.terminal import MARK, EventReporter, LiveReporter, tell_on


def a_screen() -> Screen:
    said = "prompts 240 → sample 240 → score 238 (2 low mass) → refine 238 → denoise 162 (76 not better); 1,098 pairs"
    stages = [
        Stage("check-judge", "done", 63.0, "judge better than chance (0.50): harmlessness 0.83"),
        Stage("collect (round 1)", "now", None, said, Now("refine", 340, 1920, "118 tok/s", 95.0, 441.0)),
        *(Stage(f"control {n}: align (round 1)") for n in range(9)),
        Stage("evaluate"),
    ]
    return Screen("spa run runs/demo", stages, 245.0, rest="at least 12 min")


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("height", [12, 24, 50])
def test_the_step_in_hand_and_both_rests_are_seen_in_every_terminal(width: int, height: int) -> None:
    lines = [line.plain for line in a_screen().lines(width, height)]
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("spa run runs/demo")
    (step,) = [line for line in lines if "refine ━" in line]
    assert width < 80 or ("340/1,920, 7 min 21 s to go" in step and "at least 12 min to go" in lines[0])
    assert any(line.startswith(" ▸ collect (round 1)") for line in lines)


def test_what_is_done_and_to_come_and_known_stands_in_order() -> None:
    lines = [line.plain.strip() for line in a_screen().lines(140, 50)]
    assert lines[1] == "✓ check-judge 1 min 3 s"
    assert lines[2] == "judge better than chance (0.50): harmlessness 0.83"
    assert lines[4].startswith("prompts 240 → sample 240 → score 238 (2 low mass)")
    assert lines[-1] == "· evaluate"


def test_time_goes_on_while_nothing_is_heard() -> None:
    screen = a_screen()
    stage = screen.stages[1]
    stage.silence = 41.0
    assert "340/1,920, 6 min 40 s to go" in "".join(line.plain for line in screen.lines(140, 50))
    stage.now = Now("sample", 0, 24, "", 2.0)
    assert "0/24, 43 s so far" in "".join(line.plain for line in screen.lines(80, 50))


def test_a_step_that_works_on_after_its_last_answer_says_so() -> None:
    screen = a_screen()
    stage = screen.stages[1]
    stage.now = Now("check of the words judge", 30, 30, "", 60.0, 0.0)
    assert "30/30, 0 s to go" in "".join(line.plain for line in screen.lines(80, 50))
    stage.silence = 33.0
    assert "30/30, finishing for 33 s" in "".join(line.plain for line in screen.lines(80, 50))


def test_before_the_first_word_of_a_process_something_stands_there() -> None:
    lines = [line.plain for line in Screen("spa run x", [Stage("evaluate", "now")]).lines(80, 24)]
    assert "starting" in lines[-1]
    between = [[], [Stage("collect", "done"), Stage("align")]]
    assert all("starting" in Screen("spa run x", stages).lines(80, 24)[-1].plain for stages in between)
    ended = [line.plain for line in Screen("spa run x", [Stage("evaluate", "done")]).lines(80, 24)]
    assert ended == ["spa run x · done after 0 s", " ✓ evaluate"]
    failed = Screen("spa run x", [Stage("collect", "done"), Stage("align", "failed"), Stage("evaluate")], seconds=62.0)
    assert [line.plain for line in failed.lines(80, 24)][::2] == ["spa run x · stopped after 1 min 2 s", " ✗ align"]


def test_a_start_and_a_step_without_an_answer_tell_what_is_likely_to_remain() -> None:
    stage = Stage("align", "now", starting=4.0)
    screen = Screen("spa run x", [Stage("collect", "done"), stage])
    assert "starting: reading code and model, 4 s so far" in screen.lines(80, 24)[-1].plain
    screen.usual_start = 9.0
    assert "starting: reading code and model, about 5 s to go" in screen.lines(80, 24)[-1].plain
    stage.now, stage.planned, stage.silence = Now("refine", 0, 40, "", 2.0), 60.0, 8.0
    assert "0/40, about 50 s to go" in screen.lines(80, 24)[-1].plain
    stage.silence = 70.0
    assert "0/40, 1 min 12 s so far" in screen.lines(80, 24)[-1].plain


def test_of_stages_at_once_each_shows_its_own_step() -> None:
    trains = [
        Stage(f"{name}: align (round 1)", "now", now=Now("training", n, 40, "")) for n, name in enumerate("abc", 1)
    ]
    done = [Stage(f"{name}: collect (round 1)", "done") for name in "abcd"]
    starting = Stage("d: align (round 1)", "now", starting=3.0)
    screen = Screen("spa run x", [*(each for pair in zip(done, [*trains, starting], strict=True) for each in pair)])
    told = [line.plain.strip() for line in screen.lines(100, 24)]
    assert told[1::2] == [f"▸ {name}: align (round 1)" for name in "abcd"]
    assert [line.partition(" ")[0] for line in told[2:8:2]] == ["training"] * 3
    assert ["1/40" in told[2], "2/40" in told[4], "3/40" in told[6]] == [True] * 3
    assert "starting: reading code and model, 3 s so far" in told[8]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (61.0, "1 min 1 s"),
        (3599.0, "59 min"),
        (7500.0, "2 h 5 min"),
        (300_000.0, "3 days"),
    ],
)
def test_a_time_has_two_units_at_most(seconds: float, told: str) -> None:
    assert duration(seconds) == told


class Heard(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def progress(self, step: str, progress: Progress) -> None:
        self.told.append((step, progress))

    def note(self, text: str) -> None:
        self.told.append(text)

    def training(self, row: dict[str, float]) -> None:
        self.told.append(row)


def test_events_come_out_as_they_went_in(capsys: pytest.CaptureFixture[str]) -> None:
    told, row = Progress(3, 9, 1, 40, 2.5, 12, 36, 7), {"step": 2.0, "loss": 0.5}
    sender, heard = EventReporter(), Heard()
    sender.progress("sample", told)
    sender.note("a note with \x1b[2J and\na second line")
    sender.training(row)
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert len(lines) == 3
    for line in [*lines, "spa: a plain line", ""]:
        tell_on(line, heard)
    assert heard.told == [("sample", told), "a note with \x1b[2J and\na second line", row, "spa: a plain line"]


def test_the_view_is_fed_by_another_process_and_by_the_run(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30, color_system=None, legacy_windows=False)
    with RunView(console, Run(tmp_path / "run"), "spa compare") as view:
        view._parts = {"collect (round 1)": Announced("collect (round 1)", lambda: "prompts 6 → sample 5 (1 too long)")}
        view._screen.stages = [Stage("collect (round 1)")]
        view.stage("collect (round 1)", "now")
        told = Progress(0, 6, 0, 0, 4.0, answers=6, n_answers=24, tokens_in_hand=80)
        child = view.within("collect (round 1)")
        assert child.hears
        child.hear(f"{MARK}{json.dumps(['progress', 'sample', asdict(told)])}")
        child.hear("spa: something \x1b[2Jbroke")
        time.sleep(0.05)
        view._live.refresh()
        seen = out.getvalue()
    assert f"spa compare {tmp_path / 'run'}"[:60] in seen
    assert "sample ━━━━━━╌" in seen
    assert "6/24, 12 s to go, 20 tok/s" in seen, "the answers of the batch in hand count"
    assert "prompts 6 → sample 5 (1 too long)" in seen
    assert "spa: something broke" in seen


@pytest.mark.parametrize(("stages", "stays"), [([], False), ([Stage("collect", "failed")], True)])
def test_a_view_in_which_nothing_began_leaves_no_trace(tmp_path: Path, stages: list[Stage], stays: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30, color_system=None, legacy_windows=False)
    with RunView(console, Run(tmp_path / "run")) as view:
        view._screen.stages = stages
    erased = "\x1b[2K"  # rich takes the lines back, one by one, as its last deed
    assert out.getvalue().rstrip("\n").endswith(erased) is not stays


def test_a_step_in_shards_says_which_and_its_rest_is_that_of_all(tmp_path: Path) -> None:
    view = RunView(Console(file=io.StringIO()), Run(tmp_path / "run"))
    view._screen.stages, view._parts = [stage := Stage("collect")], {"collect": Announced("collect", str)}
    view.stage("collect", "now")
    view.within("collect").progress("refine", Progress(5, 10, 0, 0, 4.0, shard=2, shards=4))
    assert stage.now == Now("refine, shard 2 of 4", 5, 10, "1.2/s", 4.0, (5 + 2 * 10) * 4.0 / 5)
    out = io.StringIO()
    with LiveReporter(Console(file=out), "round 1", is_verbose=True) as lines:
        lines.progress("refine", Progress(5, 10, 0, 0, 4.0, shard=2, shards=4))
    assert out.getvalue() == "round 1: refine 5/10 1.2/s, shard 2 of 4\n"


def test_the_rest_of_a_resumed_training_counts_the_steps_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view, clock = RunView(Console(file=io.StringIO()), Run(tmp_path / "run")), SimpleNamespace(now=0.0)
    monkeypatch.setattr("selfpriority.run_view.time", SimpleNamespace(monotonic=lambda: clock.now))
    view._parts = {"align": Announced("align", str)}
    view._screen.stages = [stage] = [Stage("align")]

    def heard(step: int, at: float) -> float | None:
        clock.now = at
        row = {"step": step, "n_steps": 100, "loss": 0.5, "margin": 0.1, "tokens_per_second": 9.0}
        view.within("align").hear(f"{MARK}{json.dumps(['training', row])}")
        assert stage.now is not None
        assert stage.now.seconds == at
        return stage.now.rest

    view.stage("align", "now")
    assert heard(91, 30.0) is None
    assert view._screen.usual_start == 30.0, "from the stage's begin to its first word"
    assert heard(93, 70.0) == 7 * 20.0
    assert view._screen.usual_start == 30.0
    clock.now = 0.0
    view.stage("align", "now")  # of the next round
    assert heard(1, 10.0) is None
    assert heard(2, 15.0) == 98 * 5.0


def test_what_two_stages_say_at_once_is_kept_apart(tmp_path: Path) -> None:
    view = RunView(Console(file=io.StringIO()), Run(tmp_path / "run"))
    view._screen.stages = [first, second] = [Stage("sft: align"), Stage("dpo: align")]
    view._parts = {stage.title: Announced(stage.title, str) for stage in (first, second)}
    row = {"n_steps": 40, "loss": 0.5, "margin": 0.1, "tokens_per_second": 9.0}
    for stage, step in ((first, 7), (second, 3)):
        view.stage(stage.title, "now")
        view.within(stage.title).training({"step": step, **row})
    assert first.now is not None
    assert second.now is not None
    assert (first.now.done, second.now.done) == (7, 3)
    view.stage(first.title, "done")
    assert (first.state, first.now, second.state, second.now.done) == ("done", None, "now", 3)
    assert first.seconds is not None
    view.within(first.title).training({"step": 8, **row})
    assert first.now is None, "a word that comes late"


MARKDOWN = """| system | harmlessness | helpfulness |
| --- | --- | --- |
| vanilla | 4.74 [4.52, 4.98] (n = 104) | 5.17 [4.95, 5.37] (n = 104) |
| a\\|b | 5.04 [4.80, 5.30] (n = 104) | - |

perplexity  spa: 46.81 (x 1.17)  !
"""


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_result_fits_the_terminal_and_is_no_markdown(width: int) -> None:
    out = io.StringIO()
    print_result(Console(file=out, force_terminal=True, width=width, color_system=None), MARKDOWN)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line.startswith("|") or "---" in line for line in lines)
    whole = " ".join(" ".join(lines).split())
    assert "a|b" in whole
    assert "perplexity spa: 46.81 (x 1.17) !" in whole
    assert width < 80 or "4.74 [4.52, 4.98] (n = 104)" in whole
