"""The cards of what a run gives away: of a policy folder and of an export, for whoever finds them without the run.

A model is called by its public name and a file by its own, never by a place on this machine. Cards rest on what the
run holds so far; what it does not hold, they say is not known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.evaluation.records import read_summary
from selfpriority.formats import MARKDOWN
from selfpriority.intervals import Interval
from selfpriority.judges.reports import JudgeReport, read_checks
from selfpriority.models.embedded import EMBEDDED
from selfpriority.models.files import adapter_base, folder_of
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.public import hub_id, licence, public_name
from selfpriority.outside import read_text
from selfpriority.plain_text import one_line
from selfpriority.recipe import TRAINED, Recipe, load
from selfpriority.run import SYSTEMS, Run
from selfpriority.storage import write_text
from selfpriority.wording import FOLDER

CARD = "README.md"
PAPER = "https://arxiv.org/abs/2511.06222"
OURS = "<!-- Written by selfpriority, and written again with the report. Without this line it stays as it is. -->"
_METHOD = ("sample", "refine", "denoise", "pair", "align")


@dataclass(frozen=True)
class DataFacts:
    """What an export holds."""

    file_name: str
    rows: int
    n_cut: int
    """Pairs with an answer that was cut."""
    keeps_cut: bool
    objectives: tuple[str, ...] = ()
    """What pairs of one's own are rated by; those of a run's own follow from its recipe."""


@dataclass(frozen=True)
class _Origin:
    """What a training started from."""

    name: str
    """What others call it."""
    root: str
    """The model that was trained nowhere in this run: the origin itself, or what that was trained from."""
    is_other: bool
    """Whether it is another model than the one that answered the first round's prompts."""


def write_policy_cards(run: Run) -> None:
    """A card into the policy folder of every round that is trained, of the run's systems too.

    Best effort, for no figure rests on it. None into a link, which leads to somebody else's folder, and none over a
    card that somebody made their own.
    """
    systems = sorted(path.parent for path in run.folder.glob(f"{SYSTEMS}/*/resolved.yaml"))
    for place in (run, *map(Run, systems)):
        with contextlib.suppress(OSError, SelfPriorityError):
            _write_cards(place)


def _write_cards(run: Run) -> None:
    for number in range(1, load(run.recipe).rounds + 1):
        folder = run.policy(number)
        if folder.is_dir() and not folder.is_symlink() and _is_ours(folder / CARD):
            write_text(folder / CARD, [policy_card(run, number)])


def _is_ours(card: Path) -> bool:
    return not card.exists() or OURS in card.read_text("utf-8", errors="replace")


def policy_card(run: Run, number: int, is_whole: bool = False) -> str:
    """The card of the policy of round `number`, in Markdown with the hub's front matter.

    Args:
        run: whose policy it is.
        number: of the round.
        is_whole: whether its adapter is merged into the base where the card will lie.

    Raises:
        InputError: the run's recipe or constitution cannot be read.
    """
    recipe = load(run.recipe)
    origin = _origin(run, recipe)
    known = hub_id(origin.root)
    head: dict[str, object] = {
        "library_name": "transformers" if recipe.align.lora is None or is_whole else "peft",
        "pipeline_tag": "text-generation",
        "tags": [*_tags(recipe), recipe.align.method],
        "license": licence(origin.root) or "other",
    }
    if known is not None:
        head["base_model"] = known
    return "\n".join(
        [
            *_front(head),
            OURS,
            "",
            *_made(recipe, number, origin),
            *_weights(run, number, recipe, origin, is_whole),
            *(_judge(run) if recipe.pairs is None else ()),
            *_pairs(run, number),
            *_results(run, number, recipe),
            *_limits(recipe),
            *_recipe(recipe, origin),
        ]
    )


def dataset_card(run: Run, facts: DataFacts) -> str:
    """The card of an export.

    Raises:
        InputError: the run's recipe or constitution cannot be read.
    """
    recipe = load(run.recipe)
    names = load_constitution(recipe.constitution).names if recipe.pairs is None else facts.objectives
    head: dict[str, object] = {
        "configs": [{"config_name": "default", "data_files": facts.file_name}],
        "tags": [*_tags(recipe), "harmful-text"],
        "license": "other",
    }
    is_own = recipe.pairs is not None
    made = "# Preference pairs of a model's own answers" if not is_own else "# Preference pairs"
    cut = f"{facts.n_cut} pairs with an answer that was cut at the length limit are "
    cut += "among them (`stop_chosen` or `stop_rejected` is `length`): put no end token behind those answers."
    left_out = f"{cut.partition(' are ')[0]} are left out, for trainers put an end token behind every answer."
    return "\n".join(
        [
            *_front(head),
            made,
            "",
            f"{facts.rows} pairs of answers {_origin_of_pairs(recipe)} {cut if facts.keeps_cut else left_out}",
            "",
            "## Columns",
            "",
            "- the prompt, the chosen and the rejected answer, as messages",
            f"- `score_chosen`, `score_rejected`: {_scale(recipe)}",
            *(f"- `score_chosen_{name}`, `score_rejected_{name}`: the rating of {name} alone" for name in names),
            "- `gap`: the difference of the sums; `weight`: (gap / mean gap) ^ alpha, of Eq. 3",
            f"- `decided_by`: the objective that decided, in the order {', '.join(names) or 'of none: none is rated'}",
            "- `stop_chosen`, `stop_rejected`: `end`, or `length` where the answer was cut",
            "- `prompt_id`: the prompt's",
            "",
            *(() if is_own else _judge(run)),
            *_hazard(recipe),
            "## Licence",
            "",
            _licence_of_pairs(recipe),
            "",
            *_recipe(recipe, _origin(run, recipe)),
        ]
    )


