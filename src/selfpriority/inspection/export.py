"""The preference data for other trainers: TRL, LLaMA-Factory, parquet. `trl_rows` needs no run directory.

Data is harmful by nature, so a hazard notice and a card go with it; nothing that exists is overwritten. Other trainers
put an end token behind every answer, so pairs with an answer that was cut are left out unless somebody wants them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.inspection.run_files import objectives_of, paired_of, recipe_of, rounds_with
from selfpriority.method.pair import WeightGap, weighing_gap
from selfpriority.preferences import by_objective
from selfpriority.records import Message, PairedPool, Stop
from selfpriority.report.card_parts import hazard
from selfpriority.report.cards import DataFacts, dataset_card
from selfpriority.run import PAIRS, Run
from selfpriority.storage import write_json, write_text

FORMATS = {"trl": "pairs.jsonl", "llama-factory": "pairs.json", "parquet": "pairs.parquet"}
"""The formats, and the file each writes into a folder."""
HAZARD = "HAZARD.txt"

Json = dict[str, Any]


@dataclass(frozen=True)
class Preference:
    """One pair as other trainers take it; `trl_rows` says what the fields hold."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    score_chosen: float | None
    """None: nobody rated it."""
    score_rejected: float | None
    scores_chosen: dict[str, float]
    """By objective; a column each in the row."""
    scores_rejected: dict[str, float]
    gap: float
    weight: float
    decided_by: str
    prompt_id: str
    stop_chosen: Stop
    stop_rejected: Stop

    def row(self) -> Json:
        """The columns, in order."""
        row: Json = {}
        for name, value in asdict(self).items():
            by_objective = name in ("scores_chosen", "scores_rejected")
            side = name.removeprefix("scores_")
            row |= {f"score_{side}_{o}": score for o, score in value.items()} if by_objective else {name: value}
        return row


