"""Replicas on a Ray cluster: the answers of one model, and a death costs what was in flight.

Real Ray, nodes on this machine's loopback. The model in the replicas is scripted, and notes what it was asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from selfpriority.backends.cache import Cached
from selfpriority.backends.scripted import ScriptedModel
from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Answer, Generate, Request, ask
from selfpriority.recipe import RayBackend, ScriptedBackend
from selfpriority.records import Message
from tests.test_pipeline import write_recipe

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # once a token lies in the home, some of Ray's processes ask for it
ray = pytest.importorskip("ray", reason="replicas: Ray is not installed (pip install 'selfpriority[ray]')")
from selfpriority.backends.ray import RayModel  # noqa: E402 - needs nothing of Ray by itself, but there is no test without

pytestmark = pytest.mark.slow

N, DEPTH = 60, 2


@dataclass
class Noting:
    """A scripted model that writes down which process answered which batch."""

    folder: Path
    delay: float
    fails: str = ""

    def __post_init__(self) -> None:
        if self.fails == "to open":
            raise InputError("model: m: is no model; name another")
        self._model = ScriptedModel(ScriptedBackend(kind="scripted", delay=self.delay), "m")

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint + (str(os.getpid()) if self.fails == "to agree" else "")

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[number] for number in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        if self.fails == "at work":
            raise WorkFailed("the engine died")
        if self.fails == "by exit":
            os._exit(1)
        for found in self._model.answer(batches):
            with (self.folder / f"asked-{os.getpid()}").open("a") as file:
                file.write("".join(f"{request.seed}\n" for request in batches[found[0]]))  # type: ignore[union-attr]
            yield found


def requests(n: int = N) -> list[Generate]:
    return [Generate((Message("user", f"question {i}"),), 1, 1.0, 0.9, 8, i) for i in range(n)]


def plain(n: int = N) -> list[Answer]:
    return ask(ScriptedModel(ScriptedBackend(kind="scripted"), "m"), requests(n))


def settings(replicas: int = 2, address: str | None = None) -> RayBackend:
    each = ScriptedBackend(kind="scripted")
    return RayBackend(kind="ray", each=each, replicas=replicas, gpus=0, cpus=1, depth=DEPTH, address=address)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Cluster:
    """Two nodes on loopback, each with one CPU for one replica."""

    address: str
    raylets: tuple[set[int], set[int]]


def of_cluster(address: str, program: str = "") -> set[int]:
    """Processes that belong to the cluster of a test, by a variable that they inherit."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            if f"CLUSTER={address}".encode() in (folder / "environ").read_bytes().split(b"\0") and program in name:
                found.add(int(folder.name))
    return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    address = f"127.0.0.1:{free_port()}"
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "CLUSTER": address}
    program = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus", "1", "--disable-usage-stats"]
    others = ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=80000000"]

    def node(*options: str) -> set[int]:
        before = of_cluster(address, "raylet")
        command = [*program, *others, "--node-ip-address=127.0.0.1", *options]
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return of_cluster(address, "raylet") - before

    try:
        head = node("--head", "--port", address.split(":")[1], "--include-dashboard=false")
        yield Cluster(address, (head, node("--address", address)))
    finally:
        ray.shutdown()
        for process in of_cluster(address):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def alone() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)
    yield
    ray.shutdown()


def asked(folder: Path) -> Counter[str]:
    return Counter(line for path in folder.glob("asked-*") for line in path.read_text().split())


def test_replicas_answer_as_one_model_and_all_work(alone: None, tmp_path: Path) -> None:
    model = RayModel(partial(Noting, tmp_path, 0.05), settings())
    assert model.fingerprint == ScriptedModel(ScriptedBackend(kind="scripted"), "m").fingerprint
    assert ask(model, requests()) == plain()
    assert asked(tmp_path) == Counter(str(i) for i in range(N)), "each once"
    assert len(list(tmp_path.glob("asked-*"))) == 2
    assert ask(model, requests()[:3]) == plain(3), "and again"