def _tags(recipe: Recipe) -> tuple[str, ...]:
    return ("preference-optimization",) if recipe.pairs else ("self-priority-alignment", "preference-optimization")


def _origin_of_pairs(recipe: Recipe) -> str:
    source = _source(recipe.prompts.source)
    if recipe.pairs is not None:
        return f"to prompts, read from {source} and made by nobody here."
    made = f"made by Self-Priority Alignment ([paper]({PAPER}))."
    return f"that {public_name(recipe.model)} wrote to prompts of {source}, {made}"


def _scale(recipe: Recipe) -> str:
    own = "the sum of the scores that the file gives; empty where it gives none"
    return own if recipe.pairs is not None else "the sum of the judge's ratings, each from 1 to 10"


def _licence_of_pairs(recipe: Recipe) -> str:
    if recipe.pairs is not None:
        return f"That of {_source(recipe.pairs.source)}."
    says = f"what the licence of {public_name(recipe.model)} says of its output{_named(licence(recipe.model))}"
    return f"That of the prompts, and {says}."


def _origin(run: Run, recipe: Recipe) -> _Origin:
    start = recipe.align.start
    if start is None:
        return _Origin(public_name(recipe.model), recipe.model, is_other=False)
    above = run.above
    other = load(above.recipe).evaluate.more_systems.get(_name(run)) if above is not None else None
    if above is None or other is None or other.start is None:
        return _Origin(public_name(start), start, is_other=True)
    before = above if other.start == TRAINED else Run.existing(above.folder / SYSTEMS / other.start)
    return _Origin(f"the system `{other.start}`", _origin(before, load(before.recipe)).root, is_other=True)


def _name(run: Run) -> str:
    """What the evaluation calls a run's last policy."""
    return TRAINED if run.above is None else run.folder.absolute().name


def _made(recipe: Recipe, number: int, origin: _Origin) -> Iterator[str]:
    """The title, and how it came about."""
    if recipe.pairs is not None:
        yield from (f"# {origin.name}, trained on preference pairs", "")
        yield f"{origin.name} was trained on the chosen and rejected answers of {_source(recipe.pairs.source)}, which"
        yield from ("were not made by this run.", "")
        return
    base, spa = public_name(recipe.model), f"Self-Priority Alignment ([paper]({PAPER}))"
    names = load_constitution(recipe.constitution).names
    if origin.is_other:
        yield from (f"# Aligned from {origin.name} on answers of {base}", "")
        how = f"Round {number} of {recipe.rounds} of {spa}: {base} sampled answers to prompts, a judge rated them, and "
        how += f"{origin.name} was trained on the pairs whose ratings could be trusted."
        how += " From the second round on it sampled the answers itself." if number > 1 else ""
    else:
        yield from (f"# {base}, aligned by its own priorities", "")
        how = f"{base} after round {number} of {recipe.rounds} of {spa}: it sampled answers to prompts, a judge rated "
        how += "them, and it was trained on the pairs whose ratings could be trusted."
    if recipe.pair.order == "priority":
        how += f" The objectives in strict order of priority: {', '.join(names)}."
    else:  # a control
        how += f" The objectives are {', '.join(names)}; its pairs follow another order: `{recipe.pair.order}`."
    yield from (how, "")


def _front(head: dict[str, object]) -> list[str]:
    return ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""]


def _source(name: str) -> str:
    """A shipped set or a hub data set by its name, a file without its place."""
    return f"the file {Path(name).name}" if Path(name).is_absolute() else name


def _named(told: str | None) -> str:
    return f" ({told})" if told else ", which is not known on the machine that trained"


def _weights(run: Run, number: int, recipe: Recipe, origin: _Origin, is_whole: bool) -> Iterator[str]:
    kind = "All weights."
    if recipe.align.lora is not None:
        base = adapter_base(run.policy(number))  # of an adapter that was trained on it is the same as before
        on = origin.name if base is None or base == recipe.align.start else public_name(base)
        kind = f"An adapter (LoRA, rank {recipe.align.lora.r}) on {on}"
        kind = f"All weights: {kind[0].lower()}{kind[1:]}, merged into it." if is_whole else f"{kind}."
    yield from ("## Weights", "", kind)
    yield f"Licence: that of the base model, {public_name(origin.root)}{_named(licence(origin.root))}."
    yield ""


