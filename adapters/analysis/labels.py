"""Maps what models call emotions and tones to the documented labels (`labels.toml`)."""

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from importlib import resources
from typing import Final

from domain.ports import EMOTIONS, TONES

_SEPARATORS: Final = re.compile(r"[\W_]+")


class Labels:
    """One vocabulary, with the other words for its labels."""

    def __init__(self, labels: Iterable[str], synonyms: dict[str, list[str]]) -> None:
        """Raises `ValueError` where the file names an unknown label or says two things of one word."""
        self._labels: dict[str, str] = {_folded(label): label for label in labels}
        unknown = sorted(set(synonyms) - set(self._labels.values()))
        if unknown:
            raise ValueError(f"labels.toml maps to {', '.join(unknown)}, which may not be stored")
        for label, words in synonyms.items():
            for word in words:
                if self._labels.setdefault(_folded(word), label) != label:
                    raise ValueError(f"labels.toml maps {word} to two labels")

    def find(self, word: str) -> str | None:
        """The label for a word; None where it is none, and no other word for one."""
        # The longest word of the table has 20 characters.
        return self._labels.get(_folded(word)) if len(word) <= 60 else None


def _folded(word: str) -> str:
    letters = unicodedata.normalize("NFKD", word.casefold()).encode("ascii", "ignore").decode("ascii")
    return _SEPARATORS.sub(" ", letters).strip()


def _table() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(resources.files(__package__).joinpath("labels.toml").read_text("utf-8"))


EMOTION_LABELS: Final = Labels(EMOTIONS, _table()["emotion"])
TONE_LABELS: Final = Labels(TONES, _table()["tone"])
