"""vLLM alone: all questions of a file in one list. Runs under the engine's interpreter; see `collection.py`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from measured import cpu_seconds, peak_mb
from vllm import LLM, SamplingParams


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    llm = LLM(**told["arguments"])
    prompts = [{"prompt_token_ids": question["ids"]} for question in told["questions"]]
    settings = [
        SamplingParams(
            n=question["n"],
            temperature=question["temperature"],
            top_p=question["top_p"],
            max_tokens=question["max_tokens"],
            stop_token_ids=question["end_ids"],
            logprob_token_ids=question["read"] or None,
            detokenize=False,
        )
        for question in told["questions"]
    ]
    llm.generate(prompts[:1], settings[:1], use_tqdm=False)
    started, before = time.perf_counter(), cpu_seconds()
    outputs = llm.generate(prompts, settings, use_tqdm=False)
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - before
    drawn = [output for output, question in zip(outputs, told["questions"], strict=True) if not question["read"]]
    tokens = sum(len(one.token_ids) for output in drawn for one in output.outputs)
    found = {"seconds": seconds, "tokens": tokens, "cpu_seconds": cpu, "peak_mb": peak_mb(), "requests": len(prompts)}
    print(json.dumps(found))


if __name__ == "__main__":  # a worker imports this file anew
    main()
