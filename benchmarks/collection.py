"""The collect phase on vLLM, three ways: through this program, by the engine alone, by distilabel. See `collect.py`.

The steps are those of a round: n answers a prompt, a rating of each on every objective, one answer refined from them
all, and its ratings.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from measured import Timed, cpu_seconds, last_line, peak_mb

from selfpriority import Prompts, load_prompts
from selfpriority.backends.cache import Cached
from selfpriority.backends.engine import Engine, Question, Reply
from selfpriority.backends.vllm import VllmModel
from selfpriority.constitution import load_constitution
from selfpriority.judges.words import WordsJudge
from selfpriority.language_model import Answer, Choose, Generate, Request, ask
from selfpriority.method.refine import context, refine
from selfpriority.method.sample import sample
from selfpriority.method.score import score
from selfpriority.models.served import load_served
from selfpriority.rating import Item
from selfpriority.recipe import InWords, Refine, Sample, VllmBackend
from selfpriority.records import Message, Pool, Prompt, Rating, Response, Scored

HERE = Path(__file__).parent
TEMPERATURE, REFINED_AT = 0.9, 0.7
_PROMPT, _ANSWER = "@@prompt@@", "@@answer {}@@"


@dataclass(frozen=True)
class Case:
    """What is asked, and of whom."""

    model: str
    python: str
    """That has vLLM."""
    prompts: int
    n: int
    new_tokens: int
    dtype: str
    top_p: float
    eager: bool
    scales: Literal["first", "last"] = "first"
    """Where the judge reads what ratings mean."""
    distilabel: str = ""
    """The interpreter that has it."""
    memory_share: float = 0.25

    @property
    def engine(self) -> dict[str, Any]:
        """Arguments of the engine that are ours to choose."""
        return {"max_model_len": 2048, **({"enforce_eager": True} if self.eager else {})}

    @property
    def judge(self) -> InWords:
        """Who rates. A small model's digits are rated too: this is about time."""
        return InWords(judge="self", mass_floor=1e-9, scales=self.scales)

    def shown(self) -> list[Prompt]:
        """The shipped prompts, the first so many."""
        return list(load_prompts(Prompts(source="demo"), seed=0).kept[: self.prompts])


class _Noting(VllmModel):
    """Notes what its engine is asked, and how long ratings take."""

    def __init__(self, case: Case) -> None:
        settings = VllmBackend(
            kind="vllm", python=case.python, dtype=case.dtype, memory_share=case.memory_share, engine=case.engine
        )
        super().__init__(case.model, settings)
        self.noted: list[Question] = []
        self.rating_seconds = 0.0
        self.n_requests = 0

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """As `VllmModel`; a call holds requests of one kind."""
        self.n_requests += sum(map(len, batches))
        started = time.perf_counter()
        yield from super().answer(batches)
        if batches and isinstance(batches[0][0], Choose):
            self.rating_seconds += time.perf_counter() - started

    def arguments(self) -> dict[str, Any]:
        """Those of `vllm.LLM`."""
        return self._arguments()

    def _opened(self, batches: Sequence[Sequence[Request]]) -> Any:
        return _Overheard(super()._opened(batches), self.noted)


@dataclass
class _Overheard:
    """An engine whose questions are noted."""

    engine: Engine
    noted: list[Question]

    def ask(self, questions: Iterator[Question]) -> Iterator[tuple[int, Reply]]:
        yield from self.engine.ask(self._noting(questions))

    def _noting(self, questions: Iterator[Question]) -> Iterator[Question]:
        for question in questions:
            self.noted.append(question)
            yield question


