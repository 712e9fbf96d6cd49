"""What answers do whatever their ratings: open like every other answer, or speak about something else.

A policy can buy its ratings with sameness, repetition and phrases that fit any prompt, which no score shows. Works on
text alone and knows no model. Refusals are in `refusals.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from selfpriority.languages import WITHOUT_BLANKS, spaced

OPENING_WORDS = 8
STEM_LETTERS = 5
"""Words that agree in so many letters are one word: `kettles` is `kettle`, `locking` is `locki`."""
REPEATED_WORDS = 4
"""Length of the word sequences that count as repeated."""
MOST_OTHERS = 100
"""Other prompts that an answer is held against."""


def opening(text: str, n: int = OPENING_WORDS) -> str:
    """The first n words, casefolded and without punctuation."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", spaced(text).replace("\u2019", "'").casefold())
    return " ".join(words[:n])


def boilerplate_share(texts: Sequence[str]) -> float | None:
    """Share of answers whose opening is also that of at least one other answer; None without answers."""
    if not texts:
        return None
    counts = Counter(opening(text) for text in texts)
    return sum(count for count in counts.values() if count > 1) / len(texts)


def largest_opening_share(texts: Sequence[str]) -> float | None:
    """Share of answers that begin with the most frequent opening; None without answers."""
    if not texts:
        return None
    return max(Counter(opening(text) for text in texts).values()) / len(texts)


def repetition(texts: Sequence[str], n: int = REPEATED_WORDS) -> float | None:
    """Mean share of an answer's n-grams of words that repeat one before them in the same answer: 0, nothing repeats.

    This is seq-rep-n of Welleck et al. 2020 (Neural Text Generation with Unlikelihood Training, arXiv 1908.04319),
    1 - distinct n-grams / n-grams, on casefolded words in place of tokens. Answers of fewer than n words have no n-gram
    and are left out; None where no answer has one.
    """
    shares = []
    for text in texts:
        words = spaced(text).casefold().split()
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        if grams:
            shares.append(1.0 - len(set(grams)) / len(grams))
    return fmean(shares) if shares else None


def relevance(prompts: Sequence[str], answers: Sequence[str]) -> float | None:
    """Probability that an answer takes up more of its own prompt than of another; 0.5 is chance, None: under 2 prompts.

    What it takes up is the share of the prompt's words, rare ones counting more (inverse document frequency over the
    prompts), that the answer repeats; ties count half. A phrase that fits any prompt scores 0.5.

    Args:
        prompts: what was asked, in order.
        answers: one for every prompt.
    """
    if len(prompts) < 2:
        return None
    asked, said = [_stems(text) for text in prompts], [_stems(text) for text in answers]
    n_with = Counter(stem for stems in asked for stem in stems)
    rarity = {stem: math.log(len(prompts) / n) for stem, n in n_with.items()}

    def taken_up(answer: int, prompt: int) -> float:
        whole = math.fsum(rarity[stem] for stem in sorted(asked[prompt]))
        return math.fsum(rarity[stem] for stem in sorted(asked[prompt] & said[answer])) / whole if whole > 0 else 0.0

    n_others = min(len(prompts) - 1, MOST_OTHERS)
    wins = 0.0
    for answer in range(len(answers)):
        own = taken_up(answer, answer)
        for step in range(1, n_others + 1):
            other = taken_up(answer, (answer + step) % len(prompts))
            wins += 1.0 if own > other else 0.5 if own == other else 0.0
    return wins / (len(answers) * n_others)


def _stems(text: str) -> frozenset[str]:
    """Beginnings of words; of a script without blanks every two characters in a row."""
    words = re.findall(r"[^\W\d_]{3,}", re.sub(WITHOUT_BLANKS, " ", text).casefold())
    runs = re.findall(f"(?:{WITHOUT_BLANKS})+", text)
    pairs = (run[i : i + 2] for run in runs for i in range(len(run) - 1))
    return frozenset([*(word[:STEM_LETTERS] for word in words), *pairs])
