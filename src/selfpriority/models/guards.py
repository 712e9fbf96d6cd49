"""Guard models, which write whether an answer is safe: how each kind is asked, and what its words are worth.

A kind is a YAML file in `text/guards/`; one more file is one more kind. Knows tokenizers, and no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text
from selfpriority.recipe.section import Section
from selfpriority.records import Message

FOLDER = Path(str(files("selfpriority"))) / "text" / "guards"
Points = Annotated[float, Field(ge=1, le=10)]


class VerdictLine(Section):
    """A line of what a guard writes."""

    lead: str
    """What stands before the word."""
    points: dict[str, Points] = Field(min_length=2)
    """Word -> rating."""


class Guard(Section):
    """A kind of guard models."""

    template_holds: tuple[str, ...] = ()
    """Its chat template holds all of these; empty: it has none."""
    name_holds: str = ""
    """A part of its name, where it has no template."""
    question: str = ""
    """What it is asked where it has no template: {{ prompt }} and {{ response }} stand in it."""
    lines: tuple[VerdictLine, ...] = Field(min_length=1)
    """What it writes; the last one is the verdict on the answer."""

    def asked(self, tokenizer: Any, messages: Sequence[Message], response: str) -> str:
        """The text that the guard's verdict follows; a system prompt is none of its business."""
        whole = (*messages, Message("assistant", response))
        turns = [Message(m.role, _plain(m.content, tokenizer)) for m in whole if m.role != "system"]
        if not self.question:
            said = [{"role": turn.role, "content": turn.content} for turn in turns]
            text = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
            return text.removesuffix(self.lines[0].lead)  # some templates write the lead, some do not
        said_so_far = "\n\n".join(turn.content for turn in turns[:-1])
        before, _, rest = self.question.partition("{{ prompt }}")
        between, _, after = rest.partition("{{ response }}")
        return f"{before}{said_so_far}{between}{turns[-1].content}{after}"

    def word_ids(self, tokenizer: Any) -> list[list[int]]:
        """Line by line the first token of every word, as it is written behind the line's lead.

        Raises:
            InputError: two words begin with one token.
        """
        found = [[_first_behind(tokenizer, line.lead, word) for word in line.points] for line in self.lines]
        for line, ids in zip(self.lines, found, strict=True):
            if len(set(ids)) < len(ids):
                words = ", ".join(word.strip() for word in line.points)
                raise InputError(
                    f"model: the guard's tokenizer begins {words} with one token, so they cannot be told apart"
                )
        return found


def guard_of(name: str, tokenizer: Any) -> Guard | None:
    """What kind of guard the model `name` is; None: it is none."""
    template = getattr(tokenizer, "chat_template", None) or ""
    for kind in _kinds():
        by_template = kind.template_holds and all(part in str(template) for part in kind.template_holds)
        if by_template or (kind.name_holds and not template and kind.name_holds in name.lower()):
            return kind
    return None


@cache
def _kinds() -> tuple[Guard, ...]:
    paths = sorted(FOLDER.glob("*.yaml"))
    return tuple(Guard.model_validate(parse_yaml(read_text(path), str(path))) for path in paths)


def _plain(text: str, tokenizer: Any) -> str:
    """The text with control tokens that it spells out taken apart: an answer must not close its own case."""
    for token in sorted(tokenizer.get_added_vocab(), key=len, reverse=True):
        if token.startswith("<") and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _first_behind(tokenizer: Any, lead: str, word: str) -> int:
    alone, together = (list(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in (lead, lead + word))
    if together[: len(alone)] != alone or len(together) == len(alone):
        together, alone = list(tokenizer(word, add_special_tokens=False)["input_ids"]), []
    return int(together[len(alone)])
