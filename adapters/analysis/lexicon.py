"""How good or bad the words of a message are, by the LeIA lexicon and what `lexicon.toml` adds to it."""

import math
import re
import tomllib
import unicodedata
import warnings
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from LeIA import SentimentIntensityAnalyzer

#: Characters that are read: LeIA takes time with the square of the words (9,000 characters measured 0.1 s).
MAX_CHARACTERS: Final = 1000
#: VADER's alpha: a sum of valences `s` becomes `s / sqrt(s * s + ALPHA)`, between -1 and 1.
ALPHA: Final = 15.0
#: What exclamation marks add to the strength of a sum, each, up to three (LeIA's own figure).
EXCLAMATION: Final = 0.292
#: What being shouted multiplies a sum by.
SHOUTING: Final = 1.3

_SPACES = re.compile(r"\s+")
_DRAWN_OUT = re.compile(r"([a-z])\1{2,}")
_NOT_WORD = re.compile(r"[^\w\s,.;:'()-]")


class LexiconError(RuntimeError):
    """The lexicon can't be loaded; the message says what to set."""


class Lexicon:
    """The LeIA lexicon with words, phrases and emojis of customer service added."""

    def __init__(self) -> None:
        """Load the lexicon (30 ms). Raises `LexiconError` where the locale keeps LeIA from reading its own files."""
        entries: dict[str, Any] = tomllib.loads(lexicon_file().decode("utf-8"))
        self._emojis: dict[str, float] = entries["emojis"]
        self._phrases: dict[str, float] = entries["phrases"]
        self._formulas = _alternatives(entries["formulas"])
        self._negations = _alternatives(entries["negations"])
        self._phrase = _alternatives(self._phrases)
        self._leia = _leia()
        self._leia.lexicon.update(entries["words"])

    def polarity(self, text: str, *, shouted: bool = False) -> float:
        """Return how good (1) or bad (-1) the words are; 0 where none is known. `text` may have any length."""
        text = text[:MAX_CHARACTERS]
        total = self._emoji_valence(text)
        words = self._formulas.sub(" ", plain(text))
        for match in self._phrase.finditer(words):
            total += self._phrases[match.group()]
        words = self._negations.sub("nao", self._phrase.sub(" ", words))
        compound: float = self._leia.polarity_scores(words)["compound"]
        # The sum that LeIA made `compound` from, so that emojis and phrases can be added on the same scale.
        bounded = max(-0.9999, min(0.9999, compound))
        total += bounded * math.sqrt(ALPHA / (1 - bounded * bounded))
        if total:
            total += math.copysign(EXCLAMATION * min(3, text.count("!")), total)
        if shouted:
            total *= SHOUTING
        return total / math.sqrt(total * total + ALPHA)

    def _emoji_valence(self, text: str) -> float:
        """Sum each emoji's valence; one repeated counts half again each time, so that a row of ten is not ten."""
        total = 0.0
        for emoji, valence in self._emojis.items():
            times = text.count(emoji)
            total += valence * (2 - 2.0 ** (1 - times)) if times else 0.0
        return total


def plain(text: str) -> str:
    """Return a text in lower case, without accents, emojis, `!` and drawn-out letters (`muuuito` is `muito`)."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    letters = decomposed.encode("ascii", "ignore").decode("ascii")
    return _SPACES.sub(" ", _DRAWN_OUT.sub(r"\1", _NOT_WORD.sub(" ", letters))).strip()


def lexicon_file() -> bytes:
    """Return `lexicon.toml` as it lies in the package."""
    return resources.files(__package__).joinpath("lexicon.toml").read_bytes()


def _leia() -> "SentimentIntensityAnalyzer":
    """Return LeIA's analyser.

    Importing it leaves two files open for the collector to close (a ResourceWarning, silenced here), and reads them in
    the locale's encoding: it fails where that is ASCII.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            from LeIA import SentimentIntensityAnalyzer  # noqa: PLC0415 - so that this failure can be explained
        except UnicodeDecodeError:
            raise LexiconError(
                "the lexicon LeIA can't be read in this locale's encoding: set PYTHONUTF8=1 (or a UTF-8 locale)"
            ) from None
    return SentimentIntensityAnalyzer()


def _alternatives(phrases: list[str] | dict[str, float]) -> re.Pattern[str]:
    """Match any of the phrases as whole words, the longest first."""
    ordered = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    return re.compile(r"\b(?:" + "|".join(map(re.escape, ordered)) + r")\b")
