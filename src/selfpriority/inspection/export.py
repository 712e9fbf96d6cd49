"""The preference data for other trainers: TRL, LLaMA-Factory, parquet. `trl_rows` needs no run directory.

Data is harmful by nature, so a hazard notice goes with it; nothing that exists is overwritten.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.inspection.run_files import objectives_of, paired_of, recipe_of, rounds_with
from selfpriority.method.pair import WeightGap, weighing_gap
from selfpriority.records import Message, PairedPool
from selfpriority.run import PAIRS, Run
from selfpriority.storage import write_json, write_text
from selfpriority.wording import FOLDER

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
    score_chosen: float
    score_rejected: float
    gap: float
    weight: float
    decided_by: str
    prompt_id: str


@dataclass(frozen=True)
class Exported:
    """What was written."""

    rows: int
    path: Path
    """The data file."""


def export(run: Run, form: str, to: Path, number: int | None = None) -> Exported:
    """Writes the pairs of all rounds so far, or of round `number`, with HAZARD.txt beside them.

    Args:
        run: a run with pairs.
        form: `trl` (JSONL), `llama-factory` (JSON with its dataset_info.json) or `parquet`.
        to: a new or empty folder, or a file that is not there yet, with the format's ending.
        number: one round only.

    Raises:
        InputError: no such format, no pairs, or `to` is taken.
    """
    if form not in FORMATS:
        raise InputError(f"--format: {form!r} is none of {', '.join(FORMATS)}")
    path = _target(form, to)
    numbers = rounds_with(run, PAIRS) or [1] if number is None else [number]
    settings = recipe_of(run).align
    paired = [entry for n in numbers for entry in paired_of(run, n)]
    rows = preference_records(paired, objectives_of(run), settings.gap_exponent, settings.weight_gap)
    if form == "parquet":
        _write_parquet(path, rows)
    elif form == "trl":
        write_text(path, (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
    else:
        write_json(path, [_llama_factory_row(row) for row in rows])
        write_json(path.with_name("dataset_info.json"), _dataset_info(run.folder.name, path.name))
    write_text(path.with_name(HAZARD), [(FOLDER / "hazard.txt").read_text("utf-8")])
    return Exported(len(rows), path)


def trl_rows(
    paired: Sequence[PairedPool], objectives: Sequence[str], alpha: float, weight_gap: WeightGap = "signed"
) -> list[Json]:
    """One row a pair, as TRL's preference trainers take them.

    Columns: `prompt`, `chosen`, `rejected` (messages), `score_chosen`, `score_rejected` (sums over the
    objectives), `gap` (absolute difference of the sums, Eq. 3), `weight` ((gap / mean gap) ^ alpha, the mean
    over all rows), `decided_by`, `prompt_id`.

    Args:
        paired: pools with their pairs.
        objectives: their names, in priority order.
        alpha: exponent of the weight; 0 makes every weight 1.
        weight_gap: which gap weighs a pair; Eq. 3 takes that of the column `gap` (docs/deviations.md 5).
    """
    return [asdict(row) for row in preference_records(paired, objectives, alpha, weight_gap)]


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
                score_chosen=sum(chosen.scores),
                score_rejected=sum(rejected.scores),
                gap=pair.gap,
                weight=next(weights),
                decided_by=objectives[pair.decided_by],
                prompt_id=entry.pool.prompt.id,
            )
            rows.append(row)
    return rows


def _target(form: str, to: Path) -> Path:
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
    info = to.with_name("dataset_info.json")
    if form == "llama-factory" and info.exists():
        raise InputError(f"--to: {info} exists already; name a new folder")
    hazard = to.with_name(HAZARD)
    if hazard.exists() and hazard.read_bytes() != (FOLDER / "hazard.txt").read_bytes():
        raise InputError(f"--to: {hazard} exists already and is not ours; name a new folder")
    return to


def _write_parquet(path: Path, rows: Sequence[Preference]) -> None:
    import pyarrow as pa  # comes with datasets; the other formats do without
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), temporary)
    temporary.replace(path)


_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def _llama_factory_row(row: Preference) -> Json:
    """The row in LLaMA-Factory's ShareGPT form: turns are {from, value}, a system turn comes first."""

    def turn(message: Message) -> dict[str, str]:
        return {"from": _SPEAKERS[message.role], "value": message.content}

    columns = {name: value for name, value in asdict(row).items() if name != "prompt"}
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
