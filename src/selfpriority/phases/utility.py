"""`spa utility`: what every system of a run still knows: lm-evaluation-harness as it is, MT-Bench, a cheap alarm.

Questions come from local files or from the harness's own tasks. Writes `evaluation/utility.json`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from selfpriority.evaluation.accuracy import accuracies, task_lines
from selfpriority.evaluation.mt_bench import mt_bench_lines
from selfpriority.evaluation.perplexity import perplexity_lines
from selfpriority.evaluation.summary_file import read_perplexity
from selfpriority.evaluation.utility_records import Utility, read_utility, write_utility
from selfpriority.models.files import resolve
from selfpriority.phases.harness import SHOTS, ask_harness, mmlu_tasks
from selfpriority.phases.merges import check_all_made
from selfpriority.phases.models import model_key
from selfpriority.phases.mt_bench import MtBench, ask_mt_bench, check_mt_bench
from selfpriority.phases.perplexity import measured_perplexity
from selfpriority.phases.questions import read_mmlu, spread
from selfpriority.phases.resources import Resources
from selfpriority.phases.summary import perplexity_step
from selfpriority.phases.systems import plain_models
from selfpriority.recipe import HfBackend, merged_systems, trained_systems
from selfpriority.run import Run, trained_key


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


def utility(run: Run, resources: Resources, questions: Questions) -> Utility:
    """Asks every system and compares.

    What an earlier command found about these very systems and this one does not ask stays. The file is written after
    each part, so that what goes wrong in a later one costs that one alone.

    Raises:
        WorkFailed: a round's policy is missing, or was trained under another recipe.
        InputError: a file that cannot be read, a task that does not exist or has no share of right answers, a judge
            that there is not, or the harness is not installed.
    """
    check_all_made(run, resources)
    if questions.mt_bench:
        check_mt_bench(resources, questions.mt_bench)  # before hours of other questions
    settings = resources.recipe.backend if isinstance(resources.recipe.backend, HfBackend) else HfBackend()
    named = plain_models(run, resources.recipe)
    models = {name: resolve(model) for name, model in named.items()}
    path = run.evaluation / "utility.json"
    recipe = resources.recipe
    trained = trained_key(run, recipe.rounds, trained_systems(recipe), merged_systems(recipe)) or ""
    found = _found_before(path, {name: model_key(model) for name, model in models.items()})
    found = replace(found, trained=trained)
    if questions.mmlu or questions.tasks:
        found = replace(found, tasks=found.tasks | accuracies(_right(models, settings, resources, questions)))
    if questions.mmlu:
        found = replace(found, n_fewshot=SHOTS if questions.dev else 0)
    write_utility(path, found)
    if questions.mt_bench:
        found = replace(found, mt_bench=ask_mt_bench(run, resources, questions.mt_bench, named))
        write_utility(path, found)
    step = perplexity_step(run, resources.recipe)
    if step is not None and run.is_done(step):  # the evaluation has measured these very systems
        found = replace(found, perplexity=read_perplexity(step.outputs[0]))
    else:
        resources.reporter.note("utility: perplexity on the held-out text")
        found = replace(found, perplexity=measured_perplexity(models, settings))
    write_utility(path, found)
    return found


def utility_text(found: Utility) -> str:
    """What was found as lines for a terminal."""
    lines = [line for name, task in found.tasks.items() for line in task_lines(name, task)]
    lines += mt_bench_lines(found.mt_bench) if found.mt_bench else []
    return "\n".join([*lines, *(perplexity_lines(found.perplexity) if found.perplexity else [])])


def _found_before(path: Path, fingerprints: dict[str, str]) -> Utility:
    """What the file says of systems with these fingerprints, or a beginning."""
    before = read_utility(path) if path.is_file() else None
    return before if before is not None and before.systems == fingerprints else Utility(fingerprints)


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
