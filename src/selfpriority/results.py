"""A run directory as records and tables: what a run found, for whoever goes on in Python.

Reads only, and knows the files by the names that the run gives them. What is not there yet is an InputError that says
which step makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from selfpriority.errors import InputError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import AnswerRow, Difference, Summary
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.judges.reports import JudgeChecks, read_checks
from selfpriority.plain_text import shown
from selfpriority.preferences import PreferenceRow
from selfpriority.recipe import Recipe, load_recipe
from selfpriority.records import Candidates, Drop, Pool
from selfpriority.run import CANDIDATES, DROPS, PAIRS, POOLS, SCORED, Run
from selfpriority.run_records import Funnel
from selfpriority.storage import read_rows

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True)
class Results:
    """What a run holds, finished or not.

    Args:
        folder: the run directory.

    Raises:
        InputError: it is none.

    Examples:
        >>> found = Results("runs/my")
        >>> found.policy().name
        'policy'
        >>> len(found.frame("differences"))  # a row a system, judge and objective
        4
    """

    folder: str | Path

    def __post_init__(self) -> None:
        _ = self._run

    @cached_property
    def _run(self) -> Run:
        return Run.existing(Path(self.folder))

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run follows, every default filled in."""
        return load_recipe(self._run.recipe)

    @property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of the rounds that were begun."""
        return tuple(n for n in range(1, self.recipe.rounds + 1) if self._run.round(n).is_dir())

    def candidates(self, round: int = 1) -> list[Candidates]:
        """Every prompt with its sampled answers.

        Raises:
            InputError: the round has none yet.
        """
        return self._rows(round, CANDIDATES, Candidates)

    def scored(self, round: int = 1) -> list[Pool]:
        """Every prompt with its rated candidates; raises InputError where there are none yet."""
        return self._rows(round, SCORED, Pool)

    def pools(self, round: int = 1) -> list[Pool]:
        """The pools that denoising kept, refined answers included; raises InputError where there are none yet."""
        return self._rows(round, POOLS, Pool)

    def pairs(self, round: int = 1) -> list[PreferenceRow]:
        """The preference pairs; raises InputError where there are none yet."""
        return self._rows(round, PAIRS, PreferenceRow)

    def drops(self, round: int = 1) -> list[Drop]:
        """Who left, at which step and why; raises InputError where nothing was done yet."""
        return self._rows(round, DROPS, Drop)

    def funnel(self, round: int = 1) -> Funnel:
        """How many prompts every step kept; empty before the first."""
        return self._run.funnel(round)

    def policy(self, round: int = 0) -> Path:
        """Folder of a trained model, for `from_pretrained`.

        Args:
            round: whose; 0: the last that trained.

        Raises:
            InputError: none was trained yet.
        """
        wanted = [round] if round else sorted(self.rounds, reverse=True)
        for number in wanted:
            if (self._run.policy(number) / "config.json").is_file() or list(self._run.policy(number).glob("adapter_*")):
                return self._run.policy(number)
        raise InputError(f"{self.folder}: no policy yet; `spa align {self.folder}` trains it")

    @property
    def checks(self) -> JudgeChecks:
        """What the check of the judges found, by role; empty before it."""
        return read_checks(self._run.folder / "judge.json")

    @property
    def summary(self) -> Summary:
        """What the evaluation found.

        Raises:
            InputError: there was none yet.
        """
        path = EvaluationFiles(self._run.evaluation).summary
        if not path.is_file():
            raise InputError(f"{path}: no evaluation yet; `spa evaluate {self.folder}` makes it")
        return read_summary(path)

    def answers(self, system: str) -> list[AnswerRow]:
        """What a system answered to the held-out prompts; raises InputError where it did not yet."""
        path = EvaluationFiles(self._run.evaluation).answers(system)
        if not path.is_file():
            raise InputError(f"{path}: no answers of {shown(system)}; `spa evaluate {self.folder}` asks for them")
        return read_rows(path, AnswerRow)

    def frame(self, what: str, round: int = 1) -> pd.DataFrame:
        """A table of pandas.

        Args:
            what: `candidates` (a row an answer, its ratings by objective), `pairs` (a row a pair) or `differences` (a
                row a system, judge and objective: mean, low, high and p of system minus vanilla, in rating points; the
                main judge by its own name, further ones by the recipe's).
            round: of candidates and pairs.

        Raises:
            InputError: no such table, or what it is made of is not there yet.
        """
        import pandas as pd

        makers = {"candidates": self._candidate_rows, "pairs": self._pair_rows, "differences": self._difference_rows}
        if what not in makers:
            raise InputError(f"no table {shown(what)}; there are {', '.join(makers)}")
        return pd.DataFrame(list(makers[what](round)))

    def _candidate_rows(self, round: int) -> Iterator[dict[str, Any]]:
        names = self._objectives
        for pool in self.scored(round):
            for each in pool.candidates:
                answer = each.response
                about = {"prompt_id": pool.prompt.id, "kind": pool.prompt.kind, "response_id": answer.id}
                said = {"persona": answer.persona, "stop": answer.stop, "n_tokens": answer.n_tokens}
                yield {**about, **said, "text": answer.text, **dict(zip(names, each.scores, strict=True))}

    def _pair_rows(self, round: int) -> Iterator[dict[str, Any]]:
        for row in self.pairs(round):
            by_objective = {f"chosen_{name}": score for name, score in row.chosen_scores.items()}
            by_objective |= {f"rejected_{name}": score for name, score in row.rejected_scores.items()}
            yield {
                "prompt_id": row.prompt_id,
                "chosen_id": row.chosen_id,
                "rejected_id": row.rejected_id,
                "decided_by": row.decided_by,
                "distance": row.distance,
                "gap": row.gap,
                **by_objective,
                "chosen": row.chosen[-1].content,
                "rejected": row.rejected[-1].content,
            }

    def _difference_rows(self, _: int) -> Iterator[dict[str, Any]]:
        summary = self.summary
        main = Path(self.recipe.evaluate.judge.judge).name
        for judge, standing in [(main, summary.standing), *summary.judges.items()]:
            for contest in summary.against_first():
                for objective, found in standing.difference.get(contest, {}).items():
                    if objective in summary.objectives:
                        yield {"system": contest.a, "judge": judge, "objective": objective, **_figures(found)}

    @property
    def _objectives(self) -> tuple[str, ...]:
        from selfpriority.constitution import load_constitution

        return load_constitution(self.recipe.constitution).names

    def _rows(self, round: int, name: str, cls: type[T]) -> list[T]:
        path = self._run.round(round) / name
        if not path.is_file():
            raise InputError(f"{path}: not there yet; `spa collect {self.folder}` makes it")
        return read_rows(path, cls)


def _figures(found: Difference) -> dict[str, float | int | None]:
    return {"mean": found.mean, "low": found.low, "high": found.high, "p": found.p_holm, "n": found.n}
