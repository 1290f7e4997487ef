"""Messages, in the documented table `messages_message`, and their vectors where `semantic_search()` reads them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from domain.messages import MessageAnalyzed, MessageEmbedded, MessageReceived
from projections.batch import Batch
from projections.vectors import Vectors
from sql import queries

_MESSAGES: Final = queries("messages")


class MessagesProjection:
    """See `Projection`. A batch becomes at most five statements, whatever its size."""

    name = "messages"
    tables = ("messages_message", "messages_embedding")

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`. A message that is analysed in the batch it came in is written once."""
        received = dict(batch.of(MessageReceived))
        analyzed = {event.originator_id: event for _, event in batch.of(MessageAnalyzed)}
        embedded = {event.originator_id: event for _, event in batch.of(MessageEmbedded)}
        if received:
            self._insert(conn, batch, received, analyzed, embedded)
        born_here = {event.originator_id for event in received.values()}
        later = (analyzed.keys() | embedded.keys()) - born_here
        row_ids = batch.row_ids(conn, analyzed.keys() | embedded.keys())
        _update(conn, later, row_ids, analyzed, embedded)
        if embedded:
            events = list(embedded.values())
            _MESSAGES.put_search_vectors(
                conn,
                message_ids=[row_ids[event.originator_id] for event in events],
                tenant_ids=[event.tenant_id for event in events],
                models=[event.model_name for event in events],
                embeddings=Vectors(event.vector for event in events),
            )

    @staticmethod
    def _insert(
        conn: Connection[Any],
        batch: Batch,
        received: dict[int, MessageReceived],
        analyzed: dict[UUID, MessageAnalyzed],
        embedded: dict[UUID, MessageEmbedded],
    ) -> None:
        events = list(received.values())
        connections = batch.row_ids(conn, (event.connection_id for event in events))
        vectors = [embedded.get(event.originator_id) for event in events]
        _MESSAGES.put_messages(
            conn,
            ids=list(received),
            tenant_ids=[event.tenant_id for event in events],
            connection_ids=[connections[event.connection_id] for event in events],
            chat_ids=[event.chat_id for event in events],
            senders=[event.sender for event in events],
            texts=[event.text for event in events],
            created_ats=[event.sent_at for event in events],
            **_analysis_columns([analyzed.get(event.originator_id) for event in events]),
            embeddings=Vectors(event.vector if event else None for event in vectors),
        )


def _update(
    conn: Connection[Any],
    stream_ids: Iterable[UUID],
    row_ids: Any,
    analyzed: dict[UUID, MessageAnalyzed],
    embedded: dict[UUID, MessageEmbedded],
) -> None:
    """Write what became known of messages that were there already: each row once, though it has learned two things."""
    streams = set(stream_ids)
    both = [s for s in streams if s in analyzed and s in embedded]
    if both:
        _MESSAGES.set_analyses_and_embeddings(
            conn,
            ids=[row_ids[s] for s in both],
            **_analysis_columns([analyzed[s] for s in both]),
            embeddings=Vectors(embedded[s].vector for s in both),
        )
    rest = streams.difference(both)
    if only_analyzed := [s for s in rest if s in analyzed]:
        _MESSAGES.set_analyses(
            conn,
            ids=[row_ids[s] for s in only_analyzed],
            **_analysis_columns([analyzed[s] for s in only_analyzed]),
        )
    if only_embedded := [s for s in rest if s in embedded]:
        _MESSAGES.set_embeddings(
            conn,
            ids=[row_ids[s] for s in only_embedded],
            embeddings=Vectors(embedded[s].vector for s in only_embedded),
        )


def _analysis_columns(events: Sequence[MessageAnalyzed | None]) -> dict[str, list[Any]]:
    return {
        "sentiments": [event and event.sentiment for event in events],
        "emotions": [event and event.emotion for event in events],
        "satisfactions": [event and event.satisfaction for event in events],
        "tones": [event and event.tone for event in events],
        "summaries": [event and event.summary for event in events],
    }
