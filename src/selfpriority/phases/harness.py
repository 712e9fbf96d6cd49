"""lm-evaluation-harness as it is, asked about one model: its tasks, MMLU from local files, answers by question.

What it answers is kept beside the converted models, batch by batch: a stopped command goes on where it was.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from selfpriority.backends.progress import Progress
from selfpriority.errors import InputError
from selfpriority.models.cache import cache_folder
from selfpriority.models.files import adapter_base, resolve
from selfpriority.models.trust import code_is_trusted
from selfpriority.phases.models import model_key
from selfpriority.recipe import HfBackend
from selfpriority.run import key_of
from selfpriority.wording import FOLDER

Right = dict[str, dict[str, float]]
"""Task -> question -> 1.0 if answered rightly, else 0.0."""
SHOTS = 5
"""Examples before a question of MMLU, where there are any."""


def mmlu_tasks(rows: Sequence[dict[str, Any]], shots: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """One task of the harness for each subject, its data written into `folder`; `shots` may be empty.

    Raises:
        InputError: a subject with fewer than five `shots` where there are any.
    """
    template = yaml.safe_load((FOLDER / "tasks" / "mmlu.yaml").read_text(encoding="utf-8"))
    tasks = []
    for number, subject in enumerate(dict.fromkeys(row["subject"] for row in rows)):  # a subject may be no file name
        files = {"test": _written(folder / f"{number}-test.jsonl", (r for r in rows if r["subject"] == subject))}
        task = {**template, "task": f"mmlu_{subject}", "dataset_kwargs": {"data_files": files}}
        task["description"] = (
            f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        )
        if shots:
            examples = [row for row in shots if row["subject"] == subject]
            if len(examples) < SHOTS:
                raise InputError(f"--dev: {len(examples)} examples of {subject!r}, {SHOTS} are needed of every subject")
            files["dev"] = _written(folder / f"{number}-dev.jsonl", examples)
            task |= {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}, "num_fewshot": SHOTS}
        tasks.append(task)
    return tasks


def ask_harness(
    model: str,
    settings: HfBackend,
    tasks: Sequence[str | dict[str, Any]],
    limit: int | None,
    tell: Callable[[Progress], None],
) -> Right:
    """The harness's answers; all subjects of MMLU, the tasks that are not named but given, count as one task.

    Args:
        model: a folder or hub id, as `weights.resolve` gives it.
        settings: device and arithmetic.
        tasks: of `mmlu_tasks`, or names of the harness's own.
        limit: questions of each task, its first; no subject of MMLU has more where the file was cut to it before.
        tell: how far it is, in requests (four to a question of MMLU).

    Raises:
        InputError: the harness is not installed, does not know a task, or a task has no share of right answers.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "utility: --mmlu and --task need lm-evaluation-harness, which is not installed; in the project's folder: "
            ".venv/bin/pip install -c constraints.txt -e '.[eval]'"
        )
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    arguments = model_arguments(model, settings)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    given = {task["task"] for task in tasks if isinstance(task, dict)}
    # it looks through its own ten thousand files of tasks, nine seconds, only for names
    names = None if len(given) < len(tasks) else TaskManager(include_defaults=False)
    with contextlib.redirect_stderr(Bars(tell)), contextlib.redirect_stdout(io.StringIO()):
        try:
            results = simple_evaluate(
                model="hf",
                model_args={name: value for name, value in arguments.items() if name != "device"},
                tasks=[*tasks],
                task_manager=names,
                limit=limit,
                batch_size=8,
                bootstrap_iters=0,
                log_samples=True,
                device=arguments["device"],
                use_cache=str(_answers_of(model, arguments)),
            )
        except (KeyError, ValueError) as error:
            raise InputError(f"utility: lm-evaluation-harness: {str(error).splitlines()[0]}") from error
    right: Right = {}
    for task, samples in results["samples"].items():
        measure, answers = by_question(task, samples)
        right.setdefault("mmlu" if task in given else measure, {}).update(answers)
    return right


class Bars(io.StringIO):
    """A stderr that reads the harness's progress bars and tells them on; whatever else it is sent is dropped."""

    _BAR = re.compile(r"Running .*\| (\d+)/(\d+) \[")

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        super().__init__()
        self._tell, self._start, self._stderr = tell, 0.0, sys.stderr

    def write(self, text: str) -> int:
        """One piece of what was printed."""
        if bar := self._BAR.search(text):
            now = time.monotonic()
            self._start = self._start or now  # of the first bar: models take their time to load
            with contextlib.redirect_stderr(self._stderr):  # who is told may well print it
                self._tell(Progress(int(bar[1]), int(bar[2]), 0, 0, now - self._start))
        return len(text)


def _answers_of(model: str, arguments: Mapping[str, str]) -> Path:
    """Where the harness keeps its answers, less the end it adds: by weights, arithmetic and its own version.

    Beside the converted models and not in the run: it reads them back with pickle, which runs what a file says, and
    runs are passed around.
    """
    weights = [model_key(model), *([model_key(arguments["pretrained"])] if "peft" in arguments else [])]
    key = key_of(weights, arguments["dtype"], arguments["device"], version("lm_eval"))
    return cache_folder() / "harness" / key[:24]


def model_arguments(model: str, settings: HfBackend) -> dict[str, str]:
    """How the harness is to open `model`: with the device and the arithmetic that our own answers come from.

    Its `auto` would mean others: a GPU that is not there, and whatever type each file of weights happens to have.
    """
    from selfpriority.models.arithmetic import settled

    here = settled(settings)
    base = adapter_base(Path(model)) if Path(model).is_dir() else None
    further = {"peft": model} if base else {}
    if code_is_trusted():
        further["trust_remote_code"] = "True"
    return {"pretrained": resolve(base) if base else model, "dtype": here.dtype, "device": here.device, **further}


def by_question(task: str, samples: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, float]]:
    """What is measured, and each question's value of it, from the harness's samples of one task.

    `acc` or else the task's own first metric, in the first of several readings of an answer.

    Raises:
        InputError: that metric says nothing of single questions, so systems cannot be compared by it.
    """
    metrics = list(samples[0]["metrics"]) if samples else []
    metric = "acc" if "acc" in metrics else next(iter(metrics), "")
    reading = samples[0].get("filter", "none") if samples else "none"
    values = {f"{task}/{row['doc_id']}": row[metric] for row in samples if row.get("filter", "none") == reading}
    if not values or not all(isinstance(value, Real) and 0 <= float(value) <= 1 for value in values.values()):
        has = f"its metrics: {', '.join(metrics)}" if metrics else "it asked nothing"
        raise InputError(f"utility: task {task} has no share of right answers to compare by question; {has}")
    measure = ", ".join([task, *([metric] if metric != "acc" else []), *([reading] if reading != "none" else [])])
    return measure, {question: float(value) for question, value in values.items()}


def _written(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
