"""`backend: {kind: vllm}` in a recipe: what is refused, who answers and who reads, and what a plan says of it."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.phases.judge_names import judge_backend
from selfpriority.phases.models import arithmetic, in_process, reading
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.planning.plan import plan
from selfpriority.planning.table import plan_text
from selfpriority.recipe import ByContrast, ByProbe, HfBackend, InWords, Recipe, VllmBackend, parse
from tests.backends.stand_in_vllm import VERSION, StandIn
from tests.test_pipeline import write_recipe

ENGINE = VllmBackend(kind="vllm")


def recipe(**backend: Any) -> Recipe:
    return parse({"model": "m", "prompts": "p", "backend": {"kind": "vllm", **backend}}, "r.yaml")


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ({"engine": {"dtype": "half"}}, "backend.engine: dtype is said elsewhere: write backend.dtype"),
        ({"engine": {"tensor_parallel_size": 2}}, "write backend.tensor_parallel"),
        ({"engine": {"gpu_memory_utilization": 0.5}}, "write backend.memory_share"),
        ({"engine": {"max_lora_rank": 8}}, "max_lora_rank cannot be chosen"),
        ({"engine": {"hf_token": "x"}}, "hf_token cannot be chosen"),
        ({"engine": {"revision": datetime.date(2026, 1, 2)}}, "holds what no engine argument is"),
        ({"memory_share": 1.5}, "backend.memory_share"),
        ({"dtype": "int8"}, "backend.dtype"),
        ({"tokens_per_batch": 3}, "backend.tokens_per_batch"),
    ],
)
def test_what_it_cannot_be_told_is_refused_with_its_place(backend: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe(**backend)
    assert told in caught.value.lines[0]
    assert caught.value.exit_code == 2


def test_further_arguments_reach_the_engine_as_they_are() -> None:
    assert recipe(engine={"max_model_len": 4096, "enforce_eager": True}).backend == VllmBackend(
        kind="vllm", engine={"max_model_len": 4096, "enforce_eager": True}
    )


def test_it_answers_for_policies_too_and_transformers_reads_hidden_states() -> None:
    assert in_process(ENGINE) == ENGINE
    assert reading(ENGINE) == HfBackend()
    assert judge_backend(InWords(judge="self"), ENGINE) == ENGINE
    assert judge_backend(ByProbe(kind="probe", judge="h"), ENGINE) == HfBackend()
    assert judge_backend(ByContrast(kind="contrast", judge="self"), ENGINE) == HfBackend()


def test_a_key_holds_the_arithmetic_and_not_where_it_runs() -> None:
    elsewhere = ENGINE.model_copy(update={"python": "/x/bin/python", "memory_share": 0.3})
    assert arithmetic(elsewhere) == arithmetic(ENGINE)
    assert arithmetic(ENGINE.model_copy(update={"engine": {"quantization": "fp8"}})) != arithmetic(ENGINE)
    assert arithmetic(HfBackend()) == {"kind": "hf", "dtype": "auto"}  # finished runs stay done


def test_an_interpreter_beside_the_recipe_is_found_and_its_link_is_kept(tmp_path: Path) -> None:
    python = tmp_path / "engine" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    given = recipe(python="engine/bin/python").model_copy(
        update={"prompts": recipe().prompts.model_copy(update={"source": "demo"})}
    )
    found = with_absolute_paths(given, tmp_path).backend
    assert isinstance(found, VllmBackend)
    assert found.python == str(python)  # what it links to knows no environment


def test_a_plan_counts_for_it_and_says_what_it_takes(stand_in: StandIn, tiny_model: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tiny_model, backend={"kind": "vllm", "memory_share": 0.6}, evaluate={"prompts": None})
    found = plan(path, (), tmp_path / "run")
    assert f"answers: vLLM {VERSION} in a process of its own, which takes 0.6 of a GPU" in plan_text(found)
    assert next(step for step in found.steps if step.name == "round-1/sample").new_tokens > 0
    assert not stand_in.noted("starts")


def test_an_interpreter_without_vllm_is_said_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    nowhere = {"kind": "vllm", "python": "/no/such/python"}
    path = write_recipe(tmp_path, tiny_model, backend=nowhere, score={"judge": "self", "backend": nowhere})
    with pytest.raises(InputError) as caught:
        plan(path, (), tmp_path / "run")
    assert caught.value.exit_code == 2
    assert [line.partition(":")[0] for line in caught.value.lines] == ["backend.python", "score.backend.python"]


def collected(tiny_model: Path, folder: Path) -> Path:
    """A recipe that the stand-in can answer: as long as its texts, which an end would spoil."""
    return write_recipe(
        folder,
        tiny_model,
        backend={"kind": "vllm"},
        sample={"n": 3, "max_new_tokens": 3},
        evaluate={"prompts": None},
    )


def spa(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "selfpriority", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupted_run_keeps_what_came_and_leaves_no_engine(
    stand_in: StandIn, tiny_model: Path, tmp_path: Path
) -> None:
    stand_in.tell(seconds=1)
    path, run = collected(tiny_model, tmp_path), tmp_path / "run"
    with spa("run", path, "--out", run) as program:
        for _ in range(1200):
            if len(stand_in.noted("done")) >= 4 or program.poll() is not None:
                break
            time.sleep(0.1)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate()
    assert program.returncode == 130, said
    assert "Traceback" not in said
    assert not stand_in.alive
    before = stand_in.noted("done")
    stand_in.tell()
    with spa("collect", run) as program:
        _, said = program.communicate()
    sampled = (run / "round-1" / "1-candidates.jsonl").read_text().splitlines()
    assert len(sampled) == 6, said
    assert all(len(json.loads(row)["responses"]) == 3 for row in sampled)
    assert f"vLLM {VERSION} opens" in said
    asked_again = [ids for ids in stand_in.noted("done")[len(before) :] if ids in before]
    assert len(asked_again) <= 1  # the one under way
    assert not stand_in.alive
