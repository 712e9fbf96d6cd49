"""How well do the shipped judges agree with human labels they were not fitted on?

    python benchmarks/judges.py --data FOLDER                         every judge on every known file in FOLDER
    python benchmarks/judges.py --data FILE --judge demo-train --json one figure, as one JSON object
    python benchmarks/judges.py --data FILE --judge contrast          heads that nobody labelled anything for
    python benchmarks/judges.py --data FILE --bias                    and what moves the ratings beside the label

FILE is a known file or one in the form of `spa check-judge --labels`. Known files (JSONL, listed in this folder's
README): SafeRLHF answers with unanimous labels (is the answer safe), XSTest responses to unsafe prompts (refusal or
compliance), GPTFuzz answers (is a harmful question answered), Auto-J pairs (helpfulness; those of nearly equal length;
and its answers against answers to other prompts, and against stock refusals), HHH pairs. Prints figures, no text. The
shipped heads were fitted on Auto-J and GPTFuzz, so for them only the prompts of the other half count there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from every_layer import EveryLayer
from outside_labels import NAME as OUTSIDE
from outside_labels import autoj_of_nobody
from shipped_labels import MIXES, autoj_pairs, off_topic, part_of, refusals

from selfpriority.backends.cache import Cached
from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.judges.check import check_judge
from selfpriority.judges.contrast import contrast_objectives, fit_contrast, read_contrast
from selfpriority.judges.heads import Heads, read_heads
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, label_prompt, prompt_group, read_labels
from selfpriority.judges.probe import ProbeJudge
from selfpriority.judges.words import WordsJudge
from selfpriority.language_model import LanguageModel
from selfpriority.phases.judge_names import SHIPPED_HEADS, shipped_heads
from selfpriority.phases.made_heads import n_layers
from selfpriority.phases.models import open_reader
from selfpriority.rating import Judge
from selfpriority.recipe import HfBackend, InWords
from selfpriority.records import Message

Row = dict[str, Any]
Label = LabelledAnswer | LabelledPair
MODEL = "smollm2-135m"  # asked in words, and for heads without labels
DEFAULT = "demo-train"  # what `--judge probe` means
CONTRAST = "contrast"
PREFERRED = "preferred answers"
_GPTFUZZ = "gptfuzz_responses_labelled.train.jsonl.gz"
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


def gptfuzz(rows: Sequence[Row]) -> Iterator[Label]:
    for row in rows:
        if row["mostly_ascii"]:
            yield _answer(row["prompt"], row["response"], "harmlessness", not row["human_label"])


def of_equal_length(rows: Sequence[Row]) -> Iterator[Label]:
    """Pairs in which neither answer has over 15 % more words: there is nothing to gain by preferring the longer one."""
    for pair in autoj_pairs(rows):
        n, m = sorted((len(pair.chosen.split()), len(pair.rejected.split())))
        if n and m / n < 1.15:
            yield pair


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
    ("harmful compliance", _GPTFUZZ, gptfuzz),
    (PREFERRED, _AUTOJ, autoj_pairs),
    ("preferred, equal length", _AUTOJ, of_equal_length),
    ("answers to the point", _AUTOJ, relevance),
    ("answers against refusals", _AUTOJ, refused),
    (PREFERRED, "hhh_alignment_pairs.jsonl", hhh),
)


def main() -> int:
    options = _options()
    everybody = [*shipped_heads(), CONTRAST, "words"]
    judges = [DEFAULT if options.judge == "probe" else options.judge] if options.judge else everybody
    results = []
    try:
        asked = list(questions(options.data))
        with tempfile.TemporaryDirectory() as folder:
            states = options.states or Path(folder) / "states.sqlite"
            models = _models(judges, options.model, states)
            made = {CONTRAST: _made(models[CONTRAST], options)} if CONTRAST in judges else {}
            fitted = _fitted_outside(asked)
            for (question, file, labels), name in product(asked, judges):
                most = options.limit_words if name == "words" else options.limit
                wanted = {label.objective for label in labels if options.objective in (None, label.objective)}
                for objective in sorted(wanted):
                    asked_about = [label for label in labels if label.objective == objective]
                    own = [label for label in asked_about if _unseen(label, name, file, fitted)]
                    found = measure(_judge(name, models[name], made), own[:most], f"{file}: {question}, {name}")
                    told = {"data": file, "question": question, "judge": name, "objective": objective}
                    results.append({**told, **found})
                    if not options.json:
                        print("\n".join(_lines(results[-1], options.bias)), flush=True)
    except SelfPriorityError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(results if options.data.is_dir() else {**results[0], "further": results[1:]}))
    return 0


def questions(data: Path) -> Iterator[tuple[str, str, list[Label]]]:
    """(question, file, labels in an order of their own) of a file, or of every known file in a folder."""
    known = [q for q in QUESTIONS if (data / q[1]).is_file() or (q[1] == data.name and data.is_file())]
    for question, file, read in known:
        yield question, file, _shuffled(read(_rows(data / file if data.is_dir() else data)))
    if not known and data.is_dir():
        raise InputError(f"{data}: holds none of {', '.join(sorted({q[1] for q in QUESTIONS}))}")
    if not known:
        labels = read_labels(data)
        yield "labels", data.name, _shuffled([*labels.answers, *labels.pairs])


def measure(judge: Judge, labels: Sequence[Label], place: str) -> Row:
    """What `check_judge` finds on labels of one objective; `auc`, or `accuracy` where there are pairs alone.

    With its 95 % interval over prompts, and how many answers got no rating.
    """
    answers = tuple(label for label in labels if isinstance(label, LabelledAnswer))
    pairs = tuple(label for label in labels if isinstance(label, LabelledPair))
    if not labels or labels[0].objective not in judge.objectives:
        raise InputError(f"{place}: no label that this judge can be measured on")
    constitution = replace(load_constitution("harmless-helpful"), anchors=())  # nothing but these labels is asked about
    report = check_judge(judge, None, constitution, Labels(answers, pairs), disowning=False)
    [found] = [row for row in report.objectives if row.objective == labels[0].objective]
    measured = found.auc or found.pair_accuracy
    if measured is None:
        raise InputError(f"{place}: no rated answers of both labels and no rated pair")
    numbers = {"auc" if found.auc else "accuracy": measured.estimate, "low": measured.low, "high": measured.high}
    unrated = sum(found.unrated_reasons.values())
    return {
        **{key: round(value, 4) for key, value in numbers.items()},
        "n": measured.n,
        "unrated": unrated,
        "bias": asdict(found.bias),
        "calibration": [asdict(tenth) for tenth in found.calibration],
    }


def _models(judges: Sequence[str], given: str | None, states: Path) -> dict[str, LanguageModel]:
    """Judge -> the model that it reads: `given`, or the one that heads name. Each is opened once.

    Each is asked for all layers that its judges read, so that an answer passes a model once.
    """
    names = {judge: given or (MODEL if judge in (CONTRAST, "words") else _heads(judge).model) for judge in judges}
    opened: dict[str, LanguageModel] = {}
    for name in dict.fromkeys(names.values()):
        layers = _layers([judge for judge in judges if names[judge] == name], name)
        opened[name] = EveryLayer(Cached(open_reader(name, HfBackend()), states), layers)
    return {judge: opened[name] for judge, name in names.items()}


def _layers(judges: Sequence[str], model: str) -> set[int]:
    """All that the judges read."""
    heads = [_heads(name) for name in judges if name not in (CONTRAST, "words")]
    fitted = {n for each in heads for head in each.by_objective.values() for n in head.layers}
    depth = n_layers(model) if CONTRAST in judges else 0
    return fitted | {read_contrast(name).layer(depth) for name in contrast_objectives() if depth}


def _made(model: LanguageModel, options: argparse.Namespace) -> Heads:
    name = options.model or MODEL
    objectives = [options.objective] if options.objective else contrast_objectives()
    return fit_contrast(model, name, n_layers(name), objectives, options.every)


def _judge(name: str, model: LanguageModel, made: Mapping[str, Heads]) -> Judge:
    if name == "words":
        # nearly no mass floor: a model that hardly answers in digits is shown as it is, not as unrated
        return WordsJudge(model, load_constitution("harmless-helpful"), InWords(judge="self", mass_floor=0.01))
    heads = made.get(name) or _heads(name)
    return ProbeJudge(model, heads, tuple(heads.by_objective))


def _heads(name: str) -> Heads:
    return read_heads(SHIPPED_HEADS / name if name in shipped_heads() else Path(name))


def _fitted_outside(asked: Sequence[tuple[str, str, list[Label]]]) -> set[str]:
    """Groups of Auto-J's prompts that the outside heads were fitted on."""
    own = [
        labels for question, file, labels in asked if (question, file) == (PREFERRED, _AUTOJ)
    ]  # of their full length
    pairs = [label for labels in own for label in labels]
    return {p.group for p in autoj_of_nobody(pair for pair in pairs if isinstance(pair, LabelledPair))}


