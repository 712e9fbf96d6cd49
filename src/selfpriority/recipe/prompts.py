"""Where prompts come from, as a recipe says it. Reads none."""

from __future__ import annotations

from selfpriority.recipe.section import Count, Section


class Prompts(Section):
    """Where prompts come from.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> Prompts(source="questions.csv", column="question", limit=100, shuffle=True).column
        'question'
    """

    source: str
    """A .jsonl, .csv, .parquet or .txt file, a hub id, a shipped set (`demo`) or a known one (`spa prompts`)."""
    config: str | None = None
    """Configuration of a hub data set that has several."""
    split: str | None = None
    """Split of a hub data set; of a file or shipped set, the rows with this value in their `split` column
    (a shipped set without it: `train`)."""
    column: str = "prompt"
    """Column that holds the prompt."""
    kind_column: str = "kind"
    """Column, if there is one, that says what a prompt is (harmful, ordinary, ...), for the reports."""
    kind: str = ""
    """What all prompts are whose row does not say it."""
    limit: Count | None = None
    """Take at most this many prompts."""
    shuffle: bool = False
    """Shuffle, with the recipe's seed, before the limit."""
    system: str | None = None
    """System prompt before every prompt, as where the model will be used; a system turn of a row's own stays behind it.
    A held-out set without one has that of the training prompts; an empty text: none."""
