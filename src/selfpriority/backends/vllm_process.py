"""The process that vLLM runs in: token ids in and out as JSON lines, under whichever interpreter has vLLM.

A program of its own. Of this package, which need not be installed there, it reads `vllm_nucleus.py` by its path and
nothing else; it imports only the standard library and vLLM. The first line holds the arguments of `vllm.LLM`, each
further one a question of `engine.py`. It ends when stdin closes, so that it never outlives who started it.
"""

from __future__ import annotations

import os
import sys

# a script's folder comes first on the path, and this one holds an `http.py` and an `openai.py` of other meanings
sys.path[:] = [place for place in sys.path if place != os.path.dirname(os.path.abspath(__file__))]

import importlib.util  # noqa: E402
import json  # noqa: E402
import queue  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

ADMITTED_AT_ONCE = 256
"""Questions taken in between two steps of the engine, which waits for them meanwhile."""

Json = dict[str, Any]


def find_nucleus() -> Any:
    """The module that finds nuclei faster than this vLLM does; None where vLLM is fast, or has no place for it."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vllm_nucleus.py")
    spec = importlib.util.spec_from_file_location("vllm_nucleus", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return None
        spec.loader.exec_module(module)
        module.processor()
    except ImportError:
        return None
    return module


def serve(engine: Any, questions: queue.SimpleQueue[Json], tell: Callable[[Json], None], nucleus: str = "") -> None:
    """Answers questions as they come, without end; each reply says how long the engine has been at work.

    `nucleus`: the argument that the engine's own processor reads `top_p` from; empty: it has none.
    """
    waiting: dict[str, Json] = {}
    adapters: dict[str, int] = {}
    busy = 0.0
    while True:
        for question in _come(questions, wait=not waiting):
            key = str(question["id"])
            try:
                _admit(engine, key, question, nucleus, adapters)
            except Exception as error:  # of this question alone: what breaks the engine breaks its step
                tell({"id": question["id"], "refused": str(error), "busy": busy})
            else:
                waiting[key] = question
        if not waiting:
            continue
        started = time.perf_counter()
        outputs = engine.step()
        busy += time.perf_counter() - started
        for output in outputs:
            if output.finished:
                tell({**_reply(waiting.pop(output.request_id), output), "busy": busy})


def _come(questions: queue.SimpleQueue[Json], wait: bool) -> Iterator[Json]:
    """Those that are there, at most so many; the first is waited for where there is nothing else to do."""
    for n in range(ADMITTED_AT_ONCE):
        try:
            yield questions.get(block=wait and not n)
        except queue.Empty:
            return


def _admit(engine: Any, key: str, question: Json, nucleus: str, adapters: dict[str, int]) -> None:
    """Hands a question on. vLLM keeps an adapter by its number, so `adapters` holds one for each content so far."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import RequestOutputKind

    read = question["read"]
    settings = SamplingParams(
        n=question["n"],
        temperature=question["temperature"],
        top_p=1.0 if nucleus else question["top_p"],
        extra_args={nucleus: question["top_p"]} if nucleus and question["top_p"] < 1 else None,
        max_tokens=question["max_tokens"],
        stop_token_ids=question["end_ids"],
        logprob_token_ids=read or None,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    lora = None
    if adapter := question["adapter"]:
        number = adapters.setdefault(adapter["content"], len(adapters) + 1)
        lora = LoRARequest(f"policy-{number}", number, adapter["folder"])
    engine.add_request(key, {"prompt_token_ids": question["ids"]}, settings, lora_request=lora)


def _reply(question: Json, output: Any) -> Json:
    if not question["read"]:
        return {"id": question["id"], "drawn": [list(one.token_ids) for one in output.outputs]}
    found = output.outputs[0].logprobs[0]
    return {"id": question["id"], "read": [found[token].logprob for token in question["read"]]}


def main() -> None:
    """Opens the engine that the first line asks for, says that it is ready, and serves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who asks decides what ends
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever vLLM prints is no reply
    arguments = json.loads(sys.stdin.readline())
    questions: queue.SimpleQueue[Json] = queue.SimpleQueue()

    def hear() -> None:
        for line in sys.stdin:
            questions.put(json.loads(line))
        os._exit(0)

    def tell(reply: Json) -> None:
        replies.write(f"{json.dumps(reply)}\n")
        replies.flush()

    threading.Thread(target=hear, daemon=True).start()
    import vllm

    found = find_nucleus()
    if found is not None:
        arguments["logits_processors"] = [*arguments.get("logits_processors", ()), found.processor()]
    engine = vllm.LLM(**arguments).llm_engine
    tell({"ready": vllm.__version__, "context": engine.model_config.max_model_len})
    serve(engine, questions, tell, found.NAME if found is not None else "")


if __name__ == "__main__":  # a worker of several GPUs imports this file anew
    main()
