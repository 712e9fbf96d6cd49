"""The rest of a run: by kind of step where one was measured, else by the work it does, and never a guess."""

from __future__ import annotations

from selfpriority.planning.rest import Ahead, Rest, rest_of, running_takes
from selfpriority.run_records import StepEntry

PLANNED = [
    Ahead("judge", prompt_tokens=1000),
    Ahead("round-1/sample", new_tokens=400, prompt_tokens=100),
    Ahead("round-1/score", prompt_tokens=3000),
    Ahead("round-1/pair"),
    Ahead("round-1/align", trained_tokens=5000),
    Ahead("answers-vanilla", new_tokens=200),
    Ahead("answers-spa", new_tokens=200),
]


def done(seconds: float, requests: int = 10, cached: int = 0) -> StepEntry:
    return StepEntry("done", "key", seconds, requests, cached)


def test_nothing_measured_is_nothing_said():
    assert rest_of(PLANNED, {}, None) is None
    assert rest_of([], {}, 5.0) is None


def test_what_was_measured_tells_of_the_same_work_and_the_rest_is_a_bound():
    entries = {"judge": done(10.0), "round-1/sample": done(80.0)}
    assert rest_of(PLANNED, entries, None) == Rest(3000 * 0.01 + 400 * 0.2, is_whole=False), "training is not known"
    entries |= {"round-1/score": done(60.0), "round-1/align": done(50.0)}
    assert rest_of(PLANNED, entries, None) == Rest(400 * 0.2, is_whole=True)
    entries |= {"answers-vanilla": done(10.0)}
    assert rest_of(PLANNED, entries, None) == Rest(200 * 10.0 / 200, is_whole=True), "its own kind knows better"


def test_the_step_in_hand_says_itself_how_long_it_takes():
    entries = {"judge": done(10.0), "round-1/sample": StepEntry("running", "key")}
    assert rest_of(PLANNED, entries, 25.0) == Rest(25.0 + 30.0, is_whole=False)


def test_systems_that_train_at_once_share_the_time():
    planned = [*PLANNED, *(Ahead(f"systems/{name}/round-1/align", trained_tokens=5000) for name in "abc")]
    entries = {step.name: done(50.0) for step in PLANNED} | {"systems/a/round-1/align": done(100.0)}
    assert rest_of(planned, entries, None, at_once=2) == Rest(2 * 75.0 / 2, is_whole=True)
    entries |= {f"systems/{name}/round-1/align": StepEntry("running", "key") for name in "bc"}
    assert rest_of(planned, entries, 30.0, at_once=2) == Rest(30.0, is_whole=True)
    entries["systems/b/round-1/align"] = done(70.0)
    assert rest_of(planned, entries, 20.0, at_once=2) == Rest(20.0, is_whole=True), "the last one is alone"


def test_systems_that_are_evaluated_at_once_share_the_time_and_what_compares_them_does_not():
    planned = [Ahead(name, new_tokens=10) for name in ("evaluation/answers-a", "evaluation/answers-b")]
    planned += [Ahead("evaluation/set/verdicts-b@other", prompt_tokens=10), Ahead("evaluation/comparisons-a__b", 10)]
    entries = {"evaluation/answers-a": done(20.0), "evaluation/comparisons-b__c": done(5.0)}
    planned += [Ahead("evaluation/comparisons-b__c", 10), Ahead("evaluation/verdicts-a@other", prompt_tokens=10)]
    entries["evaluation/verdicts-a@other"] = done(6.0)
    assert rest_of(planned, entries, None, 4, evaluated_at_once=2) == Rest(20.0 / 2 + 6.0 / 2 + 5.0, is_whole=True)
    assert rest_of(planned, entries, None, 4) == Rest(20.0 + 6.0 + 5.0, is_whole=True), "by one process"


def test_the_step_that_runs_takes_as_long_as_its_kind_took():
    entries = {"judge": done(10.0), "round-1/score": StepEntry("running", "key")}
    assert running_takes(PLANNED, entries) == 3000 * 0.01
    assert running_takes(PLANNED, {"judge": done(10.0), "round-1/pair": StepEntry("running", "key")}) is None
    assert running_takes(PLANNED, {"round-1/score": StepEntry("running", "key")}) is None, "nothing was measured"
    assert running_takes(PLANNED, {"judge": done(10.0)}) is None, "nothing runs"


def test_answers_from_disk_are_no_measure():
    assert rest_of(PLANNED, {"judge": done(0.1, requests=10, cached=10)}, None) is None


def test_all_done_is_no_rest():
    assert rest_of(PLANNED, {step.name: done(1.0) for step in PLANNED}, None) is None
