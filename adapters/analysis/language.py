"""Which language a short text is in: Portuguese, English or Spanish, by the words that only one of them has.

It is asked whether a summary speaks the language of its message, so it has to be sure rather than clever: it counts
distinct words, says nothing about a text that has fewer than two of one language, and knows no other language of the
Latin alphabet. The words are in `languages.toml`.
"""

import re
import tomllib
import unicodedata
from importlib import resources
from typing import Final, Literal

Language = Literal["pt", "en", "es", "other"]

#: Distinct words that it takes to be sure, and how many times as many as of the next language.
LEAST: Final = 2
MARGIN: Final = 2
#: A message with two words of Portuguese is Portuguese, unless five times as many are English: customers paste what an
#: app told them, and what is pasted may ask for an answer in its own language.
_PASTED: Final = 5

_LANGUAGES: Final[tuple[Language, ...]] = ("pt", "en", "es")
_SIGNS: Final = re.compile(r"[ñ¿¡]")

_WORD: Final = re.compile(r"[^\W\d_]+")
_ADDRESS: Final = re.compile(r"\S*(?://|@|\w\.\w)\S*|\[\w+\]")
_QUOTED: Final = re.compile(r"[\"“”«»][^\"“”«»]*[\"“”«»]")


def recognise(text: str) -> Language | None:
    """The language that a text is surely in; `other` in letters that none of the three has; None where it is unsure."""
    if _foreign(text):
        return "other"
    counts = _counts(text)
    best = max(counts, key=lambda language: counts[language])
    second = max(count for language, count in counts.items() if language != best)
    return best if counts[best] >= LEAST and counts[best] >= MARGIN * second else None


def agrees(summary: str, message: str) -> bool:
    """Whether a summary may be in the language of a message. What is quoted in it does not count."""
    spoken = recognise(_QUOTED.sub(" ", summary)) or recognise(summary)
    return spoken is None or spoken in _expected(message)


def _expected(message: str) -> frozenset[Language]:
    """The languages that a summary may be in: Portuguese, where the message gives no sign of another."""
    if _foreign(message):
        return frozenset(("pt", "en", "es", "other"))
    counts = _counts(message)
    if counts["pt"] >= LEAST and counts["pt"] >= counts["es"] and counts["pt"] * _PASTED >= counts["en"]:
        return frozenset(("pt",))
    sure = recognise(message)
    if sure is not None:
        return frozenset((sure,))
    return frozenset(language for language, count in counts.items() if count) | {"pt"}


def _counts(text: str) -> dict[Language, int]:
    text = text.casefold()
    words = set(_WORD.findall(_ADDRESS.sub(" ", text)))
    counts = {language: sum(map(own.has, words)) for language, own in _TABLE.items()}
    counts["es"] += LEAST if _SIGNS.search(text) else 0
    return counts


def _foreign(text: str) -> bool:
    """Whether most letters are of no Latin alphabet."""
    letters = [character for character in text[:2000] if character.isalpha()]
    latin = sum(unicodedata.name(character, "").startswith(("LATIN", "FEMININE", "MASCULINE")) for character in letters)
    return len(letters) >= 2 and latin * 2 < len(letters)


class _Own:
    """What only one language has."""

    def __init__(self, entries: dict[str, str]) -> None:
        self._words = frozenset(entries["words"].split())
        self._endings = tuple(entries["endings"].split())

    def has(self, word: str) -> bool:
        return word in self._words or (len(word) > 4 and word.endswith(self._endings))


def _table() -> dict[Language, _Own]:
    entries = tomllib.loads(resources.files(__package__).joinpath("languages.toml").read_text("utf-8"))
    return {language: _Own(entries[language]) for language in _LANGUAGES}


_TABLE: Final = _table()
