"""The evaluation: every system answers the held-out prompts, the outside judge rates, the summary compares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.evaluation.answer import answer
from selfpriority.evaluation.compare import Further, Verdict, contests, summarise
from selfpriority.evaluation.pairwise import Compared, Duel
from selfpriority.evaluation.table import table
from selfpriority.phases.align import check_trained
from selfpriority.phases.perplexity import alarm, prose
from selfpriority.phases.resources import (
    JudgeSpec,
    Resources,
    check_comparing,
    in_process,
    judge_entry,
    judge_key,
    model_key,
)
from selfpriority.phases.round_inputs import round_prompts
from selfpriority.prompts import load_prompts, said_in
from selfpriority.rating import Item
from selfpriority.recipe import Evaluate, HfBackend, OpenaiBackend, OtherJudge, Recipe
from selfpriority.records import Drop, Prompt, Rating, Ratings, Response, Sifted, Unrated
from selfpriority.refusals import is_refusal
from selfpriority.run import Run, Spent, Step, key_of, read_json, read_rows, write_json, write_rows, write_text
from selfpriority.wording import text_hash

ANSWER_FIELDS = {"max_new_tokens", "temperature"}
PERPLEXITY = "perplexity.json"
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


@dataclass(frozen=True)
class ComparisonRow:
    """One line of `comparisons-<a>_vs_<b>.jsonl`: what was said with a shown first, then with b."""

    prompt_id: str
    kind: str
    verdicts: dict[str, Compared]


def systems(run: Run, recipe: Recipe) -> dict[str, str]:
    """What is evaluated: the recipe's model and the last round's policy.

    All of them answer `in_process`: a server has no policy of ours, and one system here and one there would differ in
    more than training.
    """
    return {"vanilla": recipe.model, "spa": str(run.policy(recipe.rounds))}


def heldout_prompts(recipe: Recipe) -> Sifted[Prompt]:
    """The evaluation prompts; those that also train are dropped (`seen_in_training`), or the proof would be none."""
    source = recipe.evaluate.prompts
    if source is None:
        raise InputError("evaluate.prompts: not set, so there is nothing to evaluate on; name held-out prompts")
    loaded = load_prompts(source, recipe.seed)
    numbers = range(1, recipe.rounds + 1)
    seen = {said_in(prompt) for number in numbers for prompt in round_prompts(recipe, number).kept}
    kept = tuple(prompt for prompt in loaded.kept if said_in(prompt) not in seen)
    lost = tuple(Drop("evaluate", p.id, "seen_in_training") for p in loaded.kept if said_in(p) in seen)
    if not kept:
        raise InputError(f"evaluate.prompts: {source.source}: no prompt is left that training never saw")
    return Sifted(kept, loaded.dropped + lost)


def check_evaluation(resources: Resources) -> None:
    """Finds the held-out prompts and every judge by name, and opens none.

    Raises:
        InputError: no held-out prompt, a judge that there is not, or a comparing judge that cannot compare.
    """
    recipe = resources.recipe
    heldout_prompts(recipe)
    sections: dict[str, Evaluate | OtherJudge] = {"evaluate": recipe.evaluate}
    sections |= {f"evaluate.more_judges.{name}": other for name, other in recipe.evaluate.more_judges.items()}
    if recipe.evaluate.comparer is not None and recipe.evaluate.pairwise:
        check_comparing(JudgeSpec.of(recipe.evaluate.comparer))
        sections |= {"evaluate.comparer": recipe.evaluate.comparer}
    for place, section in sections.items():
        try:
            judge_entry(JudgeSpec.of(section), resources)
        except InputError as error:  # it names the model, and not which of the judges it is
            raise InputError(*(f"{place}: {line.removeprefix('score.')}" for line in error.lines)) from error


def evaluate_steps(run: Run, resources: Resources) -> list[Step]:
    """Answers and verdicts of every system, comparisons of every two, then the summary."""
    recipe = resources.recipe
    if recipe.evaluate.prompts is None:
        return []
    held_out = heldout_prompts(recipe)
    prompts = [asdict(prompt) for prompt in held_out.kept]
    settings = recipe.evaluate.model_dump(include=ANSWER_FIELDS)
    backend = in_process(recipe.backend)
    numerics = backend.model_dump(include={"kind", "dtype"})
    answers = {
        name: key_of("answers", model_key(model, backend), prompts, settings, numerics, recipe.seed)
        for name, model in systems(run, recipe).items()
    }
    steps = []
    for name, key in answers.items():
        lost = run.evaluation / f"drops-{name}.jsonl"
        steps.append(Step(f"evaluation/answers-{name}", key, (_answers_of(run, name), lost)))
        for suffix, section in judges_of(recipe).items():
            judge = judge_key(JudgeSpec.of(section), recipe.model, resources.constitution, recipe.backend)
            steps.append(_step(run, "verdicts", f"{name}{suffix}", key_of(key, "verdicts", judge)))
    if recipe.evaluate.comparer is not None and recipe.evaluate.pairwise:
        comparer = JudgeSpec.of(recipe.evaluate.comparer)
        check_comparing(comparer)
        judge = judge_key(comparer, recipe.model, resources.constitution, recipe.backend)
        texts = text_hash("compare_expected", "compare_verbal")
        for a, b in contests(answers):
            key = key_of(answers[a], answers[b], "comparisons", judge, texts)
            steps.append(_step(run, "comparisons", f"{a}_vs_{b}", key))
    if (perplexity := perplexity_step(run, recipe)) is not None:
        steps.append(perplexity)
    keys = [step.key for step in steps if "/answers-" not in step.name]
    summary = key_of("summary-4", keys, recipe.evaluate.model_dump(include=SUMMARY_FIELDS), held_out.reasons)
    outputs = (run.evaluation / "summary.json", run.evaluation / "table.md")
    return [*steps, Step("evaluation/summary", summary, outputs)]


def perplexity_step(run: Run, recipe: Recipe) -> Step | None:
    """The alarm's step; None where a stand-in for tests answers, which nothing can surprise."""
    backend = in_process(recipe.backend)
    if not isinstance(backend, HfBackend):
        return None
    models = {name: model_key(model) for name, model in systems(run, recipe).items()}
    key = key_of("perplexity", models, prose(), backend.model_dump(include={"kind", "dtype"}))
    return Step("evaluation/perplexity", key, (run.evaluation / PERPLEXITY,))


