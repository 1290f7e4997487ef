"""The roll-ups behind the metrics: kept by adding differences, so that their cost does not grow with history.

Python only puts columns together. What they add up to is found in SQL, in the statement that stores it.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import Connection

from domain.event import Event
from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageDeleted, MessageEdited, MessageReceived
from projections.batch import Batch
from projections.copying import copy_rows
from projections.latency import bucket_of
from projections.texts import Unread, opinions
from sql import LIVE, queries

_COUNTED_TYPES: Final = ("int8", "uuid", "varchar", "float8", "int4", "varchar", "int4", "int8", "varchar")
#: In the order of their bytes, counted from 1 as SQL counts arrays.
_AUTHORS: Final = {"company": 1, "customer": 2}


class _Changes(NamedTuple):
    """Columns: what messages count as, or counted as where the sign is -1. An id where the message is new.

    `tenants` by the number of their UUID, whose own hash is slow; `hours` since 1970, None where a row from before
    they were kept has none; `emotions` and `tones` are '' where a message waits for its analysis.
    """

    message_ids: list[int | None]
    tenants: list[int]
    authors: list[int]
    hours: list[int | None]
    connection_ids: list[int | None]
    sentiments: list[float | None]
    satisfactions: list[int | None]
    emotions: list[str]
    tones: list[str]
    signs: list[int]


class MetricsProjection:
    """See `Projection`. A batch becomes at most four statements."""

    name = "metrics"
    tables = (
        "metrics_message",
        "metrics_rollup",
        "metrics_emotion",
        "metrics_latency",
        "metrics_span",
        "metrics_latency_span",
    )
    events: tuple[type[Event], ...] = (
        MessageReceived,
        MessageAnalyzed,
        MessageEdited,
        MessageDeleted,
        InferenceRecorded,
    )

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("metrics", schema=schema)
        self._bare = bare

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`.

        Statements are sent off without waiting, and the next one's columns are put together while the database works at
        them. Into bare tables rows are copied, which allows no such overlapping.
        """
        with nullcontext() if self._bare else conn.pipeline():
            received = batch.of(MessageReceived)
            analyzed = opinions(batch)
            analyses = [analyzed.pop(event.originator_id.int, None) for _, event in received]
            row_ids = batch.row_ids(conn, [event.originator_id for event in analyzed.values()])
            again = dict(zip(row_ids, analyzed.values(), strict=True))
            with self._recounted(conn, again) as recounted:
                if inferences := [event for _, event in batch.of(InferenceRecorded)]:
                    self._count_latencies(conn, inferences)
                changes = _new(received, analyses, batch.row_ids(conn, [event.connection_id for _, event in received]))
                before = recounted.fetchall() if recounted else []
            if received or before:
                _add_again(changes, before, again)
                self._count(conn, changes)
        if (received or again or inferences) and not self._bare:
            # Behind a pipeline the server does not count for how long the transaction stands idle, and would not end
            # that of a frozen process (psycopg 3.3, PostgreSQL 18; test_leases has it). A question of its own helps.
            self._queries.end_of_pipeline(conn)

    def _recounted(
        self, conn: Connection[Any], again: dict[int, MessageAnalyzed | Unread]
    ) -> AbstractContextManager[Any]:
        """Store what earlier messages count as now; gives a cursor over what they counted as until now, if any."""
        if not again:
            return nullcontext()
        emotions, emotion_places = _places([event.emotion for event in again.values()])
        tones, tone_places = _places([event.tone for event in again.values()])
        cursor: AbstractContextManager[Any] = self._queries.recount_cursor(
            conn,
            message_ids=_array(again),
            sentiments=_array(event.sentiment for event in again.values()),
            satisfactions=_array(event.satisfaction for event in again.values()),
            emotions=_array(emotion_places),
            tones=_array(tone_places),
            emotion_names=emotions,
            tone_names=tones,
        )
        return cursor

    def _count(self, conn: Connection[Any], changes: _Changes) -> None:
        tenants, tenant_places = _places(changes.tenants)
        emotions, emotion_places = _places(changes.emotions, "")
        tones, tone_places = _places(changes.tones, "")
        if self._bare:
            self._load(conn, changes)
        self._queries.count(
            conn,
            store=not self._bare,
            message_ids=_array(changes.message_ids),
            tenants=_array(tenant_places),
            authors=_array(changes.authors),
            hours=_array(changes.hours),
            connection_ids=_array(changes.connection_ids),
            sentiments=_array(changes.sentiments),
            satisfactions=_array(changes.satisfactions),
            emotions=_array(emotion_places),
            tones=_array(tone_places),
            signs=_array(changes.signs),
            tenant_ids=[UUID(int=number) for number in tenants],
            emotion_names=emotions,
            tone_names=tones,
        )

    def _load(self, conn: Connection[Any], changes: _Changes) -> None:
        """Copy the new messages, which come before all others."""
        new = len(changes.message_ids) - changes.message_ids.count(None)
        author = {place: name for name, place in _AUTHORS.items()}
        tenants = {number: UUID(int=number) for number in set(changes.tenants)}
        columns: tuple[Iterable[Any], ...] = (
            changes.message_ids,
            [tenants[number] for number in changes.tenants],
            [author[place] for place in changes.authors],
            changes.sentiments,
            changes.satisfactions,
            [name or None for name in changes.emotions],
            changes.hours,
            changes.connection_ids,
            [name or None for name in changes.tones],
        )
        copy_rows(conn, self._queries.load_messages.sql, _COUNTED_TYPES, columns, most=new)

    def _count_latencies(self, conn: Connection[Any], inferences: Sequence[InferenceRecorded]) -> None:
        tenants, tenant_places = _places([event.tenant_id.int for event in inferences])
        models, model_places = _places([event.model_name for event in inferences])
        self._queries.count_latencies(
            conn,
            tenants=_array(tenant_places),
            models=_array(model_places),
            shadows=_array([event.is_shadow for event in inferences]),
            hours=_array([int(event.at.timestamp()) // 3600 for event in inferences]),
            buckets=_array([bucket_of(event.latency_ms) for event in inferences]),
            latencies=_array([event.latency_ms for event in inferences]),
            tenant_ids=[UUID(int=number) for number in tenants],
            model_names=models,
        )


def _new(
    received: Sequence[tuple[int, MessageReceived]],
    analyses: Sequence[MessageAnalyzed | Unread | None],
    connections: Sequence[int],
) -> _Changes:
    """What new messages count as, analysed where the batch has that as well."""
    return _Changes(
        [position for position, _ in received],
        [event.tenant_id.int for _, event in received],
        [1 if event.from_me else 2 for _, event in received],
        [int(event.sent_at.timestamp()) // 3600 for _, event in received],
        list(connections),
        [event.sentiment if event else None for event in analyses],
        [event.satisfaction if event else None for event in analyses],
        [event.emotion if event else "" for event in analyses],
        [event.tone if event else "" for event in analyses],
        [1] * len(received),
    )


def _add_again(changes: _Changes, before: Iterable[dict[str, Any]], again: dict[int, MessageAnalyzed | Unread]) -> None:
    """What earlier messages counted as goes, what they are now comes."""
    columns: tuple[list[Any], ...] = changes
    for row in before:
        event = again[row["message_id"]]
        place = None, row["tenant_id"].int, _AUTHORS[row["author"]], row["hour"], row["connection_id"]
        said = row["sentiment"], row["satisfaction"], row["emotion"] or "", (row["emotion"] and row["tone"]) or ""
        for change in (
            (*place, *said, -1),
            (*place, event.sentiment, event.satisfaction, event.emotion, event.tone, 1),
        ):
            for column, value in zip(columns, change, strict=True):
                column.append(value)


def _places(values: Sequence[Any], *more: Any) -> tuple[list[Any], list[int]]:
    """What a column says, each thing once, in the order of bytes; and the column as places in that, from 1 on."""
    names = sorted({*values, *more})
    place = {name: number for number, name in enumerate(names, start=1)}
    return names, [place[value] for value in values]


def _array(values: Iterable[float | None]) -> str:
    """An array of numbers as PostgreSQL reads it: many times as fast as letting psycopg look at each of them."""
    return "{" + str(list(values))[1:-1].replace("None", "NULL") + "}"
