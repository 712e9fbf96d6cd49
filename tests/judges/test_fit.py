from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpriority.errors import InputError
from selfpriority.judges.fit import FitSettings, Observations, Reads, _solve, cross_validate, deal, fit_head, fit_heads
from selfpriority.judges.heads import read_heads, write_heads
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, label_prompt
from selfpriority.language_model import Embed, Failure, Vectors
from selfpriority.records import Message

SIZE = 12
DIRECTION = np.random.default_rng(5).normal(size=SIZE)
DIRECTION /= np.linalg.norm(DIRECTION)
MEAN = Reads((1,), "mean")


def states(request: Embed) -> Vectors | Failure:
    """Noise seeded by the text; in layer 1, `good` in the text moves it 1.5 up the direction."""
    if "broken" in request.response:
        return Failure("too_long")
    seed = hashlib.sha256(f"{request.messages[-1].content}|{request.response}".encode()).digest()
    noise = np.random.default_rng(int.from_bytes(seed[:4], "big")).normal(size=(3, SIZE))
    shift = 1.5 * ("good" in request.response) * DIRECTION
    of_response = tuple(tuple((noise[n] + (shift if n == 1 else 0)).tolist()) for n in request.layers)
    return Vectors(of_response + ((0.0,) * SIZE,) * (len(request.spans) - 1) * len(request.layers))


def labels(n_prompts: int, singles: bool, pairs: bool) -> Labels:
    answers, twos = [], []
    for number in range(n_prompts):
        prompt, group = label_prompt([Message("user", f"question {number}")]), f"group {number}"
        if singles:
            answers += [
                LabelledAnswer(prompt, f"{word} {i}", "harmlessness", word == "good", group)
                for word in ("good", "bad")
                for i in range(2)
            ]
        if pairs:
            twos.append(LabelledPair(prompt, "good pick", "bad pick", "harmlessness", group))
    return Labels(tuple(answers), tuple(twos))


def direction_of(head) -> np.ndarray:
    w = head.weights / head.scale
    return w / np.linalg.norm(w)


@pytest.mark.parametrize(("singles", "pairs"), [(True, False), (False, True), (True, True)])
def test_a_planted_direction_is_recovered(answering, singles: bool, pairs: bool) -> None:
    settings = FitSettings(layers=1, c=0.01, pooling="mean")
    heads = fit_heads(labels(200, singles, pairs), answering(states), "tiny", settings)
    head = heads.by_objective["harmlessness"]
    assert direction_of(head) @ DIRECTION > 0.9
    figures = heads.card["objectives"]["harmlessness"]["cross_validation"]
    # 1.5 deviations apart: AUC = Phi(1.5 / sqrt 2) = 0.856
    if singles:
        assert figures["auc"]["estimate"] == pytest.approx(0.856, abs=0.06)
    if pairs:
        assert figures["pair_accuracy"]["estimate"] == pytest.approx(0.856, abs=0.06)
    assert (figures["auc"] is None, figures["pair_accuracy"] is None) == (not singles, not pairs)


def test_a_layer_without_the_direction_is_at_chance(answering) -> None:
    card = fit_heads(labels(80, True, True), answering(states), "tiny", FitSettings(layers=2)).card
    figures = card["objectives"]["harmlessness"]["cross_validation"]
    assert figures["auc"]["low"] < 0.5 < figures["auc"]["high"]
    assert figures["pair_accuracy"]["low"] < 0.5 < figures["pair_accuracy"]["high"]


def observed(x, marks, good, bad, groups, pair_groups) -> Observations:
    """Every label with weight 1."""
    return Observations(x, marks, good, bad, groups, pair_groups, np.ones(len(x)), np.ones(len(good)))


def observations(seed: int, n: int = 60) -> Observations:
    random = np.random.default_rng(seed)
    marks = random.random(n) < 0.4
    x = random.normal(size=(n, 5)) * [1, 2, 3, 4, 5] + np.outer(marks, [1.0, 0, 0, 2, 0]) + 7
    groups = tuple(f"g{i // 3}" for i in range(n))
    good, bad = random.normal(size=(20, 5)) + 8, random.normal(size=(20, 5)) + 7
    return observed(x, marks, good, bad, groups, tuple(f"g{i}" for i in range(20)))


