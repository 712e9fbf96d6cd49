"""The funnel of a run, and the whole way of one prompt over all rounds, as data and as text for a terminal.

Reads an unfinished run as well as a finished one. Texts stay folded unless revealed.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.inspection.folding import aligned, barred, shown
from selfpriority.inspection.run_files import objectives_of, recipe_of, rows_about
from selfpriority.method.denoise import determinant
from selfpriority.plain_text import clean
from selfpriority.preferences import PreferenceRow
from selfpriority.records import Candidates, Drop, Pool, Prompt, Response, Scored, covariance
from selfpriority.run import CANDIDATES, PAIRS, REFINED, SCORED, Run, read_json, read_rows

STEPS = ("prompts", "sample", "score", "refine", "denoise", "pair", "align")

Json = dict[str, Any]


def funnel(run: Run) -> Json:
    """Counts of every step so far, for every round of the recipe.

    Returns:
        {run, n_rounds, rounds: [{round, steps, pairs, next}]} with a step as {step, in, out, dropped,
        responses_dropped}. Reasons come most frequent first; `next` is the first step not done, or None.
    """
    n_rounds = recipe_of(run).rounds
    return {
        "run": run.folder.name,
        "n_rounds": n_rounds,
        "rounds": [_round_counts(run, number) for number in range(1, n_rounds + 1)],
    }


def _round_counts(run: Run, number: int) -> Json:
    path = run.round(number) / "funnel.json"
    stored = read_json(path) if path.is_file() else {"steps": {}}
    steps = [
        {
            "step": name,
            "in": row["in"],
            "out": row["out"],
            "dropped": _most_first(row["dropped"]),
            "responses_dropped": _most_first(row["responses_dropped"]),
        }
        for name in STEPS
        if (row := stored["steps"].get(name))
    ]
    left = [name for name in STEPS[1:] if name not in stored["steps"]]
    return {"round": number, "steps": steps, "pairs": stored.get("pairs"), "next": left[0] if left else None}


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def funnel_text(counts: Json) -> str:
    """`funnel` for a terminal."""
    blocks = []
    for entry in counts["rounds"]:
        lines = [f"round {entry['round']} of {counts['n_rounds']}"]
        if entry["steps"]:
            heads = ["step", "in", "out", "dropped", "why"]
            lines += ["  " + line for line in aligned([heads, *map(_step_cells, entry["steps"])])]
        lines += _pairs_lines(entry["pairs"])
        if entry["next"]:
            lines.append(f"  next: {entry['next']}" if entry["steps"] else "  nothing done yet")
        blocks.append("\n".join(lines))
    return clean("\n\n".join(blocks))


def _step_cells(row: Json) -> list[str]:
    why = _counted(row["dropped"])
    if row["responses_dropped"]:
        n = sum(row["responses_dropped"].values())
        why += f"{'; ' if why else ''}single answers lost: {n} ({_counted(row['responses_dropped'])})"
    return [row["step"], str(row["in"]), str(row["out"]), str(sum(row["dropped"].values())), why]


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.items())


def _pairs_lines(pairs: Json | None) -> Iterator[str]:
    if pairs is None:
        return
    if "n" in pairs:
        n = pairs["n"]
        who = ", ".join(f"{name} {count} ({count / max(n, 1):.0%})" for name, count in pairs["decided_by"].items())
        yield f"  pairs: {n}; decided by {who}"
    if "trained" in pairs:
        yield f"  trained on {pairs['trained']} pairs; {pairs['light_share']:.0%} of them weigh under 0.1"


def prompt_story(run: Run, prompt_id: str, reveal: bool) -> Json:
    """The whole way of one prompt: {prompt_id, rounds: [...], held_out: {system: ...}}.

    A round holds the prompt, its candidates (persona, scores, stop), the refined answers, the two tests of
    denoising in numbers, every drop, the pairs, and the outcome in words. Texts are folded unless `reveal`;
    then their control codes are stripped.

    Raises:
        InputError: the run knows no such prompt; the nearest ids are named.
    """
    objectives = objectives_of(run)
    numbers = range(1, recipe_of(run).rounds + 1)
    told = [_round_story(run.round(number), prompt_id, objectives, reveal) for number in numbers]
    rounds = [{"round": number, **story} for number, story in zip(numbers, told, strict=True) if story]
    held_out = _held_out(run.evaluation, prompt_id, reveal)
    if not rounds and not held_out:
        raise InputError(_unknown(run, prompt_id))
    return {"prompt_id": prompt_id, "rounds": rounds, "held_out": held_out}


def _round_story(folder: Path, prompt_id: str, objectives: Sequence[str], reveal: bool) -> Json | None:
    sampled = rows_about(folder / CANDIDATES, Candidates, prompt_id, lambda row: row.prompt.id)
    pools = [
        pool
        for name in (REFINED, SCORED)
        for pool in rows_about(folder / name, Pool, prompt_id, lambda row: row.prompt.id)
    ]
    drops = rows_about(folder / "drops.jsonl", Drop, prompt_id, lambda drop: drop.prompt_id)
    pairs = rows_about(folder / PAIRS, PreferenceRow, prompt_id, lambda row: row.prompt_id)
    if not sampled and not drops:
        return None
    pool = pools[0] if pools else None
    rated = {scored.response.id: scored for scored in (*pool.responses, *pool.other_refinements)} if pool else {}
    lost = {drop.response_id: drop for drop in drops if drop.response_id}

    def told(response: Response) -> Json:
        return _answer(response, rated.get(response.id), lost.get(response.id), objectives, reveal)

    responses = sampled[0].responses if sampled else ()
    return {
        "outcome": _outcome(drops, pairs),
        "prompt": _messages(sampled[0].prompt, reveal) if sampled else [],
        "kind": sampled[0].prompt.kind if sampled else "",
        "candidates": [told(response) for response in responses],
        "refined": told(pool.refined.response) if pool and pool.refined else None,
        "other_refinements": [told(scored.response) for scored in pool.other_refinements] if pool else [],
        "tests": _tests(pool, objectives) if pool else None,
        "drops": [_drop(drop) for drop in drops],
        "pairs": [_pair(row) for row in pairs],
    }


def _messages(prompt: Prompt, reveal: bool) -> list[Json]:
    return [{"role": message.role, "content": shown(message.content, reveal)} for message in prompt.messages]


def _answer(
    response: Response, rated: Scored | None, lost: Drop | None, objectives: Sequence[str], reveal: bool
) -> Json:
    return {
        "id": response.id,
        "persona": response.persona,
        "stop": response.stop,
        "n_tokens": response.n_tokens,
        "scores": dict(zip(objectives, rated.scores, strict=True)) if rated else None,
        "lost": f"{lost.step}: {lost.reason}" if lost else None,
        "text": shown(response.text, reveal),
    }


def _tests(pool: Pool, objectives: Sequence[str]) -> Json:
    """What denoising looks at: how far the refined answer is ahead, and det of the candidates' covariance."""
    consistency = {}
    for k, name in enumerate(objectives):
        scores = [candidate.scores[k] for candidate in pool.candidates]
        if pool.refined is not None:
            own = pool.refined.scores[k]
            beaten = sum(own > score for score in scores)
            consistency[name] = {"refined": own, "best": max(scores), "beaten": beaten, "of": len(scores)}
    return {"consistency": consistency, "det": determinant(covariance([c.scores for c in pool.candidates]))}