def ours(case: Case, noted: Path) -> Timed:
    """The steps of a round, candidates to rated refinements, behind the store of answers.

    Args:
        case: what is asked.
        noted: where the engine's questions are written, for `engine_alone`.
    """
    model, constitution = _Noting(case), load_constitution("harmless-helpful")
    prompts = case.shown()
    ask(model, [Generate(prompts[0].messages, case.n, TEMPERATURE, case.top_p, case.new_tokens, 1)])  # open, and warm
    model.noted.clear()
    model.rating_seconds, model.n_requests, busy = 0.0, 0, model.busy_seconds
    drawing = Sample(n=case.n, temperature=TEMPERATURE, top_p=case.top_p, max_new_tokens=case.new_tokens)
    refining = Refine(temperature=REFINED_AT, top_p=case.top_p, max_new_tokens=case.new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        cached = Cached(model, Path(folder) / "answers.sqlite")
        judge = WordsJudge(cached, constitution, case.judge)
        started, cpu = time.perf_counter(), cpu_seconds()
        candidates = sample(prompts, cached, drawing)
        pools = refine(score(candidates.kept, judge).kept, cached, judge, constitution, refining).kept
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
        cached.close()
    tokens = sum(response.n_tokens for each in candidates.kept for response in each.responses)
    tokens += sum(pool.refined.response.n_tokens for pool in pools if pool.refined)
    written = {"arguments": model.arguments(), "questions": [asdict(question) for question in model.noted]}
    noted.write_text(json.dumps(written))
    busy = model.busy_seconds - busy
    return Timed("ours", seconds, tokens, cpu, peak_mb(), model.rating_seconds, busy, model.n_requests)


def engine_alone(case: Case, noted: Path, way: str) -> Timed:
    """`LLM.generate` over all that ours asked, in one list, whatever waits for what.

    As the engine comes, it computes in a process of its own (`engine`); ours has it in one (`engine-1`).
    """
    environment = {**os.environ, **({"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if way == "engine-1" else {})}
    return Timed(way, **last_line([case.python, str(HERE / "vllm_alone.py"), str(noted)], environment))


def by_distilabel(case: Case) -> Timed:
    """The pipeline of distilabel, of the same steps, its own client, vLLM's own server.

    A rating is one token that is written behind the same text: of an answer's two ratings as short as can be.
    """
    told = {
        "prompts": [prompt.text for prompt in case.shown()],
        "n": case.n,
        "new_tokens": case.new_tokens,
        "top_p": case.top_p,
        "temperature": TEMPERATURE,
        "refined_at": REFINED_AT,
        **asdict(texts(case)),
    }
    with _server(case) as url, tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.json"
        given.write_text(json.dumps({**told, "url": f"{url}/v1"}))
        before, cpu = _written(url), cpu_seconds()
        found = last_line([case.distilabel, str(HERE / "distilabel_steps.py"), str(given)])
        tokens = _written(url) - before - found["ratings"]
        return Timed("distilabel", found["seconds"], tokens, cpu_seconds() - cpu, peak_mb())


@dataclass(frozen=True)
class Texts:
    """What a judge and a refining model are shown, with places for a prompt and for answers."""

    prompt: str
    answer: str
    """With a place for its number."""
    rate: list[list[dict[str, str]]]
    """By objective, of answer 0."""
    refine: list[dict[str, str]]
    """Of n answers that were rated alike."""


def texts(case: Case) -> Texts:
    """The texts of a prompt's answers, for who fills them without this package."""
    constitution = load_constitution("harmless-helpful")
    prompt = Prompt("q", (Message("user", _PROMPT),))
    answers = [Response(f"q/y{i}", "q", _ANSWER.format(i), "end", 1) for i in range(case.n)]
    # a judge without a model: what it would ask is all that is read of it
    judge = WordsJudge(None, constitution, case.judge)  # type: ignore[arg-type]
    rate = [[asdict(turn) for turn in turns] for turns in judge.contexts(Item(prompt, answers[0]))]
    pool = Pool(prompt, tuple(Scored(answer, (Rating(5.5),) * len(constitution.names)) for answer in answers))
    return Texts(_PROMPT, _ANSWER, rate, [asdict(turn) for turn in context(pool, constitution)])


@contextmanager
def _server(case: Case) -> Iterator[str]:
    """The server of vLLM on loopback, warm; yields its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = {
        "--model": str(load_served(case.model).folder),
        "--served-model-name": "m",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": case.dtype,
        "--max-model-len": str(case.engine["max_model_len"]),
        "--gpu-memory-utilization": str(case.memory_share),
        "--generation-config": "vllm",
    }
    command = [
        case.python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *[word for pair in options.items() for word in pair],
    ]
    command += ["--enforce-eager"] if case.eager else []
    process = subprocess.Popen(
        command,
        env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{url}/health"):
            if process.poll() is not None:
                raise SystemExit(f"vLLM's server ended with exit code {process.returncode}")
            time.sleep(1)
        body = {"model": "m", "prompt": "Hello", "max_tokens": 8}
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers))
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _written(url: str) -> int:
    """Tokens that the server has written so far."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        said = answer.read().decode()
    return sum(int(float(n)) for n in re.findall(r"^vllm:generation_tokens_total\S* (\S+)", said, re.M))
