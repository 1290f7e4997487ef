"""What a text speaks of, as coordinates beside those of the sentence encoder.

The encoder is small and hears "cartão clonado" and "compras que não reconheço" as two things. Here words that stand for
the same matter (`concepts.toml`) share a coordinate, and every other word has one of its own by what it begins with.
"""

import hashlib
import itertools
import math
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Coordinates = npt.NDArray[np.float64]

#: Coordinates there are: what the stored vector has beyond the encoder's.
WIDTH: Final = 256
#: Of how many coordinates, each 1 or -1, the direction of one matter or word is made. Directions of two are nearly at a
#: right angle.
SPREAD: Final = 8
#: What a word counts that belongs to no matter, beside 1 for a matter...
WORD_WEIGHT: Final = 0.5
#: ...and what any counts that is everywhere.
FAINT_WEIGHT: Final = 0.33
#: Letters that tell one word from another; what follows is taken for its ending.
STEM: Final = 6

_WORD: Final = re.compile(r"[a-z0-9]+")


class _Vocabulary:
    def __init__(self) -> None:
        entries: dict[str, Any] = tomllib.loads(concepts_file().decode("utf-8"))
        self.silent = frozenset(entries["silent"])
        self.faint = frozenset(entries["faint"])
        self.words: dict[str, list[int]] = {}
        self.beginnings: dict[str, list[int]] = {}
        for number, concept in enumerate(entries["concepts"]):
            for entry in concept:
                table = self.words if entry.endswith(".") else self.beginnings
                table.setdefault(entry.removesuffix("."), []).append(number)
        self.longest = max(map(len, self.beginnings))

    def matters(self, word: str) -> list[int]:
        """The matters that a word stands for: by the whole, or else by the longest beginning that is known."""
        return self.words.get(word) or self._by_beginning(word, 2)

    def matters_of_two(self, first: str, second: str) -> list[int]:
        """The same for two words that are known together."""
        return self._by_beginning(f"{first} {second}", len(first) + 2)

    def _by_beginning(self, words: str, least: int) -> list[int]:
        ends = range(min(len(words), self.longest), least - 1, -1)
        return next((self.beginnings[words[:end]] for end in ends if words[:end] in self.beginnings), [])


def coordinates(text: str) -> Coordinates:
    """Return `WIDTH` coordinates of length 1 together, or all 0 where the text has no word that says anything."""
    total = np.zeros(WIDTH)
    for feature, weight in _features(text).items():
        total += weight * _direction(feature)
    length = float(np.linalg.norm(total))
    return total / length if length else total


def digest() -> str:
    """Return the SHA-256, in hex, of everything that shapes `coordinates`."""
    constants = f"{WIDTH} {SPREAD} {WORD_WEIGHT} {FAINT_WEIGHT} {STEM} {_WORD.pattern}"
    return hashlib.sha256(concepts_file() + constants.encode()).hexdigest()


@cache
def concepts_file() -> bytes:
    """Return `concepts.toml` as it lies in the package."""
    return resources.files(__package__).joinpath("concepts.toml").read_bytes()


def _features(text: str) -> dict[str, float]:
    """Each matter and word of a text, once, with what it counts."""
    found: dict[str, float] = {}
    for feature, weight in _weighted(text):
        found[feature] = max(weight, found.get(feature, 0.0))
    return found


def _weighted(text: str) -> Iterator[tuple[str, float]]:
    vocabulary = _vocabulary()
    words = _WORD.findall(unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode("ascii"))
    for first, second in itertools.pairwise(words):
        for matter in vocabulary.matters_of_two(first, second):
            yield f"#{matter}", 1.0
    for word in words:
        if word in vocabulary.silent:
            continue
        weight = FAINT_WEIGHT if word in vocabulary.faint else 1.0
        for matter in vocabulary.matters(word):
            yield f"#{matter}", weight
        yield word[:STEM], WORD_WEIGHT * weight


@cache
def _vocabulary() -> _Vocabulary:
    return _Vocabulary()


def _direction(feature: str) -> Coordinates:
    """A direction that is the feature's own, the same in every process."""
    drawn = hashlib.blake2b(feature.encode(), digest_size=2 * SPREAD).digest()
    direction = np.zeros(WIDTH)
    for place, sign in zip(drawn[::2], drawn[1::2], strict=True):
        direction[place] += 1.0 if sign & 1 else -1.0
    return direction / math.sqrt(SPREAD)