def _judge(run: Run) -> Iterator[str]:
    yield from ("## The judge, and how good it is", "")
    path = (run.above or run).folder / "judge.json"
    train = read_checks(path).train if path.is_file() else None
    if train is None:
        yield from ("It was not checked.", "")
        return
    yield f"{public_name(train.judge)}, method `{train.method}`. On labelled answers that it was checked with:"
    yield ""
    yield from _agreement(train)
    yield ""


def _agreement(report: JudgeReport) -> Iterator[str]:
    yield "| objective | AUC (95 %) | pairs right (95 %) | unrated |"
    yield "|---|---|---|---|"
    for row in report.objectives:
        figures = f"{_interval(row.auc)} | {_interval(row.pair_accuracy)} | {row.unrated:.0%}"
        yield f"| {row.objective} | {figures} |"
    if not report.usable:
        yield ""
        yield f"**Not shown to be better than chance**: {'; '.join(report.reasons)}."


def _interval(found: Interval | None) -> str:
    if found is None:
        return "not measured"
    return f"{MARKDOWN.number(found.estimate)} {MARKDOWN.edges(found.low, found.high)}"


def _pairs(run: Run, number: int) -> Iterator[str]:
    pairs = run.funnel(number).pairs
    if pairs is not None and pairs.trained is not None:
        decided = ", ".join(f"{n} by {name}" for name, n in (pairs.decided_by or {}).items())
        yield from ("## Training", "", f"{pairs.trained} pairs{f' (decided: {decided})' if decided else ''}.", "")


def _results(run: Run, number: int, recipe: Recipe) -> Iterator[str]:
    yield from ("## Results", "")
    if number == recipe.rounds:
        yield from _evaluated(run, number, recipe)
    else:
        yield "Of the last round alone."
    yield ""


def _evaluated(run: Run, number: int, recipe: Recipe) -> Iterator[str]:
    """The evaluation's table, if it is of these very weights: a run that is trained anew keeps the one before."""
    folder, name = (run.above or run).evaluation, _name(run)
    summary = read_summary(folder / "summary.json") if (folder / "summary.json").is_file() else None
    if summary is None or name not in summary.systems or not (folder / "table.md").is_file():
        yield "It was not evaluated: whether it is better than the model it started from is not known."
        return
    is_of_these = _are_these(run.policy(number), summary.models.get(name))
    if is_of_these is False:
        yield "It was not evaluated since it was trained: whether it is better than what it started from is not known."
        return
    yield f"On held-out prompts, `{name}` is this model and `vanilla` is {public_name(recipe.model)}."
    if is_of_these is None:
        yield "Whether it was measured on these very weights cannot be told."
    yield ""
    yield read_text(folder / "table.md").strip()


def _are_these(policy: Path, key: str | None) -> bool | None:
    """Whether a key is that of the weights in a folder; None: older versions noted none, or an adapter's base is away.

    Without its base an adapter has another key.
    """
    base = adapter_base(policy)
    if key is None or (base is not None and base not in EMBEDDED and folder_of(base) is None):
        return None
    try:
        return fingerprint(str(policy)) == key
    except InputError:  # an embedded base that is not installed
        return None


def _limits(recipe: Recipe) -> Iterator[str]:
    yield from ("## Limits", "")
    on = (
        "the judge above, the prompts and the constitution"
        if recipe.pairs is None
        else "the pairs that it learned from"
    )
    yield f"- It is as good as {on}; it is no proof of safety."
    yield f"- One training with seed {recipe.seed}. Another seed or another machine may end otherwise."
    yield "- What it knows beside this may have suffered; nothing here says that it has not, unless a table does."
    yield ""
    yield from _hazard(recipe)


def hazard(recipe: Recipe) -> str:
    """The notice that goes with a run's texts."""
    return (FOLDER / ("hazard.txt" if recipe.pairs is None else "own_hazard.txt")).read_text("utf-8")


def _hazard(recipe: Recipe) -> Iterator[str]:
    yield from ("## Hazard", "")
    text = hazard(recipe).partition("\n\n")[2]
    yield text.strip().replace("in this folder", "of this run")
    yield ""


def _recipe(recipe: Recipe, origin: _Origin) -> Iterator[str]:
    """The method's fields, without any that may name a place."""
    told_of = {*_METHOD, "rounds"} if recipe.pairs is None else {"pair", "align"}
    sections = recipe.model_dump(mode="json", include={*told_of, "seed"})
    if recipe.pairs is None:
        sections["sample"].pop("personas")
    sections["align"]["start"] = origin.name if origin.is_other else None
    told = {"constitution": one_line(_source(recipe.constitution)), "prompts": _source(recipe.prompts.source)}
    if recipe.pairs is not None:
        told = {"pairs": _source(recipe.pairs.source)}
    yield from ("## Recipe", "", "```yaml", yaml.safe_dump({**told, **sections}, sort_keys=False).strip(), "```", "")
