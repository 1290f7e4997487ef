"""Anchor sentences: what a message feels like is learned from sentences like it."""

import tomllib
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adapters.embeddings import SentenceEncoder
from domain.ports import EMOTIONS

# Chosen by leaving one anchor out at a time.
#: How fast an anchor's influence fades with its cosine distance: by 1/e over this much.
WIDTH: Final = 0.5
#: Ridge: how much of an anchor's label may be put down to chance.
RIDGE: Final = 0.3
#: What is believed of a message like no anchor: that it is neutral. The rest is shared by all emotions alike.
NEUTRAL_PRIOR: Final = 0.6
#: How far apart two scores are when one emotion's share is e times the other's.
TEMPERATURE: Final = 0.1


class Anchors:
    """The anchors of `anchors.toml`, encoded, and fitted by kernel ridge regression (Saunders et al., 1998)."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        """Encode and fit the anchors (half a second after the model is loaded).

        Raises `ValueError` where the file names an emotion that may not be stored, or leaves one out.
        """
        groups = _groups()
        named = [group["emotion"] for group in groups]
        if sorted(named) != sorted(EMOTIONS):
            raise ValueError(f"anchors.toml must have one group for each of {', '.join(EMOTIONS)}; it has {named}")
        #: What each emotion of `EMOTIONS` is worth, -1 to 1.
        self.sentiments = np.array([groups[named.index(emotion)]["sentiment"] for emotion in EMOTIONS])
        self._vectors = encoder.encode([anchor for group in groups for anchor in group["anchors"]]).astype(np.float64)
        labels = [EMOTIONS.index(group["emotion"]) for group in groups for _ in group["anchors"]]
        self._prior = np.full(len(EMOTIONS), (1 - NEUTRAL_PRIOR) / len(EMOTIONS))
        self._prior[EMOTIONS.index("neutro")] += NEUTRAL_PRIOR
        kernel = np.exp((self._vectors @ self._vectors.T - 1) / WIDTH)
        kernel[np.diag_indices_from(kernel)] += RIDGE
        self._weights = np.linalg.solve(kernel, np.eye(len(EMOTIONS))[labels] - self._prior)

    def emotions(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return, for each vector, a share for each emotion of `EMOTIONS`; a row adds up to 1.

        One vector at a time, so that the answer does not depend on the company a vector is in.
        """
        shares = np.empty((len(vectors), len(EMOTIONS)))
        for row, vector in enumerate(vectors.astype(np.float64)):
            scores = self._prior + np.exp((self._vectors @ vector - 1) / WIDTH) @ self._weights
            raised = np.exp((scores - scores.max()) / TEMPERATURE)
            shares[row] = raised / raised.sum()
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
