"""What a judge's verdicts depend on: its key changes with each of them, and only with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.phases.resources import JudgeSpec, judge_key
from selfpriority.recipe import Backend, HfBackend, OpenaiBackend, Score, ScriptedBackend

CONSTITUTION = load_constitution("harmless-helpful")
SERVER = OpenaiBackend(kind="openai", base_url="http://127.0.0.1:1/v1")


def spec(model: Path, method: str, **fields: Any) -> JudgeSpec:
    given = {"reward": "self", "probe": "demo-train"}
    rewards = dict.fromkeys(CONSTITUTION.names, str(model))
    section = Score.model_validate(
        {"judge": given.get(method, str(model)), "method": method, "rewards": rewards, **fields}
    )
    return JudgeSpec.of(section)


@pytest.mark.parametrize("method", ["expected", "probe", "reward"])
def test_the_order_of_the_objectives_counts(tiny_model: Path, method: str) -> None:
    judge, swapped = spec(tiny_model, method), replace(CONSTITUTION, objectives=CONSTITUTION.objectives[::-1])
    backend = ScriptedBackend(kind="scripted")
    keys = {judge_key(judge, "self", constitution, backend) for constitution in (CONSTITUTION, swapped)}
    assert len(keys) == 2


@pytest.mark.parametrize("method", ["expected", "verbal", "probe", "reward"])
def test_who_runs_the_judge_counts(tiny_model: Path, method: str) -> None:
    backends: list[Backend] = [
        HfBackend(dtype="float32"),
        HfBackend(dtype="bfloat16"),
        ScriptedBackend(kind="scripted"),
    ]
    judge = spec(tiny_model, method)
    assert len({judge_key(judge, str(tiny_model), CONSTITUTION, backend) for backend in backends}) == 3
    faster = HfBackend(dtype="float32", max_batch=2)  # the same answers in less time
    assert judge_key(judge, str(tiny_model), CONSTITUTION, faster) == judge_key(
        judge, str(tiny_model), CONSTITUTION, backends[0]
    )


def test_a_judge_in_words_with_a_backend_of_its_own_is_known_by_that(tiny_model: Path) -> None:
    def key(own: dict[str, str], backend: Backend) -> str:
        return judge_key(spec(tiny_model, "expected", backend=own), "self", CONSTITUTION, backend)

    assert key({"dtype": "float32"}, SERVER) != key({"dtype": "bfloat16"}, SERVER)
    assert key({"dtype": "float32"}, SERVER) == key({"dtype": "float32"}, ScriptedBackend(kind="scripted"))
