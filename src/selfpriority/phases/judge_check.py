"""Is the judge worth listening to? Writes `judge.json`.

Checks the training judge, every judge of the evaluation and, beside heads or reward models, the model in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError, JudgeRefused
from selfpriority.judges.attacks import attacks
from selfpriority.judges.labels import Labels, read_labels
from selfpriority.judges.reports import COMPARER, TRAIN, JudgeChecks, read_checks, write_checks
from selfpriority.language_model import BUSY
from selfpriority.outside import mended_note
from selfpriority.phases.judge_names import comparing, judge_entry
from selfpriority.phases.kept_answers import kept_answers
from selfpriority.phases.made_heads import n_layers
from selfpriority.phases.models import reading
from selfpriority.phases.readiness import Ahead, check_ready
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.rating import Judge
from selfpriority.recipe import InWords, JudgeSection, Recipe, load
from selfpriority.run import Run, key_of
from selfpriority.run_records import Spent, Step
from selfpriority.storage import read_json
from selfpriority.wording import text_hash

if TYPE_CHECKING:
    from selfpriority.judges.comparer import Comparer


def judge_sections(recipe: Recipe) -> dict[str, JudgeSection]:
    """The judges that rate and that a report speaks of, by role; pairs of one's own are rated by nobody."""
    train = recipe.score.judge
    rates = recipe.pairs is None
    sections: dict[str, JudgeSection] = {TRAIN: train} if rates else {}
    if recipe.evaluate.prompts is not None:
        sections["evaluate"] = recipe.evaluate.judge
        sections |= {f"more_judges.{name}": other for name, other in recipe.evaluate.more_judges.items()}
    if rates and not isinstance(train, InWords):
        # nearly no mass floor: a model that hardly answers in digits is to be shown as it is, not as unrated
        sections["words"] = InWords(judge="self", mass_floor=0.01)
    return sections


def judge_step(run: Run, resources: Resources) -> Step:
    """The check with its key."""
    keys = {role: judge_entry(section, resources)["key"] for role, section in judge_sections(resources.recipe).items()}
    comparer = comparing(resources.recipe)
    if comparer is not None:
        keys[COMPARER] = key_of(
            judge_entry(comparer, resources)["key"], text_hash("compare_expected", "compare_verbal")
        )
    asked = [attack.text for attack in attacks()]
    key = key_of("judge-3", keys, [anchor.model_dump() for anchor in resources.constitution.anchors], asked)
    return Step("judge", key, (run.folder / "judge.json",))


def check_anchors(resources: Resources) -> bool:
    """Whether there are anchors to check the judges with; without any only a recipe that takes any judge goes on.

    Raises:
        InputError: there are none, and the recipe wants its judge checked.
    """
    if resources.recipe.score.require_signal and judge_sections(resources.recipe):
        need_anchors(resources)
    return bool(resources.constitution.anchors)


def need_anchors(resources: Resources) -> None:
    """Raises InputError where there are none."""
    if not resources.constitution.anchors:
        name = resources.constitution.name
        raise InputError(
            f"constitution: {name!r} has no anchors to check a judge with; add some (docs/judging.md, Your own "
            f"constitution), or check with `spa check-judge RECIPE --labels FILE` alone"
        )


def check_judges(resources: Resources, labels: Labels | None = None, spent: Spent | None = None) -> JudgeChecks:
    """Every judge's check.

    Args:
        resources: recipe, models and judges.
        labels: answers to check against instead of the constitution's anchors.
        spent: where the cost is counted.
    """
    from selfpriority.judges.check import check_judge
    from selfpriority.judges.comparer_check import check_comparer

    if labels is None:
        need_anchors(resources)
    reports, spent = {}, spent or Spent()
    comparer = comparing(resources.recipe)  # before the others are asked: it may be none that can compare
    for role, check in checks(resources, spent):
        report = check_judge(check.judge, check.reworded, check.constitution, labels, check.disowning)
        reports[role] = report.named(**judge_entry(check.section, resources))
    if comparer is None:
        return JudgeChecks(reports)
    # last: its key is also that of the same judge where it rates
    compared = check_comparer(checked_comparer(resources, comparer, spent), resources.constitution, labels)
    return JudgeChecks(reports, compared.named(**judge_entry(comparer, resources)))


def checked_comparer(resources: Resources, section: InWords, spent: Spent) -> Comparer:
    """The judge that compares, opened to be checked."""
    return resources.comparer(section, resources.recipe.model, "check of the comparing judge", spent)


@dataclass(frozen=True)
class Check:
    """One judge to be checked, and how."""

    section: JudgeSection
    judge: Judge
    reworded: Judge | None
    """The same judge with the second wording of each question, where there are words."""
    constitution: Constitution
    """Its anchors are what the judge is asked about."""
    disowning: bool


def checks(resources: Resources, spent: Spent) -> Iterator[tuple[str, Check]]:
    """The checks by role, each judge opened when its turn comes."""
    constitution, model = resources.constitution, resources.recipe.model
    for role, section in judge_sections(resources.recipe).items():
        judge = resources.checked_judge(section, f"check of the {role} judge", spent)
        reworded = None
        if isinstance(section, InWords) and role != "words":
            reworded = resources.judge(section, model, "check, other wording", spent, reworded=True)
        asked = _sparse(constitution) if role == "words" else constitution
        yield role, Check(section, judge, reworded, asked, disowning=role != "words")


def _sparse(constitution: Constitution) -> Constitution:
    """As few anchors as make a verdict, two answers of each: what a model that does not judge would be worth."""
    from selfpriority.judges.check import LEAST

    anchors = constitution.anchors
    return replace(constitution, anchors=anchors[:: max(1, ceil(2 * len(anchors) / LEAST))])


