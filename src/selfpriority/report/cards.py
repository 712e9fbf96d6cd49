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
from selfpriority.errors import SelfPriorityError
from selfpriority.models.files import adapter_base
from selfpriority.models.public import hub_id, licence, public_name
from selfpriority.plain_text import one_line
from selfpriority.recipe import TRAINED, Recipe, load, merged_systems
from selfpriority.report.card_parts import (
    OURS,
    PAPER,
    front_matter,
    hazard_part,
    judge_part,
    licence_named,
    limits_part,
    public_source,
    results_of,
    tags_of,
)
from selfpriority.report.rounds import differences
from selfpriority.run import MERGED, SYSTEMS, Run
from selfpriority.storage import write_text

CARD = "README.md"
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
    recipe = load(run.recipe)
    for number in range(1, recipe.rounds + 1):
        if _wants_ours(run.policy(number)):
            write_text(run.policy(number) / CARD, [policy_card(run, number)])
    for name in merged_systems(recipe) if run.above is None else ():
        if _wants_ours(run.folder / MERGED / name):
            write_text(run.folder / MERGED / name / CARD, [merged_card(run, name)])


def _wants_ours(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and _is_ours(folder / CARD)


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
        "tags": [*tags_of(recipe), recipe.align.method],
        "license": licence(origin.root) or "other",
    }
    if known is not None:
        head["base_model"] = known
    return "\n".join(
        [
            *front_matter(head),
            OURS,
            "",
            *_made(recipe, number, origin),
            *_weights(run, number, recipe, origin, is_whole),
            *(judge_part(run) if recipe.pairs is None else ()),
            *_pairs(run, number),
            *_results(run, number, recipe),
            *limits_part(recipe),
            *_recipe(recipe, origin),
        ]
    )


def merged_card(run: Run, name: str) -> str:
    """The card of a system that is merged of others, in Markdown with the hub's front matter.

    Args:
        run: that merges it.
        name: of the system.

    Raises:
        InputError: the run's recipe or constitution cannot be read.
    """
    recipe = load(run.recipe)
    head: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*tags_of(recipe), "merge"],
        "license": licence(recipe.model) or "other",
    }
    if (known := hub_id(recipe.model)) is not None:
        head["base_model"] = known
    base, merged = public_name(recipe.model), merged_systems(recipe)[name]
    moved = " and ".join(f"{weight:g} of what `{part}` learned" for part, weight in merged.items())
    origin = _origin(run, recipe)
    return "\n".join(
        [
            *front_matter(head),
            OURS,
            "",
            f"# {base}, merged of what trainings learned",
            "",
            f"The weights of {base} and, added to them, {moved}: what a training learned is the difference of its",
            "weights to those it began with. Nothing was trained to make this model. What it is merged of:",
            "",
            *(f"- `{part}`: {_part(run, recipe, part)}" for part in merged),
            "",
            "## Weights",
            "",
            "All weights.",
            f"Licence: that of the base model, {base}{licence_named(licence(recipe.model))}.",
            "",
            *(judge_part(run) if recipe.pairs is None else ()),
            "## Results",
            "",
            *results_of(run, name, run.folder / MERGED / name, recipe),
            "",
            *limits_part(recipe),
            *_recipe(recipe, origin),
        ]
    )


def _part(run: Run, recipe: Recipe, name: str) -> str:
    """How a system that another is merged of was trained."""
    other = recipe.evaluate.more_systems.get(name)
    if other is None:
        return "as the recipe below says"
    told = ", ".join(differences(other, recipe))
    return f"as the recipe below says, but for {told}" if told else "as the recipe below says"


