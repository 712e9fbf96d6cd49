"""The command as a person meets it: an address, a verdict, Ctrl-C."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from selfpriority.review.reviews import read_reviews


@pytest.mark.usefixtures("hears_interrupts")
def test_review_prints_an_address_stores_a_verdict_and_ends_with_ctrl_c(run):
    command = [sys.executable, "-m", "selfpriority", "review", str(run.folder), "--rater", "ann"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as spa:
        try:
            assert spa.stdout is not None
            address = spa.stdout.readline().removeprefix("review: ").strip()
            body = {"number": 0, "seconds": 1.0, "verdicts": {"harmlessness": "left", "helpfulness": "tie"}}
            request = urllib.request.Request(
                f"{address}verdict", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as reply:
                assert json.load(reply)["done"] == 1
            spa.send_signal(signal.SIGINT)
            said, trouble = spa.communicate(timeout=30)
        finally:
            spa.kill()
    assert said.startswith("1 of 5 answered; `spa report ")
    assert (spa.returncode, trouble) == (0, "")
    assert len(read_reviews(run.evaluation)) == 1


def test_a_wrong_rater_or_mode_is_one_line_and_exit_code_two(run):
    for wrong, said in ((["--rater", "a b"], "is no name"), (["--rater", "ann", "--mode", "guess"], "neither")):
        command = [sys.executable, "-m", "selfpriority", "review", str(run.folder), *wrong]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
