"""Which language a text is in, as far as refusals go, and its words where no blanks stand between them.

Script first, then the commonest small words: enough to tell what this program reads from what it does not, and no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

READ = ("en", "de", "es", "fr", "zh")
"""Languages whose refusals are known (`text/refusals/`)."""
_SCRIPTS = {
    "ja": r"[\u3040-\u30ff]",
    "ko": r"[\uac00-\ud7af]",
    "zh": r"[\u4e00-\u9fff]",
    "ru": r"[\u0400-\u04ff]",
    "ar": r"[\u0600-\u06ff]",
    "hi": r"[\u0900-\u097f]",
    "el": r"[\u0370-\u03ff]",
    "he": r"[\u0590-\u05ff]",
    "th": r"[\u0e00-\u0e7f]",
}
"""One language a script stands for all that are written in it; of several the first: kana before kanji."""
_SMALL_WORDS = {
    "en": "the of to is that it you and for are with not this be your i can have from how what if an at by they",
    "de": "der die das und ist nicht ich du sie ein eine zu mit den wie auf für es dem im sich auch wenn oder aber "
    "kann kannst wir er was man noch nur sind wird dabei diese einem einen denn dir ihnen keine leider jemand",
    "es": "de el la los las que y en un una por para con no se lo del su es como pero más si está este al "
    "puedo puedes eso esa ese te me le porque sobre muy hay todo tu ser algo pero quiero puede debo",
    "fr": "de d l qu n j c le la les et est un une que pour dans je vous ne pas en du au ce des qui il sur avec "
    "plus nous tu mais sont cette quand peux aux",
    "it": "il lo la di che e è un una per non con del sono della gli nel alla ma come più se anche dei",
    "pt": "de o a os as que e é um uma para com não em do da no na se por mais como mas ao dos isso",
    "nl": "de het een en van is niet ik je dat op te met voor zijn er aan maar om ook als bij wat naar",
    "pl": "i w na nie się z do to jest że co jak za od po ale dla przez jego czy tak są może być ten",
    "sv": "och att det i en är på som för med av inte den till jag du om ett har de vi men kan från",
    "tr": "ve bir bu için ile de da ne çok ben daha gibi olarak var en ama sonra kadar veya her ki o",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam akan pada anda adalah ke saya bisa atau juga ada",
}
_WORDS = {language: frozenset(words.split()) for language, words in _SMALL_WORDS.items()}
TOLD_APART = (*_WORDS, *_SCRIPTS)
"""Every language that `language_of` may tell, by its code."""
UNKNOWN = "unknown"
"""What a text is in that is long and has hardly a small word of any language above."""
MANY = 0.05
"""Share of texts in a language that something here does not know, from which that is told."""
_LONG = 60
"""Letters of a text that should have some."""
_FEWEST = 3
"""Small words that a text must have, and its language more of than any other."""
WITHOUT_BLANKS = r"[\u3040-\u30ff\u4e00-\u9fff]"
"""A character of a script that writes no blanks between words."""


def language_of(text: str) -> str:
    """ISO 639-1 code of the language, or `unknown`; empty where the text is too short or too mixed to tell."""
    letters = sum(character.isalpha() for character in text)
    for language, script in _SCRIPTS.items() if not text.isascii() else ():
        if letters and len(re.findall(script, text)) >= max(2, 0.2 * letters):
            return language
    words = re.findall(r"[^\W\d_]+", text.casefold())
    hits = Counter({language: sum(word in known for word in words) for language, known in _WORDS.items()})
    (best, most), (_, next_most) = hits.most_common(2)
    if most >= _FEWEST and most > next_most:
        return best
    n_latin = len(re.findall(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]", text))
    is_another_script = letters >= _LONG // 3 and n_latin < letters / 2
    return UNKNOWN if is_another_script or (letters >= _LONG and most <= 1) else ""


def called(language: str) -> str:
    """A language that `language_of` told, in a sentence."""
    return language if language != UNKNOWN else "another language"


def unread(texts: Sequence[str]) -> dict[str, float]:
    """Share of the texts by language, of those whose refusals nobody knows here; empty where there are none."""
    found = Counter(language for language in map(language_of, texts) if language and language not in READ)
    return {language: count / len(texts) for language, count in sorted(found.items())}


def spaced(text: str) -> str:
    """The text with blanks around every character of a script that writes none, so that words can be counted."""
    return re.sub(f"({WITHOUT_BLANKS})", r" \1 ", text)
