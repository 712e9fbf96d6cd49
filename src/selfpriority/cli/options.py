"""Options of a verb as a record, where they are too many for a list of parameters. Reads no file and prints nothing.

`spread` shows typer the record's fields as options of the verb and hands the verb the record.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from selfpriority.errors import InputError

if TYPE_CHECKING:
    from selfpriority.phases.utility import Questions


BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Server that runs the judge, up to /v1.")]
KeyVariable = Annotated[
    str | None, typer.Option("--api-key-env", help="Environment variable that holds that server's key.")
]


@dataclass(frozen=True)
class HowJudged:
    """How a judge that is named is asked."""

    method: Annotated[
        str | None,
        typer.Option("--method", help="expected, verbal, probe, python; default: expected, of heads probe."),
    ] = None
    base_url: BaseUrl = None
    api_key_env: KeyVariable = None


@dataclass(frozen=True)
class CheckOptions:
    """What a judge is checked on, and beside which others."""

    labels: Annotated[Path | None, typer.Option("--labels", help="Labelled answers or pairs, JSONL.")] = None
    compare: Annotated[
        bool, typer.Option("--compare", help="All methods the model can judge by, side by side; recommends one.")
    ] = False
    method: Annotated[
        list[str] | None, typer.Option("--method", help="With --compare: this method alone; repeatable.")
    ] = None

    own_prompts: Annotated[
        int, typer.Option("--own-prompts", min=0, help="Also: is it right on so many of the recipe's own prompts?")
    ] = 0

    def check(self) -> None:
        """Raises InputError for options that do not go together."""
        if self.own_prompts and self.compare:
            raise InputError("check-judge: --own-prompts looks at the recipe's own judge; leave out --compare")
        if self.method and not self.compare:
            raise InputError("check-judge: --method goes with --compare; a recipe's own is score.method=NAME")


@dataclass(frozen=True)
class FitOptions:
    """What heads are fitted on, and how."""

    labels: Annotated[
        list[Path] | None, typer.Option("--labels", help="Labelled answers or pairs, JSONL; repeatable.")
    ] = None
    contrast: Annotated[
        bool, typer.Option("--contrast", help="No labels: fit on answers of the model that begin as we say.")
    ] = False
    layer: Annotated[
        list[int] | None, typer.Option("--layer", min=0, help="Layer, repeatable; default: 1/2 and 3/4 of the depth.")
    ] = None
    c: Annotated[float | None, typer.Option("--c", min=1e-9, help="Inverse strength of the penalty; 0.001.")] = None

    def check(self) -> None:
        """Raises InputError for options that do not go together."""
        if self.contrast == bool(self.labels):
            raise InputError("fit-judge: give either --labels FILE, or --contrast, which needs no labels")
        for option, given in (("--layer", self.layer), ("--c", self.c)):
            if self.contrast and given:
                raise InputError(f"fit-judge: {option} goes with --labels; --contrast knows its own")


Systems = Annotated[
    str,
    typer.Option(
        "--systems",
        help="Names (`spa systems`), YAML files or Python (package.module:name), e.g. sft,./mine.yaml,mine:one; or "
        "all, or ablations.",
    ),
]
Vary = Annotated[
    list[str] | None,
    typer.Option("--vary", help="FIELD=V1,V2: a system for each value, e.g. pair.margin=0.5,2; repeat to combine."),
]


@dataclass(frozen=True)
class CompareOptions:
    """What is compared."""

    systems: Systems = ""
    vary: Vary = None


@dataclass(frozen=True)
class OwnOptions:
    """What a file of chosen and rejected answers trains, and where to."""

    model: Annotated[
        str | None, typer.Option("--model", help="With a FILE: the model to train, a hub id or a folder.")
    ] = None
    to: Annotated[
        Path | None, typer.Option("--to", help="With a FILE: the run directory to write; default runs/<file name>.")
    ] = None
    columns: Annotated[
        str | None, typer.Option("--columns", help="With a FILE: its own names, e.g. chosen=better,rejected=worse.")
    ] = None

    def check_run(self, fields: Sequence[str]) -> None:
        """Raises InputError for what goes with a file alone."""
        given = {"--model": self.model, "--to": self.to, "--columns": self.columns}
        for option in [name for name, value in given.items() if value is not None] or fields[:1]:
            raise InputError(
                f"align: {option} goes with a FILE; a run directory follows its recipe (`spa run` changes it)"
            )

    def check_file(self, number: int | None) -> None:
        """Raises InputError for what is missing beside a file, or goes with a run alone."""
        if self.model is None:
            raise InputError("--model: names no model; `spa align FILE --model ORG/MODEL` trains one on the file")
        if number is not None:
            raise InputError("--round: goes with a run directory; pairs of a FILE are trained on in one round")

    def recipe(self, file: Path) -> dict[str, Any]:
        """The recipe that the command means, before FIELD=VALUE; could stand in a file as it is."""
        pairs: dict[str, Any] = {"source": str(file)}
        if self.columns:
            pairs["columns"] = dict(map(self._column, self.columns.split(",")))
        return {"model": self.model, "pairs": pairs}

    @staticmethod
    def _column(given: str) -> tuple[str, str]:
        ours, equals, theirs = (part.strip() for part in given.partition("="))
        if not (ours and equals and theirs):
            raise InputError(f"--columns: {given!r} is not of the form chosen=better; several are joined by commas")
        return ours, theirs


PILOT = 20
"""Prompts of a pilot of which no number is said."""


@dataclass(frozen=True)
class PlanFields:
    """What stands behind a recipe to be planned."""

    overrides: list[str]
    n_pilot: int
    """Prompts of the pilot; 0 without one."""


@dataclass(frozen=True)
class PlanOptions:
    """What a plan rests on."""

    out: Annotated[Path | None, typer.Option("--out", help="Run directory whose manifest gives the rates.")] = None
    rates: Annotated[str | None, typer.Option("--rates", help="Tokens a second: prefill=N,generate=N,train=N.")] = None
    prices: Annotated[str | None, typer.Option("--prices", help="A million tokens at a server: in=X,out=Y.")] = None
    offline: Annotated[
        bool, typer.Option("--offline", help="Guess what is not here: prompts by their limit, models by known shapes.")
    ] = False
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Collect from 20 of the prompts and tell the yield; `--pilot N`: from N.")
    ] = False
    systems: Systems = ""
    vary: Vary = None

    def read(self, fields: Sequence[str]) -> PlanFields:
        """The fields as they are meant.

        typer knows no option that may stand alone or with a value, so the value of `--pilot` arrives as the first of
        the fields that is a number alone, which no field can be.

        Raises:
            InputError: a pilot of no prompts.
        """
        overrides = list(fields)
        if not self.pilot:
            return PlanFields(overrides, 0)
        number = next((field for field in fields if field.isdecimal()), None)
        if number is None:
            return PlanFields(overrides, PILOT)
        if not int(number):
            raise InputError(f"--pilot: {number} is no number of prompts; 1 or more, {PILOT} if nothing is said")
        overrides.remove(number)
        return PlanFields(overrides, int(number))


@dataclass(frozen=True)
class UtilityOptions:
    """What `spa utility` asks, and who judges."""

    mmlu: Annotated[Path | None, typer.Option("--mmlu", help="Questions, JSONL in MMLU's form.")] = None
    dev: Annotated[Path | None, typer.Option("--dev", help="Examples to show first, the same form.")] = None
    task: Annotated[list[str] | None, typer.Option("--task", help="A task of lm-evaluation-harness.")] = None
    mt_bench: Annotated[
        Path | None, typer.Option("--mt-bench", help="Questions of two turns, JSONL in MT-Bench's form.")
    ] = None
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many questions a file.")] = None
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Longest answer to --mt-bench, in tokens.")
    ] = 1024
    judge: Annotated[
        str | None, typer.Option("--judge", help="Judge of --mt-bench: a model; default: the recipe's evaluation's.")
    ] = None
    method: Annotated[str | None, typer.Option("--method", help="expected, verbal or probe.")] = None
    base_url: BaseUrl = None
    api_key_env: KeyVariable = None

    @property
    def questions(self) -> Questions:
        """The options as the work takes them, files of two turns read.

        Raises:
            InputError: a file of two turns that cannot be read, or options that do not go together.
        """
        from selfpriority.phases.mt_bench import NamedJudge, mt_bench_of
        from selfpriority.phases.utility import Questions

        judge = NamedJudge(self.judge, self.method, self.base_url, self.api_key_env)
        judged = mt_bench_of(self.mt_bench, self.limit, self.max_new_tokens, judge)
        return Questions(self.mmlu, self.dev, self.limit, tuple(self.task or ()), judged)


def spread(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` as typer can read it: in place of a parameter that is a record, the record's fields."""
    hints = get_type_hints(verb, include_extras=True)
    records = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name not in records:
            shown.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        inner = get_type_hints(records[parameter.name], include_extras=True)
        for field in fields(records[parameter.name]):
            kind = inspect.Parameter.KEYWORD_ONLY
            shown.append(inspect.Parameter(field.name, kind, default=field.default, annotation=inner[field.name]))

    @functools.wraps(verb)
    def called(**given: Any) -> None:
        for name, record in records.items():
            given[name] = record(**{field.name: given.pop(field.name) for field in fields(record)})
        verb(**given)

    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called
