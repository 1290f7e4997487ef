"""Words, phrases and emojis that show an emotion or a tone by themselves (`cues.toml`)."""

import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any

from adapters.analysis.lexicon import plain
from domain.ports import EMOTIONS, TONES

_SPACE_AND_PUNCTUATION = re.compile(r"[.;:'()-]+")


class Cues:
    """Finds the emotions and tones that a message names."""

    def __init__(self) -> None:
        """Load the cues. Raises `ValueError` where the file names an emotion or a tone that may not be stored."""
        entries: dict[str, Any] = tomllib.loads(cues_file().decode("utf-8"))
        _known(entries["emotion"], EMOTIONS)
        _known(entries["emoji"], EMOTIONS)
        _known(entries["tone"], TONES)
        self._emotions = {emotion: _beginnings(cues) for emotion, cues in entries["emotion"].items()}
        self._emojis: dict[str, frozenset[str]] = {emotion: frozenset(row) for emotion, row in entries["emoji"].items()}
        self._tones = {tone: _beginnings(cues) for tone, cues in entries["tone"].items()}

    def emotions(self, text: str) -> dict[str, float]:
        """Return the emotions that words (1 each kind) and emojis (2: they are put there for nothing else) name."""
        words, signs = _words(text), set(text)
        found = {emotion: 1.0 for emotion, pattern in self._emotions.items() if pattern.search(words)}
        for emotion, emojis in self._emojis.items():
            if signs & emojis:
                found[emotion] = found.get(emotion, 0.0) + 2.0
        return found

    def tones(self, text: str) -> frozenset[str]:
        """Return the tones whose cues stand in the text."""
        words = _words(text)
        return frozenset(tone for tone, pattern in self._tones.items() if pattern.search(words))


def cues_file() -> bytes:
    """Return `cues.toml` as it lies in the package."""
    return resources.files(__package__).joinpath("cues.toml").read_bytes()


def _words(text: str) -> str:
    return _SPACE_AND_PUNCTUATION.sub(" ", plain(text))


def _beginnings(cues: Iterable[str]) -> re.Pattern[str]:
    alternatives = (re.escape(cue[:-1]) + r"\b" if cue.endswith(".") else re.escape(cue) for cue in cues)
    return re.compile(r"\b(?:" + "|".join(alternatives) + ")")


def _known(names: Iterable[str], allowed: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(allowed))
    if unknown:
        raise ValueError(f"cues.toml names {', '.join(unknown)}; known are {', '.join(allowed)}")
