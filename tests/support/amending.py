"""The whole system around edits and deletions, with a relay and a worker; and what is left of a text."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from adapters.evolution import Envelope, InboundDeletion, InboundEdit, InboundMessage
from api.receiving import Received, record
from api.relay import Relay
from api.worker import run_worker
from domain.connections import connection, connection_id
from domain.event import Event
from domain.messages import Message, message, message_id
from domain.ports import Analysis
from tests.support.http import Account, System
from tests.support.world import repeatable, vector

SENT_AT = datetime(2025, 10, 22, 12, 0, tzinfo=UTC)


class Analyser:
    """Sums a text up as the text itself; notes what it was shown, and can be kept waiting."""

    model_name, prompt_version, template_hash = "whole-text", "p1", "0" * 64

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.in_hand = asyncio.Event()

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        self.seen.extend(texts)
        self.in_hand.set()
        await self.open.wait()
        return [
            Analysis(sentiment=len(text) / 1000, emotion="neutro", satisfaction=50, tone="neutro", summary=text[:200])
            for text in texts
        ]


class Embedder:
    """A vector that follows from the text."""

    model_name = "seeded"

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [self.vector(text) for text in texts]

    @staticmethod
    def vector(text: str) -> bytes:
        return vector(repeatable(sum(text.encode())))


class Shop:
    """A tenant with one connection, to which things are delivered as by any transport."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.write = system.write
        self.account: Account = system.new_user(system.new_tenant())
        self.tenant_id: UUID = self.account.tenant_id
        _, self.hook = system.new_connection(self.account)
        self.source = system.services.aggregates.load(connection(connection_id(self.tenant_id, "loja-centro")))
        assert self.source.exists

    def receive(
        self, text: str, external_id: str, *, chat: str = "5521998760002", from_me: bool = False, seconds: int = 0
    ) -> UUID:
        """Deliver a message that was sent so many seconds after the others; returns its stream."""
        inbound = InboundMessage(
            external_id=external_id,
            chat=chat,
            author=None if from_me else chat,
            from_me=from_me,
            is_group=False,
            kind="text",
            text=text,
            sent_at=SENT_AT + timedelta(seconds=seconds),
        )
        self._record("messages.upsert", messages=(inbound,))
        return self.stream(external_id, chat=chat, from_me=from_me)

    def edit(self, text: str, external_id: str, *, seconds: int = 0, chat: str | None = None) -> Received:
        """Deliver an edit, so many seconds after the message."""
        at = datetime.fromtimestamp(SENT_AT.timestamp() + seconds, UTC)
        inbound = InboundEdit(external_id=external_id, chat=chat, from_me=None, text=text, edited_at=at)
        return self._record("messages.edited", edits=(inbound,))

    def delete(self, external_id: str, *, chat: str | None = None) -> Received:
        """Deliver a deletion."""
        inbound = InboundDeletion(external_id=external_id, chat=chat, from_me=None, deleted_at=None)
        return self._record("messages.delete", deletions=(inbound,))

    def _record(self, event: str, **parts: Any) -> Received:
        envelope = msgspec.structs.replace(Envelope(event, "loja-centro", (), ()), **parts)
        return record(self.write, self.source, envelope, datetime.now(UTC))

    def stream(self, external_id: str, *, chat: str = "5521998760002", from_me: bool = False) -> UUID:
        """The stream of a message."""
        key = self.write.vault.key(self.tenant_id)
        return message_id(self.source.id, key.pseudonym(chat), from_me, external_id)

    def state(self, stream: UUID) -> Message:
        """The message as the log has it."""
        return self.write.log.load(message(stream))

    def row(self, stream: UUID) -> dict[str, Any]:
        """The message's row; empty where there is none."""
        row_id = self.write.log.births([stream]).get(stream)
        found = self.system.rows("SELECT * FROM evosense.messages_message WHERE id = %s", row_id)
        return dict(found[0]) if found else {}

    def analysed(self, stream: UUID, text: str) -> bool:
        """Whether the row has this text, and everything that a model says of it, and nothing of another."""
        row = self.row(stream)
        return bool(row) and (row["text"], row["summary"]) == (text, text) and row["embedding"] is not None

    def gone(self, stream: UUID) -> bool:
        """Whether the row says nothing any more, and the log neither."""
        row = self.row(stream)
        empty = ("sentiment", "emotion", "satisfaction", "tone", "summary", "embedding")
        return (
            bool(row)
            and row["text"] == ""
            and not any(row[column] for column in empty)
            and not said(self.events(stream))
        )

    def events(self, stream: UUID) -> list[Event]:
        """All events of a stream, opened."""
        return [recorded.event for recorded in self.write.log.history(stream)]


def said(events: Sequence[Event]) -> list[Any]:
    """What is left in the personal fields of these events."""
    return [value for event in events for field in event.sealed_fields if (value := getattr(event, field))]


def relay(system: System) -> Any:
    """The role."""
    return Relay(system.settings.runtime_dsn, system.settings.nats_dsn, poll=0.2).run


def worker(system: System, analyser: Analyser) -> Any:
    """The role."""

    async def run(stop: asyncio.Event) -> None:
        await run_worker(system.settings, stop, analyser=analyser, embedder=Embedder(), ack_wait=30)

    return run


def found_anywhere(conn: psycopg.Connection[Any], needle: str) -> list[str]:
    """The tables and columns of the whole database in which a text stands, in any schema of ours."""
    columns = conn.execute(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns "
        "JOIN information_schema.tables USING (table_schema, table_name) "
        "WHERE table_schema LIKE 'evosense%' AND table_type = 'BASE TABLE'"
    ).fetchall()
    assert len(columns) > 100
    found = []
    for schema, table, column in columns:
        statement = SQL("SELECT count(*) FROM {} WHERE position(%s IN {}::text) > 0").format(
            Identifier(schema, table), Identifier(column)
        )
        number = conn.execute(statement, (needle,)).fetchone()
        if number and number[0]:
            found.append(f"{schema}.{table}.{column}")
    return found
