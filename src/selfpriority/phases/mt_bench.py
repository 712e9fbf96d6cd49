"""MT-Bench as part of `spa utility`: every system answers two turns, a judge rates each, systems are compared.

Writes `evaluation/mt_bench-<system>.jsonl`. Whoever is asked is behind the request cache, so a stopped command asks
nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from selfpriority.errors import InputError
from selfpriority.evaluation.conversation import Answered, Question, converse
from selfpriority.evaluation.mt_bench import TurnVerdicts, compared_systems, system_means
from selfpriority.evaluation.utility_records import JudgeAgreement, MtBenchJudge, MtBenchResult, MtBenchSystem
from selfpriority.judges.reports import read_checks
from selfpriority.judges.turns import Turn
from selfpriority.language_model import Failure
from selfpriority.phases.judge_names import heads_folder, judge_entry
from selfpriority.phases.models import in_process
from selfpriority.phases.questions import read_mt_bench, spread
from selfpriority.phases.resources import Resources
from selfpriority.phases.tau import other_judge
from selfpriority.rating import Item
from selfpriority.recipe import ByProbe, InWords, JudgeSection, Recipe
from selfpriority.records import Rating, Unrated
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.storage import read_json, write_rows


@dataclass(frozen=True)
class MtBench:
    """What is asked, and who judges."""

    questions: tuple[Question, ...]
    max_new_tokens: int
    """Longest answer in tokens."""
    judge: JudgeSection | None = None
    """None: who the recipe's evaluation has, in words where it has one."""


@dataclass(frozen=True)
class TurnRow:
    """One turn: the answer, without one why not, and what the judge said."""

    answer: str | None
    verdict: Rating | Unrated


@dataclass(frozen=True)
class QuestionRow:
    """One line of `mt_bench-<system>.jsonl`."""

    question_id: str
    category: str
    turns: tuple[TurnRow, TurnRow]


@dataclass(frozen=True)
class NamedJudge:
    """A judge as the command line names it; None: not said."""

    name: str | None = None
    method: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None

    @property
    def how_alone(self) -> bool:
        """Whether it is said how a judge is asked, but not who."""
        return self.name is None and any((self.method, self.base_url, self.api_key_env))

    @property
    def section(self) -> JudgeSection | None:
        """As a recipe has it; None: nobody is named.

        Raises:
            InputError: options that do not go together.
        """
        if self.name is None:
            return None
        return other_judge(self.name, self.method, self.base_url, self.api_key_env)


def mt_bench_of(path: Path | None, limit: int | None, max_new_tokens: int, judge: NamedJudge) -> MtBench | None:
    """What the options of `spa utility` ask for; None without a file.

    Args:
        path: JSONL with question_id, category, two turns and perhaps a reference answer to each.
        limit: at most so many questions, spread evenly over the file.
        max_new_tokens: longest answer.
        judge: who is named, and how it is asked.

    Raises:
        InputError: the file cannot be read, or options that do not go together.
    """
    if path is None and (judge.name is not None or judge.how_alone):
        raise InputError("--judge and how it is asked: say who judges --mt-bench FILE, which is not given")
    if judge.how_alone:
        raise InputError("--method, --base-url, --api-key-env: say how --judge MODEL is asked, which is not given")
    if path is None:
        return None
    return MtBench(tuple(spread(read_mt_bench(path), limit)), max_new_tokens, judge.section)


def check_mt_bench(resources: Resources, asked: MtBench) -> None:
    """Raises InputError for a judge that there is not; opens none."""
    judge_entry(judging(resources.recipe, asked), resources)


