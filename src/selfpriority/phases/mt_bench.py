"""MT-Bench as part of `spa utility`: every system answers two turns, a judge rates each, systems are compared.

Writes `evaluation/mt_bench-<system>.jsonl`. Whoever is asked is behind the request cache, so a stopped command asks
nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selfpriority.errors import InputError
from selfpriority.evaluation.conversation import Answered, Question, converse
from selfpriority.evaluation.mt_bench import mt_bench
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
from selfpriority.run import Run, Spent, read_json, write_rows

Json = dict[str, Any]
Both = tuple[Rating | Unrated, Rating | Unrated]


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


def mt_bench_of(
    path: Path | None, limit: int | None, max_new_tokens: int, judge: Sequence[str | None]
) -> MtBench | None:
    """What the options of `spa utility` ask for; None without a file.

    Args:
        path: JSONL with question_id, category, two turns and perhaps a reference answer to each.
        limit: at most so many questions, spread evenly over the file.
        max_new_tokens: longest answer.
        judge: --judge, --method, --base-url and --api-key-env: who is named, by which method, at which server.

    Raises:
        InputError: the file cannot be read, or options that do not go together.
    """
    name, method, base_url, api_key_env = judge
    if path is None and any(judge):
        raise InputError("--judge and how it is asked: say who judges --mt-bench FILE, which is not given")
    if name is None and any(judge):
        raise InputError("--method, --base-url, --api-key-env: say how --judge MODEL is asked, which is not given")
    if path is None:
        return None
    named = None if name is None else other_judge(name, method or "expected", base_url, api_key_env)
    return MtBench(tuple(spread(read_mt_bench(path), limit)), max_new_tokens, named)


def check_mt_bench(resources: Resources, asked: MtBench) -> None:
    """Raises InputError for a judge that there is not; opens none."""
    judge_entry(judging(resources.recipe, asked), resources)


def ask_mt_bench(run: Run, resources: Resources, asked: MtBench, models: Mapping[str, str]) -> Json:
    """Both turns of every system (name -> model) answered and rated: `mt_bench` of `utility.json`.

    Raises:
        InputError: a judge that cannot be resources.
    """
    questions, spec = asked.questions, judging(resources.recipe, asked)
    verdicts: dict[str, dict[str, Both]] = {}
    answers: dict[str, list[Answered]] = {}
    for name, model in models.items():
        generating = resources.model(
            model, f"mt-bench: answers of {name}", Spent(), in_process(resources.recipe.backend)
        )
        answers[name] = converse(questions, generating, asked.max_new_tokens)
        rated = _rated(resources, spec, questions, answers[name], f"mt-bench: verdicts on {name}")
        verdicts[name] = {question.id: both for question, both in zip(questions, rated, strict=True)}
        rows = [_row(*parts) for parts in zip(questions, answers[name], rated, strict=True)]
        write_rows(run.evaluation / f"mt_bench-{name}.jsonl", rows, QuestionRow)
    told = mt_bench(verdicts, {question.id: question.category for question in questions})
    for name, row in told["systems"].items():
        row |= _of_answers(answers[name])
    return {
        "judge": _told_judge(run, resources, spec),
        "n_questions": len(questions),
        "max_new_tokens": asked.max_new_tokens,
        **told,
    }


def judging(recipe: Recipe, asked: MtBench) -> JudgeSection:
    """Who rates: who was named, else the evaluation's judge or comparer in words, else its judge whatever it is."""
    if asked.judge is not None:
        return asked.judge
    outside, comparer = recipe.evaluate.judge, recipe.evaluate.comparer
    return outside if isinstance(outside, InWords) or comparer is None else comparer


def _rated(
    resources: Resources, spec: JudgeSection, questions: Sequence[Question], answers: Sequence[Answered], step: str
) -> list[Both]:
    turns = [
        Turn(item, question.references[: number + 1])
        for question, both in zip(questions, answers, strict=True)
        for number, item in enumerate(both)
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

    return [(verdict(first), verdict(second)) for first, second in answers]


def _row(question: Question, answered: Answered, rated: Both) -> QuestionRow:
    first, second = (
        TurnRow(item.response.text if isinstance(item, Item) else None, verdict)
        for item, verdict in zip(answered, rated, strict=True)
    )
    return QuestionRow(question.id, question.category, (first, second))


def _of_answers(answers: Sequence[Answered]) -> Json:
    """Mean length in words and share cut at the limit: what a judge may like or dislike beside the content."""
    responses = [item.response for both in answers for item in both if isinstance(item, Item)]
    if not responses:
        return {"words": None, "cut": None}
    return {
        "words": fmean(len(response.text.split()) for response in responses),
        "cut": fmean(response.stop == "length" for response in responses),
    }


def _told_judge(run: Run, resources: Resources, spec: JudgeSection) -> Json:
    """{judge, method, objective, agreement}: `objective` is what a judge without words was taken at, else None."""
    last = resources.constitution.names[-1]
    told = {"judge": spec.judge, "method": spec.method, "objective": None if isinstance(spec, InWords) else last}
    return {**told, "agreement": _agreement(run, resources, spec)}


def _agreement(run: Run, resources: Resources, spec: JudgeSection) -> Json | None:
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


def _measured(source: str, objective: str, entry: Mapping[str, Any]) -> Json | None:
    found = entry.get("auc") or entry.get("pair_accuracy")
    return {"source": source, "objective": objective, **found} if found else None
