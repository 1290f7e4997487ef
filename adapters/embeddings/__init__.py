"""The offline embedder behind `domain.ports.Embedder`: a small sentence encoder in numpy, no key, no download."""

from adapters.embeddings.encoder import SentenceEncoder, shared_encoder
from adapters.embeddings.offline import OfflineEmbedder

__all__ = ["OfflineEmbedder", "SentenceEncoder", "shared_encoder"]