def _answers_of(run: Run, system: str) -> Path:
    return run.evaluation / f"answers-{system}.jsonl"


def _step(run: Run, kind: str, what: str, key: str) -> Step:
    return Step(f"evaluation/{kind}-{what}", key, (run.evaluation / f"{kind}-{what}.jsonl",))


def judges_of(recipe: Recipe) -> dict[str, Evaluate | OtherJudge]:
    """What a judge's verdicts are called after the system -> its section; the main judge's have no addition."""
    others = {f"@{name}": judge for name, judge in recipe.evaluate.more_judges.items()}
    return {"": recipe.evaluate, **others}


def evaluate(run: Run, resources: Resources) -> None:
    """Does the evaluation steps that are not done.

    Raises:
        WorkFailed: a round's policy is missing, or was trained under another recipe.
    """
    prompts = heldout_prompts(resources.recipe)
    check_trained(run, resources)
    for reason, n in prompts.reasons.items():
        resources.reporter.note(f"evaluate.prompts: {n} dropped: {reason}")
    steps = evaluate_steps(run, resources)
    if isinstance(resources.recipe.backend, OpenaiBackend) and not all(map(run.is_done, steps)):
        resources.reporter.note("evaluation: all systems answer in this process, for no server has the trained policy")
    for step in steps:
        if run.is_done(step):
            continue
        if run.was_done_otherwise(step):
            resources.reporter.note(f"{step.name}: its inputs changed, so it is done again")
        kind, _, what = step.name.removeprefix("evaluation/").partition("-")
        with run.recording(step) as spent:
            if kind == "answers":
                _answers(run, resources, what, prompts.kept, spent)
            elif kind == "verdicts":
                _verdicts(run, resources, what, spent)
            elif kind == "comparisons":
                _comparisons(run, resources, what, spent)
            elif kind == "perplexity":
                _perplexity(run, resources)
            else:
                _summary(run, resources, prompts)


def _answers(run: Run, resources: Resources, system: str, prompts: tuple[Prompt, ...], spent: Spent) -> None:
    recipe = resources.recipe
    name = systems(run, recipe)[system]
    model = resources.model(name, f"answers of {system}", spent, in_process(recipe.backend))
    answered = answer(prompts, model, system, recipe.evaluate, recipe.seed)
    by_id = {prompt.id: prompt for prompt in prompts}
    rows = [AnswerRow(by_id[response.prompt_id], response) for response in answered.kept]
    write_rows(_answers_of(run, system), rows, AnswerRow)
    write_rows(run.evaluation / f"drops-{system}.jsonl", answered.dropped, Drop)
    for reason, n in answered.reasons.items():
        resources.reporter.note(f"answers of {system}: {n} of {len(prompts)} prompts have none: {reason}")


