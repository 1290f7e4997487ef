"""Messages, in the documented table `messages_message`, and their vectors where `semantic_search()` reads them."""

from collections.abc import Sequence
from typing import Any, Final, TypeGuard
from uuid import UUID

from psycopg import Connection

from domain.embedding_models import EmbeddingModelAdopted, EmbeddingMoveBegun
from domain.event import Event
from domain.message_keys import message_key_id
from domain.messages import (
    MessageAnalyzed,
    MessageDeleted,
    MessageEdited,
    MessageEmbedded,
    MessageReceived,
)
from domain.people import LidLinked
from projections import texts
from projections.batch import Batch
from projections.copying import Inserts
from projections.people import People
from projections.texts import Rewriting, Rewritten
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
_KEY_TYPES: Final = ("int8", "uuid", "uuid")
_VECTOR_TYPES: Final = ("int8", "uuid", "varchar", "int8", "halfvec")

_Received = Sequence[tuple[int, MessageReceived]]
# By the number of the stream's UUID, whose own hash is slow.
_Analyzed = dict[int, MessageAnalyzed]
_Embedded = dict[int, tuple[int, MessageEmbedded]]
_Decision = tuple[int, EmbeddingModelAdopted | EmbeddingMoveBegun]


class MessagesProjection:
    """See `Projection`. A batch becomes at most five statements, whatever its size.

    Two more where messages are edited or deleted, three where tenants move, and two where a LID turns out to be a
    person's.
    """

    name = "messages"
    tables = (
        "messages_message",
        "messages_messagekey",
        "messages_embedding",
        "messages_embeddingmodel",
        "messages_person",
    )
    events: tuple[type[Event], ...] = (
        MessageReceived,
        MessageAnalyzed,
        MessageEmbedded,
        MessageEdited,
        MessageDeleted,
        EmbeddingMoveBegun,
        EmbeddingModelAdopted,
        LidLinked,
    )

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("messages", schema=schema)
        self._messages = Inserts(self._queries.put_messages, self._queries.load_messages, _MESSAGE_TYPES, bare=bare)
        self._keys = Inserts(self._queries.put_keys, self._queries.load_keys, _KEY_TYPES, bare=bare)
        self._vectors = Inserts(
            self._queries.put_search_vectors, self._queries.load_search_vectors, _VECTOR_TYPES, bare=bare
        )
        self._people = People(self._queries, bare=bare)

    def settle(self, conn: Connection[Any]) -> None:
        """See `Settling.settle`."""
        self._people.settle(conn)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`. A message that is analysed in the batch it came in is written once."""
        self._people.link(conn, batch.of(LidLinked))
        received = batch.of(MessageReceived)
        rewritten = texts.rewritten(batch)
        analyzed = {event.originator_id.int: event for _, event in texts.current(batch.of(MessageAnalyzed), rewritten)}
        # Without its vector: it was sealed away, as its message was deleted.
        vectors = [one for one in texts.current(batch.of(MessageEmbedded), rewritten) if one[1].vector]
        embedded = {event.originator_id.int: (position, event) for position, event in vectors}
        earlier = _earlier(batch, vectors, embedded)
        if received:
            self._insert(conn, batch, received, rewritten, analyzed, embedded)
        if rewritten:
            self._forget(conn, batch, rewritten)
        if rewritten or analyzed or embedded:
            self._learn(conn, batch, rewritten, analyzed, embedded)
        if earlier:
            self._queries.put_earlier_vectors(
                conn,
                ids=batch.row_ids(conn, [event.originator_id for _, event in earlier]),
                models=[event.model_name for _, event in earlier],
                positions=[position for position, _ in earlier],
                embeddings=Vectors(event.vector for _, event in earlier),
            )
        self._choose(conn, batch)

    def _insert(
        self,
        conn: Connection[Any],
        batch: Batch,
        received: _Received,
        rewritten: Rewritten,
        analyzed: _Analyzed,
        embedded: _Embedded,
    ) -> None:
        """Write the new messages with all that the batch says of them, and take that out of the dictionaries."""
        ids = [position for position, _ in received]
        events = [event for _, event in received]
        connections = batch.row_ids(conn, [event.connection_id for event in events])
        streams = [event.originator_id.int for event in events]
        changes = [rewritten.pop(stream, None) for stream in streams] if rewritten else [None] * len(streams)
        analyses = [analyzed.pop(stream, None) for stream in streams]
        vectors = [embedded.pop(stream, None) for stream in streams]
        chat_ids, senders = self._people.names(conn, received)
        self._messages.insert(
            conn,
            {
                "ids": ids,
                "tenant_ids": [event.tenant_id for event in events],
                "connection_ids": connections,
                "chat_ids": chat_ids,
                "senders": senders,
                "texts": [
                    texts.text_of(change) if change else event.text
                    for event, change in zip(events, changes, strict=True)
                ],
                "created_ats": [event.sent_at for event in events],
                **_analysis_columns(analyses),
                "embeddings": _column_of(vectors),
            },
        )
        keys = [_key(event, change) for event, change in zip(events, changes, strict=True)]
        keyed = [one for one in zip(ids, events, keys, strict=True) if one[2] is not None]
        if keyed:
            self._keys.insert(
                conn,
                {
                    "message_ids": [row_id for row_id, _, _ in keyed],
                    "tenant_ids": [event.tenant_id for _, event, _ in keyed],
                    "keys": [key for _, _, key in keyed],
                },
            )
        placed = [(row_id, *vector) for row_id, vector in zip(ids, vectors, strict=True) if _is_read(vector, batch)]
        if placed:
            self._vectors.insert(
                conn,
                {
                    "message_ids": [row_id for row_id, _, _ in placed],
                    "tenant_ids": [event.tenant_id for _, _, event in placed],
                    "models": [event.model_name for _, _, event in placed],
                    "positions": [position for _, position, _ in placed],
                    "embeddings": Vectors(event.vector for _, _, event in placed),
                },
            )

    def _forget(self, conn: Connection[Any], batch: Batch, rewritten: Rewritten) -> None:
        """Take away the vectors of texts that are gone, of messages that were there already."""
        events = [event for _, event in rewritten.values()]
        ids = batch.row_ids(conn, [event.originator_id for event in events])
        self._queries.forget_vectors(conn, ids=ids, tenant_ids=[event.tenant_id for event in events])
        deleted = [(row_id, event) for row_id, event in zip(ids, events, strict=True) if type(event) is MessageDeleted]
        if deleted:
            self._queries.keep_keys(
                conn,
                message_ids=[row_id for row_id, _ in deleted],
                tenant_ids=[event.tenant_id for _, event in deleted],
                keys=[event.key_id for _, event in deleted],
            )

    def _learn(
        self, conn: Connection[Any], batch: Batch, rewritten: Rewritten, analyzed: _Analyzed, embedded: _Embedded
    ) -> None:
        """Write what became known of messages that were there already."""
        streams = list(dict.fromkeys((*rewritten, *analyzed, *embedded)))
        changes = [rewritten.get(stream) for stream in streams]
        events: list[Event] = [
            change[1] if change else analyzed.get(stream) or embedded[stream][1]
            for stream, change in zip(streams, changes, strict=True)
        ]
        vectors = [embedded.get(stream) for stream in streams]
        self._queries.learn(
            conn,
            ids=batch.row_ids(conn, [event.originator_id for event in events]),
            texts=[change and texts.text_of(change) for change in changes],
            **_analysis_columns([analyzed.get(stream) for stream in streams]),
            models=[vector[1].model_name if _is_read(vector, batch) else None for vector in vectors],
            positions=[vector and vector[0] for vector in vectors],
            embeddings=_column_of(vectors),
        )

    def _choose(self, conn: Connection[Any], batch: Batch) -> None:
        """Write which model answers for a tenant, and take away what an adoption makes of no use."""
        adopted = batch.of(EmbeddingModelAdopted)
        decisions: list[_Decision] = [*adopted, *batch.of(EmbeddingMoveBegun)]
        if decisions:
            self._queries.put_models(
                conn,
                tenant_ids=[event.tenant_id for _, event in decisions],
                positions=[position for position, _ in decisions],
                models=[_answering(event) for _, event in decisions],
                adopteds=[isinstance(event, EmbeddingModelAdopted) for _, event in decisions],
                ats=[event.at for _, event in decisions],
            )
        if adopted:
            self._queries.forget_other_models(
                conn,
                tenant_ids=[event.tenant_id for _, event in adopted],
                models=[event.model_name for _, event in adopted],
                positions=[position for position, _ in adopted],
            )


def _answering(event: EmbeddingModelAdopted | EmbeddingMoveBegun) -> str:
    return event.from_model if isinstance(event, EmbeddingMoveBegun) else event.model_name


def _key(event: MessageReceived, change: Rewriting | None) -> UUID | None:
    """The key of a message that comes, None where it is not to be told: it was sealed away, and who deletes it says."""
    if event.external_id:
        return message_key_id(event.connection_id, event.external_id)
    return change[1].key_id if change else None


def _earlier(
    batch: Batch, vectors: Sequence[tuple[int, MessageEmbedded]], latest: _Embedded
) -> list[tuple[int, MessageEmbedded]]:
    """The batch's latest vector of each message and model, but for the message's latest, with their positions."""
    if len(vectors) == len(latest):
        return []
    of_model = {(event.originator_id.int, event.model_name): (position, event) for position, event in vectors}
    return [
        vector for (stream, _), vector in of_model.items() if vector[0] != latest[stream][0] and _is_read(vector, batch)
    ]


def _is_read(vector: tuple[int, MessageEmbedded] | None, batch: Batch) -> TypeGuard[tuple[int, MessageEmbedded]]:
    """Whether there is a vector, and no adoption later in the batch that makes it of no use: that writes it never."""
    if vector is None:
        return False
    at, embedded = vector
    return not any(
        position > at and event.tenant_id == embedded.tenant_id and event.model_name != embedded.model_name
        for position, event in batch.of(EmbeddingModelAdopted)
    )


def _column_of(vectors: Sequence[tuple[int, MessageEmbedded] | None]) -> Vectors:
    return Vectors(vector[1].vector if vector else None for vector in vectors)


def _analysis_columns(events: Sequence[MessageAnalyzed | None]) -> dict[str, list[Any]]:
    return {
        "sentiments": [event and event.sentiment for event in events],
        "emotions": [event and event.emotion for event in events],
        "satisfactions": [event and event.satisfaction for event in events],
        "tones": [event and event.tone for event in events],
        "summaries": [event and event.summary for event in events],
    }
