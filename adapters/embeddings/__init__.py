"""The offline embedders behind `domain.ports.Embedder`: a small sentence encoder in numpy, no key, no download."""

from adapters.embeddings.catalog import Embedders, offline_embedders
from adapters.embeddings.encoder import SentenceEncoder, shared_encoder
from adapters.embeddings.offline import OfflineEmbedder

__all__ = ["Embedders", "OfflineEmbedder", "SentenceEncoder", "offline_embedders", "shared_encoder"]