def _verdicts(run: Run, resources: Resources, what: str, spent: Spent) -> None:
    recipe = resources.recipe
    system, at, other = what.partition("@")
    rows = read_rows(run.evaluation / f"answers-{system}.jsonl", AnswerRow)
    spec = JudgeSpec.of(judges_of(recipe)[at + other])
    judge = resources.judge(spec, recipe.model, f"verdicts on {what}", spent)
    ratings = judge.rate([Item(row.prompt, row.response) for row in rows])
    names = resources.constitution.names
    verdicts = [
        VerdictRow(row.prompt.id, row.prompt.kind, dict(zip(names, r, strict=True)), is_refusal(row.response.text))
        for row, r in zip(rows, ratings, strict=True)
    ]
    write_rows(run.evaluation / f"verdicts-{what}.jsonl", verdicts, VerdictRow)


def _comparisons(run: Run, resources: Resources, what: str, spent: Spent) -> None:
    """Every prompt that both systems answered, its two answers compared in both orders."""
    a, b = (
        {row.prompt.id: row for row in read_rows(run.evaluation / f"answers-{system}.jsonl", AnswerRow)}
        for system in what.split("_vs_")
    )
    duels = [Duel(row.prompt, row.response.text, b[name].response.text) for name, row in a.items() if name in b]
    section = resources.recipe.evaluate.comparer
    assert section is not None
    comparer = resources.comparer(JudgeSpec.of(section), resources.recipe.model, f"comparing {what}", spent)
    names = resources.constitution.names
    rows = [
        ComparisonRow(duel.prompt.id, duel.prompt.kind, dict(zip(names, said, strict=True)))
        for duel, said in zip(duels, comparer.compare(duels), strict=True)
    ]
    write_rows(run.evaluation / f"comparisons-{what}.jsonl", rows, ComparisonRow)


def _perplexity(run: Run, resources: Resources) -> None:
    settings = resources.recipe.backend
    resources.models.clear()  # their memory: each system is loaded once more
    told = alarm(systems(run, resources.recipe), settings if isinstance(settings, HfBackend) else HfBackend())
    write_json(run.evaluation / PERPLEXITY, told)


def _summary(run: Run, resources: Resources, prompts: Sifted[Prompt]) -> None:
    recipe, names = resources.recipe, resources.constitution.names
    verdicts = {
        suffix: {name: read_verdicts(run.evaluation, name, names, suffix) for name in systems(run, recipe)}
        for suffix in judges_of(recipe)
    }
    asked = None
    if recipe.evaluate.comparer is not None and recipe.evaluate.pairwise:
        asked = {
            f"{a}_vs_{b}": [
                tuple(row.verdicts[name] for name in names)
                for row in read_rows(run.evaluation / f"comparisons-{a}_vs_{b}.jsonl", ComparisonRow)
            ]
            for a, b in contests(systems(run, recipe))
        }
    others = {suffix.removeprefix("@"): found for suffix, found in verdicts.items() if suffix}
    summary = summarise(verdicts[""], names, recipe.evaluate, Further(asked, others))
    summary["judge"] = judge_entry(JudgeSpec.of(recipe.evaluate), resources)
    summary["prompts"] = {"n": len(prompts.kept), "dropped": prompts.reasons}
    summary["drops"] = {
        name: Sifted((), tuple(read_rows(run.evaluation / f"drops-{name}.jsonl", Drop))).reasons
        for name in systems(run, recipe)
    }
    if (path := run.evaluation / PERPLEXITY).is_file():
        summary["perplexity"] = read_json(path)
    write_json(run.evaluation / "summary.json", summary)
    write_text(run.evaluation / "table.md", [table(summary)])


def read_verdicts(folder: Path, system: str, objectives: tuple[str, ...], judge: str = "") -> list[Verdict]:
    """Answers joined with their verdicts, as the comparison takes them; `judge` is "" or "@name"."""
    rows = {row.prompt_id: row for row in read_rows(folder / f"verdicts-{system}{judge}.jsonl", VerdictRow)}
    verdicts = []
    for row in read_rows(folder / f"answers-{system}.jsonl", AnswerRow):
        ratings: Ratings = tuple(rows[row.prompt.id].ratings[name] for name in objectives)
        verdicts.append(
            Verdict(row.prompt.id, row.prompt.kind, row.response.text, row.response.stop, ratings, row.prompt.text)
        )
    return verdicts
