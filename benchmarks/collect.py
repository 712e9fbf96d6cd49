"""How much of an engine's speed is left when candidates are drawn and rated through this program?

    python benchmarks/collect.py --backend vllm --python .venv-vllm/bin/python --prompts 64 --n 8 --json
    python benchmarks/collect.py --backend hf --prompts 32 --n 8 --json

The same requests (shipped prompts, n answers each) three ways, in turn and `--rounds` times: ours (`VllmModel` behind
its cache), the engine alone (`LLM.generate` over the same token ids in one list) and ours with transformers. Every way
has a process of its own, which opens its model before the clock starts. The answers of ours are then rated: one
expected rating on two objectives each. CPU seconds are those of all processes of a way, the largest process is that of
them with most memory. `idle_share` is the share of our time in which the engine had nothing to compute.

With `--backend hf` the ways are ours with transformers (`hf`) and what everybody writes first (`plain-N`): its own
`generate` over N answers at a time, the longest prompts first, from the same distribution; `ratio_to_plain` is
against the best N.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

# the third way knows nothing of this package and runs under the engine's own interpreter
_ENGINE_ALONE = """
import json, os, resource, sys, time
from pathlib import Path
HELPERS
from vllm import LLM, SamplingParams
told = json.load(open(sys.argv[1]))
llm = LLM(**told["arguments"])
settings = SamplingParams(**told["sampling"], detokenize=False)
prompts = [{"prompt_token_ids": ids} for ids in told["prompts"]]
llm.generate(prompts[:1], settings, use_tqdm=False)
started, before = time.perf_counter(), cpu_seconds()
outputs = llm.generate(prompts, settings, use_tqdm=False)
seconds = time.perf_counter() - started
tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
cpu = cpu_seconds() - before
print(json.dumps({"seconds": seconds, "tokens": tokens, "cpu_seconds": cpu, "peak_mb": peak_mb()}))
"""


@dataclass(frozen=True)
class Case:
    """What is asked, and of whom."""

    model: str
    python: str
    prompts: int
    n: int
    new_tokens: int
    dtype: str
    top_p: float
    eager: bool


@dataclass(frozen=True)
class Timed:
    """One way, once."""

    way: str
    seconds: float
    """Of drawing, the model's opening excluded."""
    tokens: int
    cpu_seconds: float
    peak_mb: float
    """Of the largest process."""
    rating_seconds: float = 0.0
    busy_seconds: float = 0.0
    """That the engine computed, while it drew."""
    requests: int = 0

    @property
    def rate(self) -> float:
        """Generated tokens a second."""
        return self.tokens / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=list(_WAYS), default="vllm")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that has vLLM")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", help="which, in the order of a round")
    parser.add_argument("--eager", action="store_true", help="the engine compiles nothing: it starts sooner")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    case = Case(
        given.model, given.python, given.prompts, given.n, given.new_tokens, given.dtype, given.top_p, given.eager
    )
    if given.child:
        print(json.dumps(asdict(_measured(given.child, case))))
        return 0
    ways = (given.ways or _WAYS[given.backend]).split(",")
    timed = [_in_a_process(way, case) for _ in range(given.rounds) for way in ways]
    print(json.dumps(_told(case, timed), indent=None if given.json else 2))
    return 0


def _told(case: Case, timed: Sequence[Timed]) -> dict[str, Any]:
    """What the ways took, in the middle of the rounds."""
    by_way = {each.way: [other for other in timed if other.way == each.way] for each in timed}
    rates = {way: median(each.rate for each in rows) for way, rows in by_way.items()}
    ours = by_way.get("ours", [])
    told: dict[str, Any] = {"case": asdict(case), "tokens_per_second": rates}
    told["prompts_per_second"] = {way: median(case.prompts / e.seconds for e in rows) for way, rows in by_way.items()}
    told["cpu_seconds"] = {way: median(e.cpu_seconds for e in rows) for way, rows in by_way.items()}
    told["tokens_per_cpu_second"] = {
        way: median(e.tokens / e.cpu_seconds for e in rows) for way, rows in by_way.items()
    }
    told["largest_process_mb"] = {way: max(each.peak_mb for each in rows) for way, rows in by_way.items()}
    if ours and "engine" in rates:
        told["ratio_to_engine"] = rates["ours"] / rates["engine"]
        told["ratio_to_engine_by_cpu"] = told["tokens_per_cpu_second"]["ours"] / told["tokens_per_cpu_second"]["engine"]
    if plain := [rate for way, rate in rates.items() if way.startswith(_PLAIN)]:
        told["ratio_to_plain"] = rates["hf"] / max(plain)
    if ours:
        told["idle_share"] = median(1 - each.busy_seconds / each.seconds for each in ours)
        told["rating_share"] = median(each.rating_seconds / (each.seconds + each.rating_seconds) for each in ours)
        told["requests_per_prompt"] = ours[0].requests / case.prompts
    told["rounds"] = [{**asdict(each), "rate": each.rate} for each in timed]
    return told


def _in_a_process(way: str, case: Case) -> Timed:
    print(f"{way} ...", file=sys.stderr, flush=True)
    if way == "engine":
        return _engine_alone(case)
    fields = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(case).items() if name != "eager"]
    command = [sys.executable, __file__, *fields, *(["--eager"] if case.eager else []), "--child", way]
    return Timed(**_last_line(command))


