"""How the right answer of each pair is found among a thousand messages, by the search of the API on a real database."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import msgspec
import psycopg
from psycopg.rows import dict_row

from adapters.postgres import ReadPool
from adapters.settings import Settings
from api.search import Mode, ModelSilent, find
from benchmarks.quality.data import Pair
from benchmarks.quality.metrics import Share, mean_reciprocal_rank, recall_at
from benchmarks.quality.models import only
from domain.ports import Embedder
from projections.vectors import register

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
#: Hits that are asked for: what the API gives unless told otherwise.
LIMIT: Final = 20

#: Seconds for a model server: here nobody waits.
_PATIENCE_S: Final = 600.0
_TENANT: Final = uuid.UUID(int=1)
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Found(msgspec.Struct, frozen=True):
    """A pair, and the place of its answer among the hits in each mode; None beyond the first `LIMIT`."""

    pair: Pair
    places: dict[Mode, int | None]


class Retrieval:
    """What is measured of some pairs, in one mode."""

    def __init__(self, found: Iterable[Found], mode: Mode) -> None:
        self._places = [each.places[mode] for each in found]

    def recall(self, depth: int) -> Share:
        """How many answers are among the first `depth`."""
        return recall_at(self._places, depth)

    def mrr(self) -> float:
        """The mean reciprocal rank."""
        return mean_reciprocal_rank(self._places)


async def retrieve(
    settings: Settings, embedder: Embedder, pairs: Sequence[Pair], distractors: Sequence[str]
) -> list[Found]:
    """Fill the tables with answers and distractors, and look for each answer by its query, in every mode."""
    texts = [pair.answer for pair in pairs] + list(distractors)
    _load(settings, texts, await embedder.embed(texts), embedder.model_name)
    reads = ReadPool(settings.runtime_dsn)
    await reads.open()
    try:
        return [
            Found(pair, {mode: await _place(reads, embedder, pair.query, number, mode) for mode in MODES})
            for number, pair in enumerate(pairs, start=1)
        ]
    finally:
        await reads.close()


async def _place(reads: ReadPool, embedder: Embedder, query: str, answer: int, mode: Mode) -> int | None:
    found = await find(reads, only(embedder), _TENANT, query, mode=mode, limit=LIMIT, patience=_PATIENCE_S)
    if found.notice:
        raise ModelSilent(found.notice)
    return next((place for place, hit in enumerate(found.hits, start=1) if hit.message_id == answer), None)


def _load(settings: Settings, texts: Sequence[str], vectors: Sequence[bytes], model: str) -> None:
    """The rows that the projectors would have written; a message's id is its place in `texts`, from 1."""
    with psycopg.connect(settings.admin_dsn, autocommit=True, row_factory=dict_row) as conn:
        register(conn)
        conn.execute("INSERT INTO evosense.tenancy_tenant (id, name) VALUES (%s, 'quality')", (_TENANT,))
        rows = list(enumerate(zip(texts, vectors, strict=True), start=1))
        _copy(
            conn,
            "COPY evosense.messages_message (id, tenant_id, chat_id, sender, text, created_at, embedding)"
            " FROM STDIN (FORMAT binary)",
            ("int8", "uuid", "varchar", "varchar", "text", "timestamptz", "vector"),
            [(n, _TENANT, "c", "s", text, _START + timedelta(seconds=n), vector) for n, (text, vector) in rows],
        )
        _copy(
            conn,
            "COPY evosense.messages_embedding (message_id, tenant_id, model, embedding) FROM STDIN (FORMAT binary)",
            ("int8", "uuid", "varchar", "halfvec"),
            [(n, _TENANT, model, vector) for n, (_, vector) in rows],
        )
        conn.execute("ANALYZE evosense.messages_message")
        conn.execute("ANALYZE evosense.messages_embedding")


def _copy(conn: psycopg.Connection[Any], statement: str, types: tuple[str, ...], rows: Sequence[Any]) -> None:
    with conn.cursor().copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
