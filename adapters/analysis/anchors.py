"""Anchor sentences: what a message feels like is what the sentences nearest to it feel like."""

import tomllib
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adapters.embeddings import SentenceEncoder
from domain.ports import EMOTIONS

#: How fast an anchor's vote fades with its cosine distance from the nearest one: one that is farther by this much has
#: 1/e of its vote. Chosen on the dev set.
TEMPERATURE: Final = 0.05


class Anchors:
    """The anchors of `anchors.toml`, encoded."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        """Encode the anchors (0.2 s after the model is loaded).

        Raises `ValueError` where the file names an emotion that may not be stored, or leaves one out.
        """
        groups = _groups()
        named = [group["emotion"] for group in groups]
        if sorted(named) != sorted(EMOTIONS):
            raise ValueError(f"anchors.toml must have one group for each of {', '.join(EMOTIONS)}; it has {named}")
        #: What each emotion of `EMOTIONS` is worth, -1 to 1.
        self.sentiments = np.array([groups[named.index(emotion)]["sentiment"] for emotion in EMOTIONS])
        self._vectors = encoder.encode([anchor for group in groups for anchor in group["anchors"]])
        votes = [EMOTIONS.index(group["emotion"]) for group in groups for _ in group["anchors"]]
        self._votes = np.eye(len(EMOTIONS))[votes]

    def emotions(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return, for each vector, the share of the vote that each emotion of `EMOTIONS` gets.

        Every anchor votes with `exp(cosine / TEMPERATURE)` (Nadaraya-Watson kernel regression). One vector at a time,
        so that the answer does not depend on the company a vector is in.
        """
        shares = np.empty((len(vectors), len(EMOTIONS)))
        for row, vector in enumerate(vectors):
            cosines = (self._vectors @ vector).astype(np.float64)
            weights = np.exp((cosines - cosines.max()) / TEMPERATURE)
            shares[row] = weights @ self._votes / weights.sum()
        return shares


def anchor_sentences() -> list[str]:
    """Return every anchor."""
    return [anchor for group in _groups() for anchor in group["anchors"]]


def anchors_file() -> bytes:
    """Return `anchors.toml` as it lies in the package."""
    return resources.files(__package__).joinpath("anchors.toml").read_bytes()


def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = tomllib.loads(anchors_file().decode("utf-8"))["group"]
    return groups
