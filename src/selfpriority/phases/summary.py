"""What an evaluation ends with: the alarm of perplexity, and the summary of what all judges say of all systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import (
    ComparisonRow,
    JudgeName,
    PromptCount,
)
from selfpriority.evaluation.summary import Further, contests, summarise
from selfpriority.evaluation.summary_file import read_perplexity, write_perplexity, write_summary
from selfpriority.evaluation.table import table
from selfpriority.phases.evaluation_step import EvaluationStep
from selfpriority.phases.freed_memory import return_freed_memory
from selfpriority.phases.judge_names import comparing, judge_entry
from selfpriority.phases.models import arithmetic, model_key, reading
from selfpriority.phases.perplexity import measured_perplexity, prose
from selfpriority.phases.resources import Resources
from selfpriority.phases.systems import (
    PromptSet,
    plain_models,
    systems,
)
from selfpriority.recipe import HfBackend, JudgeSection, Recipe
from selfpriority.records import Drop, Sifted
from selfpriority.run import Run, key_of
from selfpriority.run_records import Spent, Step
from selfpriority.storage import read_rows, write_text

SUMMARY_FIELDS = {"pairwise", "tie", "lambdas", "safe_kinds"}


def judges_of(recipe: Recipe) -> dict[str, JudgeSection]:
    """Name -> section of every judge that rates; the main one has no name."""
    return {"": recipe.evaluate.judge, **recipe.evaluate.more_judges}


def perplexity_step(run: Run, recipe: Recipe) -> Step | None:
    """The alarm's step; None where a stand-in for tests answers, which nothing can surprise."""
    backend = reading(recipe.backend)
    if not isinstance(backend, HfBackend):
        return None
    models = {name: model_key(model) for name, model in plain_models(run, recipe).items()}
    key = key_of("perplexity", models, prose(), arithmetic(backend))
    return Step("evaluation/perplexity", key, (EvaluationFiles(run.evaluation).perplexity,))


def perplexity_of_all(run: Run, resources: Resources, _: Spent) -> None:
    """Measures it of every system that is a model of its own."""
    settings = resources.recipe.backend
    resources.models.clear()  # their memory: each system is loaded once more
    return_freed_memory()
    found = measured_perplexity(
        plain_models(run, resources.recipe),
        settings if isinstance(settings, HfBackend) else HfBackend(),
        partial(resources.reporter.progress, "perplexity"),
    )
    write_perplexity(EvaluationFiles(run.evaluation).perplexity, found)


def summary_step(run: Run, resources: Resources, prompt_set: PromptSet, before: Sequence[Step]) -> EvaluationStep:
    """What all judges say of all systems on one prompt set; `before` are the steps whose files it reads."""
    settings = resources.recipe.evaluate
    keys = [step.key for step in before if "/answers-" not in step.name]
    # where names are the user's, theirs too: figures stand under them, and no other key holds one
    names = [step.name for step in before] if settings.more_judges or settings.more_systems else None
    fields = settings.model_dump(include=SUMMARY_FIELDS)
    if settings.reference is not None:
        fields["reference"] = settings.reference
    key = key_of("summary-4", keys, fields, prompt_set.prompts.reasons, *([names] if names else []))
    files = prompt_set.files
    step = Step(prompt_set.step("summary"), key, (files.summary, files.table))
    return EvaluationStep(step, partial(_summary, run, resources, prompt_set), tuple(each.name for each in before))


def _summary(run: Run, resources: Resources, prompt_set: PromptSet, _: Spent) -> None:
    recipe, objectives = resources.recipe, resources.constitution.names
    files, evaluated = prompt_set.files, systems(run, recipe)
    names = [system.name for system in evaluated]
    verdicts = {judge: {name: files.judged(name, objectives, judge) for name in names} for judge in judges_of(recipe)}
    comparisons = None
    if comparing(recipe) is not None:
        comparisons = {
            contest: [
                tuple(row.verdicts[name] for name in objectives)
                for row in read_rows(files.comparisons(contest), ComparisonRow)
            ]
            for contest in contests(names, recipe.evaluate.reference)
        }
    others = {judge: judged for judge, judged in verdicts.items() if judge}
    summary = replace(
        summarise(verdicts[""], objectives, recipe.evaluate, Further(comparisons, others)),
        judge=JudgeName(**judge_entry(recipe.evaluate.judge, resources)),
        prompts=PromptCount(len(prompt_set.prompts.kept), prompt_set.prompts.reasons),
        drops={name: Sifted((), tuple(read_rows(files.drops(name), Drop))).reasons for name in names},
        perplexity=read_perplexity(files.perplexity) if files.perplexity.is_file() else None,
        models={system.name: model_key(system.model) for system in evaluated},
    )
    write_summary(files.summary, summary)
    write_text(files.table, [table(summary)])
