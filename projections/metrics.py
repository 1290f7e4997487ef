"""The roll-ups behind the metrics: kept by adding differences, so that their cost does not grow with history."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from domain.event import Event
from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageDeleted, MessageEdited, MessageReceived
from projections.batch import Batch
from projections.copying import Inserts
from projections.latency import bucket_of
from projections.texts import Unread, opinions
from sql import LIVE, queries

#: `positive_pct` counts messages above this sentiment (documented).
_POSITIVE: Final = 0.1
_COUNTED_TYPES: Final = ("int8", "uuid", "varchar", "float8", "int4", "varchar", "int4", "int8", "varchar")
#: Sentiments are summed in these, whole: a sum of floats would depend on the order of its parts, and so on the size of
#: the batches. `domain.answers.checked` rounds to six places.
_MILLION: Final = 1_000_000

#: What a message counts as: tenant, hour, connection, author, emotion and tone ('' where it waits for its analysis).
#: Tenants by the number of their UUID, whose own hash is slow; hours since 1970, None where a row from before
#: `metrics_hour` has none.
_Key = tuple[int, int | None, int | None, str, str, str]
#: Messages, sentiment in millionths, satisfaction, positive ones: what a batch adds.
_Sums = tuple[int, int, int, int]


class MetricsProjection:
    """See `Projection`. A batch becomes at most eight statements: each adds one difference to a row of the roll-ups."""

    name = "metrics"
    tables = (
        "metrics_message",
        "metrics_rollup",
        "metrics_emotion",
        "metrics_latency",
        "metrics_hour",
        "metrics_latency_hour",
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
        self._counted = Inserts(self._queries.count_messages, self._queries.load_messages, _COUNTED_TYPES, bare=bare)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        differences: dict[_Key, _Sums] = {}
        received = batch.of(MessageReceived)
        analyzed = opinions(batch)
        if received:
            self._count(conn, batch, received, analyzed, differences)
        if analyzed:
            row_ids = batch.row_ids(conn, [event.originator_id for event in analyzed.values()])
            self._recount(conn, dict(zip(row_ids, analyzed.values(), strict=True)), differences)
        if differences:
            self._add_to_totals(conn, differences)
            self._add_to_hours(conn, differences)
        inferences = batch.of(InferenceRecorded)
        if inferences:
            self._add_to_latency(conn, inferences)

    def _count(
        self,
        conn: Connection[Any],
        batch: Batch,
        received: Sequence[tuple[int, MessageReceived]],
        analyzed: dict[int, MessageAnalyzed | Unread],
        differences: dict[_Key, _Sums],
    ) -> None:
        """Count the new messages, analysed where the batch has that as well; takes those out of `analyzed`."""
        analyses = [analyzed.pop(event.originator_id.int, None) for _, event in received]
        authors = ["company" if event.from_me else "customer" for _, event in received]
        hours = [_hour(event.sent_at.timestamp()) for _, event in received]
        connections = batch.row_ids(conn, [event.connection_id for _, event in received])
        self._counted.insert(
            conn,
            {
                "message_ids": [position for position, _ in received],
                "tenant_ids": [event.tenant_id for _, event in received],
                "authors": authors,
                "sentiments": [event and event.sentiment for event in analyses],
                "satisfactions": [event and event.satisfaction for event in analyses],
                "emotions": [event and event.emotion for event in analyses],
                "hours": hours,
                "connection_ids": connections,
                "tones": [event and event.tone for event in analyses],
            },
        )
        for (_, message), author, hour, connection, event in zip(
            received, authors, hours, connections, analyses, strict=True
        ):
            place = message.tenant_id.int, hour, connection, author
            if event is None:
                _add(differences, (*place, "", ""), 1)
            else:
                _add(differences, (*place, event.emotion, event.tone), 1, event.sentiment, event.satisfaction)

    def _recount(
        self, conn: Connection[Any], analyzed: dict[int, MessageAnalyzed | Unread], differences: dict[_Key, _Sums]
    ) -> None:
        """Count earlier messages anew: what they were counted as goes, what they are now comes."""
        before = self._queries.recount(
            conn,
            message_ids=list(analyzed),
            sentiments=[event.sentiment for event in analyzed.values()],
            satisfactions=[event.satisfaction for event in analyzed.values()],
            emotions=[event.emotion for event in analyzed.values()],
            tones=[event.tone for event in analyzed.values()],
        )
        for row in before:
            event = analyzed[row["message_id"]]
            place = row["tenant_id"].int, row["hour"], row["connection_id"], row["author"]
            if row["emotion"] is None:
                _add(differences, (*place, "", ""), -1)
            else:
                was = *place, row["emotion"], row["tone"] or ""
                _add(differences, was, -1, row["sentiment"], row["satisfaction"])
            _add(differences, (*place, event.emotion, event.tone), 1, event.sentiment, event.satisfaction)

    def _add_to_totals(self, conn: Connection[Any], differences: dict[_Key, _Sums]) -> None:
        totals: dict[tuple[int, str], tuple[int, int, int, int, int]] = {}
        emotions: defaultdict[tuple[int, str, str], int] = defaultdict(int)
        for (tenant, _, _, author, emotion, _), (messages, sentiment, satisfaction, positive) in differences.items():
            analysed = messages if emotion else 0
            was = totals.get((tenant, author), (0, 0, 0, 0, 0))
            totals[tenant, author] = (
                was[0] + messages,
                was[1] + analysed,
                was[2] + sentiment,
                was[3] + satisfaction,
                was[4] + positive,
            )
            if analysed:
                emotions[tenant, author, emotion] += analysed
        self._queries.add_to_rollup(
            conn,
            tenant_ids=[UUID(int=tenant) for tenant, _ in totals],
            authors=[author for _, author in totals],
            messages=[sums[0] for sums in totals.values()],
            analysed=[sums[1] for sums in totals.values()],
            sentiment_sums=[Decimal(sums[2]).scaleb(-6) for sums in totals.values()],
            satisfaction_sums=[sums[3] for sums in totals.values()],
            positives=[sums[4] for sums in totals.values()],
        )
        changed = [(UUID(int=tenant), author, emotion, n) for (tenant, author, emotion), n in emotions.items() if n]
        if changed:
            tenant_ids, authors, names, counts = (list(column) for column in zip(*changed, strict=True))
            self._queries.add_to_emotions(conn, tenant_ids=tenant_ids, authors=authors, emotions=names, messages=counts)

    def _add_to_hours(self, conn: Connection[Any], differences: dict[_Key, _Sums]) -> None:
        changed = [(key, sums) for key, sums in differences.items() if key[1] is not None and any(sums)]
        tenants = {key[0]: UUID(int=key[0]) for key, _ in changed}
        for statement, some in (
            (self._queries.take_from_hours, [one for one in changed if one[1][0] < 0]),
            (self._queries.add_to_hours, [one for one in changed if one[1][0] >= 0]),
        ):
            if some:
                statement(
                    conn,
                    tenant_ids=[tenants[key[0]] for key, _ in some],
                    hours=[key[1] for key, _ in some],
                    connection_ids=[key[2] for key, _ in some],
                    authors=[key[3] for key, _ in some],
                    emotions=[key[4] for key, _ in some],
                    tones=[key[5] for key, _ in some],
                    messages=[sums[0] for _, sums in some],
                    sentiments=[sums[1] for _, sums in some],
                    satisfaction_sums=[sums[2] for _, sums in some],
                    positives=[sums[3] for _, sums in some],
                )

    def _add_to_latency(self, conn: Connection[Any], inferences: Sequence[tuple[int, InferenceRecorded]]) -> None:
        totals: dict[int, tuple[int, int]] = {}
        hours: dict[tuple[int, int, str, bool, int], tuple[int, int]] = {}
        for _, event in inferences:
            tenant, latency = event.tenant_id.int, event.latency_ms
            number, total = totals.get(tenant, (0, 0))
            totals[tenant] = number + 1, total + latency
            key = tenant, _hour(event.at.timestamp()), event.model_name, event.is_shadow, bucket_of(latency)
            number, total = hours.get(key, (0, 0))
            hours[key] = number + 1, total + latency
        tenants = {tenant: UUID(int=tenant) for tenant in totals}
        self._queries.add_to_latency(
            conn,
            tenant_ids=list(tenants.values()),
            inferences=[number for number, _ in totals.values()],
            latency_ms_sums=[total for _, total in totals.values()],
        )
        self._queries.add_to_latency_hours(
            conn,
            tenant_ids=[tenants[key[0]] for key in hours],
            hours=[key[1] for key in hours],
            models=[key[2] for key in hours],
            shadows=[key[3] for key in hours],
            buckets=[key[4] for key in hours],
            inferences=[number for number, _ in hours.values()],
            latency_ms_sums=[total for _, total in hours.values()],
        )


def _add(
    differences: dict[_Key, _Sums],
    key: _Key,
    sign: int,
    sentiment: float | None = None,
    satisfaction: int | None = None,
) -> None:
    """Add (sign 1) or take away (sign -1) one message, analysed where it has a sentiment."""
    messages, sentiments, satisfactions, positive = differences.get(key, (0, 0, 0, 0))
    if sentiment is None:
        differences[key] = messages + sign, sentiments, satisfactions, positive
    else:
        differences[key] = (
            messages + sign,
            sentiments + sign * round(sentiment * _MILLION),
            satisfactions + sign * (satisfaction or 0),
            positive + sign * (sentiment > _POSITIVE),
        )


def _hour(seconds: float) -> int:
    """The whole hours before a moment, in UTC since 1970."""
    return int(seconds // 3600)
