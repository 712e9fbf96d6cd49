"""What can go wrong for a user, and the exit code of each.

SelfPriorityError
├── InputError        exit 2: the command, recipe, prompts or model is wrong
├── JudgeRefused      exit 3: the judge's verdicts are no better than chance
└── WorkFailed        exit 1: the work failed; what is done is kept
"""

from __future__ import annotations


class SelfPriorityError(Exception):
    """Base of all errors with a message for the user: value, place and remedy in one line each.

    Examples:
        >>> try:
        ...     Results("no/such/run")
        ... except SelfPriorityError as error:
        ...     print(error.exit_code, str(error).partition(":")[0])
        2 no/such/run
    """

    exit_code = 1


class WorkFailed(SelfPriorityError):
    """The work failed half way; finished requests and steps are kept and the same command continues.

    Examples:
        >>> WorkFailed.exit_code, issubclass(WorkFailed, SelfPriorityError)
        (1, True)
    """


class InputError(SelfPriorityError):
    """The command, recipe or input is wrong. `lines` holds one message each.

    Examples:
        >>> InputError("prompts.jsonl:3: no column 'prompt'", "prompts.jsonl:7: not JSON").lines[1]
        'prompts.jsonl:7: not JSON'
    """

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class JudgeRefused(SelfPriorityError):
    """The judge cannot be told from chance; training on it would be training on noise.

    Examples:
        >>> JudgeRefused.exit_code, issubclass(JudgeRefused, SelfPriorityError)
        (3, True)
    """

    exit_code = 3
