"""A plan as text for a terminal."""

from __future__ import annotations

from selfpriority.formats import TERMINAL, counted
from selfpriority.planning.pilot import Counted, Expected, Pilot
from selfpriority.planning.plan import Card, Plan, PlannedTraining, PlanRow, PlanTotal
from selfpriority.text_table import text_table

_GB = 1e9


def plan_text(plan: Plan) -> str:
    """Steps, then memory, then what the numbers rest on, then what a pilot gave."""
    parts = ["\n".join(_steps(plan)), "\n".join(_memory(plan))]
    if plan.training.choices:
        parts.append("\n".join(_choices(plan.training)))
    parts.append("\n".join(_grounds(plan)))
    if plan.pilot:
        parts.append("\n".join(pilot_lines(plan.pilot)))
    return "\n\n".join(parts)


def _steps(plan: Plan) -> list[str]:
    has_time, has_cost = plan.rates is not None, plan.total.cost is not None
    head = ["step", "requests", "prompt tokens", "one-pass tokens", "new tokens", "trained tokens"]
    rows = [head + ["time"] * has_time + ["cost"] * has_cost]

    def add(name: str, at_most: bool, numbers: PlanRow | PlanTotal) -> None:
        row = [name, *_counts(numbers, at_most)]
        rows.append(row + [_duration(numbers.seconds)] * has_time + [f"{numbers.cost or 0:.2f}"] * has_cost)

    for step in plan.steps:
        add(step.name, step.at_most, step)
    add("total", True, plan.total)
    return text_table(rows, "<" + ">" * (len(rows[0]) - 1))


def _counts(numbers: PlanRow | PlanTotal, at_most: bool) -> list[str]:
    requests = ("<= " if at_most else "") + f"{numbers.requests:,}" if numbers.requests else "-"
    tokens = (numbers.prompt_tokens, numbers.forward_tokens, numbers.new_tokens, numbers.trained_tokens)
    return [requests, *(f"{n:,}" if n else "-" for n in tokens)]


def _memory(plan: Plan) -> list[str]:
    has_peak = any(held.peak for held in plan.memory.values())
    rows = [["memory by phase", "weights", "keys and values", "passing", "together", *["measured before"] * has_peak]]
    for phase, held in plan.memory.items():
        if held.weights is None or held.cache is None or held.passing is None or held.total is None:
            rows.append([phase, "unknown: a model's files are not on this machine"])
        else:
            peak = [_size(held.peak) if held.peak else "-"] * has_peak
            rows.append([phase, *map(_size, (held.weights, held.cache, held.passing, held.total)), *peak])
    if len(rows) == 1:
        rows.append(["no phase but align holds a model", "", "", "", "", *[""] * has_peak])
    return text_table(rows, "<>>>>" + ">" * has_peak)


def _choices(training: PlannedTraining) -> list[str]:
    rows = [
        ["memory of align", "weights", "gradients", "optimizer", "average", "activations", "(checkpointed)", "total"]
    ]
    for choice in training.choices:
        name = choice.choice + (" (this recipe)" if choice.is_chosen else "")
        before = (choice.weights, choice.gradients, choice.optimizer, choice.average)
        sizes = (*before, choice.activations, choice.activations_checkpointed, choice.total)
        rows.append([name, *(_size(size) if size else "-" for size in sizes)])
    return text_table(rows, "<" + ">" * 7)