def check_recipe(path: Path, fields: Sequence[str], labels: Path | None, reporter: Reporter) -> JudgeChecks:
    """`spa check-judge`: the judges of a recipe, checked without a run directory.

    What was asked is kept beside the models: stopped, the same command goes on where it was.
    """
    recipe = with_absolute_paths(load(path, fields), path.parent)
    if not judge_sections(recipe):
        raise InputError(f"{path}: pairs: a recipe with pairs of its own asks no judge unless it evaluates")
    given = read_own_labels(labels, reporter) if labels else None
    with kept_answers(recipe, reporter) as run:
        resources = Resources(recipe, run, reporter)
        check_ready(
            resources.recipe, resources.constitution.names, Ahead(collects=False, trains=False, evaluates=False)
        )
        return check_judges(resources, given)


def fit(
    labels: Sequence[Path], recipe: Recipe, to: Path, layers: Sequence[int] | None, c: float | None, reporter: Reporter
) -> Any:
    """`spa fit-judge`: heads for the recipe's model from labelled answers, written to `to`; returns the card.

    Hidden states are kept as the answers of a check are.
    """
    from selfpriority.judges.fit import FitSettings, fit_heads
    from selfpriority.judges.heads import write_heads

    merged = Labels.joined(read_own_labels(path, reporter) for path in labels)
    model = recipe.model
    to.mkdir(parents=True, exist_ok=True)
    with kept_answers(recipe, reporter) as run:
        reader = Resources(recipe, run, reporter).reader
        watched = reader(model, "hidden states", Spent(), reading(recipe.backend))
        heads = fit_heads(merged, watched, model, FitSettings(tuple(layers or middle(model)), c or FitSettings.c))
    write_heads(to, heads)
    return read_json(to / "card.json")


def fit_without_labels(recipe: Recipe, to: Path, reporter: Reporter) -> Any:
    """`spa fit-judge --contrast`: heads for the recipe's model from answers of its own; returns the card.

    Answers and hidden states are kept as those of a check are.
    """
    from selfpriority.judges.contrast import contrast_objectives, fit_contrast
    from selfpriority.judges.heads import write_heads

    to.mkdir(parents=True, exist_ok=True)
    with kept_answers(recipe, reporter) as run:
        watched = Resources(recipe, run, reporter).model(recipe.model, "answers and hidden states", Spent())
        write_heads(to, fit_contrast(watched, recipe.model, n_layers(recipe.model), contrast_objectives()))
    return read_json(to / "card.json")


def read_own_labels(path: Path, reporter: Reporter) -> Labels:
    """A user's labelled answers; what was mended in them is told."""
    labels = read_labels(path)
    if labels.n_mended:
        reporter.note(mended_note(labels.source, labels.n_mended))
    return labels


def middle(model: str) -> tuple[int, ...]:
    """A half and three quarters of a model's depth, between which hidden states say most about an answer."""
    depth = n_layers(model)
    return tuple(sorted({round(share * depth) for share in (0.5, 0.75)}))


_LEFT_OUT = BUSY - {"cut"}
"""What a busy server leaves out; a cut verdict is more often the judge's own."""


def gate(run: Run, resources: Resources) -> None:
    """Checks the judges once per set of inputs and refuses a training judge that may be chance.

    Raises:
        JudgeRefused: unless the recipe says `score.require_signal: false`.
        InputError: there are no anchors to check them with, unless it says so.
    """
    if not judge_sections(resources.recipe):
        return
    has_anchors = check_anchors(resources)
    step = judge_step(run, resources)
    if not run.is_done(step) or _is_doubtful(run, resources.recipe):
        with run.recording(step) as spent:
            found = check_judges(resources, spent=spent) if has_anchors else JudgeChecks()
            write_checks(run.folder / "judge.json", found)
    if not has_anchors:
        name = resources.constitution.name
        resources.reporter.note(
            f"training on a judge that was not checked, as the recipe asks: {name!r} has no anchors"
        )
        return
    train = read_checks(run.folder / "judge.json").train
    if train is None and resources.recipe.pairs is not None:
        return
    assert train is not None, "it is checked first"
    for row in train.objectives:
        if row.unrated_reasons:
            resources.reporter.note(f"check of the training judge, {row.objective}: {row.unrated_in_words}")
    if train.usable:
        return
    why = "; ".join(train.reasons)
    if any(_LEFT_OUT & {*row.unrated_reasons} for row in train.objectives):
        why += "; what a busy server left out is asked again by the same command"
    if resources.recipe.score.require_signal:
        raise JudgeRefused(
            f"the judge {train.judge!r} ({train.method}) is refused: {why}. Use a stronger model, fitted heads "
            f"(`spa fit-judge`), or score.require_signal=false to train all the same"
        )
    resources.reporter.note(f"training on a judge that may be chance, as the recipe asks: {why}")


def _is_doubtful(run: Run, recipe: Recipe) -> bool:
    """Whether answers are missing that asking again may bring; those that are there are stored, and are not asked for.

    A busy server says nothing of a judge. And where one was refused for want of digits, an earlier version looked for
    some tokenizers' in a wrong place.
    """
    checks = read_checks(run.folder / "judge.json")
    if any(_LEFT_OUT & {*row.unrated_reasons} for report in checks.raters.values() for row in report.objectives):
        return True
    train = checks.train
    if train is None or train.usable or not recipe.score.require_signal:
        return False
    return any("low_mass" in row.unrated_reasons for row in train.objectives)


def gated(work: Callable[[Run, Resources, int], None]) -> Callable[[Run, Resources, int], None]:
    """A phase that somebody starts alone, behind the gate that `spa run` puts before its first round."""

    def behind_the_gate(run: Run, resources: Resources, number: int) -> None:
        gate(run, resources)
        work(run, resources, number)

    return behind_the_gate
