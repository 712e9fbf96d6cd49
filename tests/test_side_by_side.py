"""Systems that train at once: where, in which order, and how an interrupt ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from selfpriority import pipeline
from selfpriority.evaluation.records import System
from selfpriority.interrupts import INTERRUPTED
from selfpriority.phases.children import ALONE, Place, Siblings, run_child
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import (
    Align,
    Backend,
    Evaluate,
    HfBackend,
    InWords,
    OpenaiBackend,
    Prompts,
    RayBackend,
    Recipe,
    Sample,
    Score,
    VllmBackend,
)
from selfpriority.side_by_side import evaluation_places, places, systems_apart, train_all

STORES = """
import os, signal, sys, threading, time
def watch():
    while os.read(0, 1): pass
    os._exit(1)
def store(*_):
    time.sleep({pause})
    open({path!r}, "w").close()
    os._exit(130)
threading.Thread(target=watch, daemon=True).start()
signal.signal(signal.SIGINT, store)
print("up", file=sys.stderr, flush=True)
time.sleep(60)
"""
"""As a training: interrupted it stores what it has, and the end of its stdin ends it at once."""


def recipes(n: int, *, last: int = 1, backend: Backend | None = None) -> list[Recipe]:
    """Those of n systems, the last of which trains in `last` processes."""
    backend = backend or HfBackend()
    common = Recipe(model="m", prompts=Prompts(source="demo"), backend=backend)
    return [common] * (n - 1) + [common.model_copy(update={"align": Align(processes=last)})]


def environments(found: list[Place]) -> list[dict[str, str]]:
    return [dict(place.environment) for place in found]


def gpus(found: list[Place]) -> list[str]:
    return [place.environment["CUDA_VISIBLE_DEVICES"] for place in found]


def test_on_a_cpu_systems_train_one_by_one_unless_the_recipe_says_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # whatever the variable says
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert places(recipes(5), None) == [ALONE]
    assert places(recipes(5), 1) == [ALONE]
    assert environments(places(recipes(5), 3)) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments(places(recipes(2), 3)) == [{"OMP_NUM_THREADS": "4"}] * 2, "no more than there are"
    assert environments(places(recipes(2, last=2), 2)) == [{"OMP_NUM_THREADS": "2"}] * 2, "each of two processes"
    assert places(recipes(1), 3) == [ALONE]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environments(places(recipes(5), 3)) == [{}] * 3, "the user has said so"


def test_each_training_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(places(recipes(9), None)) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5a,7,9")  # the last is none that there is
    assert gpus(places(recipes(9), None)) == ["2", "GPU-5a", "7"]
    assert places(recipes(9, last=2), None) == [ALONE], "a pair of GPUs and one that is left"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert gpus(places(recipes(9, last=2), None)) == ["2,GPU-5a", "7,9"], "the system that needs most says how many"
    assert gpus(places(recipes(9, last=2), 3)) == ["2,GPU-5a", "7,9", "2,GPU-5a"], "as the recipe says"


@pytest.mark.parametrize(
    "backend",
    [VllmBackend(kind="vllm"), RayBackend(kind="ray", each=HfBackend(dtype="bfloat16")), HfBackend(device="cuda:1")],
)
def test_what_chooses_its_gpus_itself_is_given_no_part_of_them(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert places(recipes(9, backend=backend), 4) == [ALONE]


def evaluated(backend: Backend | None = None, **evaluate: object) -> Recipe:
    recipe = recipes(1, last=2, backend=backend)[0]
    return recipe.model_copy(update={"evaluate": Evaluate.model_validate({"prompts": {"source": "demo"}, **evaluate})})


NO_TORCH = """
import sys
from selfpriority import side_by_side
side_by_side._DEVICES = (sys.argv[1],)
print(side_by_side._gpus(), "torch" in sys.modules)
"""


@pytest.mark.parametrize(("device", "is_asked"), [("/dev/no-such-device", False), ("/dev/null", True)])
def test_a_machine_without_gpus_is_known_without_torch(device: str, is_asked: bool) -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH, device], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f" {is_asked}\n")


def some(n: int, **last: object) -> list[System]:
    return [*map(system, "abcdefghi"[: n - 1]), system("last", **last)]


def test_an_evaluated_system_has_a_gpu_to_itself_however_many_its_training_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(evaluation_places(evaluated(), some(9))) == ["0", "1", "2", "3"]
    assert gpus(evaluation_places(evaluated(), some(2))) == ["0", "1"]
    assert gpus(evaluation_places(evaluated(at_once=3), some(9))) == ["0", "1", "2"]
    assert gpus(evaluation_places(evaluated(at_once=9), some(9))) == ["0", "1", "2", "3"], "each plans for all memory"
    assert evaluation_places(evaluated(), some(1)) == [ALONE]
    assert evaluation_places(evaluated(HfBackend(device="cpu")), some(9)) == [ALONE]
    on_cores = evaluation_places(evaluated(HfBackend(device="cpu"), at_once=2), some(9))
    assert [set(place.environment) <= {"OMP_NUM_THREADS"} for place in on_cores] == [True, True]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert evaluation_places(evaluated(at_once=2), some(9)) == [ALONE]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert evaluation_places(evaluated(), some(9)) == [ALONE]
    assert len(evaluation_places(evaluated(at_once=2), some(9))) == 2


SERVER = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    "evaluate",
    [
        {"judge": "j", "backend": SERVER},
        {"more_judges": {"other": {"judge": "j", "backend": SERVER}}},
        {"judge": "j", "backend": {"kind": "hf", "device": "cuda:1"}},
    ],
)
def test_what_a_server_may_be_asked_at_once_is_said_for_one_process(
    evaluate: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert evaluation_places(evaluated(at_once=4, **evaluate), some(9)) == [ALONE]


def test_who_is_not_asked_in_parts_may_be_at_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compares systems comes after all parts, and the judge of training only chooses the best of several."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    served = InWords(judge="j", backend=OpenaiBackend.model_validate(SERVER))
    recipe = evaluated(comparer={"judge": "j", "backend": SERVER}).model_copy(update={"score": Score(judge=served)})
    assert len(evaluation_places(recipe, some(9))) == 4
    assert evaluation_places(recipe, some(9, how="best_of_n")) == [ALONE]


def system(name: str, **kwargs: object) -> System:
    return System(name, "m", **kwargs)  # type: ignore[arg-type]


def test_parts_of_an_evaluation_take_about_as_long_and_hold_every_system_once() -> None:
    asked = Align(method="sft", rows="meta_aligner", nll=0)
    found = [system("vanilla"), *map(system, "abcde"), system("best", how="best_of_n"), system("asks", trained=asked)]
    recipe = evaluated().model_copy(update={"sample": Sample(n=4)})
    assert systems_apart(found, 2, recipe) == [("c", "e", "best"), ("vanilla", "a", "b", "d", "asks")]
    assert systems_apart(found[:2], 3, recipe) == [("vanilla",), ("a",)]
    assert systems_apart(found[1:3], 2, recipe) == [("a",), ("b",)], "vanilla is done"
    assert systems_apart([], 2, recipe) == []


def at_once(n: int) -> list[Place]:
    return [Place({}, Siblings())] * n


@pytest.mark.parametrize("where", [[ALONE], at_once(3)], ids=["one by one", "at once"])
def test_a_system_waits_for_the_one_that_it_starts_from_and_falls_with_it(where: list[Place]) -> None:
    starts = {"first": None, "behind": "first", "broken": None, "lost": "broken", "also_lost": "lost", "spa_s": "spa"}
    ended: list[str] = []

    def train(name: str, _: Place) -> int:
        assert starts[name] in (None, "spa", *ended)
        time.sleep(0.05)
        ended.append(name)
        return 3 if name == "broken" else 0

    codes = train_all(starts, where, train)
    assert codes == {"first": 0, "behind": 0, "broken": 3, "lost": 3, "also_lost": 3, "spa_s": 0}
    assert sorted(ended) == ["behind", "broken", "first", "spa_s"]


def test_as_many_train_at_once_as_there_are_places() -> None:
    met, counting, running = threading.Barrier(3), threading.Lock(), [0, 0]

    def train(*_: object) -> int:
        with counting:
            running[0] += 1
            running[1] = max(running)
        met.wait(timeout=30)
        with counting:
            running[0] -= 1
        return 0

    assert train_all(dict.fromkeys("abcdef"), at_once(3), train) == dict.fromkeys("abcdef", 0)
    assert running == [0, 3]


def test_the_only_one_that_can_begin_has_all_cores() -> None:
    """As the last of a run that is continued, or one that all others start from."""
    where = [Place({"OMP_NUM_THREADS": "1"}, Siblings())] * 2
    seen: dict[str, dict[str, str]] = {}

    def train(name: str, place: Place) -> int:
        seen[name] = dict(place.environment)
        time.sleep(0.1)
        return 0

    train_all({"first": None, "a": "first", "b": "first", "last": "b"}, where, train)
    share = {"OMP_NUM_THREADS": "1"}
    assert (seen["first"], seen["a"], seen["b"]) == ({}, share, share)
    on_gpus = [Place({"CUDA_VISIBLE_DEVICES": "1"}, Siblings())] * 2
    train_all({"first": None}, on_gpus, train)
    assert seen["first"] == {"CUDA_VISIBLE_DEVICES": "1"}


def test_what_a_training_raises_is_raised_once_the_others_have_ended() -> None:
    ended: list[str] = []

    def train(name: str, _: Place) -> int:
        if name == "wrong":
            raise ValueError(name)
        time.sleep(0.3)
        ended.append(name)
        return 0

    with pytest.raises(ValueError, match="wrong"):
        train_all(dict.fromkeys(["long", "wrong", "never"]), at_once(2), train)
    assert ended == ["long"]


def test_what_a_system_writes_for_rows_of_its_own_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of two that ask the same the second waits, to find the first one's answers."""
    rows = {"written": Align(method="sft", rows="self_criticism", nll=0), "a": Align(), "b": Align()}
    common = recipes(1)[0]
    found = [SimpleNamespace(name=name, recipe=common.model_copy(update={"align": of})) for name, of in rows.items()]
    met, counting, asking = threading.Barrier(2), threading.Lock(), [0, 0]

    def train(branch: SimpleNamespace, course: SimpleNamespace, _: object) -> int:
        with course.asking:
            if branch.name in ("written", "a"):
                met.wait(timeout=30)
            if branch.name != "written":
                with counting:
                    asking[0] += 1
                    asking[1] = max(asking)
                time.sleep(0.1)
                with counting:
                    asking[0] -= 1
        return 0

    monkeypatch.setattr(pipeline, "branches", lambda *_: found)
    monkeypatch.setattr(pipeline, "places", lambda *_: at_once(3))
    monkeypatch.setattr(pipeline, "_train_branch", train)
    systems = {name: SimpleNamespace(start=None) for name in rows}
    evaluate = SimpleNamespace(more_systems=systems, at_once=3)
    resources = SimpleNamespace(recipe=SimpleNamespace(evaluate=evaluate), reporter=Reporter())
    course = pipeline._Course(None, resources, False)  # type: ignore[arg-type]
    assert pipeline._train_branches(course) == 0
    assert asking == [0, 1]


