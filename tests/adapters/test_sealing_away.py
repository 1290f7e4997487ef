"""The one change that the log allows: what a deleted message said goes, and nothing else can be changed that way."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from psycopg.rows import dict_row

from adapters.event_store import BrokenSeal, StructMapper
from adapters.settings import Settings
from api.commands import Intent, Step
from api.history import ERASED, SEALED, HistoryReader
from api.wiring import WriteSide
from domain.amendments import AnnounceDeletion, AnnounceEdit, EditAnnounced, message_key
from domain.event import Event, event_types
from domain.message_keys import message_key_id
from domain.messages import (
    AnalyzeMessage,
    DeleteMessage,
    EditMessage,
    EmbedMessage,
    MessageAnalyzed,
    MessageDeleted,
    MessageEdited,
    MessageEmbedded,
    MessageReceived,
    ReceiveMessage,
    message,
    message_id,
)
from domain.ports import Analysis
from tests.support.amending import said
from tests.support.spec import NOW
from tests.support.world import repeatable, tampered, vector

TELLING = (MessageReceived, MessageEdited, MessageAnalyzed, MessageEmbedded)
TEXT = "Bom dia, meu pedido não chegou"
SEAL = "SELECT evosense_log.seal_away(%s, %s::bigint[], %s::bytea[])"


class Log:
    """A log with a message that was analysed, embedded, edited and deleted, and with what was announced of it."""

    def __init__(self, write: WriteSide, admin: psycopg.Connection[Any]) -> None:
        self.write, self.admin = write, admin
        self.mapper = StructMapper(write.vault)
        self.tenant, connection = uuid4(), uuid4()
        write.vault.create(self.tenant)
        self.stream = message_id(connection, "c" * 64, False, "3EB0A1")
        self.key = message_key_id(connection, "3EB0A1")
        self.about: dict[str, Any] = {"at": NOW, "tenant_id": self.tenant, "connection_id": connection}
        self.hints: dict[str, Any] = {"chat_id": "c" * 64, "from_me": False, "external_id": "3EB0A1"}
        receive = ReceiveMessage(
            **self.about, **self.hints, sender="d" * 64, is_group=False, kind="text", sent_at=NOW, text=TEXT
        )
        scores = Analysis(sentiment=0.5, emotion="alegria", satisfaction=80, tone="cordial", summary="Não chegou.")
        analyze = AnalyzeMessage(at=NOW, model_name="m", prompt_version="p", analysis=scores)
        embed = EmbedMessage(at=NOW, model_name="e", vector=vector(repeatable(1)))
        edit = EditMessage(at=NOW, key_id=self.key, announcement=1, edited_at=NOW, text="Já chegou")
        self.handle(message(self.stream), receive, analyze, embed, edit)
        announced = AnnounceEdit(**self.about, **self.hints, edited_at=NOW, text="Já chegou")
        self.handle(message_key(self.key), announced)

    def delete(self) -> None:
        """Announce the deletion, and make it."""
        self.handle(message_key(self.key), AnnounceDeletion(**self.about, **self.hints, deleted_at=NOW))
        self.handle(message(self.stream), DeleteMessage(at=NOW, key_id=self.key, announcement=2, deleted_at=NOW))

    def handle(self, empty: Any, *commands: Any) -> None:
        (outcome,) = self.write.commands.handle_many([Intent((Step(empty, commands),))])
        assert not isinstance(outcome, Exception)

    def rows(self, stream: UUID) -> list[dict[str, Any]]:
        """The stream as it lies in the table."""
        with self.admin.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                "SELECT * FROM evosense_log.stored_events WHERE originator_id = %s ORDER BY originator_version",
                (stream,),
            )
            return cursor.fetchall()

    def emptied(self, stream: UUID, version: int) -> bytes:
        """What may stand in the place of an event."""
        row = self.rows(stream)[version - 1]
        return self.mapper.emptied(StoredEvent(stream, version, row["topic"], bytes(row["state"])))

    def events(self, stream: UUID) -> list[Event]:
        return [recorded.event for recorded in self.write.log.history(stream)]


@pytest.fixture(scope="module")
def admin(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


@pytest.fixture
def log(write: WriteSide, admin: psycopg.Connection[Any]) -> Log:
    return Log(write, admin)


@pytest.fixture
def writer(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may do what the writer may."""
    with psycopg.connect(settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_writer")
        yield conn


def test_what_a_deleted_message_said_is_gone_and_all_else_is_as_it_was(log: Log) -> None:
    log.delete()
    before, opened = log.rows(log.stream), log.events(log.stream)
    assert len(said(opened)) == 5
    assert log.write.log.seal_away(log.stream, TELLING) == 4
    after = log.events(log.stream)
    assert said(after) == []
    for event, was in zip(after, opened, strict=True):
        kept = [field for field in event.__struct_fields__ if field not in event.sealed_fields]
        assert [getattr(event, field) for field in kept] == [getattr(was, field) for field in kept]
    unchanged = [{name: value for name, value in row.items() if name != "state"} for row in before]
    assert [{n: v for n, v in row.items() if n != "state"} for row in log.rows(log.stream)] == unchanged
    assert log.write.log.load(message(log.stream)).deleted


def test_a_history_says_that_it_is_gone(log: Log) -> None:
    log.delete()
    log.write.log.seal_away(log.stream, TELLING)
    closed, opened = (HistoryReader(log.write.datastore, opener).page(log.stream) for opener in (None, log.mapper))
    assert [entry.data.get("text") for entry in closed] == [SEALED, None, None, SEALED, None]
    assert [entry.data.get("text") for entry in opened] == [ERASED, None, None, ERASED, None]
    assert (opened[0].data["external_id"], opened[1].data["summary"], opened[2].data["vector"]) == (ERASED, "", ERASED)
    assert opened[4].data["key_id"] == str(log.key)
    assert not any(entry.problem for entry in (*closed, *opened))


def test_twice_is_as_once(log: Log) -> None:
    log.delete()
    assert log.write.log.seal_away(log.stream, TELLING) == 4
    before = log.rows(log.stream)
    assert log.write.log.seal_away(log.stream, TELLING) == 0
    assert log.rows(log.stream) == before


def test_what_was_announced_goes_too(log: Log) -> None:
    log.delete()
    assert log.write.log.seal_away(log.key, (EditAnnounced,)) == 1
    assert [type(event).__name__ for event in log.events(log.key)] == ["EditAnnounced", "DeletionAnnounced"]
    assert said(log.events(log.key)) == ["3EB0A1"], "the deletion's own key"


def test_nothing_is_sealed_away_that_was_not_deleted(log: Log) -> None:
    """Not by way of the key's stream either: each stream has to say it itself."""
    before = log.rows(log.stream), log.rows(log.key)
    for stream, classes in ((log.stream, TELLING), (log.key, (EditAnnounced,))):
        with pytest.raises(Exception, match=r"nothing in stream .* says that the message was deleted"):
            log.write.log.seal_away(stream, classes)
    assert (log.rows(log.stream), log.rows(log.key)) == before


def test_an_event_that_does_not_open_is_left_alone(log: Log, admin: psycopg.Connection[Any]) -> None:
    log.delete()
    tampered(admin, log.rows(log.stream)[1]["notification_id"])
    before = log.rows(log.stream)
    with pytest.raises(BrokenSeal):
        log.write.log.seal_away(log.stream, TELLING)
    assert log.rows(log.stream) == before


def test_the_database_takes_nothing_but_the_event_without_its_personal_part(
    log: Log, writer: psycopg.Connection[Any]
) -> None:
    log.delete()
    before = log.rows(log.stream)
    right = log.emptied(log.stream, 1)
    other_open = bytes([*right[:20], right[20] ^ 1, *right[21:]])
    readable, sealed = msgspec.msgpack.decode(right)
    short, long = (msgspec.msgpack.encode((readable, part)) for part in (sealed[:-1], sealed + b"x"))
    for wrong in (b"", b"\x92", right[:-1], right + b"x", other_open, short, long, bytes(before[0]["state"]), None):
        with pytest.raises(psycopg.Error, match="would not be the same without its personal part"):
            writer.execute(SEAL, (log.stream, [1], [wrong]))
    assert log.rows(log.stream) == before
    assert writer.execute(SEAL, (log.stream, [1], [right])).fetchone() == (1,)


@pytest.mark.parametrize(
    ("stream", "version", "saying"),
    [
        ("message", 5, "none that may be sealed away"),  # the deletion itself
        ("message", 6, "none that may be sealed away"),  # nothing there
        ("key", 2, "none that may be sealed away"),
    ],
)
def test_other_events_are_refused(
    log: Log, writer: psycopg.Connection[Any], stream: str, version: int, saying: str
) -> None:
    log.delete()
    assert isinstance(log.events(log.stream)[4], MessageDeleted)
    identifier = log.stream if stream == "message" else log.key
    state = log.emptied(log.stream, 1)
    with pytest.raises(psycopg.DataError, match=saying):
        writer.execute(SEAL, (identifier, [version], [state]))


def test_versions_and_states_belong_together(log: Log, writer: psycopg.Connection[Any]) -> None:
    log.delete()
    with pytest.raises(psycopg.DataError, match="each version needs its state"):
        writer.execute(SEAL, (log.stream, [1, 2], [log.emptied(log.stream, 1)]))


def test_one_refusal_leaves_all_as_it_was(log: Log, writer: psycopg.Connection[Any]) -> None:
    log.delete()
    before = log.rows(log.stream)
    with pytest.raises(psycopg.DataError):
        writer.execute(SEAL, (log.stream, [1, 5], [log.emptied(log.stream, 1), log.emptied(log.stream, 1)]))
    assert log.rows(log.stream) == before


def test_the_log_is_still_append_only_for_everybody(log: Log, settings: Settings) -> None:
    log.delete()
    state = log.emptied(log.stream, 1)
    with psycopg.connect(settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_writer")
        for change in ("UPDATE evosense_log.stored_events SET state = ''", "DELETE FROM evosense_log.stored_events"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(change.encode())
        for role in ("evosense_projector", "evosense_app"):
            conn.execute(f"SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(SEAL, (log.stream, [1], [state]))


def test_the_lengths_that_the_database_knows_are_those_of_empty_events(log: Log) -> None:
    """A new version of a type, or a new personal field, has to be entered in sql/functions/seal_away.sql."""
    log.delete()
    for stream in (log.stream, log.key):
        for version, event in enumerate(log.events(stream), 1):
            if isinstance(event, (*TELLING, EditAnnounced)):
                _, sealed = msgspec.msgpack.decode(log.emptied(stream, version))
                empty = msgspec.msgpack.encode({name: type(getattr(event, name))() for name in _sealed_in_order(event)})
                assert len(sealed) == 28 + len(empty)
    assert all(event_types()[cls.type_name].type_version == 1 for cls in (*TELLING, EditAnnounced))


def _sealed_in_order(event: Event) -> list[str]:
    return [name for name in event.__struct_fields__ if name in event.sealed_fields]