def test_a_model_takes_the_place_of_one_that_nobody_asks(alone: None, tmp_path: Path) -> None:
    """The cluster has room for two replicas: vanilla's, then those of the trained policy, and the other way round."""
    first, second = (RayModel(partial(Noting, tmp_path, 0.0), settings()) for _ in range(2))
    for model in (first, second, first):
        assert ask(model, requests()) == plain()
    assert (first.is_idle, second.is_idle) == (True, False)
    first.dismiss()
    small = RayModel(partial(Noting, tmp_path, 0.0), settings(replicas=1))
    assert ask(second, requests()[:2]) == plain(2)
    second.dismiss()
    one, other = small, RayModel(partial(Noting, tmp_path, 0.0), settings(replicas=1))
    assert [ask(model, requests()[:2]) for model in (one, other)] == [plain(2), plain(2)]
    assert one.is_idle, "where there is room for both, both stay"


@pytest.mark.parametrize(
    ("fails", "kind", "told"),
    [
        ("to open", InputError, "is no model; name another"),
        ("to agree", InputError, "replicas hold different models"),
        ("at work", WorkFailed, "^the engine died$"),
        ("by exit", WorkFailed, "3 replicas died over the same requests"),
    ],
)
def test_what_another_replica_cannot_mend_is_one_line(
    alone: None, tmp_path: Path, fails: str, kind: type[Exception], told: str
) -> None:
    notes: list[str] = []
    with pytest.raises(kind, match=told) as caught:
        ask(RayModel(partial(Noting, tmp_path, 0.3, fails), settings(), notes.append), requests())
    assert "\n" not in str(caught.value)
    assert all("\n" not in note for note in notes)


def test_a_killed_actor_and_a_killed_node_cost_what_was_in_flight(cluster: Cluster, tmp_path: Path) -> None:
    notes: list[str] = []
    model = Cached(
        RayModel(partial(Noting, tmp_path, 0.1), settings(address=cluster.address), notes.append), tmp_path / "c.sqlite"
    )
    batches = [[request] for request in requests()]
    came: dict[int, list[Answer]] = {}
    killed: list[int] = []
    for number, answers in model.answer(batches):
        assert number not in came
        came[number] = answers
        if len(came) == 15:
            actor = int(next(tmp_path.glob("asked-*")).name.removeprefix("asked-"))
            os.kill(actor, signal.SIGKILL)
            killed.append(actor)
        if len(came) == 30:
            for raylet in cluster.raylets[1]:
                os.kill(raylet, signal.SIGKILL)
                killed.append(raylet)
    assert len(killed) >= 2
    assert [came[number][0] for number in range(N)] == plain()
    again = asked(tmp_path)
    assert set(again) == {str(i) for i in range(N)}
    assert sum(again.values()) - N <= 2 * 2 * DEPTH, "at most depth x replicas a death"
    assert any("a replica died" in note for note in notes)
    before = sum(asked(tmp_path).values())
    assert ask(model, requests()) == plain()
    assert sum(asked(tmp_path).values()) == before, "finished work is asked once"


def test_a_run_on_a_cluster_has_the_pools_of_one_without(cluster: Cluster, tiny_model: Path, tmp_path: Path) -> None:
    def collected(name: str, backend: dict[str, Any]) -> dict[str, bytes]:
        (tmp_path / name).mkdir()
        recipe = write_recipe(tmp_path / name, tiny_model, backend=backend)
        command = [sys.executable, "-m", "selfpriority", "-q"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = tmp_path / name / "run"
        done = subprocess.run(
            [*command, "run", str(recipe), "--out", str(run)], env=env, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return {path.name: path.read_bytes() for path in (run / "round-1").glob("[1-5]-*.jsonl")}

    each = {"kind": "scripted"}
    there = {"kind": "ray", "each": each, "replicas": 2, "gpus": 0, "address": cluster.address}
    assert collected("ray", there) == collected("plain", each)


def test_a_cluster_that_is_none_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=r"backend.address: 127.0.0.1:1: no Ray cluster answers there"):
        RayModel(partial(Noting, Path(), 0.0), settings(address="127.0.0.1:1"))
    assert time.monotonic() - began < 60
