"""Time from rates, money from prices, and nothing where either is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfpriority.backends.counting import Asked, Counting, Ruler
from selfpriority.errors import InputError
from selfpriority.language_model import Choose, ask
from selfpriority.planning.pace import Earlier, Prices, prices, rates
from selfpriority.planning.requests import PlannedStep
from selfpriority.recipe import HfBackend, OpenaiBackend
from selfpriority.records import Message
from selfpriority.run_records import Manifest, StepEntry

SERVER = OpenaiBackend(kind="openai", base_url="http://localhost/v1")


def step(name="round-2/sample", settings=None, **counts):
    return PlannedStep(name, "collect", (Asked("m", settings or HfBackend(), **counts),))


def test_rates_add_up_what_is_read_and_written():
    pace = rates("prefill=1000, generate=10")
    assert pace.seconds(step(prompt_tokens=1500, forward_tokens=500, new_tokens=30)) == 2 + 3
    assert pace.seconds(PlannedStep("round-1/align", "align", trained_tokens=5)) is None
    assert rates("train=5").seconds(PlannedStep("round-1/align", "align", trained_tokens=5)) == 1
    assert rates("train=5").seconds(PlannedStep("round-1/pair", "collect")) == 0


def test_an_earlier_run_gives_rates_by_kind_of_step():
    entry = StepEntry("done", "key", seconds=10.0, requests=4, cached=0, tokens=100)
    steps = {
        "round-1/sample": entry,
        "round-1/score": replace(entry, tokens=0),
        "round-2/score": replace(entry, seconds=1e9, requests=4, cached=4),
        "round-1/align": replace(entry, requests=0, tokens=50),
        "evaluation/verdicts-spa@other": replace(entry, tokens=0),
    }
    pace = Earlier.of(Manifest("x", steps=steps), "runs/x")
    assert pace.seconds(step(requests=9, new_tokens=200)) == 20
    assert pace.seconds(step("round-1/score", requests=8, forward_tokens=1)) == 20
    assert pace.seconds(PlannedStep("round-2/align", "align", trained_tokens=100)) == 20
    assert pace.seconds(step("evaluation/verdicts-vanilla@other", requests=2)) == 5
    assert pace.seconds(step("evaluation/verdicts-vanilla", requests=2)) is None
    assert pace.seconds(PlannedStep("round-1/pair", "collect")) == 0


def test_a_server_that_shows_probabilities_writes_no_answer_and_goes_by_requests():
    """Its manifest counts no tokens; the token a context that it writes all the same is paid for."""
    entry = StepEntry("done", "key", seconds=10.0, requests=4, cached=0, tokens=0)
    pace = Earlier.of(Manifest("x", steps={"round-1/score": entry}), "runs/x")
    asked = Asked("m", SERVER)
    ask(Counting(asked, Ruler(None)), [Choose(((Message("user", f"Safe? {i}"),),), ("0",)) for i in range(8)])
    assert asked.new_tokens == 8
    assert pace.seconds(PlannedStep("round-2/score", "collect", (asked,))) == 20
    assert pace.seconds(step("round-2/score", requests=8, new_tokens=4096)) is None  # written verdicts were never timed


def test_only_servers_cost_money():
    counts = {"prompt_tokens": 500_000, "forward_tokens": 500_000, "new_tokens": 2_000_000}
    assert prices("in=0.5,out=1.5") == Prices(0.5, 1.5)
    assert Prices(0.5, 1.5).cost(step(settings=SERVER, **counts)) == 0.5 + 3
    assert Prices(0.5, 1.5).cost(step(**counts)) == 0


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (rates, "prefil=3", "prefill=NUMBER"),
        (rates, "train=0", "positive"),
        (rates, "train=fast", "train=fast"),
        (rates, "", "allowed"),
        (prices, "in=1", "half"),
        (prices, "in=-1,out=1", "0 or more"),
        (prices, "in=nan,out=1", "in=nan"),
    ],
)
def test_wrong_options(read, text, told):
    with pytest.raises(InputError, match=told):
        read(text)
