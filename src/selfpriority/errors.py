"""What can go wrong for a user, and the exit code of each.

SelfPriorityError
├── InputError        exit 2: the command, recipe, prompts or model is wrong
├── JudgeRefused      exit 3: the judge's verdicts are no better than chance
└── WorkFailed        exit 1: the work failed; what is done is kept
"""

from __future__ import annotations


class SelfPriorityError(Exception):
    """Base of all errors with a message for the user: value, place and remedy in one line each."""

    exit_code = 1


class WorkFailed(SelfPriorityError):
    """The work failed half way; finished requests and steps are kept and the same command continues."""


class InputError(SelfPriorityError):
    """The command, recipe or input is wrong. `lines` holds one message each."""

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class JudgeRefused(SelfPriorityError):
    """The judge cannot be told from chance; training on it would be training on noise."""

    exit_code = 3
