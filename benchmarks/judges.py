"""How well do the shipped judges agree with human labels they were not fitted on?

    python benchmarks/judges.py --data FOLDER                         every judge on every known file in FOLDER
    python benchmarks/judges.py --data FILE --judge demo-train --json one figure, as one JSON object

Known files (JSONL, listed in this folder's README): SafeRLHF answers with unanimous labels (is the answer safe), XSTest
responses to unsafe prompts (refusal against compliance), Auto-J pairs (helpfulness; and its answers against answers to
other prompts, and against stock refusals), HHH pairs. Prints figures, no text. Auto-J is what the helpfulness heads
were fitted on, so for a head only the prompts of the other half count.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from every_layer import EveryLayer
from shipped_labels import MIXES, autoj_pairs, off_topic, part_of, refusals

from selfpriority.backends.cache import Cached
from selfpriority.backends.hf import HfModel
from selfpriority.constitution import load_constitution
from selfpriority.intervals import Interval, bootstrap_auc, bootstrap_mean_interval, pair_wins
from selfpriority.judges.heads import Heads, read_heads
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, label_prompt, prompt_group
from selfpriority.judges.probe import ProbeJudge
from selfpriority.judges.words import WordsJudge
from selfpriority.language_model import LanguageModel
from selfpriority.phases.opening import SHIPPED_HEADS, shipped_heads
from selfpriority.rating import Item, Judge
from selfpriority.recipe import HfBackend, Score
from selfpriority.records import Message, Rating, Response

Row = dict[str, Any]
Label = LabelledAnswer | LabelledPair
DEFAULT = "demo-train"  # what `--judge probe` means
OBJECTIVES = ("harmlessness", "helpfulness")
_AUTOJ = "autoj_pairwise_human.jsonl.gz"


def safer(rows: Sequence[Row]) -> Iterator[Label]:
    for row in rows:
        if row["unanimous"] and row["is_safe"] is not None:
            yield _answer(row["prompt"], row["response"], "harmlessness", bool(row["is_safe"]))


def xstest(rows: Sequence[Row]) -> Iterator[Label]:
    for row in rows:
        if not row["prompt_is_safe"] and row["human_label"] in ("1_full_compliance", "2_full_refusal"):
            refused = row["human_label"] == "2_full_refusal"
            yield _answer(row["prompt"], row["response"], "harmlessness", refused)


def relevance(rows: Sequence[Row]) -> Iterator[Label]:
    yield from off_topic(list(autoj_pairs(rows)))


def refused(rows: Sequence[Row]) -> Iterator[Label]:
    yield from refusals(list(autoj_pairs(rows)), seed=0)


def hhh(rows: Sequence[Row]) -> Iterator[Label]:
    for row in rows:
        objective = {"harmless": "harmlessness", "helpful": "helpfulness"}.get(row["category"])
        if objective:
            turns = [Message(turn["role"], turn["content"]) for turn in row["messages"]]
            yield _pair(turns, row["chosen"], row["rejected"], objective)


QUESTIONS: tuple[tuple[str, str, Callable[[Sequence[Row]], Iterator[Label]]], ...] = (
    ("safe answers", "saferlhf_answers_labelled.test.jsonl.gz", safer),
    ("refusal against compliance", "xstest_responses_labelled.jsonl.gz", xstest),
    ("preferred answers", _AUTOJ, autoj_pairs),
    ("answers to the point", _AUTOJ, relevance),
    ("answers against refusals", _AUTOJ, refused),
    ("preferred answers", "hhh_alignment_pairs.jsonl", hhh),
)


def main() -> int:
    options = _options()
    folder_of = options.data.parent if options.data.is_file() else options.data
    asked = [q for q in QUESTIONS if options.data.is_dir() or q[1] == options.data.name]
    judges = [DEFAULT if options.judge == "probe" else options.judge] if options.judge else [*shipped_heads(), "words"]
    layers = {n for name in shipped_heads() for head in _heads(name).by_objective.values() for n in head.layers}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        states = options.states or Path(folder) / "states.sqlite"
        model = EveryLayer(Cached(HfModel(options.model, HfBackend()), states), layers)
        for question, file, read in asked:
            labels = list(read(_rows(folder_of / file)))
            random.Random(0).shuffle(labels)
            for name, objective in product(judges, sorted({label.objective for label in labels})):
                own = [label for label in labels if label.objective == objective and _unseen(label, name, file)]
                most = options.limit_words if name == "words" else options.limit
                result = measure(_judge(name, model), own[:most])
                results.append({"data": file, "question": question, "judge": name, "objective": objective, **result})
                if not options.json:
                    print(_line(results[-1]), flush=True)
    if options.json:
        print(json.dumps(results if options.data.is_dir() else {**results[0], "further": results[1:]}))
    return 0


def measure(judge: Judge, labels: Sequence[Label]) -> Row:
    """AUC of single answers or accuracy of pairs, with a 95 % interval over prompts; unrated answers are counted."""
    k = judge.objectives.index(labels[0].objective)
    if isinstance(labels[0], LabelledAnswer):
        answers = [label for label in labels if isinstance(label, LabelledAnswer)]
        values = _rate(judge, [(label.prompt, label.response) for label in answers], k)
        rated = [(value, a) for value, a in zip(values, answers, strict=True) if value is not None]
        interval = bootstrap_auc([v for v, _ in rated], [a.label for _, a in rated], [a.group for _, a in rated])
        return _figures("auc", interval, len(answers) - len(rated))
    pairs = [label for label in labels if isinstance(label, LabelledPair)]
    chosen = _rate(judge, [(pair.prompt, pair.chosen) for pair in pairs], k)
    rejected = _rate(judge, [(pair.prompt, pair.rejected) for pair in pairs], k)
    both = [(c, r, p) for c, r, p in zip(chosen, rejected, pairs, strict=True) if c is not None and r is not None]
    wins = pair_wins([c for c, _, _ in both], [r for _, r, _ in both])
    return _figures("accuracy", bootstrap_mean_interval(wins, [p.group for _, _, p in both]), len(pairs) - len(both))


def _figures(name: str, interval: Interval, unrated: int) -> Row:
    numbers = {name: interval.estimate, "low": interval.low, "high": interval.high}
    return {**{key: round(value, 4) for key, value in numbers.items()}, "n": interval.n, "unrated": unrated}


def _rate(judge: Judge, answers: Sequence[tuple[Any, str]], k: int) -> list[float | None]:
    items = [Item(prompt, Response(str(i), prompt.id, text, "end", 0)) for i, (prompt, text) in enumerate(answers)]
    verdicts = [ratings[k] for ratings in judge.rate(items)]
    return [verdict.value if isinstance(verdict, Rating) else None for verdict in verdicts]


def _judge(name: str, model: LanguageModel) -> Judge:
    if name == "words":
        # nearly no mass floor: a model that hardly answers in digits is shown as it is, not as unrated
        return WordsJudge(model, load_constitution("harmless-helpful"), Score(method="expected", mass_floor=0.01))
    return ProbeJudge(model, _heads(name), OBJECTIVES)


def _heads(name: str) -> Heads:
    return read_heads(SHIPPED_HEADS / name if name in shipped_heads() else Path(name))


def _unseen(label: Label, judge: str, file: str) -> bool:
    """Whether a shipped head has not been fitted on this label: of Auto-J, the prompts of the other half."""
    if file != _AUTOJ or judge not in shipped_heads():
        return True
    return part_of(label.group) != MIXES[judge].half


def _answer(prompt: str, response: str, objective: str, label: bool) -> LabelledAnswer:
    asked = label_prompt([Message("user", prompt)])
    return LabelledAnswer(asked, response, objective, label, prompt_group(asked))


def _pair(turns: Sequence[Message], chosen: str, rejected: str, objective: str) -> LabelledPair:
    prompt = label_prompt(turns)
    return LabelledPair(prompt, chosen, rejected, objective, prompt_group(prompt))


def _rows(path: Path) -> list[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _line(result: Row) -> str:
    measured = "auc" if "auc" in result else "accuracy"
    return (
        f"{result['data'].split('.')[0]:25} {result['question']:26} {result['judge']:10} {result['objective']:12} "
        f"{measured} {result[measured]:.3f} "
        f"({result['low']:.3f} to {result['high']:.3f}) n {result['n']} unrated {result['unrated']}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="a known file, or the folder that holds them")
    parser.add_argument(
        "--judge",
        help="probe (demo-train), demo-train, demo-eval, ranking, words, or a folder of fitted heads; default: all",
    )
    parser.add_argument("--model", default="smollm2-135m", help="the model that the heads read or that is asked")
    parser.add_argument("--states", type=Path, help="SQLite file that keeps the hidden states for the next time")
    parser.add_argument("--limit", type=int, help="rate at most this many labels of a file")
    parser.add_argument("--limit-words", type=int, default=200, help="the same for the model in words")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
