"""The embedders of an installation, by the names of their models."""

from collections.abc import Iterator
from functools import cache

from adapters.embeddings.encoder import SentenceEncoder, shared_encoder
from adapters.embeddings.offline import OfflineEmbedder
from domain.ports import Embedder


class Embedders:
    """Some embedders, of which the first is the one for tenants that chose none."""

    def __init__(self, default: Embedder, *others: Embedder) -> None:
        self.default = default
        self._by_name = {embedder.model_name: embedder for embedder in (default, *others)}

    def __iter__(self) -> Iterator[Embedder]:
        """All of them, the default first."""
        return iter(self._by_name.values())

    def get(self, model_name: str) -> Embedder | None:
        """The embedder of that model, or None."""
        return self._by_name.get(model_name)


@cache
def offline_embedders() -> Embedders:
    """The offline ones: with concepts (the default), and without them from chat spelt out and from what was written.

    The second was the default before there were concepts: its tenants are searched until they have moved. Nothing is
    loaded before the first text, and all share the weights.
    """
    chat = shared_encoder()
    plain = SentenceEncoder(form="plain", weights=chat.weights)
    without = (OfflineEmbedder(encoder, with_concepts=False) for encoder in (chat, plain))
    return Embedders(OfflineEmbedder(chat), *without)