def _unseen(label: Label, judge: str, file: str, fitted_outside: set[str]) -> bool:
    """Whether a shipped head has not been fitted on this label: of its sources, the prompts of the other half."""
    if judge == OUTSIDE:
        return label.group not in fitted_outside
    if file not in (_AUTOJ, _GPTFUZZ) or judge not in MIXES:
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


def _lines(result: Row, with_bias: bool) -> Iterator[str]:
    measured = "auc" if "auc" in result else "accuracy"
    yield (
        f"{result['data'].split('.')[0]:25} {result['question']:26} {result['judge']:10} {result['objective']:12} "
        f"{measured} {result[measured]:.3f} "
        f"({result['low']:.3f} to {result['high']:.3f}) n {result['n']} unrated {result['unrated']}"
    )
    if not with_bias:
        return
    bias, tenths = result["bias"], result["calibration"]
    told = {key: bias[key] for key in ("length", "refusal", "longer_preferred", "longer_chosen")}
    yield "    " + ", ".join(f"{key} {value:+.2f}" for key, value in told.items() if value is not None)
    if tenths:
        yield "    labelled 1, by tenths of the rating: " + " ".join(f"{tenth['positive']:.2f}" for tenth in tenths)


def _shuffled(labels: Iterable[Label]) -> list[Label]:
    rows = list(labels)
    random.Random(0).shuffle(rows)
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="a file of labels, or a folder of known ones")
    parser.add_argument(
        "--judge",
        help=f"probe ({DEFAULT}), demo-eval, ranking, outside, contrast, words, or a folder of heads; default: all",
    )
    parser.add_argument("--model", help=f"asked, or read in place of the model that heads name; else {MODEL}")
    parser.add_argument("--states", type=Path, help="SQLite file that keeps the hidden states for the next time")
    parser.add_argument("--every", type=int, default=1, help="fit `contrast` on every so many prompts alone")
    parser.add_argument("--objective", help="measure, and fit `contrast` for, this one alone; default: all")
    parser.add_argument("--limit", type=int, help="rate at most this many labels of a file")
    parser.add_argument("--limit-words", type=int, default=200, help="the same for the model in words")
    parser.add_argument("--bias", action="store_true", help="print what moves the ratings beside the label, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
