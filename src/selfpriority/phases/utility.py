"""`spa utility`: what every system of a run still knows: lm-evaluation-harness as it is, MT-Bench, a cheap alarm.

Questions come from local files or from the harness's own tasks. Writes `evaluation/utility.json`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from selfpriority.evaluation.utility import accuracies
from selfpriority.models.files import resolve
from selfpriority.phases.align import align_step, check_trained
from selfpriority.phases.evaluate import perplexity_step, systems
from selfpriority.phases.harness import SHOTS, ask_harness, mmlu_tasks
from selfpriority.phases.mt_bench import MtBench, ask_mt_bench, check_mt_bench
from selfpriority.phases.perplexity import alarm
from selfpriority.phases.questions import read_mmlu, spread
from selfpriority.phases.resources import Resources, model_key
from selfpriority.recipe import HfBackend
from selfpriority.run import Run, read_json, write_json


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


def utility(run: Run, resources: Resources, questions: Questions) -> dict[str, Any]:
    """Asks every system and compares; {systems, trained, tasks, n_fewshot, mt_bench, perplexity} as in `utility.json`.

    What an earlier command found about these very systems and this one does not ask stays. The file is written after
    each part, so that what goes wrong in a later one costs that one alone.

    Raises:
        WorkFailed: a round's policy is missing, or was trained under another recipe.
        InputError: a file that cannot be read, a task that does not exist or has no share of right answers, a judge
            that there is not, or the harness is not installed.
    """
    check_trained(run, resources)
    if questions.mt_bench:
        check_mt_bench(resources, questions.mt_bench)  # before hours of other questions
    settings = resources.recipe.backend if isinstance(resources.recipe.backend, HfBackend) else HfBackend()
    named = systems(run, resources.recipe)
    models = {name: resolve(model) for name, model in named.items()}
    path = run.evaluation / "utility.json"
    told = _found_before(path, {name: model_key(model) for name, model in models.items()})
    told["trained"] = align_step(run, resources, resources.recipe.rounds).key  # by which the report knows these systems
    if questions.mmlu or questions.tasks:
        told["tasks"] |= accuracies(_right(models, settings, resources, questions))
    if questions.mmlu:
        told["n_fewshot"] = SHOTS if questions.dev else 0
    write_json(path, told)
    if questions.mt_bench:
        told["mt_bench"] = ask_mt_bench(run, resources, questions.mt_bench, named)
        write_json(path, told)
    step = perplexity_step(run, resources.recipe)
    if step is not None and run.is_done(step):  # the evaluation has measured these very systems
        told["perplexity"] = read_json(step.outputs[0])
    else:
        resources.reporter.note("utility: perplexity on the held-out text")
        told["perplexity"] = alarm(models, settings)
    write_json(path, told)
    return told


def _found_before(path: Path, fingerprints: dict[str, str]) -> dict[str, Any]:
    """What the file says of systems with these fingerprints, or a beginning."""
    before = read_json(path) if path.is_file() else {}
    if before.get("systems") == fingerprints:
        return {**before}
    return {"systems": fingerprints, "tasks": {}, "n_fewshot": 0}


def _right(
    models: dict[str, str], settings: HfBackend, resources: Resources, questions: Questions
) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> system -> question -> 1.0 or 0.0."""
    right: dict[str, dict[str, dict[str, float]]] = {}
    rows = spread(read_mmlu(questions.mmlu), questions.limit) if questions.mmlu else []
    shots = read_mmlu(questions.dev) if questions.dev else []
    with tempfile.TemporaryDirectory() as folder:
        asked: list[str | dict[str, Any]] = [*mmlu_tasks(rows, shots, Path(folder)), *questions.tasks]
        for name, model in models.items():
            resources.reporter.note(f"utility: asking {name} {len(rows) or ''} questions".replace("  ", " "))
            tell = partial(resources.reporter.progress, f"questions to {name}")
            for task, answers in ask_harness(model, settings, asked, questions.limit, tell).items():
                right.setdefault(task, {})[name] = answers
    return right
