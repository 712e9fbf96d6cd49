"""distilabel's pipeline of a round's steps against a server. Runs under its interpreter; see `collection.py`."""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import ChatGeneration, TextGeneration

TOLD: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
STARTED = Path(f"{sys.argv[1]}.started")  # steps are processes of their own
BATCH = 64


def filled(messages: list[dict[str, str]], prompt: str, answers: list[str]) -> list[dict[str, str]]:
    def whole(text: str) -> str:
        text = text.replace(TOLD["prompt"], prompt)
        for i, answer in enumerate(answers):
            text = text.replace(TOLD["answer"].format(i), answer)
        return text

    return [{"role": turn["role"], "content": whole(turn["content"])} for turn in messages]


@step(inputs=["instruction"], outputs=["instruction"])
def Begin(inputs: StepInput) -> Any:
    if not STARTED.exists():
        STARTED.write_text(repr(time.time()))
    yield inputs


@step(inputs=["instruction", "generation"], outputs=["instruction", "answer", "messages"])
def ToRate(inputs: StepInput) -> Any:
    rows = []
    for row in inputs:
        found = row["generation"]
        for answer in found if isinstance(found, list) else [found]:
            for asked in TOLD["rate"]:
                messages = filled(asked, row["instruction"], [answer or ""])
                rows.append({"instruction": row["instruction"], "answer": answer or "", "messages": messages})
    yield rows


@step(inputs=["instruction", "answer", "generation"], outputs=["instruction", "messages"], step_type="global")
def ToRefine(inputs: StepInput) -> Any:
    answers: dict[str, list[str]] = defaultdict(list)
    for row in inputs[:: len(TOLD["rate"])]:
        answers[row["instruction"]].append(row["answer"])
    yield [{"instruction": p, "messages": filled(TOLD["refine"], p, own)} for p, own in answers.items()]


@step(inputs=["generation"], outputs=["seconds", "ratings"], step_type="global")
def End(inputs: StepInput) -> Any:
    seconds = time.time() - float(STARTED.read_text())
    yield [{"seconds": seconds, "ratings": len(inputs)}]


def model(temperature: float, top_p: float, new_tokens: int) -> OpenAILLM:
    drawn = {"temperature": temperature, "top_p": top_p, "max_new_tokens": new_tokens}
    return OpenAILLM(model="m", base_url=TOLD["url"], api_key="none", timeout=3600, generation_kwargs=drawn)


def main() -> None:
    with Pipeline(name="collect", cache_dir=tempfile.mkdtemp()) as pipeline:
        rows = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in TOLD["prompts"]], batch_size=BATCH)
        draw = TextGeneration(
            name="draw",
            llm=model(TOLD["temperature"], TOLD["top_p"], TOLD["new_tokens"]),
            num_generations=TOLD["n"],
            group_generations=True,
            input_batch_size=BATCH,
        )
        rate, rate_refined = (
            ChatGeneration(name=name, llm=model(0.0, 1.0, 1), input_batch_size=BATCH)
            for name in ("rate", "rate_refined")
        )
        written = model(TOLD["refined_at"], TOLD["top_p"], TOLD["new_tokens"])
        refine = ChatGeneration(name="refine", llm=written, input_batch_size=BATCH)
        begin, to_refine, end = Begin(name="begin"), ToRefine(name="to_refine"), End(name="end")
        to_rate, to_rate_refined = ToRate(name="to_rate"), ToRate(name="to_rate_refined")
        rows >> begin >> draw >> to_rate >> rate >> to_refine >> refine >> to_rate_refined >> rate_refined >> end
    found = pipeline.run(use_cache=False)
    (row,) = found["default"]["train"]
    n_first = len(TOLD["prompts"]) * TOLD["n"] * len(TOLD["rate"])
    print(json.dumps({"seconds": row["seconds"], "ratings": row["ratings"] + n_first}))


if __name__ == "__main__":
    main()
