"""The roll-ups behind `tenant_metrics`: kept by adding differences, so that their cost does not grow with history."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import Connection

from domain.event import Event
from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageReceived
from projections.batch import Batch
from projections.copying import Inserts
from sql import LIVE, queries

#: `positive_pct` counts messages above this sentiment (documented).
_POSITIVE: Final = 0.1
_COUNTED_TYPES: Final = ("int8", "uuid", "varchar", "float8", "int4", "varchar")


class _Sums(msgspec.Struct):
    """What a batch adds to the totals of one tenant and author."""

    messages: int = 0
    analysed: int = 0
    # Decimal: a sum of floats would depend on the order of its parts, and so on the size of the batches. Six places
    # from the start (`domain.messages.checked` rounds to them): numeric remembers how many places its parts had.
    sentiment: Decimal = Decimal("0.000000")
    satisfaction: int = 0
    positive: int = 0
    emotions: dict[str, int] = {}

    def add(self, sentiment: float, satisfaction: int, emotion: str, sign: int) -> None:
        """Add (sign 1) or take away (sign -1) what an analysed message contributes."""
        self.analysed += sign
        self.sentiment += sign * Decimal(repr(sentiment))
        self.satisfaction += sign * satisfaction
        self.positive += sign * (sentiment > _POSITIVE)
        self.emotions[emotion] = self.emotions.get(emotion, 0) + sign


# By tenant and author; tenants, and streams below, by the number of their UUID, whose own hash is slow.
_Groups = defaultdict[tuple[int, str], _Sums]


class MetricsProjection:
    """See `Projection`. A batch becomes at most five statements: each adds one difference to a row of the roll-ups."""

    name = "metrics"
    tables = ("metrics_message", "metrics_rollup", "metrics_emotion", "metrics_latency")
    events: tuple[type[Event], ...] = (MessageReceived, MessageAnalyzed, InferenceRecorded)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("metrics", schema=schema)
        self._counted = Inserts(self._queries.count_messages, self._queries.load_messages, _COUNTED_TYPES, bare=bare)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        groups: _Groups = defaultdict(_Sums)
        received = batch.of(MessageReceived)
        analyzed = {event.originator_id.int: event for _, event in batch.of(MessageAnalyzed)}
        if received:
            self._count(conn, received, analyzed, groups)
        if analyzed:
            row_ids = batch.row_ids(conn, [event.originator_id for event in analyzed.values()])
            self._recount(conn, dict(zip(row_ids, analyzed.values(), strict=True)), groups)
        if groups:
            self._add_to_totals(conn, groups)
        inferences = batch.of(InferenceRecorded)
        if inferences:
            self._add_to_latency(conn, inferences)

    def _count(
        self,
        conn: Connection[Any],
        received: Sequence[tuple[int, MessageReceived]],
        analyzed: dict[int, MessageAnalyzed],
        groups: _Groups,
    ) -> None:
        """Count the new messages, analysed where the batch has that as well; takes those out of `analyzed`."""
        analyses = [analyzed.pop(event.originator_id.int, None) for _, event in received]
        tenant_ids = [event.tenant_id for _, event in received]
        authors = ["company" if event.from_me else "customer" for _, event in received]
        self._counted.insert(
            conn,
            {
                "message_ids": [position for position, _ in received],
                "tenant_ids": tenant_ids,
                "authors": authors,
                "sentiments": [event and event.sentiment for event in analyses],
                "satisfactions": [event and event.satisfaction for event in analyses],
                "emotions": [event and event.emotion for event in analyses],
            },
        )
        for tenant_id, author, event in zip(tenant_ids, authors, analyses, strict=True):
            sums = groups[tenant_id.int, author]
            sums.messages += 1
            if event is not None:
                sums.add(event.sentiment, event.satisfaction, event.emotion, 1)

    def _recount(self, conn: Connection[Any], analyzed: dict[int, MessageAnalyzed], groups: _Groups) -> None:
        """Count earlier messages anew: what they were counted as goes, what they are now comes."""
        before = self._queries.recount(
            conn,
            message_ids=list(analyzed),
            sentiments=[event.sentiment for event in analyzed.values()],
            satisfactions=[event.satisfaction for event in analyzed.values()],
            emotions=[event.emotion for event in analyzed.values()],
        )
        for row in before:
            sums, event = groups[row["tenant_id"].int, row["author"]], analyzed[row["message_id"]]
            if row["emotion"] is not None:
                sums.add(row["sentiment"], row["satisfaction"], row["emotion"], -1)
            sums.add(event.sentiment, event.satisfaction, event.emotion, 1)

    def _add_to_totals(self, conn: Connection[Any], groups: _Groups) -> None:
        self._queries.add_to_rollup(
            conn,
            tenant_ids=[UUID(int=tenant) for tenant, _ in groups],
            authors=[author for _, author in groups],
            messages=[sums.messages for sums in groups.values()],
            analysed=[sums.analysed for sums in groups.values()],
            sentiment_sums=[sums.sentiment for sums in groups.values()],
            satisfaction_sums=[sums.satisfaction for sums in groups.values()],
            positives=[sums.positive for sums in groups.values()],
        )
        changed = [
            (UUID(int=tenant), author, emotion, count)
            for (tenant, author), sums in groups.items()
            for emotion, count in sums.emotions.items()
            if count
        ]
        if changed:
            tenant_ids, authors, emotions, counts = (list(column) for column in zip(*changed, strict=True))
            self._queries.add_to_emotions(
                conn, tenant_ids=tenant_ids, authors=authors, emotions=emotions, messages=counts
            )

    def _add_to_latency(self, conn: Connection[Any], inferences: Sequence[tuple[int, InferenceRecorded]]) -> None:
        latencies: defaultdict[int, list[int]] = defaultdict(list)
        for _, event in inferences:
            latencies[event.tenant_id.int].append(event.latency_ms)
        self._queries.add_to_latency(
            conn,
            tenant_ids=[UUID(int=tenant) for tenant in latencies],
            inferences=[len(of_tenant) for of_tenant in latencies.values()],
            latency_ms_sums=[sum(of_tenant) for of_tenant in latencies.values()],
        )