def dataset_card(run: Run, facts: DataFacts) -> str:
    """The card of an export.

    Raises:
        InputError: the run's recipe or constitution cannot be read.
    """
    recipe = load(run.recipe)
    names = load_constitution(recipe.constitution).names if recipe.pairs is None else facts.objectives
    head: dict[str, object] = {
        "configs": [{"config_name": "default", "data_files": facts.file_name}],
        "tags": [*tags_of(recipe), "harmful-text"],
        "license": "other",
    }
    is_own = recipe.pairs is not None
    made = "# Preference pairs of a model's own answers" if not is_own else "# Preference pairs"
    cut = f"{facts.n_cut} pairs with an answer that was cut at the length limit are "
    cut += "among them (`stop_chosen` or `stop_rejected` is `length`): put no end token behind those answers."
    left_out = f"{cut.partition(' are ')[0]} are left out, for trainers put an end token behind every answer."
    return "\n".join(
        [
            *front_matter(head),
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
            *(() if is_own else judge_part(run)),
            *hazard_part(recipe),
            "## Licence",
            "",
            _licence_of_pairs(recipe),
            "",
            *_recipe(recipe, _origin(run, recipe)),
        ]
    )


def _origin_of_pairs(recipe: Recipe) -> str:
    source = public_source(recipe.prompts.source)
    if recipe.pairs is not None:
        return f"to prompts, read from {source} and made by nobody here."
    made = f"made by Self-Priority Alignment ([paper]({PAPER}))."
    return f"that {public_name(recipe.model)} wrote to prompts of {source}, {made}"


def _scale(recipe: Recipe) -> str:
    own = "the sum of the scores that the file gives; empty where it gives none"
    return own if recipe.pairs is not None else "the sum of the judge's ratings, each from 1 to 10"


def _licence_of_pairs(recipe: Recipe) -> str:
    if recipe.pairs is not None:
        return f"That of {public_source(recipe.pairs.source)}."
    says = f"what the licence of {public_name(recipe.model)} says of its output{licence_named(licence(recipe.model))}"
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
        yield f"{origin.name} was trained on the chosen and rejected answers of {public_source(recipe.pairs.source)},"
        yield from ("which were not made by this run.", "")
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


def _weights(run: Run, number: int, recipe: Recipe, origin: _Origin, is_whole: bool) -> Iterator[str]:
    kind = "All weights."
    if recipe.align.lora is not None:
        base = adapter_base(run.policy(number))  # of an adapter that was trained on it is the same as before
        on = origin.name if base is None or base == run.named_from_here(recipe.align.start or "") else public_name(base)
        kind = f"An adapter (LoRA, rank {recipe.align.lora.r}) on {on}"
        kind = f"All weights: {kind[0].lower()}{kind[1:]}, merged into it." if is_whole else f"{kind}."
    yield from ("## Weights", "", kind)
    yield f"Licence: that of the base model, {public_name(origin.root)}{licence_named(licence(origin.root))}."
    yield ""


def _pairs(run: Run, number: int) -> Iterator[str]:
    pairs = run.funnel(number).pairs
    if pairs is not None and pairs.trained is not None:
        decided = ", ".join(f"{n} by {name}" for name, n in (pairs.decided_by or {}).items())
        yield from ("## Training", "", f"{pairs.trained} pairs{f' (decided: {decided})' if decided else ''}.", "")


def _results(run: Run, number: int, recipe: Recipe) -> Iterator[str]:
    yield from ("## Results", "")
    if number == recipe.rounds:
        yield from results_of(run.above or run, _name(run), run.policy(number), recipe)
    else:
        yield "Of the last round alone."
    yield ""


def _recipe(recipe: Recipe, origin: _Origin) -> Iterator[str]:
    """The method's fields, without any that may name a place."""
    told_of = {*_METHOD, "rounds"} if recipe.pairs is None else {"pair", "align"}
    sections = recipe.model_dump(mode="json", include={*told_of, "seed"})
    if recipe.pairs is None:
        sections["sample"].pop("personas")
    sections["align"]["start"] = origin.name if origin.is_other else None
    told = {
        "constitution": one_line(public_source(recipe.constitution)),
        "prompts": public_source(recipe.prompts.source),
    }
    if recipe.pairs is not None:
        told = {"pairs": public_source(recipe.pairs.source)}
    yield from ("## Recipe", "", "```yaml", yaml.safe_dump({**told, **sections}, sort_keys=False).strip(), "```", "")
