"""The evaluation: every system answers the held-out prompts, the outside judge rates, the summary compares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.evaluation.answer import answer
from selfpriority.evaluation.behaviour import is_refusal
from selfpriority.evaluation.compare import Verdict, summarise
from selfpriority.evaluation.table import table
from selfpriority.phases.collect import round_prompts
from selfpriority.phases.opening import JudgeSpec, Opened, judge_key, model_key
from selfpriority.prompts import load_prompts
from selfpriority.rating import Item
from selfpriority.recipe import Recipe
from selfpriority.records import Drop, Prompt, Rating, Ratings, Response, Sifted, Unrated
from selfpriority.run import Run, Spent, Step, key_of, read_rows, write_json, write_rows, write_text

ANSWER_FIELDS = {"max_new_tokens", "temperature"}
SUMMARY_FIELDS = {"pairwise", "tie", "lambdas", "safe_kinds"}


@dataclass(frozen=True)
class AnswerRow:
    """One line of `answers-<system>.jsonl`."""

    prompt: Prompt
    response: Response


@dataclass(frozen=True)
class VerdictRow:
    """One line of `verdicts-<system>.jsonl`."""

    prompt_id: str
    kind: str
    ratings: dict[str, Rating | Unrated]
    refusal: bool


def systems(run: Run, recipe: Recipe) -> dict[str, str]:
    """What is evaluated: the recipe's model and the last round's policy."""
    return {"vanilla": recipe.model, "spa": str(run.policy(recipe.rounds))}


def heldout_prompts(recipe: Recipe) -> Sifted[Prompt]:
    """The evaluation prompts; those that also train are dropped (`seen_in_training`), or the proof would be none."""
    source = recipe.evaluate.prompts
    if source is None:
        raise InputError("evaluate.prompts: not set, so there is nothing to evaluate on; name held-out prompts")
    loaded = load_prompts(source, recipe.seed)
    numbers = range(1, recipe.rounds + 1)
    seen = {prompt.text for number in numbers for prompt in round_prompts(recipe, number).kept}
    kept = tuple(prompt for prompt in loaded.kept if prompt.text not in seen)
    lost = tuple(Drop("evaluate", p.id, "seen_in_training") for p in loaded.kept if p.text in seen)
    if not kept:
        raise InputError(f"evaluate.prompts: {source.source}: no prompt is left that training never saw")
    return Sifted(kept, loaded.dropped + lost)


def evaluate_steps(run: Run, opened: Opened) -> list[Step]:
    """Answers and verdicts of every system, then the summary."""
    recipe = opened.recipe
    if recipe.evaluate.prompts is None:
        return []
    folder = run.evaluation
    prompts = [asdict(prompt) for prompt in heldout_prompts(recipe).kept]
    settings = recipe.evaluate.model_dump(include=ANSWER_FIELDS)
    backend = recipe.backend.model_dump(include={"kind", "dtype"})
    judge = judge_key(JudgeSpec.of(recipe.evaluate), recipe.model, opened.constitution, recipe.backend)
    steps, keys = [], []
    for name, model in systems(run, recipe).items():
        answers = key_of("answers", model_key(model, recipe.backend), prompts, settings, backend, recipe.seed)
        steps.append(Step(f"evaluation/answers-{name}", answers, (folder / f"answers-{name}.jsonl",)))
        verdicts = key_of(answers, "verdicts", judge)
        steps.append(Step(f"evaluation/verdicts-{name}", verdicts, (folder / f"verdicts-{name}.jsonl",)))
        keys.append(verdicts)
    summary = key_of("summary-2", keys, recipe.evaluate.model_dump(include=SUMMARY_FIELDS))
    steps.append(Step("evaluation/summary", summary, (folder / "summary.json", folder / "table.md")))
    return steps


def evaluate(run: Run, opened: Opened) -> None:
    """Does the evaluation steps that are not done."""
    prompts = heldout_prompts(opened.recipe)
    for drop in prompts.dropped_prompts:
        if drop.reason == "seen_in_training":
            opened.reporter.note(f"evaluation: prompt {drop.prompt_id} is left out, training saw it")
    for step in evaluate_steps(run, opened):
        if run.is_done(step):
            continue
        if run.was_done_otherwise(step):
            opened.reporter.note(f"{step.name}: its inputs changed, so it is done again")
        kind, _, system = step.name.removeprefix("evaluation/").partition("-")
        with run.recording(step) as spent:
            if kind == "answers":
                _answers(run, opened, system, prompts.kept, spent)
            elif kind == "verdicts":
                _verdicts(run, opened, system, spent)
            else:
                _summary(run, opened)


def _answers(run: Run, opened: Opened, system: str, prompts: tuple[Prompt, ...], spent: Spent) -> None:
    recipe = opened.recipe
    model = opened.model(systems(run, recipe)[system], f"answers of {system}", spent)
    answered = answer(prompts, model, system, recipe.evaluate, recipe.seed)
    by_id = {prompt.id: prompt for prompt in prompts}
    rows = [AnswerRow(by_id[response.prompt_id], response) for response in answered.kept]
    write_rows(run.evaluation / f"answers-{system}.jsonl", rows, AnswerRow)
    write_rows(run.evaluation / f"drops-{system}.jsonl", answered.dropped, Drop)


def _verdicts(run: Run, opened: Opened, system: str, spent: Spent) -> None:
    recipe = opened.recipe
    rows = read_rows(run.evaluation / f"answers-{system}.jsonl", AnswerRow)
    judge = opened.judge(JudgeSpec.of(recipe.evaluate), recipe.model, f"verdicts on {system}", spent)
    ratings = judge.rate([Item(row.prompt, row.response) for row in rows])
    names = opened.constitution.names
    verdicts = [
        VerdictRow(row.prompt.id, row.prompt.kind, dict(zip(names, r, strict=True)), is_refusal(row.response.text))
        for row, r in zip(rows, ratings, strict=True)
    ]
    write_rows(run.evaluation / f"verdicts-{system}.jsonl", verdicts, VerdictRow)


def _summary(run: Run, opened: Opened) -> None:
    recipe, names = opened.recipe, opened.constitution.names
    verdicts = {name: read_verdicts(run.evaluation, name, names) for name in systems(run, recipe)}
    summary = summarise(verdicts, names, recipe.evaluate)
    write_json(run.evaluation / "summary.json", summary)
    write_text(run.evaluation / "table.md", [table(summary)])


def read_verdicts(folder: Path, system: str, objectives: tuple[str, ...]) -> list[Verdict]:
    """Answers joined with their verdicts, as the comparison takes them."""
    rows = {row.prompt_id: row for row in read_rows(folder / f"verdicts-{system}.jsonl", VerdictRow)}
    verdicts = []
    for row in read_rows(folder / f"answers-{system}.jsonl", AnswerRow):
        ratings: Ratings = tuple(rows[row.prompt.id].ratings[name] for name in objectives)
        verdicts.append(Verdict(row.prompt.id, row.prompt.kind, row.response.text, row.response.stop, ratings))
    return verdicts
