"""The models that messages are given to, and how they are asked."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard
from uuid import UUID

from adapters.embeddings import Embedders
from domain.embedding_models import EmbeddingModels
from domain.errors import DomainError
from domain.messages import Message
from domain.ports import Analyser, Analysis, Embedder, ServedEmbedder


class WrongAnswer(DomainError):
    """A model gave another number of answers than it was asked questions."""


def is_served(embedder: Embedder) -> TypeGuard[ServedEmbedder]:
    """Whether it stands behind a server, which may be slow or away."""
    return hasattr(embedder, "embed_counted")


@dataclass(frozen=True)
class Models:
    """The models that the worker asks: an analyser, and embedders of which each tenant has its own."""

    analyser: Analyser
    embedders: Embedders

    def analysed(self, state: Message) -> bool:
        """Whether this analyser has had its say."""
        return state.analyzed_by == (self.analyser.model_name, self.analyser.prompt_version)

    def embedders_of(self, tenant: EmbeddingModels) -> list[Embedder]:
        """Those of a tenant, the one it moves to last; the default where it has none, or none that is here.

        `tenant`: as `api.answering.Answering` fills it, so that what never chose keeps the model of its vectors.
        """
        names = [tenant.answering or self.embedders.default.model_name, tenant.moving_to]
        found = [embedder for name in names if name is not None and (embedder := self.embedders.get(name))]
        return found or [self.embedders.default]

    async def analyse(self, states: Sequence[Message]) -> tuple[dict[UUID, Analysis], int]:
        """Analyses by message, and how many milliseconds one of them took on average."""
        if not states:
            return {}, 0
        started = time.perf_counter()
        analyses = await self.analyser.analyse([state.text for state in states])
        latency_ms = round(1000 * (time.perf_counter() - started) / len(states))
        if len(analyses) != len(states):
            raise WrongAnswer(f"the analyser gave {len(analyses)} analyses of {len(states)} texts")
        return dict(zip((state.id for state in states), analyses, strict=True)), latency_ms

    async def embed(
        self, states: Sequence[Message], embedders: Mapping[UUID, Sequence[Embedder]]
    ) -> dict[UUID, list[tuple[str, bytes]]]:
        """Vectors by message, each with its model's name, in the order in which the message's tenant has its models."""
        vectors: dict[UUID, list[tuple[str, bytes]]] = {state.id: [] for state in states}
        for place in range(max(map(len, embedders.values()), default=0)):
            asked: dict[str, tuple[Embedder, list[Message]]] = {}
            for state in states:
                if state.tenant_id is None:
                    continue
                for embedder in embedders[state.tenant_id][place : place + 1]:
                    if embedder.model_name not in state.embedded_by:
                        asked.setdefault(embedder.model_name, (embedder, []))[1].append(state)
            for name, (embedder, wanting) in asked.items():
                answers = await vectors_of(embedder, [state.text for state in wanting])
                for state, vector in zip(wanting, answers, strict=True):
                    vectors[state.id].append((name, vector))
        return vectors


async def vectors_of(embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
    """A vector a text. Raises `WrongAnswer` where the embedder gives another number of them."""
    vectors = await embedder.embed(texts)
    if len(vectors) != len(texts):
        raise WrongAnswer(f"the embedder gave {len(vectors)} vectors of {len(texts)} texts")
    return vectors
