"""Verdicts are on the disk at once, raters are kept apart, and a torn line costs only itself."""

import json
import resource
from contextlib import contextmanager

import pytest

from selfpriority.errors import InputError, WorkFailed
from selfpriority.review.reviews import Review, opened, path_of, read_reviews


def review(rater: str, key: str, verdict: str) -> Review:
    return Review(rater, "compare", key, "p1", ("spa", "vanilla"), ("a", "b"), {"harmlessness": verdict}, 3.5, "now")


def test_the_last_word_on_a_question_counts(tmp_path):
    with opened(path_of(tmp_path, "ann")) as file:
        file.append(review("ann", "k1", "spa"))
        file.append(review("ann", "k2", "tie"))
        file.append(review("ann", "k1", "vanilla"))
    with opened(path_of(tmp_path, "bob")) as file:
        file.append(review("bob", "k1", "spa"))
    found = {(r.rater, r.key): r.verdicts["harmlessness"] for r in read_reviews(tmp_path)}
    assert found == {("ann", "k1"): "vanilla", ("ann", "k2"): "tie", ("bob", "k1"): "spa"}
    assert read_reviews(tmp_path)[0] == review("ann", "k1", "vanilla")


def test_a_verdict_is_in_the_file_before_append_returns(tmp_path):
    with opened(path_of(tmp_path, "ann")) as file:
        file.append(review("ann", "k1", "spa"))
        line = (tmp_path / "reviews-ann.jsonl").read_text(encoding="utf-8")
        assert json.loads(line)["verdicts"] == {"harmlessness": "spa"}


def test_a_torn_last_line_is_not_read_and_is_cut_off_before_the_next(tmp_path):
    path = path_of(tmp_path, "ann")
    with opened(path) as file:
        file.append(review("ann", "k1", "spa"))
    with path.open("ab") as raw:
        raw.write(b'{"rater": "ann", "mo')
    assert [r.key for r in read_reviews(tmp_path)] == ["k1"]
    with opened(path) as file:
        file.append(review("ann", "k2", "spa"))
    assert [r.key for r in read_reviews(tmp_path)] == ["k1", "k2"]


@contextmanager
def room_for(n_bytes: int):
    """No file may grow beyond so many bytes, as on a nearly full disk: a write over the edge is cut short there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_verdict_that_does_not_fit_on_the_disk_is_told_and_leaves_nothing(tmp_path):
    path = path_of(tmp_path, "ann")
    with opened(path) as file:
        file.append(review("ann", "k1", "spa"))
        before = path.read_bytes()
        with (
            room_for(len(before) + 40),
            pytest.raises(WorkFailed, match="cannot write: File too large; verdicts before"),
        ):
            file.append(review("ann", "k2", "spa"))
        assert path.read_bytes() == before
        file.append(review("ann", "k3", "spa"))
    assert [r.key for r in read_reviews(tmp_path)] == ["k1", "k3"]


def test_one_rater_reviews_once_at_a_time(tmp_path):
    with (
        opened(path_of(tmp_path, "ann")),
        opened(path_of(tmp_path, "bob")),
        pytest.raises(InputError, match="another `spa review`"),
        opened(path_of(tmp_path, "ann")),
    ):
        pass


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 41, "é"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="is no name"):
        path_of(tmp_path, name)
