"""Where the files of one evaluation lie. Knows names and the rows behind them, and no arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfpriority.evaluation.records import AnswerRow, Contest, Verdict, VerdictRow
from selfpriority.storage import read_rows


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the files of one evaluation lie: `evaluation/`, or `evaluation/<set>/` of a further prompt set."""

    folder: Path

    @property
    def summary(self) -> Path:
        """What came out."""
        return self.folder / "summary.json"

    @property
    def table(self) -> Path:
        """The same for people."""
        return self.folder / "table.md"

    @property
    def perplexity(self) -> Path:
        """What the alarm found."""
        return self.folder / "perplexity.json"

    def answers(self, system: str) -> Path:
        """What a system answered."""
        return self.folder / f"answers-{system}.jsonl"

    def drops(self, system: str) -> Path:
        """Prompts that a system has no answer to."""
        return self.folder / f"drops-{system}.jsonl"

    def verdicts(self, system: str, judge: str = "") -> Path:
        """What the evaluation's judge, or the further judge of that name, said of a system's answers."""
        return self.folder / f"verdicts-{system}{'@' if judge else ''}{judge}.jsonl"

    def comparisons(self, contest: Contest) -> Path:
        """What a judge that compares said of two systems' answers."""
        return self.folder / f"comparisons-{contest.key}.jsonl"

    def judged(self, system: str, objectives: Sequence[str], judge: str = "") -> list[Verdict]:
        """A system's answers joined with a judge's verdicts on them."""
        rows = {row.prompt_id: row for row in read_rows(self.verdicts(system, judge), VerdictRow)}
        judged = []
        for row in read_rows(self.answers(system), AnswerRow):
            prompt, response = row.prompt, row.response
            ratings = tuple(rows[prompt.id].ratings[name] for name in objectives)
            judged.append(Verdict(prompt.id, prompt.kind, response.text, response.stop, ratings, prompt.text))
        return judged

    def systems(self) -> list[str]:
        """Names of the systems that have answers here, the file names in order."""
        return [path.stem.removeprefix("answers-") for path in sorted(self.folder.glob("answers-*.jsonl"))]