def _grounds(plan: Plan) -> list[str]:
    lines = [*plan.invented, *(f"tokens of {name}: {how}" for name, how in plan.tokens.items())]
    if plan.total.requests:
        lines.append("all tokens are at most: no prompt is lost and every answer is as long as it may be")
    else:
        lines.append("trained tokens are those of the file's answers; pools that are too long train less")
    if not plan.training.choices:
        lines.append("memory of align: unknown, the model's files are not on this machine; config.json would do")
    for name in plan.by_shape:
        lines.append(f"memory of {name}: by its shape, which is known; its files are not on this machine")
    lines.append(
        "memory of align: of tensors alone; what an allocator adds, most with adapters on a CPU, is in docs/scaling.md"
    )
    if plan.training.nodes * plan.training.processes > 1:
        lines.append(_spread(plan.training))
    if plan.engine:
        lines.append(
            f"answers: vLLM {plan.engine.version} in a process of its own, which takes {plan.engine.memory_share:g} "
            f"of a GPU beside what the phases hold (backend.memory_share)"
        )
    if plan.generation_tokens and plan.total.requests:
        lines.append(f"tokens of a generation batch: {plan.generation_tokens:,} (backend.tokens_per_batch)")
    if plan.card:
        lines.append(_fit(plan.card))
    lines.append(_trainings(plan.training))
    if n := plan.training.measured_tokens:
        lines.append(
            f"reference of align.method: {n:,} tokens a round at most, measured without a second model in memory"
        )
    unknown = "time: unknown before a first run; --rates prefill=N,generate=N,..."
    return [*lines, f"time: from {plan.rates}" if plan.rates else unknown]


def pilot_lines(pilot: Pilot) -> list[str]:
    """What a pilot found, the steps as a table."""
    rows = [["pilot", "in", "out", "dropped", "why"]]
    for name, step in pilot.steps.items():
        n_dropped = str(sum(step.dropped.values()))
        rows.append([name, str(step.n_in), str(step.out), n_dropped, counted(step.dropped)])
    lines = text_table(rows, "<>>><")
    lines.append(f"consistent ({pilot.consistency}): {_count(pilot.consistent)}")
    if pilot.below_max_det:
        lines.append(f"det up to denoise.max_det, consistent or not: {_count(pilot.below_max_det)}")
    share = f", after keep_lowest {pilot.keep_lowest:g}" if pilot.keep_lowest is not None else ""
    found = f"{_expected(pilot.pools, ' pools')}, {_expected(pilot.pairs, ' pairs')}"
    lines.append(f"expected of all {pilot.of:,} prompts of round 1{share}: {found}")
    lines.append(f"prompts for {pilot.wanted} pools: {_expected(pilot.prompts_wanted)}")
    kept = "its answers are stored there, and `spa run` asks none of them again"
    return [*lines, f"pilot of {pilot.n} prompts in {pilot.run}: {kept}"]


def _count(found: Counted) -> str:
    edges = TERMINAL.interval.format(f"{found.low:.0%}", f"{found.high:.0%}")
    return f"{found.n} of {found.of}, {found.share:.0%} {edges}"


def _expected(found: Expected, of_what: str = "") -> str:
    """A whole number with its interval, as far as there is one."""
    if found.low is None:
        return f"unknown{of_what}"
    least = f"at least {found.low:,.0f}"
    if found.estimate is None:
        return least + of_what
    edges = f"({least})" if found.high is None else TERMINAL.interval.format(f"{found.low:,.0f}", f"{found.high:,.0f}")
    return f"{found.estimate:,.0f}{of_what} {edges}"


def _fit(card: Card) -> str:
    sizes = [f"{phase} {_size(size) if size is not None else 'unknown'}" for phase, size in card.phases.items()]
    verdict = {True: "it fits", False: "it does not fit", None: "unknown whether it fits"}[card.suffices]
    return f"one card of {_size(card.size)}: {verdict} ({', '.join(sizes)})"


def _spread(training: PlannedTraining) -> str:
    """How many cards a training takes, of which the table shows one."""
    n_cards = training.nodes * training.processes
    held = "the whole model" if training.n_shards == 1 else f"one of {training.n_shards} parts of the model"
    places = f"{training.nodes} nodes with {training.processes} each" if training.nodes > 1 else "one node"
    return f"align takes {n_cards} cards, {places}, and a card holds {held}: its memory is that of one of them"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / _GB:.2f} GB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _trainings(training: PlannedTraining) -> str:
    """How much is trained: at most, and as recipes are sized."""
    most = f"a round trains on at most {training.pools:,} pools, in {training.optimizer_steps:,} optimizer steps"
    share = training.by_luck
    if share is None or share >= 1:
        return most
    pools, steps = (max(1, round(share * n)) for n in (training.pools, training.optimizer_steps))
    return (
        f"{most}; on {pools:,}, in {steps:,}, where refined answers are no better than the candidates "
        f"(1 in {1 / share:.3g} is consistent): an assumption, which --pilot measures"
    )
