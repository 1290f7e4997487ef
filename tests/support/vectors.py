"""Clustered vectors for tests of the search, and what a comparison with every one of them finds."""

import itertools
import uuid
from collections.abc import Mapping

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from projections.vector_index import FIRST, TAIL, VectorIndex

Vector = NDArray[np.float32]

DIMENSIONS = 768


def text(vector: Vector) -> str:
    return "[" + ",".join(f"{x:.6f}" for x in vector) + "]"


def unit(vectors: Vector) -> Vector:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


class Corpus:
    """Clustered random vectors, as those of sentences are."""

    def __init__(self, sizes: Mapping[uuid.UUID, int]) -> None:
        self.rng = np.random.default_rng(5)
        self.centres = self.rng.normal(size=(40, DIMENSIONS))
        self.ids: dict[uuid.UUID, list[int]] = {}
        self.vectors: dict[uuid.UUID, Vector] = {}
        ids = itertools.count(1)
        for tenant, size in sizes.items():
            self.ids[tenant] = list(itertools.islice(ids, size))
            self.vectors[tenant] = self.draw(size)

    def draw(self, size: int) -> Vector:
        chosen = self.centres[self.rng.integers(0, len(self.centres), size)]
        return unit((chosen + 0.8 * self.rng.normal(size=(size, DIMENSIONS))).astype(np.float32))

    def scores(self, tenant: uuid.UUID, query: Vector) -> dict[int, float]:
        scores = self.vectors[tenant].astype(np.float64) @ unit(query).astype(np.float64)
        return dict(zip(self.ids[tenant], scores.tolist(), strict=True))

    def best(self, tenant: uuid.UUID, query: Vector, limit: int | None, threshold: float) -> list[tuple[int, float]]:
        order = sorted(self.scores(tenant, query).items(), key=lambda hit: -hit[1])
        return [hit for hit in order if hit[1] >= threshold][:limit]

    def assert_exact(
        self, tenant: uuid.UUID, query: Vector, limit: int | None, threshold: float, found: list[tuple[int, float]]
    ) -> None:
        """The hits are the best ones, in order, with their true scores; equally good ones may change places."""
        true = self.scores(tenant, query)
        best = [score for _, score in self.best(tenant, query, limit, threshold)]
        assert len({i for i, _ in found}) == len(found)
        assert [true[i] for i, _ in found] == pytest.approx(best, abs=1e-5)
        assert [s for _, s in found] == pytest.approx(best, abs=1e-5)


def vector_index(dsn: str, *, first: int = FIRST, longest: int = TAIL) -> VectorIndex:
    """The vector index of a database, as the owner of the schema keeps it."""

    def connect() -> psycopg.Connection:
        conn = psycopg.connect(dsn, autocommit=True)
        conn.execute("SET ROLE evosense_owner")
        return conn

    return VectorIndex(connect, first=first, longest=longest)