def test_the_fit_is_the_minimum_of_its_cost() -> None:
    c, seen = 0.3, observations(0)
    head = fit_head("harmlessness", MEAN, seen, c)
    w, b = head.weights, head.bias

    def cost(w: np.ndarray, b: float) -> float:
        x = (seen.singles - head.mean) / head.scale
        single = np.logaddexp(0, -np.where(seen.labels, 1, -1) * (x @ w + b)).sum()
        pair = np.logaddexp(0, -((seen.chosen - seen.rejected) / head.scale) @ w).sum()
        # 60 answers and 20 pairs: 100 answers in all, 50 for each kind
        return c * (50 / 60 * single + 50 / 20 * pair) + 0.5 * w @ w

    least = cost(w, b)
    for i in range(5):
        step = np.eye(5)[i] * 1e-3
        assert cost(w + step, b) > least
        assert cost(w - step, b) > least
    assert cost(w, b + 1e-3) > least
    assert cost(w, b - 1e-3) > least


def test_a_weight_of_two_is_the_label_said_twice() -> None:
    seen = observations(4)
    weights = np.where(np.arange(20) < 5, 2.0, 1.0)
    twice = np.r_[np.arange(20), np.arange(5)]
    weighted = replace(seen, pair_weights=weights)
    repeated = replace(seen, chosen=seen.chosen[twice], rejected=seen.rejected[twice], pair_weights=np.ones(25))
    mean, scale = seen.answers.mean(axis=0), seen.answers.std(axis=0)
    solved = [_solve(both.mapped(lambda x: (x - mean) / scale), 0.3) for both in (weighted, repeated)]
    assert np.allclose(solved[0][0], solved[1][0], atol=1e-6)
    assert solved[0][1] == pytest.approx(solved[1][1], abs=1e-6)


def test_the_mean_answer_is_rated_in_the_middle() -> None:
    seen = observations(1)
    head = fit_head("harmlessness", MEAN, seen, 0.1)
    logits = [head.logit(x) for x in seen.answers]
    assert head.centre == pytest.approx(np.mean(logits))
    assert head.spread == pytest.approx(np.std(logits))
    assert head.rating(seen.answers.mean(axis=0)) == pytest.approx(5.5)
    ratings = np.array([head.rating(x) for x in seen.singles])
    assert ratings[seen.labels].mean() > ratings[~seen.labels].mean() + 1


def test_a_feature_that_does_not_vary_does_no_harm() -> None:
    seen = observations(2)
    flat = np.c_[seen.singles, np.full(60, 3.0)]
    constant = observed(flat, seen.labels, np.empty((0, 6)), np.empty((0, 6)), seen.single_groups, ())
    head = fit_head("harmlessness", MEAN, constant, 0.1)
    assert head.weights[-1] == pytest.approx(0.0, abs=1e-9)
    assert np.isfinite(head.rating(flat[0]))


def test_folds_share_no_prompt_and_hold_every_prompt() -> None:
    groups = [f"g{i}" for i in range(23)]
    folds = deal(groups, 5, seed=1)
    assert sorted(group for fold in folds for group in fold) == sorted(groups)
    assert {len(fold) for fold in folds} == {4, 5}
    assert deal(groups, 5, seed=1) == folds != deal(groups, 5, seed=2)
    seen = observations(3)
    held = folds[0]
    rest = seen.take(set(groups) - held)
    assert not held & {*rest.single_groups, *rest.pair_groups}
    assert len(rest.singles) + len(seen.take(held).singles) == len(seen.singles)


def test_repeated_answers_to_one_prompt_do_not_leak_into_the_cross_validation() -> None:
    """Each prompt has one vector and one random label, repeated: memory is perfect, unseen is chance."""
    random = np.random.default_rng(0)
    x, marks = np.repeat(random.normal(size=(40, 60)), 4, axis=0), np.repeat(random.random(40) < 0.5, 4)
    groups = tuple(f"g{i // 4}" for i in range(160))
    empty = np.empty((0, 60))
    seen = observed(x, marks, empty, empty, groups, ())
    figures = cross_validate(seen, MEAN, 1.0, FitSettings(layers=1))["auc"]
    assert figures["low"] < 0.5 < figures["high"]
    alone = observed(x, marks, empty, empty, tuple(map(str, range(160))), ())
    assert cross_validate(alone, MEAN, 1.0, FitSettings(layers=1))["auc"]["estimate"] > 0.99