def _outcome(drops: Sequence[Drop], pairs: Sequence[PreferenceRow]) -> str:
    whole = next((drop for drop in drops if drop.response_id is None), None)
    if whole is not None:
        return f"dropped by {whole.step}: {whole.reason}"
    return f"kept, {len(pairs)} pair{'' if len(pairs) == 1 else 's'}" if pairs else "kept so far"


def _drop(drop: Drop) -> Json:
    return {
        "step": drop.step,
        "reason": drop.reason,
        "response": drop.response_id,
        "detail": clean(drop.detail),
    }


def _pair(row: PreferenceRow) -> Json:
    return {
        "chosen": row.chosen_id,
        "rejected": row.rejected_id,
        "decided_by": row.decided_by,
        "distance": row.distance,
        "gap": row.gap,
    }


def _held_out(folder: Path, prompt_id: str, reveal: bool) -> dict[str, Json]:
    found = {}
    for system in _systems(folder):
        answers, verdicts, drops = (
            _json_rows(folder / f"{name}-{system}.jsonl") for name in ("answers", "verdicts", "drops")
        )
        answer = next((row for row in answers if row["prompt"]["id"] == prompt_id), None)
        verdict = next((row for row in verdicts if row["prompt_id"] == prompt_id), None)
        drop = next((row for row in drops if row["prompt_id"] == prompt_id), None)
        if answer:
            prompt, response = answer["prompt"], answer["response"]
            found[system] = {
                "kind": prompt["kind"],
                "prompt": [{**m, "content": shown(m["content"], reveal)} for m in prompt["messages"]],
                "stop": response["stop"],
                "n_tokens": response["n_tokens"],
                "ratings": {name: _rating(r) for name, r in verdict["ratings"].items()} if verdict else None,
                "refusal": verdict["refusal"] if verdict else None,
                "text": shown(response["text"], reveal),
            }
        elif drop:
            found[system] = {"dropped": drop["reason"]}
    return found


