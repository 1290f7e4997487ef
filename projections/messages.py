"""Messages, in the documented table `messages_message`, and their vectors where `semantic_search()` reads them."""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from domain.event import Event
from domain.messages import MessageAnalyzed, MessageEmbedded, MessageReceived
from projections.batch import Batch
from projections.copying import Inserts
from projections.vectors import Vectors
from sql import LIVE, queries

_MESSAGE_TYPES: Final = (
    "int8",
    "uuid",
    "int8",
    "varchar",
    "varchar",
    "text",
    "timestamptz",
    "float8",
    "varchar",
    "int4",
    "varchar",
    "varchar",
    "vector",
)
_VECTOR_TYPES: Final = ("int8", "uuid", "varchar", "halfvec")

_Received = Sequence[tuple[int, MessageReceived]]
# By the number of the stream's UUID, whose own hash is slow.
_Analyzed = dict[int, MessageAnalyzed]
_Embedded = dict[int, MessageEmbedded]


class MessagesProjection:
    """See `Projection`. A batch becomes at most three statements, whatever its size."""

    name = "messages"
    tables = ("messages_message", "messages_embedding")
    events: tuple[type[Event], ...] = (MessageReceived, MessageAnalyzed, MessageEmbedded)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("messages", schema=schema)
        self._messages = Inserts(self._queries.put_messages, self._queries.load_messages, _MESSAGE_TYPES, bare=bare)
        self._vectors = Inserts(
            self._queries.put_search_vectors, self._queries.load_search_vectors, _VECTOR_TYPES, bare=bare
        )

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`. A message that is analysed in the batch it came in is written once."""
        received = batch.of(MessageReceived)
        analyzed = {event.originator_id.int: event for _, event in batch.of(MessageAnalyzed)}
        embedded = {event.originator_id.int: event for _, event in batch.of(MessageEmbedded)}
        if received:
            self._insert(conn, batch, received, analyzed, embedded)
        if analyzed or embedded:
            self._learn(conn, batch, analyzed, embedded)

    def _insert(
        self, conn: Connection[Any], batch: Batch, received: _Received, analyzed: _Analyzed, embedded: _Embedded
    ) -> None:
        """Write the new messages with all that the batch says of them, and take that out of the two dictionaries."""
        ids = [position for position, _ in received]
        events = [event for _, event in received]
        connections = batch.row_ids(conn, [event.connection_id for event in events])
        streams = [event.originator_id.int for event in events]
        analyses = [analyzed.pop(stream, None) for stream in streams]
        vectors = [embedded.pop(stream, None) for stream in streams]
        self._messages.insert(
            conn,
            {
                "ids": ids,
                "tenant_ids": [event.tenant_id for event in events],
                "connection_ids": connections,
                "chat_ids": [event.chat_id for event in events],
                "senders": [event.sender for event in events],
                "texts": [event.text for event in events],
                "created_ats": [event.sent_at for event in events],
                **_analysis_columns(analyses),
                "embeddings": Vectors(event.vector if event else None for event in vectors),
            },
        )
        placed = [(row_id, event) for row_id, event in zip(ids, vectors, strict=True) if event is not None]
        if placed:
            self._vectors.insert(
                conn,
                {
                    "message_ids": [row_id for row_id, _ in placed],
                    "tenant_ids": [event.tenant_id for _, event in placed],
                    "models": [event.model_name for _, event in placed],
                    "embeddings": Vectors(event.vector for _, event in placed),
                },
            )

    def _learn(self, conn: Connection[Any], batch: Batch, analyzed: _Analyzed, embedded: _Embedded) -> None:
        """Write what became known of messages that were there already."""
        streams = list(dict.fromkeys((*analyzed, *embedded)))
        events = [analyzed.get(stream) or embedded[stream] for stream in streams]
        vectors = [embedded.get(stream) for stream in streams]
        self._queries.learn(
            conn,
            ids=batch.row_ids(conn, [event.originator_id for event in events]),
            **_analysis_columns([analyzed.get(stream) for stream in streams]),
            models=[event and event.model_name for event in vectors],
            embeddings=Vectors(event.vector if event else None for event in vectors),
        )


def _analysis_columns(events: Sequence[MessageAnalyzed | None]) -> dict[str, list[Any]]:
    return {
        "sentiments": [event and event.sentiment for event in events],
        "emotions": [event and event.emotion for event in events],
        "satisfactions": [event and event.satisfaction for event in events],
        "tones": [event and event.tone for event in events],
        "summaries": [event and event.summary for event in events],
    }
