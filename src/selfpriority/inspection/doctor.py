"""Is what training sees what it should see? Token ids, masks and the first loss of one round, from outside.

Encodes the stored pairs with the model the round starts from. Each check is a name, a flag and a sentence;
the thresholds here decide only what the doctor remarks on, nothing in training depends on them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from selfpriority.chat import Chat
from selfpriority.inspection.first_loss import FirstLoss, first_loss
from selfpriority.inspection.folding import folded
from selfpriority.inspection.run_files import paired_of, recipe_of, rounds_with, stored_pairs
from selfpriority.plain_text import clean
from selfpriority.preferences import PreferenceRow
from selfpriority.recipe import Align
from selfpriority.records import Message, PairedPool, Response
from selfpriority.run import PAIRS, Run
from selfpriority.training.encode import encode_all

N_POOLS = 2
"""Pools whose loss is recomputed."""
MANY_TOO_LONG = 0.1
"""Share of answers over `align.max_length` from which training loses too much."""
ONE_SIDED = 0.95
"""Share of pairs with the longer (or the shorter) answer chosen from which length alone tells them apart."""
OPEN, CLOSE = "\u27e6", "\u27e7"

Json = dict[str, Any]


@dataclass(frozen=True)
class Sequences:
    """Everything a check looks at: the stored pairs of a round and their token ids, encoded afresh."""

    paired: Sequence[PairedPool]
    rows: Sequence[PreferenceRow]
    chat: Chat
    ends: Collection[int]
    """Every id that ends a sequence for this model, the end of a turn among them."""
    max_length: int

    @cached_property
    def used(self) -> list[tuple[tuple[Message, ...], Response]]:
        """Every answer in a pair, once, with its prompt."""
        found = []
        for entry in self.paired:
            indices = sorted({index for pair in entry.pairs for index in (pair.chosen, pair.rejected)})
            found += [(entry.pool.prompt.messages, entry.pool.responses[index].response) for index in indices]
        return found

    @cached_property
    def prompts(self) -> dict[tuple[Message, ...], tuple[int, ...]]:
        """Token ids of every prompt, those of the pools and those in the rows."""
        messages = {messages for messages, _ in self.used} | {row.prompt for row in self.rows}
        return {m: tuple(self.chat.prompt_ids(m)) for m in messages}

    @cached_property
    def responses(self) -> dict[str, tuple[int, ...]]:
        """Token ids of every used answer, by its id."""
        return {r.id: tuple(self.chat.response_ids(r.text, r.stop)) for _, r in self.used}


def diagnose(run: Run, number: int | None, n: int = 3, reveal: bool = False) -> Json:
    """A check-up of one round: {round, model, n_pools, n_pairs, n_responses, samples, checks, ok}.

    Args:
        run: a run with pairs.
        number: the round; None is the last one with pairs.
        n: pairs to show as samples.
        reveal: whether samples show their texts.

    Raises:
        InputError: no such pairs, or the model cannot be loaded.
        WorkFailed: memory ran out.
    """
    from selfpriority.backends.weights import resolve  # the other checks of a run open no model
    from selfpriority.training.adapters import load_policy  # loads torch

    recipe = recipe_of(run)
    if number is None:
        number = next(iter(rounds_with(run, PAIRS)[::-1]), 1)
    paired, rows = paired_of(run, number), stored_pairs(run, number)
    settings = _exactly(recipe.align)
    name = resolve(recipe.model if number == 1 else str(run.policy(number - 1)))
    policy = load_policy(name, settings, recipe.seed)
    chat = Chat(policy.tokenizer, policy.end_ids, name)
    ends = {chat.end_id, *policy.end_ids, policy.tokenizer.eos_token_id} - {None}
    sequences = Sequences(paired, rows, chat, ends, min(settings.max_length, policy.context))
    checks = _checks(sequences)
    samples = [_sample(sequences, row, reveal) for row in _spread(rows, n)]
    checks.append(_first_loss_check(_losses(sequences, policy, name, settings)))
    return {
        "round": number,
        "model": name,
        "n_pools": len(paired),
        "n_pairs": len(rows),
        "n_responses": len(sequences.used),
        "samples": samples,
        "checks": checks,
        "ok": all(check["ok"] for check in checks),
    }


def _exactly(settings: Align) -> Align:
    """The same training in float32 throughout, for two computations of one number to be compared."""
    exact: dict[str, object] = {"dtype": "float32", "weights": "float32"}
    if settings.lora is not None:
        exact["lora"] = settings.lora.model_copy(update={"quantize": "none"})
    return settings.model_copy(update=exact)


def _checks(sequences: Sequences) -> list[Json]:
    return [
        end_tokens(sequences),
        begin_tokens(sequences),
        equal_prefix(sequences),
        cut_answers(sequences),
        empty_answers(sequences),
        too_long(sequences),
        length_difference(sequences),
    ]


def end_tokens(sequences: Sequences) -> Json:
    """Exactly one end token, the last, where the model ended its turn; none where it was cut (docs/deviations.md 8).

    Scars: trl#4481, unsloth#3228, a second end token.
    """
    wrong = []
    for _, response in sequences.used:
        ids = sequences.responses[response.id]
        n_ends = sum(token in sequences.ends for token in ids)
        good = n_ends == 1 and ids[-1] == sequences.chat.end_id if response.stop == "end" else n_ends == 0
        if not good:
            wrong.append(response.id)
    n_ended = sum(response.stop == "end" for _, response in sequences.used)
    n_cut = len(sequences.used) - n_ended
    if wrong:
        return _check(
            "end tokens",
            False,
            f"{len(wrong)} of {n_ended + n_cut} answers hold a wrong number: {_some(wrong)}",
        )
    return _check("end tokens", True, f"{n_ended} finished answers hold exactly one, {n_cut} cut ones none")


def begin_tokens(sequences: Sequences) -> Json:
    """BOS at most once and only at the start, never in an answer (axolotl#1616).

    A template may open every turn with it (ChatML of some models); then its count is that of the text.
    """
    tokenizer, name = sequences.chat.tokenizer, "begin tokens"
    if tokenizer.bos_token_id is None:
        return _check(name, True, "the tokenizer has none")
    bos, opens_turns = tokenizer.bos_token_id, _opens_turns(sequences.chat)
    wrong = []
    for messages, response in sequences.used:
        prompt_ids = sequences.prompts[messages]
        if opens_turns:
            good = prompt_ids.count(bos) == sequences.chat.text(messages).count(tokenizer.bos_token)
        else:
            good = bos not in prompt_ids[1:]
        in_answer = bos not in sequences.ends and bos in sequences.responses[response.id]
        if not good or in_answer:
            wrong.append(response.id)
    if wrong:
        return _check(name, False, f"{len(wrong)} sequences hold one too many or in the wrong place: {_some(wrong)}")
    usual = "none but at the start" if not opens_turns else "it opens every turn of this template, none was added"
    return _check(name, True, f"{len(sequences.used)} sequences: {usual}, none in an answer")


def _opens_turns(chat: Chat) -> bool:
    bos = chat.tokenizer.bos_token_id
    return chat.prompt_ids([Message("user", "a")]).count(bos) > 1


def equal_prefix(sequences: Sequences) -> Json:
    """Each stored pair, encoded from its own row, is the pool's prompt followed by the pool's two answers."""
    wrong = []
    prompts = {entry.pool.prompt.id: entry.pool.prompt.messages for entry in sequences.paired}
    for row in sequences.rows:
        prefix = sequences.prompts[prompts[row.prompt_id]]
        own = sequences.prompts[row.prompt]
        for message, stop, response_id in (
            (row.chosen[0], row.chosen_stop, row.chosen_id),
            (row.rejected[0], row.rejected_stop, row.rejected_id),
        ):
            ids = own + tuple(sequences.chat.response_ids(message.content, "end" if stop == "end" else "length"))
            if ids != prefix + sequences.responses[response_id]:
                wrong.append(response_id)
    if wrong:
        return _check("equal prefix", False, f"{len(wrong)} sides of pairs differ from their pool: {_some(wrong)}")
    return _check(
        "equal prefix",
        True,
        f"chosen and rejected of {len(sequences.rows)} pairs follow the same prompt tokens",
    )


def cut_answers(sequences: Sequences) -> Json:
    """How many chosen and rejected answers were cut; bad when no chosen one shows how to stop."""
    chosen = fmean(row.chosen_stop == "length" for row in sequences.rows)
    rejected = fmean(row.rejected_stop == "length" for row in sequences.rows)
    sentence = f"cut at the length limit: {chosen:.0%} of the chosen, {rejected:.0%} of the rejected answers"
    if chosen == 1.0:
        sentence += "; nothing teaches the policy to stop, raise sample.max_new_tokens"
    return {**_check("cut answers", chosen < 1.0, sentence), "chosen": chosen, "rejected": rejected}


def empty_answers(sequences: Sequences) -> Json:
    """No answer in a pair is empty; such a pool would be dropped by training."""
    empty = [r.id for _, r in sequences.used if not r.text.strip()]
    if empty:
        return _check("empty answers", False, f"{len(empty)} answers in pairs are empty: {_some(empty)}")
    return _check("empty answers", True, "none")


def too_long(sequences: Sequences) -> Json:
    """Answers that do not fit with their prompt; training drops their pools whole, never cuts."""
    used = sequences.used
    long = [r.id for m, r in used if len(sequences.prompts[m]) + len(sequences.responses[r.id]) > sequences.max_length]
    share = len(long) / len(used)
    where = f"over {sequences.max_length} tokens with their prompt"
    sentence = (
        f"{len(long)} answers are {where}: {_some(long)}; their pools do not train" if long else f"no answer is {where}"
    )
    if share > MANY_TOO_LONG:
        sentence += "; raise align.max_length"
    return _check("too long", share <= MANY_TOO_LONG, sentence)


def length_difference(sequences: Sequences) -> Json:
    """How often the chosen answer is the longer one."""
    lengths = [(len(sequences.responses[r.chosen_id]), len(sequences.responses[r.rejected_id])) for r in sequences.rows]
    longer = fmean(chosen > rejected for chosen, rejected in lengths)
    shorter = fmean(chosen < rejected for chosen, rejected in lengths)
    chosen, rejected = fmean(c for c, _ in lengths), fmean(r for _, r in lengths)
    means = f"{chosen:.0f} against {rejected:.0f} tokens"
    sentence = f"the chosen answer is longer in {longer:.0%} of the pairs ({means})"
    good = max(longer, shorter) <= ONE_SIDED
    if not good:
        sentence += "; length alone tells chosen from rejected"
    return {**_check("length", good, sentence), "chosen_longer": longer}


def _losses(sequences: Sequences, policy: Any, name: str, settings: Align) -> FirstLoss | None:
    encoded = encode_all(sequences.paired, sequences.chat, sequences.max_length, settings.weight_gap).kept[:N_POOLS]
    kept = {pool.prompt_id for pool in encoded}
    paired = [entry for entry in sequences.paired if entry.pool.prompt.id in kept]
    return first_loss(policy, name, paired, encoded, settings) if encoded else None


def _first_loss_check(losses: FirstLoss | None) -> Json:
    if losses is None:
        return _check("first loss", False, "training would drop every pool, so there is nothing to compute")
    sentence = (
        f"{losses.by_training:.6f} by training, {losses.independent:.6f} computed independently, "
        f"difference {losses.difference:.1e} ({losses.n_pairs} pairs of {losses.n_pools} pools, float32)"
    )
    numbers = {
        "by_training": losses.by_training,
        "independent": losses.independent,
        "difference": losses.difference,
    }
    return {**_check("first loss", losses.agrees, sentence), **numbers}


def _check(name: str, ok: bool, sentence: str) -> Json:
    return {"name": name, "ok": ok, "sentence": sentence}


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def _spread(rows: Sequence[PreferenceRow], n: int) -> list[PreferenceRow]:
    """Up to n rows of different prompts, evenly spread."""
    first = list({row.prompt_id: row for row in reversed(rows)}.values())[::-1]
    n = min(n, len(first))
    return [first[i * len(first) // n] for i in range(n)]


def _sample(sequences: Sequences, row: PreferenceRow, reveal: bool) -> Json:
    prompt_ids = sequences.prompts[row.prompt]
    return {
        "prompt_id": row.prompt_id,
        "decided_by": row.decided_by,
        "gap": row.gap,
        "prompt_tokens": len(prompt_ids),
        "chosen": _marked(sequences, prompt_ids, sequences.responses[row.chosen_id], reveal),
        "rejected": _marked(sequences, prompt_ids, sequences.responses[row.rejected_id], reveal),
    }


def _marked(sequences: Sequences, prompt_ids: Sequence[int], ids: Sequence[int], reveal: bool) -> str:
    """One sequence decoded, the tokens that carry loss between the marks."""
    if reveal:
        decode = sequences.chat.tokenizer.decode
        return f"{clean(decode(list(prompt_ids)))}{OPEN}{clean(decode(list(ids)))}{CLOSE}"
    ended = bool(ids) and ids[-1] in sequences.ends
    end = f" {sequences.chat.tokenizer.decode([ids[-1]])}" if ended else ""
    answer = folded(len(ids) - ended, "token")
    return f"{folded(len(prompt_ids), 'prompt token')} {OPEN}{answer}{end}{CLOSE}"


def diagnosis_text(found: Json) -> str:
    """`diagnose` for a terminal."""
    answers = f"{found['n_responses']} answers to {found['n_pools']} prompts"
    lines = [
        f"round {found['round']}: {found['n_pairs']} pairs over {answers}",
        f"model: {found['model']}",
        "",
        f"samples; loss is taken between {OPEN} and {CLOSE}",
    ]
    for sample in found["samples"]:
        lines.append(f"  prompt {sample['prompt_id']}, decided by {sample['decided_by']}, gap {sample['gap']:.2f}")
        for side in ("chosen", "rejected"):
            first, *others = sample[side].split("\n")
            lines += [f"    {side:8} | {first}", *(f"             | {line}" for line in others)]
    width = max(len(check["name"]) for check in found["checks"])
    lines += ["", "checks"]
    for check in found["checks"]:
        lines.append(f"  {'ok ' if check['ok'] else 'BAD'}  {check['name'].ljust(width)}  {check['sentence']}")
    n_bad = sum(not check["ok"] for check in found["checks"])
    lines.append(f"{n_bad} of {len(found['checks'])} checks failed" if n_bad else "all checks passed")
    return clean("\n".join(lines))
