"""The evaluation: every system answers the held-out prompts, the outside judge rates, the summary compares.

A step is told once, in `evaluation_steps`: its name and key, the files it writes and what it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from selfpriority.errors import InputError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import (
    AnswerRow,
    ComparisonRow,
    Contest,
    System,
    VerdictRow,
)
from selfpriority.evaluation.summary import contests
from selfpriority.formats import unrated
from selfpriority.judges.comparer import Duel
from selfpriority.phases.answers import answers_key, answers_of
from selfpriority.phases.evaluation_step import EvaluationStep, asks_the_same, system_by_system
from selfpriority.phases.judge_names import comparing, judge_entry, judge_key
from selfpriority.phases.merges import check_all_made
from selfpriority.phases.models import model_key
from selfpriority.phases.resources import Resources
from selfpriority.phases.round_inputs import with_places
from selfpriority.phases.summary import judges_of, perplexity_of_all, perplexity_step, summary_step
from selfpriority.phases.systems import (
    PromptSet,
    check_systems,
    meant_model,
    prompt_sets,
    systems,
)
from selfpriority.prompts import row_places
from selfpriority.rating import Item
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Drop, Unrated
from selfpriority.refusals import is_refusal
from selfpriority.run import Run, key_of
from selfpriority.run_records import Spent, Step
from selfpriority.storage import read_rows, write_rows
from selfpriority.wording import text_hash


def check_evaluation(resources: Resources) -> None:
    """Finds the held-out prompts, the systems and every judge by name, and opens none.

    Raises:
        InputError: no held-out prompt, a judge or a reference that there is not, or a comparing judge that cannot
            compare.
    """
    recipe = resources.recipe
    for each in prompt_sets(resources.run, recipe):
        for note in each.prompts.notes(each.place):
            resources.reporter.note(note)
    check_systems(resources.run, recipe)
    for other in recipe.evaluate.more_systems.values():
        model_key(meant_model(other, recipe))
    sections = {"evaluate": recipe.evaluate.judge}
    sections |= {f"evaluate.more_judges.{name}": other for name, other in recipe.evaluate.more_judges.items()}
    if (comparer := comparing(recipe)) is not None:
        sections |= {"evaluate.comparer": comparer}
    for place, section in sections.items():
        try:
            judge_entry(section, resources)
        except InputError as error:  # it names the model, and not which of the judges it is
            raise InputError(*(f"{place}: {line.removeprefix('score.')}" for line in error.lines)) from error


def evaluate_steps(run: Run, resources: Resources) -> list[Step]:
    """The entries of all steps."""
    return [each.step for each in evaluation_steps(run, resources)]


def evaluation_steps(run: Run, resources: Resources) -> list[EvaluationStep]:
    """On every prompt set answers, verdicts and comparisons, then perplexity, then the summaries."""
    sets = prompt_sets(run, resources.recipe)
    if not sets:
        return []
    by_set = [_Set(run, resources, prompt_set).steps() for prompt_set in sets]
    perplexity = perplexity_step(run, resources.recipe)
    shared = [EvaluationStep(perplexity, partial(perplexity_of_all, run, resources))] if perplexity else []
    steps = system_by_system([step for of_set in by_set for step in of_set]) + shared
    for number, (prompt_set, of_set) in enumerate(zip(sets, by_set, strict=True)):
        before = of_set if number else [*of_set, *shared]
        steps.append(summary_step(run, resources, prompt_set, [each.step for each in before]))
    return steps


def unfinished_systems(run: Run, resources: Resources) -> list[System]:
    """Those whose answers, or verdicts on them, are not all there."""
    found = [each.system for each in evaluation_steps(run, resources) if each.system and not run.is_done(each.step)]
    return [system for place, system in enumerate(found) if system not in found[:place]]


def evaluate(run: Run, resources: Resources, only: Sequence[str] | None = None) -> None:
    """Does the evaluation steps that are not done; with `only` the answers of these systems and the verdicts on them.

    Raises:
        WorkFailed: a round's policy is missing, or was trained under another recipe.
    """
    sets = prompt_sets(run, resources.recipe)
    check_all_made(run, resources)
    for prompt_set in sets if only is None else []:
        for reason, n in prompt_set.prompts.reasons.items():
            resources.reporter.note(f"{prompt_set.place}: {n} dropped: {reason}")
    every = evaluation_steps(run, resources)
    steps = every if only is None else [each for each in every if each.system and each.system.name in only]
    if (
        only is None
        and isinstance(resources.recipe.backend, OpenaiBackend)
        and not all(run.is_done(each.step) for each in steps)
    ):
        resources.reporter.note("evaluation: all systems answer on this machine, for no server has the trained policy")
    asked: list[System | None] = []
    for place, each in enumerate(steps):
        if run.is_done(each.step):
            continue
        if why := run.why_again(each.step):
            resources.reporter.note(f"{each.step.name}: {why}, so it is done again")
        before = run.manifest.steps.get(each.step.name)
        others = [other for other in steps[place + 1 :] if asks_the_same(each, other) and not run.is_done(other.step)]
        with run.recording(each.step) as spent:
            is_ahead = each.system not in asked and _ask_at_once([each, *others], resources, spent)
            each.work(Spent() if is_ahead else spent)  # what is in the cache already is counted once
        if each.asks:
            asked.append(each.system)
            if not others:
                _close(each.system, resources)
        if run.is_made_otherwise(each.step, before):
            run.undo([other.step for other in every if each.step.name in other.reads])


def _ask_at_once(steps: Sequence[EvaluationStep], resources: Resources, spent: Spent) -> bool:
    """Asks a system what it has to answer in several steps; each step then finds its own answers in the cache.

    The time of a token hardly depends on how many are drawn at once, so small sets one by one would take their sum.
    """
    system = steps[0].system
    if system is None or len(steps) < 2 or resources.stand_ins is not None:  # who counts requests caches none
        return False
    prompts = [prompt for each in steps for prompt in each.asks]
    answers_of(system, prompts, resources, f"answers of {system.name} on {len(steps)} sets", spent)
    return True


def _close(system: System | None, resources: Resources) -> None:
    """Of many systems one at a time fits any memory; the recipe's model may judge as well."""
    if system and system.model != resources.recipe.model:
        resources.close(system.model)