def _systems(folder: Path) -> list[str]:
    names = [path.stem.removeprefix("answers-") for path in folder.glob("answers-*.jsonl")]
    return sorted(names, key=lambda name: (name != "vanilla", name))


def _json_rows(path: Path) -> Iterator[Json]:
    """Rows as plain JSON: their classes belong to the evaluation, which opens models."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _rating(verdict: Json) -> float | str:
    return float(verdict["value"]) if "value" in verdict else f"unrated ({verdict['reason']})"


def _unknown(run: Run, prompt_id: str) -> str:
    known: Counter[str] = Counter()
    for number in range(1, recipe_of(run).rounds + 1):
        folder = run.round(number)
        if (folder / CANDIDATES).is_file():
            known.update(row.prompt.id for row in read_rows(folder / CANDIDATES, Candidates))
        if (folder / "drops.jsonl").is_file():
            known.update(drop.prompt_id for drop in read_rows(folder / "drops.jsonl", Drop))
    for system in _systems(run.evaluation):
        known.update(row["prompt"]["id"] for row in _json_rows(run.evaluation / f"answers-{system}.jsonl"))
    if not known:
        return f"{run.folder}: no prompt has been sampled yet; `spa run` continues"
    near = difflib.get_close_matches(prompt_id, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(known)}, for example {next(iter(known))}"
    return f"--prompt: {run.folder} has no prompt {prompt_id!r}; {hint}"


def prompt_text(story: Json) -> str:
    """`prompt_story` for a terminal."""
    lines = [f"prompt {story['prompt_id']}"]
    for entry in story["rounds"]:
        lines += ["", *_round_lines(entry)]
    if story["held_out"]:
        lines += ["", "held out"]
        lines += _message_lines(
            next((answer["prompt"] for answer in story["held_out"].values() if "prompt" in answer), [])
        )
    for system, answer in story["held_out"].items():
        lines += _held_out_lines(system, answer)
    return clean("\n".join(lines))


def _round_lines(entry: Json) -> Iterator[str]:
    kind = f" ({entry['kind']})" if entry["kind"] else ""
    yield f"round {entry['round']}{kind}: {entry['outcome']}"
    yield from _message_lines(entry["prompt"])
    for answer in entry["candidates"]:
        yield from _answer_lines("candidate", answer)
    if entry["refined"]:
        yield from _answer_lines("refined", entry["refined"])
    for answer in entry["other_refinements"]:
        yield from _answer_lines("refined, not the best", answer)
    if entry["tests"]:
        for name, test in entry["tests"]["consistency"].items():
            yield (
                f"  {name}: refined {test['refined']:.2f}, best candidate {test['best']:.2f}, "
                f"beats {test['beaten']} of {test['of']}"
            )
        yield f"  det of the candidates' covariance: {entry['tests']['det']:.4g}"
    for drop in entry["drops"]:
        what = f"answer {drop['response']}" if drop["response"] else "prompt"
        yield f"  dropped by {drop['step']}: {what}, {drop['reason']}" + (
            f" ({drop['detail']})" if drop["detail"] else ""
        )
    if entry["pairs"]:
        heads = ["chosen", "over", "distance", "gap", "decided by"]
        cells = [
            [p["chosen"], p["rejected"], f"{p['distance']:.2f}", f"{p['gap']:.2f}", p["decided_by"]]
            for p in entry["pairs"]
        ]
        yield from ("  " + line for line in aligned([heads, *cells]))


def _message_lines(messages: Sequence[Json]) -> Iterator[str]:
    for message in messages:
        yield f"  {message['role']}"
        yield from barred(message["content"], "    ")


def _answer_lines(title: str, answer: Json) -> Iterator[str]:
    facts = [f"{answer['n_tokens']} tokens, stop: {answer['stop']}"]
    if answer["persona"]:
        facts.append(f"persona {answer['persona']}")
    if answer["scores"]:
        facts += [f"{name} {score:.2f}" for name, score in answer["scores"].items()]
    if answer["lost"]:
        facts.append(f"lost by {answer['lost']}")
    yield f"  {title} {answer['id']}: {'; '.join(facts)}"
    yield from barred(answer["text"], "    ")


def _held_out_lines(system: str, answer: Json) -> Iterator[str]:
    if "dropped" in answer:
        yield f"  {system}: no answer ({answer['dropped']})"
        return
    ratings = [
        f"{name} {r if isinstance(r, str) else format(r, '.2f')}" for name, r in (answer["ratings"] or {}).items()
    ]
    facts = [f"{answer['n_tokens']} tokens, stop: {answer['stop']}", *ratings]
    yield f"  {system}: {'; '.join([*facts, 'a refusal'] if answer['refusal'] else facts)}"
    yield from barred(answer["text"], "    ")