@dataclass(frozen=True)
class Wanted:
    """Which pairs are written, and how."""

    form: str = "trl"
    """`trl` (JSONL), `llama-factory` (JSON with its dataset_info.json) or `parquet`."""
    number: int | None = None
    """One round only; None: all so far."""
    keep_cut: bool = False
    """Whether pairs stay with an answer that was cut, for trainers that are told of it by the `stop` columns."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    rows: int
    path: Path
    """The data file."""
    n_cut: int = 0
    """Pairs with an answer that was cut at the length limit: left out, or among the rows if they were wanted."""


def export(run: Run, to: Path, wanted: Wanted) -> Exported:
    """Writes pairs with HAZARD.txt and a card beside them.

    Args:
        run: a run with pairs.
        to: a new or empty folder, or a file that is not there yet, with the format's ending.
        wanted: which pairs, in which format.

    Raises:
        InputError: no such format, no pairs, none without a cut answer, or `to` is taken.
    """
    form = wanted.form
    if form not in FORMATS:
        raise InputError(f"--format: {form!r} is none of {', '.join(FORMATS)}")
    recipe = recipe_of(run)
    path = _target(form, to, hazard(recipe))
    numbers = rounds_with(run, PAIRS) or [1] if wanted.number is None else [wanted.number]
    settings = recipe.align
    found = [entry for n in numbers for entry in paired_of(run, n)]
    if not _n_pairs(found):
        raise InputError(
            f"{run.folder}: has no pairs to export: its answers are learned alone (align.rows: {settings.rows})"
        )
    finished = [without_cut(entry) for entry in found]
    n_cut = _n_pairs(found) - _n_pairs(finished)
    if not wanted.keep_cut and not _n_pairs(finished):
        raise InputError(
            f"{run.folder}: all {n_cut} pairs hold an answer that was cut at the length limit, and other trainers put "
            f"an end token behind it; raise sample.max_new_tokens, or write them with --keep-cut"
        )
    paired = found if wanted.keep_cut else finished
    rows = preference_records(paired, objectives_of(run), settings.gap_exponent, settings.weight_gap)
    _write(path, form, rows, run.folder.name)
    exported = Exported(len(rows), path, n_cut)
    write_text(path.with_name(HAZARD), [hazard(recipe)])
    names = next((tuple(row.scores_chosen) for row in rows if row.scores_chosen), ())  # some have none
    facts = DataFacts(path.name, len(rows), n_cut, wanted.keep_cut, names)
    write_text(_card_of(path, to), [dataset_card(run, facts)])
    return exported


def _write(path: Path, form: str, rows: Sequence[Preference], name: str) -> None:
    if form == "parquet":
        _write_parquet(path, rows)
    elif form == "trl":
        write_text(path, (json.dumps(row.row(), ensure_ascii=False) + "\n" for row in rows))
    else:
        write_json(path, [_llama_factory_row(row) for row in rows])
        write_json(path.with_name("dataset_info.json"), _dataset_info(name, path.name))


def _n_pairs(paired: Sequence[PairedPool]) -> int:
    return sum(len(entry.pairs) for entry in paired)


def without_cut(entry: PairedPool) -> PairedPool:
    """The pool with those of its pairs whose answers both ended by themselves."""

    def ended(index: int) -> bool:
        return entry.pool.responses[index].response.stop == "end"

    return replace(entry, pairs=tuple(pair for pair in entry.pairs if ended(pair.chosen) and ended(pair.rejected)))


def trl_rows(
    paired: Sequence[PairedPool],
    objectives: Sequence[str],
    alpha: float,
    weight_gap: WeightGap = "signed",
    keep_cut: bool = False,
) -> list[Json]:
    """One row a pair, as TRL's preference trainers take them.

    Columns: `prompt`, `chosen`, `rejected` (messages), `score_chosen`, `score_rejected` (sums over the
    objectives), the same for every objective (`score_chosen_NAME`), `gap` (absolute difference of the sums, Eq. 3),
    `weight` ((gap / mean gap) ^ alpha, the mean over all rows), `decided_by`, `prompt_id`, `stop_chosen` and
    `stop_rejected` (`end`, or `length` where the answer was cut).

    Args:
        paired: pools with their pairs.
        objectives: their names, in priority order.
        alpha: exponent of the weight; 0 makes every weight 1.
        weight_gap: which gap weighs a pair; Eq. 3 takes that of the column `gap` (docs/deviations.md 5).
        keep_cut: whether pairs stay with an answer that was cut, behind which TRL puts an end token.
    """
    kept = paired if keep_cut else [without_cut(entry) for entry in paired]
    return [record.row() for record in preference_records(kept, objectives, alpha, weight_gap)]


def preference_records(
    paired: Sequence[PairedPool], objectives: Sequence[str], alpha: float, weight_gap: WeightGap
) -> list[Preference]:
    """As `trl_rows`, as records."""
    weighing = [weighing_gap(entry, pair, weight_gap) for entry in paired for pair in entry.pairs]
    mean = math.fsum(weighing) / len(weighing) if weighing else 0.0
    weights = iter([(gap / mean) ** alpha if mean > 0 else 1.0 for gap in weighing])
    rows = []
    for entry in paired:
        for pair in entry.pairs:
            chosen, rejected = entry.pool.responses[pair.chosen], entry.pool.responses[pair.rejected]
            row = Preference(
                prompt=list(entry.pool.prompt.messages),
                chosen=[Message("assistant", chosen.response.text)],
                rejected=[Message("assistant", rejected.response.text)],
                score_chosen=sum(chosen.scores) if chosen.scores else None,
                score_rejected=sum(rejected.scores) if rejected.scores else None,
                scores_chosen=by_objective(chosen, objectives),
                scores_rejected=by_objective(rejected, objectives),
                gap=pair.gap,
                weight=next(weights),
                decided_by=objectives[pair.decided_by],
                prompt_id=entry.pool.prompt.id,
                stop_chosen=chosen.response.stop,
                stop_rejected=rejected.response.stop,
            )
            rows.append(row)
    return rows


def _target(form: str, to: Path, notice: str) -> Path:
    """The data file, in a place where nothing would be overwritten."""
    name = FORMATS[form]
    endings = {Path(other).suffix for other in FORMATS.values()}
    if to.is_dir():
        if any(to.iterdir()):
            raise InputError(f"--to: {to} is not empty; name a new folder")
        return to / name
    if to.exists():
        raise InputError(f"--to: {to} exists already; name another file or a new folder")
    if to.suffix not in endings:
        return to / name
    if to.suffix != Path(name).suffix:
        raise InputError(f"--to: {to}: {form} is a {Path(name).suffix} file; name one, or a folder")
    if (card := _card_of(to, to)).exists():
        raise InputError(f"--to: {card} exists already; name another file or a new folder")
    info = to.with_name("dataset_info.json")
    if form == "llama-factory" and info.exists():
        raise InputError(f"--to: {info} exists already; name a new folder")
    beside = to.with_name(HAZARD)
    if beside.exists() and beside.read_bytes() != notice.encode():
        raise InputError(f"--to: {beside} exists already and is not ours; name a new folder")
    return to


def _card_of(path: Path, to: Path) -> Path:
    """The data set's card: README.md in a folder of its own, else beside the file under its name."""
    return path.with_name(f"{path.name}.card.md" if path == to else "README.md")


def _write_parquet(path: Path, rows: Sequence[Preference]) -> None:
    import pyarrow as pa  # comes with datasets; the other formats do without
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    told = [row.row() for row in rows]
    fullest = max(told, key=lambda row: len(row))
    columns = dict.fromkeys(chain(fullest, *told))  # pyarrow takes those of the first row alone
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in told]), temporary)
    temporary.replace(path)


_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def _llama_factory_row(row: Preference) -> Json:
    """The row in LLaMA-Factory's ShareGPT form: turns are {from, value}, a system turn comes first."""

    def turn(message: Message) -> dict[str, str]:
        return {"from": _SPEAKERS[message.role], "value": message.content}

    columns = {name: value for name, value in row.row().items() if name != "prompt"}
    conversations = [turn(message) for message in row.prompt]
    return {
        **columns,
        "conversations": conversations,
        "chosen": turn(row.chosen[0]),
        "rejected": turn(row.rejected[0]),
    }


def _dataset_info(name: str, file_name: str) -> Json:
    """What LLaMA-Factory reads to find the data set: `dataset: NAME`, `dataset_dir` the folder."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    return {name: {"file_name": file_name, "formatting": "sharegpt", "ranking": True, "columns": columns}}