@dataclass(frozen=True)
class _Set:
    """The steps on one prompt set."""

    run: Run
    resources: Resources
    prompt_set: PromptSet

    @property
    def files(self) -> EvaluationFiles:
        return self.prompt_set.files

    def steps(self) -> list[EvaluationStep]:
        """Answers and verdicts of every system, then what a judge that compares says of the contests."""
        steps: list[EvaluationStep] = []
        keys: dict[str, str] = {}
        for system in systems(self.run, self.resources.recipe):
            keys[system.name] = answers_key(system, self.prompt_set.prompts.kept, self.resources)
            outputs = (self.files.answers(system.name), self.files.drops(system.name))
            step = Step(self._answers_name(system.name), keys[system.name], outputs)
            asks = self.prompt_set.prompts.kept
            steps.append(EvaluationStep(step, partial(self._answer, system), system=system, asks=asks))
            steps += [
                self._verdicts_step(system, judge, keys[system.name]) for judge in judges_of(self.resources.recipe)
            ]
        return [*steps, *self._comparisons_steps(keys)]

    def _answers_name(self, system: str) -> str:
        return self.prompt_set.step(f"answers-{system}")

    def _answer(self, system: System, spent: Spent) -> None:
        prompts = self.prompt_set.prompts.kept
        what = f"answers of {system.name}{self._on}"
        answered = answers_of(system, prompts, self.resources, what, spent)
        by_id = {prompt.id: prompt for prompt in prompts}
        rows = [AnswerRow(by_id[response.prompt_id], response) for response in answered.kept]
        write_rows(self.files.answers(system.name), rows, AnswerRow)
        dropped = with_places(
            answered.dropped, partial(row_places, self.prompt_set.source), what, self.resources.reporter.note
        )
        write_rows(self.files.drops(system.name), dropped, Drop)
        for reason, n in answered.reasons.items():
            if reason == "turns":
                continue  # told already, with a place
            self.resources.reporter.note(f"{what}: {n} of {len(prompts)} prompts have none: {reason}")

    @property
    def _on(self) -> str:
        return f" on {self.prompt_set.name}" if self.prompt_set.name else ""

    def _verdicts_step(self, system: System, judge: str, answers_key: str) -> EvaluationStep:
        section = judges_of(self.resources.recipe)[judge]
        judged_by = judge_key(
            section, self.resources.recipe.model, self.resources.constitution, self.resources.recipe.backend
        )
        path = self.files.verdicts(system.name, judge)
        step = Step(self.prompt_set.step(path.stem), key_of(answers_key, "verdicts", judged_by), (path,))
        return EvaluationStep(step, partial(self._judge, system, judge), (self._answers_name(system.name),), system)

    def _judge(self, system: System, judge: str, spent: Spent) -> None:
        recipe = self.resources.recipe
        rows = read_rows(self.files.answers(system.name), AnswerRow)
        section = judges_of(recipe)[judge]
        what = f"verdicts on {system.name}{'@' if judge else ''}{judge}{self._on}"
        ratings = self.resources.judge(section, recipe.model, what, spent).rate(
            [Item(row.prompt, row.response) for row in rows]
        )
        names = self.resources.constitution.names
        verdicts = [
            VerdictRow(row.prompt.id, row.prompt.kind, dict(zip(names, r, strict=True)), is_refusal(row.response.text))
            for row, r in zip(rows, ratings, strict=True)
        ]
        write_rows(self.files.verdicts(system.name, judge), verdicts, VerdictRow)
        for name, given in zip(names, zip(*ratings, strict=True), strict=False):  # without answers there are none
            reasons = Counter(rating.reason for rating in given if isinstance(rating, Unrated))
            if reasons:
                self.resources.reporter.note(f"{what}, {name}: {unrated(reasons, len(rows))}")

    def _comparisons_steps(self, keys: dict[str, str]) -> list[EvaluationStep]:
        recipe = self.resources.recipe
        section = comparing(recipe)
        if section is None:
            return []
        judged_by = judge_key(section, recipe.model, self.resources.constitution, recipe.backend)
        texts = text_hash("compare_expected", "compare_verbal")
        steps = []
        for contest in contests(list(keys), recipe.evaluate.reference):
            path = self.files.comparisons(contest)
            key = key_of(keys[contest.a], keys[contest.b], "comparisons", judged_by, texts)
            step = Step(self.prompt_set.step(path.stem), key, (path,))
            reads = (self._answers_name(contest.a), self._answers_name(contest.b))
            steps.append(EvaluationStep(step, partial(self._compare, contest), reads))
        return steps

    def _compare(self, contest: Contest, spent: Spent) -> None:
        """Every prompt that both systems answered, its two answers compared in both orders."""
        a, b = (
            {row.prompt.id: row for row in read_rows(self.files.answers(system), AnswerRow)}
            for system in (contest.a, contest.b)
        )
        duels = [Duel(row.prompt, row.response.text, b[name].response.text) for name, row in a.items() if name in b]
        section = comparing(self.resources.recipe)
        assert section is not None
        what = f"comparing {contest.key}{self._on}"
        comparer = self.resources.comparer(section, self.resources.recipe.model, what, spent)
        names = self.resources.constitution.names
        rows = [
            ComparisonRow(duel.prompt.id, duel.prompt.kind, dict(zip(names, said, strict=True)))
            for duel, said in zip(duels, comparer.compare(duels), strict=True)
        ]
        write_rows(self.files.comparisons(contest), rows, ComparisonRow)