def ask_mt_bench(run: Run, resources: Resources, asked: MtBench, models: Mapping[str, str]) -> MtBenchResult:
    """Both turns of every system (name -> model) answered and rated.

    Raises:
        InputError: a judge that cannot be opened.
    """
    questions, spec = asked.questions, judging(resources.recipe, asked)
    categories = {question.id: question.category for question in questions}
    verdicts: dict[str, dict[str, TurnVerdicts]] = {}
    systems: dict[str, MtBenchSystem] = {}
    for name, model in models.items():
        backend = in_process(resources.recipe.backend)
        generating = resources.model(model, f"mt-bench: answers of {name}", Spent(), backend)
        answers = converse(questions, generating, asked.max_new_tokens)
        rated = _rated(resources, spec, questions, answers, f"mt-bench: verdicts on {name}")
        verdicts[name] = {question.id: both for question, both in zip(questions, rated, strict=True)}
        rows = [_row(*parts) for parts in zip(questions, answers, rated, strict=True)]
        write_rows(run.evaluation / f"mt_bench-{name}.jsonl", rows, QuestionRow)
        systems[name] = _with_lengths(system_means(verdicts[name], categories), answers)
    differences = compared_systems(verdicts, categories)
    judge = _described(run, resources, spec)
    return MtBenchResult(judge, len(questions), asked.max_new_tokens, systems, differences)


def judging(recipe: Recipe, asked: MtBench) -> JudgeSection:
    """Who rates: who was named, else the evaluation's judge or comparer in words, else its judge whatever it is."""
    if asked.judge is not None:
        return asked.judge
    outside, comparer = recipe.evaluate.judge, recipe.evaluate.comparer
    return outside if isinstance(outside, InWords) or comparer is None else comparer


def _rated(
    resources: Resources, spec: JudgeSection, questions: Sequence[Question], answers: Sequence[Answered], step: str
) -> list[TurnVerdicts]:
    turns = [
        Turn(item, question.references[: number + 1])
        for question, both in zip(questions, answers, strict=True)
        for number, item in enumerate(both.turns)
        if isinstance(item, Item)
    ]
    if isinstance(spec, InWords):
        found = resources.turn_judge(spec, resources.recipe.model, step, Spent()).rate(turns)
    else:
        judge = resources.judge(spec, resources.recipe.model, step, Spent())
        found = [ratings[-1] for ratings in judge.rate([turn.item for turn in turns])]
    verdicts = iter(found)

    def verdict(item: Item | Failure) -> Rating | Unrated:
        return next(verdicts) if isinstance(item, Item) else Unrated("unanswered", f"{item.reason} {item.detail}")

    return [TurnVerdicts(verdict(both.first), verdict(both.second)) for both in answers]


def _row(question: Question, answered: Answered, rated: TurnVerdicts) -> QuestionRow:
    first, second = (
        TurnRow(item.response.text if isinstance(item, Item) else None, verdict)
        for item, verdict in zip(answered.turns, (rated.first, rated.second), strict=True)
    )
    return QuestionRow(question.id, question.category, (first, second))


def _with_lengths(means: MtBenchSystem, answers: Sequence[Answered]) -> MtBenchSystem:
    """With mean length in words and share cut at the limit."""
    responses = [item.response for both in answers for item in both.turns if isinstance(item, Item)]
    if not responses:
        return means
    return replace(
        means,
        words=fmean(len(response.text.split()) for response in responses),
        cut=fmean(response.stop == "length" for response in responses),
    )


def _described(run: Run, resources: Resources, spec: JudgeSection) -> MtBenchJudge:
    objective = None if isinstance(spec, InWords) else resources.constitution.names[-1]
    return MtBenchJudge(spec.judge, spec.method, objective, _agreement(run, resources, spec))


def _agreement(run: Run, resources: Resources, spec: JudgeSection) -> JudgeAgreement | None:
    """How often the judge orders two labelled answers right; None where nobody measured it.

    Of fitted heads from their card (`source: card`): it has more labels, but of the kinds the heads were fitted on,
    easy contrasts among them. Of any other judge from the run's own check (`check`).
    """
    objective = resources.constitution.names[-1]
    folder = heads_folder(spec.judge) if isinstance(spec, ByProbe) else None
    if folder is not None:
        card = read_json(folder / "card.json")["objectives"].get(objective, {})
        return _measured("card", objective, card.get("cross_validation", {}))
    key = judge_entry(spec, resources)["key"]  # a name at another server is another judge
    report = read_checks(run.folder / "judge.json").of_key(key)
    row = next((row for row in report.objectives if row.objective == objective), None) if report else None
    return _measured("check", objective, asdict(row) if row else {})


def _measured(source: Literal["card", "check"], objective: str, entry: Mapping[str, Any]) -> JudgeAgreement | None:
    found = entry.get("auc") or entry.get("pair_accuracy")
    return JudgeAgreement(source, objective, **found) if found else None