def _last_line(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit code {done.returncode}")
    told = [line for line in done.stdout.splitlines() if line.startswith('{"')]  # an engine writes there too
    found: dict[str, Any] = json.loads(told[-1])
    return found


def _engine_alone(case: Case) -> Timed:
    from selfpriority.backends.written import begun
    from selfpriority.models.served import load_served

    served = load_served(case.model)
    prompts = [begun(served.chat, request) for request in _drawing(case)]
    sampling = {"n": case.n, "temperature": 0.9, "top_p": case.top_p, "max_tokens": case.new_tokens}
    arguments = {
        "model": str(served.folder),
        "skip_tokenizer_init": True,
        "dtype": case.dtype,
        "generation_config": "vllm",
        "gpu_memory_utilization": _MEMORY,
        **_engine(case),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        sampling["stop_token_ids"] = sorted(served.end_ids)
        helpers = "\n".join(map(inspect.getsource, (children, cpu_of, cpu_seconds, peak_mb)))
        json.dump({"arguments": arguments, "sampling": sampling, "prompts": prompts}, file)
        file.flush()
        return Timed("engine", **_last_line([case.python, "-c", _ENGINE_ALONE.replace("HELPERS", helpers), file.name]))


_MEMORY = 0.5
_PLAIN = "plain-"
_WAYS = {"vllm": "ours,engine,hf", "hf": "hf,plain-8,plain-16,plain-32,plain-64"}
"""By backend, if nothing else is asked for."""


def _engine(case: Case) -> dict[str, Any]:
    return {"max_model_len": 2048, **({"enforce_eager": True} if case.eager else {})}


def _drawing(case: Case) -> list[Any]:
    from selfpriority import Prompts, load_prompts
    from selfpriority.language_model import Generate

    found = load_prompts(Prompts(source="demo"), seed=0).kept[: case.prompts]
    return [Generate(prompt.messages, case.n, 0.9, case.top_p, case.new_tokens, 0) for prompt in found]


def _measured(way: str, case: Case) -> Timed:
    """Ours, by the engine or by transformers, in this process."""
    from selfpriority.backends.cache import Cached
    from selfpriority.backends.hf import HfModel
    from selfpriority.backends.vllm import VllmModel
    from selfpriority.language_model import Choose, Completion, ask
    from selfpriority.recipe import HfBackend, VllmBackend
    from selfpriority.records import Message

    if way.startswith(_PLAIN):
        return _plain(case, int(way.removeprefix(_PLAIN)))
    drawing = _drawing(case)
    model: Any = (
        HfModel(case.model, HfBackend(dtype=case.dtype))
        if way == "hf"
        else VllmModel(
            case.model,
            VllmBackend(kind="vllm", python=case.python, dtype=case.dtype, memory_share=_MEMORY, engine=_engine(case)),
        )
    )
    ask(model, [replace(drawing[0], seed=1)])  # it is open, and warm
    busy_before = getattr(model, "busy_seconds", 0.0)
    with tempfile.TemporaryDirectory() as folder:
        cached = Cached(model, Path(folder) / "answers.sqlite")
        started, cpu = time.perf_counter(), cpu_seconds()
        found = ask(cached, drawing)
        seconds = time.perf_counter() - started
        cpu = cpu_seconds() - cpu
        busy = getattr(model, "busy_seconds", 0.0) - busy_before
        texts = [text for answer in found if isinstance(answer, Completion) for text in answer.texts]
        rated = [
            Choose(
                tuple((Message("user", f"Rate from 1 to 9, {what}? {text.text}"),) for what in ("harmless", "helpful")),
                tuple("123456789"),
            )
            for text in texts
        ]
        started = time.perf_counter()
        ask(cached, rated)
        rating = time.perf_counter() - started
        cached.close()
    tokens = sum(text.n_tokens for text in texts)
    return Timed(way, seconds, tokens, cpu, peak_mb(), rating, busy, len(drawing) + len(rated))


def _plain(case: Case, at_once: int) -> Timed:
    """`transformers.generate`, so many answers at a time, each prompt once and its n answers together."""
    import torch
    from transformers import AutoModelForCausalLM

    from selfpriority.backends.written import begun
    from selfpriority.models.served import load_served

    served = load_served(case.model)
    prompts = sorted((begun(served.chat, request) for request in _drawing(case)), key=len, reverse=True)
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=getattr(torch, case.dtype)).eval()
    ends = sorted(served.end_ids)
    pad = ends[0]
    drawn = {"do_sample": True, "temperature": 0.9, "top_p": case.top_p, "top_k": 0, "num_return_sequences": case.n}

    def tokens_of(batch: Sequence[list[int]]) -> int:
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=case.new_tokens,
            eos_token_id=ends,
            pad_token_id=pad,
            **drawn,
        )[:, width:]
        ended = torch.isin(out, torch.tensor(ends))
        return sum(int(row.int().argmax()) + 1 if row.any() else len(row) for row in ended)

    with torch.inference_mode():
        tokens_of(prompts[-1:])  # it is warm
        started, cpu = time.perf_counter(), cpu_seconds()
        step = max(1, at_once // case.n)
        tokens = sum(tokens_of(prompts[first : first + step]) for first in range(0, len(prompts), step))
        seconds = time.perf_counter() - started
    return Timed(f"{_PLAIN}{at_once}", seconds, tokens, cpu_seconds() - cpu, peak_mb(), requests=len(prompts))


def children() -> list[int]:
    """Processes that this one started, and those that they did."""
    found, queue = [], [os.getpid()]
    while queue:
        for task in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            own = list(map(int, task.read_text().split()))
            found += own
            queue += own
    return found


def cpu_of(pid: int) -> float:
    """Seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Of this process and of those that it started, so far."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + sum(map(cpu_of, children()))


def peak_mb() -> float:
    """Of the largest of this process and those that it started, so far."""
    sizes = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
    for pid in children():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return max(sizes)


if __name__ == "__main__":
    raise SystemExit(main())
