"""What was asked, said back: the answer of a small model that knows nothing to say, and of no use to anybody.

A judge that reads how close an answer is to what was asked finds nothing closer, so it must be shown that this is none.
"""

from __future__ import annotations

from selfpriority.records import Prompt

N_WORDS = 40
"""Prompts can be pages long."""
_TURNED = {
    "i": "you",
    "i'm": "you're",
    "i've": "you've",
    "my": "your",
    "me": "you",
    "mine": "yours",
    "myself": "yourself",
}


def said_back(prompt: Prompt, number: int = 0) -> str:
    """The first words of the last user turn: as they stand, as a statement, and with "you" for "I", by turns.

    Examples:
        >>> asked = Prompt("q1", (Message("user", "Why is my bread so dense?"),))
        >>> [said_back(asked, number) for number in range(3)]
        ['Why is my bread so dense?', 'Why is my bread so dense.', 'Why is your bread so dense.']
    """
    return tuple(ways_to_say_back(prompt).values())[number % 3]


def ways_to_say_back(prompt: Prompt) -> dict[str, str]:
    """`asked`, `statement` and `turned`, as `said_back` gives them."""
    asked = " ".join(prompt.messages[-1].content.split()[:N_WORDS])
    statement = asked.rstrip("?!.,;: ")
    turned = " ".join(_TURNED.get(word.lower(), word) for word in statement.split())
    return {"asked": asked, "statement": f"{statement}.", "turned": f"{turned}."}
