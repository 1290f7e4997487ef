"""The roll-ups behind `tenant_metrics`: kept by adding differences, so that their cost does not grow with history."""

from collections import defaultdict
from decimal import Decimal
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import msgspec
from psycopg import Connection

from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageReceived
from projections.batch import Batch
from sql import queries

_METRICS: Final = queries("metrics")
#: `positive_pct` counts messages above this sentiment (documented).
_POSITIVE: Final = 0.1

Group = tuple[UUID, str]  # tenant and author


class _Counted(NamedTuple):
    """What one message counts as."""

    tenant_id: UUID
    author: str
    sentiment: float | None = None
    satisfaction: int | None = None
    emotion: str | None = None


class _Sums(msgspec.Struct):
    messages: int = 0
    analysed: int = 0
    # Decimal: a sum of floats would depend on the order of its parts, and so on the size of the batches. Six places
    # from the start (`domain.messages.checked` rounds to them): numeric remembers how many places its parts had.
    sentiment: Decimal = Decimal("0.000000")
    satisfaction: int = 0
    positive: int = 0

    def add(self, counted: _Counted, sign: int) -> Self:
        """Add (sign 1) or take away (sign -1) what an analysed message contributes."""
        if counted.sentiment is not None and counted.satisfaction is not None:
            self.analysed += sign
            self.sentiment += sign * Decimal(repr(counted.sentiment))
            self.satisfaction += sign * counted.satisfaction
            self.positive += sign * (counted.sentiment > _POSITIVE)
        return self


class MetricsProjection:
    """See `Projection`. One batch adds one difference to each row of the roll-ups that it touches."""

    name = "metrics"
    tables = ("metrics_message", "metrics_rollup", "metrics_emotion", "metrics_latency")

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        sums: defaultdict[Group, _Sums] = defaultdict(_Sums)
        emotions: defaultdict[tuple[UUID, str, str], int] = defaultdict(int)
        received = dict(batch.of(MessageReceived))
        if received:
            self._count(conn, received, sums)
        analyzed = {event.originator_id: event for _, event in batch.of(MessageAnalyzed)}
        if analyzed:
            row_ids = batch.row_ids(conn, analyzed)
            self._recount(conn, {row_ids[stream]: event for stream, event in analyzed.items()}, sums, emotions)
        self._write(conn, sums, emotions)
        self._latency(conn, batch)

    @staticmethod
    def _count(conn: Connection[Any], received: dict[int, MessageReceived], sums: defaultdict[Group, _Sums]) -> None:
        authors = ["company" if event.from_me else "customer" for event in received.values()]
        _METRICS.count_messages(
            conn,
            message_ids=list(received),
            tenant_ids=[event.tenant_id for event in received.values()],
            authors=authors,
        )
        for event, author in zip(received.values(), authors, strict=True):
            sums[event.tenant_id, author].messages += 1

    @staticmethod
    def _recount(
        conn: Connection[Any],
        analyzed: dict[int, MessageAnalyzed],
        sums: defaultdict[Group, _Sums],
        emotions: defaultdict[tuple[UUID, str, str], int],
    ) -> None:
        for row in _METRICS.counted(conn, message_ids=list(analyzed)):
            before = _Counted(row["tenant_id"], row["author"], row["sentiment"], row["satisfaction"], row["emotion"])
            event = analyzed[row["message_id"]]
            after = before._replace(sentiment=event.sentiment, satisfaction=event.satisfaction, emotion=event.emotion)
            sums[before.tenant_id, before.author].add(before, -1).add(after, 1)
            for counted, sign in ((before, -1), (after, 1)):
                if counted.emotion is not None:
                    emotions[counted.tenant_id, counted.author, counted.emotion] += sign
        _METRICS.recount(
            conn,
            message_ids=list(analyzed),
            sentiments=[event.sentiment for event in analyzed.values()],
            satisfactions=[event.satisfaction for event in analyzed.values()],
            emotions=[event.emotion for event in analyzed.values()],
        )

    @staticmethod
    def _write(
        conn: Connection[Any],
        sums: defaultdict[Group, _Sums],
        emotions: defaultdict[tuple[UUID, str, str], int],
    ) -> None:
        if sums:
            _METRICS.add_to_rollup(
                conn,
                tenant_ids=[tenant for tenant, _ in sums],
                authors=[author for _, author in sums],
                messages=[s.messages for s in sums.values()],
                analysed=[s.analysed for s in sums.values()],
                sentiment_sums=[s.sentiment for s in sums.values()],
                satisfaction_sums=[s.satisfaction for s in sums.values()],
                positives=[s.positive for s in sums.values()],
            )
        changed = {key: count for key, count in emotions.items() if count}
        if changed:
            _METRICS.add_to_emotions(
                conn,
                tenant_ids=[tenant for tenant, _, _ in changed],
                authors=[author for _, author, _ in changed],
                emotions=[emotion for _, _, emotion in changed],
                messages=list(changed.values()),
            )
            if any(count < 0 for count in changed.values()):
                _METRICS.drop_empty_emotions(conn, tenant_ids=list({tenant for tenant, _, _ in changed}))

    @staticmethod
    def _latency(conn: Connection[Any], batch: Batch) -> None:
        inferences: defaultdict[UUID, int] = defaultdict(int)
        latency: defaultdict[UUID, int] = defaultdict(int)
        for _, event in batch.of(InferenceRecorded):
            inferences[event.tenant_id] += 1
            latency[event.tenant_id] += event.latency_ms
        if inferences:
            _METRICS.add_to_latency(
                conn,
                tenant_ids=list(inferences),
                inferences=list(inferences.values()),
                latency_ms_sums=[latency[tenant_id] for tenant_id in inferences],
            )
