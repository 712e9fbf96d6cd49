"""Answers as TRL's trainer asks for them, drawn by whoever draws the run's own: each prompt is read once.

transformers' own generation reads a prompt once for each of its answers and sorts the vocabulary for every token. Knows
TRL's contract of a rollout, and no judge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from selfpriority.errors import WorkFailed

Draw = Callable[[Any, Sequence[Sequence[int]], Sequence[int], frozenset[int], int], list[list[int]]]
"""Model, token ids of prompts, how many answers to each, ids that end one, seed -> token ids of answers, in order."""
Turns = Sequence[Mapping[str, str]]
"""A prompt as TRL has it."""


class Rollouts:
    """What TRL calls for answers.

    Args:
        draw: draws them.
        asked: prompts as TRL has them, and their token ids as the model was made to read them.
        ends: ids that end an answer.
        seed: of the training.
    """

    def __init__(
        self, draw: Draw, asked: Iterable[tuple[Turns, Sequence[int]]], ends: frozenset[int], seed: int
    ) -> None:
        self._draw, self._seed, self._ends = draw, seed, ends
        self._ids = {_said(turns): tuple(ids) for turns, ids in asked}

    def __call__(self, prompts: Sequence[Turns], trainer: Any) -> dict[str, Any]:
        """One answer to each prompt, which comes as often as it wants answers, one after the other.

        What a policy draws depends on the step, on its part in it and on the prompts that are drawn together, so a
        training that goes on draws what it would have.

        Raises:
            WorkFailed: the policy's next-token distribution is not finite.
        """
        ids = [self._ids[_said(turns)] for turns in prompts]
        each = [(prompt, len(list(same))) for prompt, same in groupby(ids)]
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        try:
            with trainer.accelerator.autocast():
                asked, copies = [prompt for prompt, _ in each], [n for _, n in each]
                drawn = self._draw(model, asked, copies, self._ends, self._seed_at(trainer, asked))
        except WorkFailed as error:
            what, remedy = str(error).partition(";")[0], "try a lower align.learning_rate or align.dtype=float32"
            raise WorkFailed(f"training stopped at step {trainer.state.global_step + 1}: {what}; {remedy}") from error
        finally:
            model.train(was_training)
        return {"prompt_ids": list(map(list, ids)), "completion_ids": drawn, "logprobs": None}

    def _seed_at(self, trainer: Any, asked: Sequence[Sequence[int]]) -> int:
        part = trainer._step % trainer.args.gradient_accumulation_steps  # of a step that is drawn in several
        text = json.dumps([self._seed, trainer.state.global_step, part, asked])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _said(turns: Turns) -> tuple[tuple[str, str], ...]:
    return tuple((turn["role"], turn["content"]) for turn in turns)
