"""The roll-ups behind the metrics: kept by adding differences, so that their cost does not grow with history.

Python only puts columns together; what they add up to is found in SQL, where they go anyhow, and at once with it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from psycopg import Connection

from domain.event import Event
from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageReceived
from projections.batch import Batch
from projections.copying import copy_rows
from projections.latency import bucket_of
from sql import LIVE, queries

_COUNTED_TYPES: Final = ("int8", "uuid", "varchar", "float8", "int4", "varchar", "int4", "int8", "varchar")

_N = TypeVar("_N", int, str)
_Received = Sequence[tuple[int, MessageReceived]]
_Analyses = Sequence[MessageAnalyzed | None]


class MetricsProjection:
    """See `Projection`. A batch becomes at most three statements."""

    name = "metrics"
    tables = (
        "metrics_message",
        "metrics_rollup",
        "metrics_emotion",
        "metrics_latency",
        "metrics_span",
        "metrics_latency_span",
    )
    events: tuple[type[Event], ...] = (MessageReceived, MessageAnalyzed, InferenceRecorded)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("metrics", schema=schema)
        self._bare = bare

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        received = batch.of(MessageReceived)
        analyzed = {event.originator_id.int: event for _, event in batch.of(MessageAnalyzed)}
        if received or analyzed:
            self._count(conn, batch, received, analyzed)
        inferences = [event for _, event in batch.of(InferenceRecorded)]
        if inferences:
            self._count_latencies(conn, inferences)

    def _count(
        self, conn: Connection[Any], batch: Batch, received: _Received, analyzed: dict[int, MessageAnalyzed]
    ) -> None:
        """Count the new messages, analysed where the batch has that as well, and earlier ones anew."""
        analyses = [analyzed.pop(event.originator_id.int, None) for _, event in received]
        again = list(analyzed.values())
        positions = [position for position, _ in received]
        connections = batch.row_ids(conn, [event.connection_id for _, event in received])
        hours = [_hour(event.sent_at.timestamp()) for _, event in received]
        if self._bare and received:
            self._load(conn, received, analyses, positions, connections, hours)
        tenants, emotions, tones = _Names[int](), _Names[str](), _Names[str]()
        emotions_have_lost = self._queries.count(
            conn,
            store=not self._bare,
            message_ids=_array(positions),
            tenants=_array(tenants.place(event.tenant_id.int) for _, event in received),
            companies=_array(event.from_me for _, event in received),
            hours=_array(hours),
            connection_ids=_array(connections),
            **_analysis_columns("", analyses, emotions, tones),
            again_ids=_array(batch.row_ids(conn, [event.originator_id for event in again])),
            **_analysis_columns("again_", again, emotions, tones),
            tenant_ids=[UUID(int=number) for number in tenants],
            emotion_names=list(emotions),
            tone_names=list(tones),
        )
        if emotions_have_lost:
            self._queries.forget_emotions(conn, tenant_ids=list({event.tenant_id for event in again}))

    def _load(
        self,
        conn: Connection[Any],
        received: _Received,
        analyses: _Analyses,
        positions: Sequence[int],
        connections: Sequence[int],
        hours: Sequence[int],
    ) -> None:
        columns: tuple[Iterable[Any], ...] = (
            positions,
            [event.tenant_id for _, event in received],
            ["company" if event.from_me else "customer" for _, event in received],
            [event and event.sentiment for event in analyses],
            [event and event.satisfaction for event in analyses],
            [event and event.emotion for event in analyses],
            hours,
            connections,
            [event and event.tone for event in analyses],
        )
        copy_rows(conn, self._queries.load_messages.sql, _COUNTED_TYPES, columns)

    def _count_latencies(self, conn: Connection[Any], inferences: Sequence[InferenceRecorded]) -> None:
        tenants, models = _Names[int](), _Names[str]()
        self._queries.count_latencies(
            conn,
            tenants=_array(tenants.place(event.tenant_id.int) for event in inferences),
            models=_array(models.place(event.model_name) for event in inferences),
            shadows=_array(event.is_shadow for event in inferences),
            hours=_array(_hour(event.at.timestamp()) for event in inferences),
            buckets=_array(bucket_of(event.latency_ms) for event in inferences),
            latencies=_array(event.latency_ms for event in inferences),
            tenant_ids=[UUID(int=number) for number in tenants],
            model_names=list(models),
        )


class _Names(dict[_N, int]):
    """What a column says again and again, in the order in which it first did, counted from 1 as SQL counts arrays.

    Tenants by the number of their UUID, whose own hash is slow.
    """

    def place(self, name: _N) -> int:
        return self.setdefault(name, len(self) + 1)


def _analysis_columns(
    prefix: str, events: _Analyses, emotions: _Names[str], tones: _Names[str]
) -> dict[str, str]:
    return {
        f"{prefix}sentiments": _array(event and event.sentiment for event in events),
        f"{prefix}satisfactions": _array(event and event.satisfaction for event in events),
        f"{prefix}emotions": _array(event and emotions.place(event.emotion) for event in events),
        f"{prefix}tones": _array(event and tones.place(event.tone) for event in events),
    }


def _array(values: Iterable[float | None]) -> str:
    """An array of numbers as PostgreSQL reads it: ten times as fast as letting psycopg look at each of them."""
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


def _hour(seconds: float) -> int:
    """The whole hours before a moment, in UTC since 1970."""
    return int(seconds // 3600)