def test_the_card_counts_what_failed_and_reads_back(answering, tmp_path: Path) -> None:
    own = labels(10, True, True)
    prompt = label_prompt([Message("user", "question x")])
    more = Labels(
        (*own.answers, LabelledAnswer(prompt, "broken", "harmlessness", True, "x")),
        (*own.pairs, LabelledPair(prompt, "broken a", "bad", "harmlessness", "x")),
    )
    heads = fit_heads(more, answering(states, "abc"), "tiny", FitSettings(layers={"harmlessness": 1}))
    entry = heads.card["objectives"]["harmlessness"]
    assert (entry["n_answers"], entry["n_pairs"], entry["n_prompts"]) == (40, 10, 10)
    assert entry["failed"] == {"too_long": 2}
    assert (heads.card["model"], heads.card["model_fingerprint"]) == ("tiny", "abc")
    write_heads(tmp_path, heads)
    assert read_heads(tmp_path).card == json.loads(json.dumps(heads.card))


def test_an_answer_to_another_question_is_told_apart_only_by_the_match(answering) -> None:
    """What an answer says is one of eight subjects; it is good when the question has the same subject."""
    subjects = np.random.default_rng(6).normal(size=(8, SIZE))

    def about(request: Embed) -> Vectors:
        texts = {"response": request.response, "prompt": request.messages[-1].content}
        return Vectors(tuple(tuple(subjects[int(texts[span][-1])].tolist()) for span in request.spans))

    answers = []
    for number in range(200):
        prompt = label_prompt([Message("user", f"question {number} on {number % 8}")])
        for shift in (0, 1 + number % 7):
            said = f"{number}: answer on {(number + shift) % 8}"
            answers.append(LabelledAnswer(prompt, said, "helpfulness", shift == 0, f"group {number}"))
    aucs = []
    for pooling in ("mean", "match"):
        settings = FitSettings(layers=1, c=0.1, pooling=pooling)
        card = fit_heads(Labels(tuple(answers), ()), answering(about), "tiny", settings).card
        aucs.append(card["objectives"]["helpfulness"]["cross_validation"]["auc"]["estimate"])
    assert aucs[0] < 0.6
    assert aucs[1] > 0.9


def test_several_layers_are_read_side_by_side(answering) -> None:
    heads = fit_heads(labels(100, True, True), answering(states), "tiny", FitSettings(layers=(1, 2), c=0.01))
    head = heads.by_objective["harmlessness"]
    assert (head.layers, head.pooling, len(head.weights)) == ((1, 2), "match", 4 * SIZE)
    w = head.weights.reshape(4, SIZE)
    assert w[0] @ DIRECTION / np.linalg.norm(w[0]) > 0.9
    assert np.linalg.norm(w[0]) > 3 * np.linalg.norm(w[1])
    assert np.allclose(w[2:], 0.0, atol=1e-6)  # prompts that do not vary say nothing


def test_each_objective_has_its_own_layer_and_shrinkage(answering) -> None:
    own = labels(10, True, False)
    other = [LabelledAnswer(a.prompt, a.response, "helpfulness", a.label, a.group) for a in own.answers]
    settings = FitSettings(layers={"harmlessness": 1, "helpfulness": 2}, c={"harmlessness": 1.0, "helpfulness": 1e-3})
    heads = fit_heads(Labels((*own.answers, *other), ()), answering(states), "tiny", settings).by_objective
    assert (heads["harmlessness"].layers, heads["helpfulness"].layers) == ((1,), (2,))
    assert np.linalg.norm(heads["harmlessness"].weights) > 10 * np.linalg.norm(heads["helpfulness"].weights)


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        (labels(3, True, False), FitSettings(layers=1), "3 different prompts, 5 are needed"),
        (labels(10, True, False), FitSettings(layers={"helpfulness": 1}), "no layer for harmlessness"),
        (
            Labels(tuple(a for a in labels(9, True, False).answers if a.label), ()),
            FitSettings(layers=1),
            "one label",
        ),
    ],
)
def test_labels_that_cannot_be_fitted_are_refused(answering, given, settings, told: str) -> None:
    with pytest.raises(InputError, match=told):
        fit_heads(given, answering(states), "tiny", settings)
