"""`spa utility`: what every system of a run still knows: lm-evaluation-harness as it is, MT-Bench, a cheap alarm.

Questions come from local files or from the harness's own tasks. Writes `evaluation/utility.json`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from selfpriority.backends.weights import adapter_base, resolve
from selfpriority.errors import InputError
from selfpriority.evaluation.utility import accuracies, perplexities
from selfpriority.phases.align import align_step, check_trained
from selfpriority.phases.evaluate import systems
from selfpriority.phases.mt_bench import MtBench, ask_mt_bench, check_mt_bench
from selfpriority.phases.opening import Opened, model_key
from selfpriority.phases.questions import read_mmlu, spread
from selfpriority.recipe import HfBackend
from selfpriority.run import Run, read_json, write_json
from selfpriority.wording import FOLDER

Right = dict[str, dict[str, float]]
"""Task -> question -> 1.0 if answered rightly, else 0.0."""


@dataclass(frozen=True)
class Questions:
    """What is asked."""

    mmlu: Path | None = None
    """JSONL with subject, question, four choices and the answer's letter."""
    dev: Path | None = None
    """The same form: five examples a subject are shown first, as is usual for MMLU; none: no examples."""
    limit: int | None = None
    """At most so many questions: of the file, spread evenly over it, and of every task, its first."""
    tasks: tuple[str, ...] = ()
    """Names of the harness's own tasks."""
    mt_bench: MtBench | None = None
    """Questions of two turns, judged; none: left out."""


def utility(run: Run, opened: Opened, questions: Questions) -> dict[str, Any]:
    """Asks every system and compares; {systems, trained, tasks, n_fewshot, mt_bench, perplexity} as in `utility.json`.

    What an earlier command found about these very systems and this one does not ask stays. The file is written after
    each part, so that what goes wrong in a later one costs that one alone.

    Raises:
        WorkFailed: a round's policy is missing, or was trained under another recipe.
        InputError: a file that cannot be read, a task that does not exist or has no share of right answers, a judge
            that there is not, or the harness is not installed.
    """
    check_trained(run, opened)
    if questions.mt_bench:
        check_mt_bench(opened, questions.mt_bench)  # before hours of other questions
    settings = opened.recipe.backend if isinstance(opened.recipe.backend, HfBackend) else HfBackend()
    named = systems(run, opened.recipe)
    models = {name: resolve(model) for name, model in named.items()}
    path = run.evaluation / "utility.json"
    told = _found_before(path, {name: model_key(model) for name, model in models.items()})
    told["trained"] = align_step(run, opened, opened.recipe.rounds).key  # by which the report knows these systems
    if questions.mmlu or questions.tasks:
        told["tasks"] |= accuracies(_right(models, settings, opened, questions))
    if questions.mmlu:
        told["n_fewshot"] = 5 if questions.dev else 0
    write_json(path, told)
    if questions.mt_bench:
        told["mt_bench"] = ask_mt_bench(run, opened, questions.mt_bench, named)
        write_json(path, told)
    opened.reporter.note("utility: perplexity on the held-out text")
    texts = (FOLDER / "perplexity.txt").read_text(encoding="utf-8").splitlines()
    told["perplexity"] = perplexities({name: _nats(model, texts, settings) for name, model in models.items()})
    write_json(path, told)
    return told


def _found_before(path: Path, fingerprints: dict[str, str]) -> dict[str, Any]:
    """What the file says of systems with these fingerprints, or a beginning."""
    before = read_json(path) if path.is_file() else {}
    if before.get("systems") == fingerprints:
        return {**before}
    return {"systems": fingerprints, "tasks": {}, "n_fewshot": 0}


def _right(
    models: dict[str, str], settings: HfBackend, opened: Opened, questions: Questions
) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> system -> question -> 1.0 or 0.0."""
    right: dict[str, dict[str, dict[str, float]]] = {}
    rows = spread(read_mmlu(questions.mmlu), questions.limit) if questions.mmlu else []
    shots = read_mmlu(questions.dev) if questions.dev else []
    with tempfile.TemporaryDirectory() as folder:
        tasks = mmlu_tasks(rows, shots, Path(folder))
        for name, model in models.items():
            opened.reporter.note(f"utility: asking {name} {len(rows) or ''} questions".replace("  ", " "))
            for task, answers in _asked(model, settings, tasks, questions).items():
                right.setdefault(task, {})[name] = answers
    return right


def mmlu_tasks(rows: Sequence[dict[str, Any]], shots: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """One task of the harness for each subject, its data written into `folder`."""
    template = yaml.safe_load((FOLDER / "tasks" / "mmlu.yaml").read_text(encoding="utf-8"))
    tasks = []
    for number, subject in enumerate(dict.fromkeys(row["subject"] for row in rows)):  # a subject may be no file name
        files = {"test": _written(folder / f"{number}-test.jsonl", (r for r in rows if r["subject"] == subject))}
        task = {**template, "task": f"mmlu_{subject}", "dataset_kwargs": {"data_files": files}}
        task["description"] = (
            f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        )
        if shots:
            files["dev"] = _written(folder / f"{number}-dev.jsonl", (r for r in shots if r["subject"] == subject))
            task |= {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}, "num_fewshot": 5}
        tasks.append(task)
    return tasks


def _asked(model: str, settings: HfBackend, tasks: Sequence[dict[str, Any]], questions: Questions) -> Right:
    """The harness's answers; all subjects of MMLU count as one task."""
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "utility: --mmlu and --task need lm-evaluation-harness, which is not installed; in the project's folder: "
            ".venv/bin/pip install -c constraints.txt -e '.[eval]'"
        )
    from lm_eval import simple_evaluate

    arguments = model_arguments(model, settings)
    quiet = logging.getLogger("lm_eval")
    quiet.setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        try:
            results = simple_evaluate(
                model="hf",
                model_args={name: value for name, value in arguments.items() if name != "device"},
                tasks=[*tasks, *questions.tasks],
                limit=questions.limit,  # no subject of MMLU has more: the file was cut to it before
                batch_size=8,
                bootstrap_iters=0,
                log_samples=True,
                device=arguments["device"],
            )
        except (KeyError, ValueError) as error:
            raise InputError(f"utility: lm-evaluation-harness: {str(error).splitlines()[0]}") from error
    right: Right = {}
    for task, samples in results["samples"].items():
        measure, answers = by_question(task, samples)
        name = "mmlu" if task in {row["task"] for row in tasks} else measure
        right.setdefault(name, {}).update(answers)
    return right


def model_arguments(model: str, settings: HfBackend) -> dict[str, str]:
    """How the harness is to open `model`: with the device and the arithmetic that our own answers come from.

    Its `auto` would mean others: a GPU that is not there, and whatever type each file of weights happens to have.
    """
    from selfpriority.backends.loading import settled

    here = settled(settings)
    base = adapter_base(Path(model)) if Path(model).is_dir() else None
    adapter = {"peft": model} if base else {}
    return {"pretrained": resolve(base) if base else model, "dtype": here.dtype, "device": here.device, **adapter}


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


def _nats(model: str, texts: Sequence[str], settings: HfBackend) -> list[tuple[float, int]]:
    from selfpriority.backends.perplexity import likelihoods

    return [(found.nats, found.n_tokens) for found in likelihoods(model, texts, settings)]


def _written(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