class Ear(Reporter):
    """Tells of every word of a child."""

    hears = True

    def __init__(self, at: Callable[[], None]) -> None:
        self._at = at

    def hear(self, line: str) -> None:
        self._at()


def storing(folder: Path, pause: float, at: Callable[[], None]) -> Callable[[str, Place], int]:
    def train(name: str, place: Place) -> int:
        code = STORES.format(path=str(folder / name), pause=pause)
        return run_child([sys.executable, "-c", code], {}, Ear(at), place)

    return train


def when_both_are_up(act: Callable[[], None]) -> Callable[[], None]:
    up = iter([lambda: None, act])
    return lambda: next(up)()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_has_all_store_what_they_have_and_begins_no_other(tmp_path: Path) -> None:
    train = storing(tmp_path, 0.3, when_both_are_up(interrupt))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train_all(dict.fromkeys("abc"), at_once(2), train)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("hears_interrupts")
def test_a_second_interrupt_ends_all_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        threading.Timer(1.5, interrupt).start()

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train_all(dict.fromkeys("abc"), at_once(2), storing(tmp_path, 60.0, when_both_are_up(twice)))
    assert time.monotonic() - began < 30
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("hears_interrupts")
def test_one_that_was_interrupted_by_others_ends_the_rest(tmp_path: Path) -> None:
    is_up = threading.Event()
    trains = storing(tmp_path, 0.0, is_up.set)

    def train(name: str, place: Place) -> int:
        if name == "a":
            return trains(name, place)
        assert is_up.wait(timeout=30)
        return INTERRUPTED

    with pytest.raises(KeyboardInterrupt):
        train_all(dict.fromkeys("ab"), at_once(2), train)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
