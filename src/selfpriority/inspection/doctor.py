"""Is what training sees what it should see? Token ids, masks and the first loss of one round, from outside.

Encodes the stored pairs with the model the round starts from. Each check is a name, a flag and a sentence;
`sequence_checks` holds those that need no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfpriority.chat import Chat
from selfpriority.chat_template import RefusedTurns
from selfpriority.inspection.first_loss import FirstLoss, first_loss
from selfpriority.inspection.folding import folded
from selfpriority.inspection.judge_models import judge_models_check
from selfpriority.inspection.run_files import paired_of, recipe_of, rounds_with, stored_pairs
from selfpriority.inspection.sequence_checks import Check, Checks, Sequences, all_checks, safe_answers, template_check
from selfpriority.method.safe_pairs import as_trained
from selfpriority.phases.round_inputs import start_of_training
from selfpriority.plain_text import clean
from selfpriority.preferences import PreferenceRow
from selfpriority.recipe import Align
from selfpriority.records import PairedPool
from selfpriority.run import PAIRS, Run
from selfpriority.text_table import text_table
from selfpriority.training.encode import encode_all

N_POOLS = 2
"""Pools whose loss is recomputed."""
OPEN, CLOSE = "\u27e6", "\u27e7"


@dataclass(frozen=True)
class Sample:
    """One pair as training sees it; what carries loss stands between the marks."""

    prompt_id: str
    decided_by: str
    gap: float
    prompt_tokens: int
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Diagnosis:
    """A check-up of one round."""

    round: int
    model: str
    """The round starts from it."""
    n_pools: int
    n_pairs: int
    n_responses: int
    """Answers in pairs, each once."""
    samples: tuple[Sample, ...]
    checks: Checks
    ok: bool
    """All checks passed."""


def diagnose(run: Run, number: int | None, n: int = 3, reveal: bool = False) -> Diagnosis:
    """A check-up of one round.

    Args:
        run: a run with pairs.
        number: the round; None is the last one with pairs.
        n: pairs to show as samples.
        reveal: whether samples show their texts.

    Raises:
        InputError: no such pairs, or the model cannot be loaded.
        WorkFailed: memory ran out.
    """
    from selfpriority.models.files import resolve  # the other checks of a run open no model
    from selfpriority.models.probed_chat import probed_chat
    from selfpriority.models.trust import trust_code
    from selfpriority.training.adapters import load_policy  # loads torch

    recipe = recipe_of(run)
    trust_code(recipe.trust_remote_code)
    if number is None:
        number = next(iter(rounds_with(run, PAIRS)[::-1]), 1)
    paired, rows = paired_of(run, number), stored_pairs(run, number)
    settings = _exactly(recipe.align)
    name = resolve(start_of_training(run, recipe, number))
    policy = load_policy(name, settings, recipe.seed)
    chat = probed_chat(policy.tokenizer, policy.end_ids, name)
    paired, rows, turns = _taken(paired, rows, chat)
    ends = {chat.end_id, *policy.end_ids, policy.tokenizer.eos_token_id} - {None}
    sequences = Sequences(paired, rows, chat, ends, min(settings.max_length, policy.context))
    of_some = (safe_answers(paired, settings), judge_models_check(recipe))
    checks = [turns, *all_checks(sequences), *filter(None, of_some)]
    samples = tuple(_sample(sequences, row, reveal) for row in _spread(rows, n))
    checks.append(_first_loss_check(_losses(sequences, policy, name, settings)))
    return Diagnosis(
        round=number,
        model=name,
        n_pools=len(paired),
        n_pairs=len(rows),
        n_responses=len(sequences.used),
        samples=samples,
        checks=tuple(checks),
        ok=all(check.ok for check in checks),
    )


def _taken(
    paired: Sequence[PairedPool], rows: Sequence[PreferenceRow], chat: Chat
) -> tuple[list[PairedPool], list[PreferenceRow], Check]:
    """What the chat template takes of a round, and what is worth knowing of the template."""
    refused: dict[str, RefusedTurns] = {}
    for entry in paired:
        try:
            chat.text(entry.pool.prompt.messages)
        except RefusedTurns as error:
            refused[entry.pool.prompt.id] = error
    if len(refused) == len(paired):
        raise next(iter(refused.values()))
    check = template_check(chat.template, {name: error.reason for name, error in refused.items()})
    return (
        [entry for entry in paired if entry.pool.prompt.id not in refused],
        [row for row in rows if row.prompt_id not in refused],
        check,
    )


def _exactly(settings: Align) -> Align:
    """The same training in float32 throughout, for two computations of one number to be compared."""
    exact: dict[str, object] = {"dtype": "float32", "weights": "float32"}
    if settings.lora is not None:
        exact["lora"] = settings.lora.model_copy(update={"quantize": "none"})
    return settings.model_copy(update=exact)


def _losses(sequences: Sequences, policy: Any, name: str, settings: Align) -> FirstLoss | None:
    encoded = encode_all(sequences.paired, sequences.chat, sequences.max_length, settings).kept[:N_POOLS]
    kept = {pool.prompt_id for pool in encoded}
    paired = [as_trained(entry, settings) for entry in sequences.paired if entry.pool.prompt.id in kept]
    return first_loss(policy, name, paired, encoded, settings) if encoded else None


def _first_loss_check(losses: FirstLoss | None) -> Check:
    if losses is None:
        return Check("first loss", False, "training would drop every pool, so there is nothing to compute")
    sentence = (
        f"{losses.by_training:.6f} by training, {losses.independent:.6f} computed independently, "
        f"difference {losses.difference:.1e} ({losses.n_pairs} pairs of {losses.n_pools} pools, float32)"
    )
    numbers = {
        "by_training": losses.by_training,
        "independent": losses.independent,
        "difference": losses.difference,
    }
    return Check("first loss", losses.agrees, sentence, numbers)


def _spread(rows: Sequence[PreferenceRow], n: int) -> list[PreferenceRow]:
    """Up to n rows of different prompts, evenly spread."""
    first = list({row.prompt_id: row for row in reversed(rows)}.values())[::-1]
    n = min(n, len(first))
    return [first[i * len(first) // n] for i in range(n)]


def _sample(sequences: Sequences, row: PreferenceRow, reveal: bool) -> Sample:
    prompt_ids = sequences.prompts[row.prompt]
    return Sample(
        prompt_id=row.prompt_id,
        decided_by=row.decided_by,
        gap=row.gap,
        prompt_tokens=len(prompt_ids),
        chosen=_marked(sequences, prompt_ids, sequences.responses[row.chosen_id], reveal),
        rejected=_marked(sequences, prompt_ids, sequences.responses[row.rejected_id], reveal),
    )


def _marked(sequences: Sequences, prompt_ids: Sequence[int], ids: Sequence[int], reveal: bool) -> str:
    """One sequence decoded, the tokens that carry loss between the marks."""
    if reveal:
        decode = sequences.chat.tokenizer.decode
        return f"{clean(decode(list(prompt_ids)))}{OPEN}{clean(decode(list(ids)))}{CLOSE}"
    ended = bool(ids) and ids[-1] in sequences.ends
    end = f" {sequences.chat.tokenizer.decode([ids[-1]])}" if ended else ""
    answer = folded(len(ids) - ended, "token")
    return f"{folded(len(prompt_ids), 'prompt token')} {OPEN}{answer}{end}{CLOSE}"


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """`diagnose` for a terminal."""
    answers = f"{diagnosis.n_responses} answers to {diagnosis.n_pools} prompts"
    lines = [
        f"round {diagnosis.round}: {diagnosis.n_pairs} pairs over {answers}",
        f"model: {diagnosis.model}",
        "",
        f"samples; loss is taken between {OPEN} and {CLOSE}",
    ]
    for sample in diagnosis.samples:
        lines.append(f"  prompt {sample.prompt_id}, decided by {sample.decided_by}, gap {sample.gap:.2f}")
        for side, text in (("chosen", sample.chosen), ("rejected", sample.rejected)):
            first, *others = text.split("\n")
            lines += [f"    {side:8} | {first}", *(f"             | {line}" for line in others)]
    rows = [["ok " if check.ok else "BAD", check.name, check.sentence] for check in diagnosis.checks]
    lines += ["", "checks", *(f"  {line}" for line in text_table(rows, "<<<"))]
    n_bad = sum(not check.ok for check in diagnosis.checks)
    lines.append(f"{n_bad} of {len(diagnosis.checks)} checks failed" if n_bad else "all checks passed")
    return clean("\n".join(lines))
