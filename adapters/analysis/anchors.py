"""Anchor sentences: what a message feels like is learned from sentences like it."""

import math
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adapters.embeddings import SentenceEncoder
from adapters.embeddings.chat_text import canonical
from domain.ports import EMOTIONS

# Chosen by leaving one anchor out at a time.
#: How fast an anchor's influence fades with its cosine distance: by 1/e over this much.
WIDTH: Final = 0.5
#: How much words in common count, beside the distance of meaning.
WORD_WEIGHT: Final = 1.0
#: Letters that tell one word from another; what follows is taken for its ending.
STEM: Final = 6
#: Ridge: how much of an anchor's label may be put down to chance.
RIDGE: Final = 0.5
#: What is believed of a message like no anchor: that it is neutral. The rest is shared by all emotions alike.
NEUTRAL_PRIOR: Final = 0.4
#: How far apart two scores are when one emotion's share is e times the other's.
TEMPERATURE: Final = 0.1

#: What is a word, without accents and in lower case...
WORD: Final = re.compile(r"[a-z0-9]+|\?")
#: ...and what makes another one of the next.
NEGATIONS: Final = frozenset({"nao", "nunca", "jamais", "nem", "sem"})


class Anchors:
    """The anchors of `anchors.toml`, encoded, and fitted by kernel ridge regression (Saunders et al., 1998).

    The kernel is a sum: of a function of the cosine of two vectors, and of the cosine of two sets of words, in which a
    word weighs the more the rarer it is.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        """Encode and fit the anchors (a second after the model is loaded).

        Raises `ValueError` where the file names an emotion that may not be stored, or leaves one out.
        """
        groups = _groups()
        named = [group["emotion"] for group in groups]
        if sorted(named) != sorted(EMOTIONS):
            raise ValueError(f"anchors.toml must have one group for each of {', '.join(EMOTIONS)}; it has {named}")
        #: What each emotion of `EMOTIONS` is worth, -1 to 1.
        self.sentiments = np.array([groups[named.index(emotion)]["sentiment"] for emotion in EMOTIONS])
        self._encoder = encoder
        sentences = [anchor for group in groups for anchor in group["anchors"]]
        self._vectors = encoder.encode_together(sentences).astype(np.float64)
        self._words = _WordIndex(sentences)
        labels = [EMOTIONS.index(group["emotion"]) for group in groups for _ in group["anchors"]]
        self._prior = np.full(len(EMOTIONS), (1 - NEUTRAL_PRIOR) / len(EMOTIONS))
        self._prior[EMOTIONS.index("neutro")] += NEUTRAL_PRIOR
        kernel = np.array(
            [self._likeness(sentence, vector) for sentence, vector in zip(sentences, self._vectors, strict=True)]
        )
        kernel[np.diag_indices_from(kernel)] += RIDGE
        self._weights = np.linalg.solve(kernel, np.eye(len(EMOTIONS))[labels] - self._prior)

    def emotions(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return, for each text, a share for each emotion of `EMOTIONS`; a row adds up to 1.

        One text at a time, so that the answer does not depend on the company a text is in.
        """
        shares = np.empty((len(texts), len(EMOTIONS)))
        vectors = self._encoder.encode(texts).astype(np.float64)
        for row, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            scores = self._prior + self._likeness(text, vector) @ self._weights
            raised = np.exp((scores - scores.max()) / TEMPERATURE)
            shares[row] = raised / raised.sum()
        return shares

    def _likeness(self, text: str, vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How like each anchor a text is."""
        meaning = np.exp((self._vectors @ vector - 1) / WIDTH)
        likeness: npt.NDArray[np.float64] = meaning + WORD_WEIGHT * self._words.cosines(text)
        return likeness


class _WordIndex:
    """Which sentences have a word."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self._number = len(sentences)
        sets = [_stems(sentence) for sentence in sentences]
        frequency = Counter(stem for stems in sets for stem in stems)
        self._rarity = {stem: math.log(self._number / times) for stem, times in frequency.items()}
        rows: dict[str, list[int]] = {}
        for row, stems in enumerate(sets):
            for stem in stems:
                rows.setdefault(stem, []).append(row)
        self._rows = {stem: np.array(found) for stem, found in rows.items()}
        self._lengths = np.array([self._length(stems) for stems in sets])

    def cosines(self, text: str) -> npt.NDArray[np.float64]:
        """The cosine of the text's words and each sentence's, 0 where none is shared."""
        stems = [stem for stem in _stems(text) if stem in self._rarity]
        products = np.zeros(self._number)
        for stem in stems:
            products[self._rows[stem]] += self._rarity[stem] ** 2
        return products / (self._lengths * self._length(stems))

    def _length(self, stems: Sequence[str]) -> float:
        return max(math.sqrt(sum(self._rarity[stem] ** 2 for stem in stems)), 1e-9)


def _stems(text: str) -> list[str]:
    """The beginnings of a text's words, each once, in an order that is always the same.

    A word behind a negation is another word.
    """
    ascii_text = unicodedata.normalize("NFKD", canonical(text).lower()).encode("ascii", "ignore").decode("ascii")
    stems: dict[str, None] = {}
    before = ""
    for word in WORD.findall(ascii_text):
        stems[f"nao {word[:STEM]}" if before in NEGATIONS else word[:STEM]] = None
        before = word
    return list(stems)


def anchor_sentences() -> list[str]:
    """Return every anchor."""
    return [anchor for group in _groups() for anchor in group["anchors"]]


def anchors_file() -> bytes:
    """Return `anchors.toml` as it lies in the package."""
    return resources.files(__package__).joinpath("anchors.toml").read_bytes()


def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = tomllib.loads(anchors_file().decode("utf-8"))["group"]
    return groups
