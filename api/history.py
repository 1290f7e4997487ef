"""What the log holds of one thing: its events in order, each as far as the reader may see it.

Without a `StructMapper` nothing is opened and no key is needed: personal fields are shown as "(sealed)". With one they
are opened, which proves the seal as well. Secrets (a password's hash, a connection's token) are shown to nobody. What
can't be read is shown as far as it can be, with the reason; the rest goes on.
"""

import logging
import re
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import MapperDeserialisationError, StoredEvent

from adapters.event_store import KeyUnavailable, RoleDatastore, StructMapper
from adapters.event_store.datastore import once_more
from adapters.event_store.wire import open_fields
from adapters.postgres import connect
from domain.authn import UserRegistered
from domain.connections import ConnectionRegistered
from domain.event import Event, event_types
from domain.experiments import InferenceRecorded
from domain.messages import MessageReceived
from domain.prompts import PromptTemplateCreated
from domain.tenancy import TenantRegistered
from sql import queries

_HISTORY: Final = queries("history")
_LOG: Final = queries("log")
_log = logging.getLogger(__name__)

#: What has a history, and the event that each begins with.
BIRTHS: Final[Mapping[str, type[Event]]] = {
    "message": MessageReceived,
    "tenant": TenantRegistered,
    "user": UserRegistered,
    "connection": ConnectionRegistered,
    "inference": InferenceRecorded,
    # All versions share a stream: any of them names it.
    "prompt": PromptTemplateCreated,
}
SEALED: Final = "(sealed)"
ERASED: Final = "(sealed away)"
SECRET: Final = "(secret)"  # noqa: S105 - what stands in the place of one
#: Events that are read at once.
PAGE: Final = 1000

#: Told apart by their names: of an event that this program does not know, there is nothing else to go by.
_SECRETS: Final = re.compile(r"(^|_)(password|passphrase|token|secret)(_|$)")
#: Fields that hold the id of another stream, and what that is.
_LINKS: Final = {"message_id": "message", "connection_id": "connection"}
#: Personal fields that have something in them, until their message is deleted.
_NEVER_EMPTY: Final = frozenset({"text", "vector", "external_id"})
#: Not among the fields that are shown: where the event stands, whose it is and when it happened.
_PLACE: Final = ("originator_id", "originator_version", "tenant_id", "at")


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event of the log.

    `position` is its place in the log and `version` the one in its stream; `at` is when it happened, null where that
    can't be read, and `recorded_at` when it was written. `data` holds its fields by name. `links` has the row ids of
    what the fields speak of. `problem` says why the event could not be read as it should be.
    """

    position: int
    version: int
    type: str
    type_version: int | None
    at: datetime | None
    recorded_at: datetime
    data: dict[str, Any]
    links: dict[str, int] = {}
    problem: str | None = None


class HistoryReader:
    """Reads streams. Blocks on the database, and raises what the event store raises where that fails."""

    def __init__(
        self, datastore: RoleDatastore, opener: StructMapper | None = None, *, whole_vectors: bool = False
    ) -> None:
        """With `opener` personal fields are shown; with `whole_vectors` vectors as their numbers, not their length."""
        self._datastore = datastore
        self._opener = opener
        self._whole_vectors = whole_vectors

    def all(self, stream_id: UUID) -> Iterator[HistoryEntry]:
        """All events of a stream; none where there is no such stream."""
        after = 0
        while page := self.page(stream_id, after=after):
            yield from page
            after = page[-1].version

    def page(self, stream_id: UUID, *, after: int = 0, limit: int = PAGE) -> list[HistoryEntry]:
        """The next events behind version `after`, at most `limit` of them."""
        return self._linked([self._entry(stream_id, row) for row in self._rows(stream_id, after, limit)])

    @once_more
    def _rows(self, stream_id: UUID, after: int, limit: int) -> list[dict[str, Any]]:
        with self._datastore.get_connection() as conn:
            return list(_HISTORY.recorded_events(conn, stream_id=stream_id, after=after, page=limit))

    def _entry(self, stream_id: UUID, row: dict[str, Any]) -> HistoryEntry:
        stored = StoredEvent(stream_id, row["originator_version"], row["topic"], bytes(row["state"]))
        name, _, version = stored.topic.rpartition(":")
        cls = event_types().get(name)
        fields, opened, problem = self._read(stored)
        at = fields.get("at")
        return HistoryEntry(
            position=row["notification_id"],
            version=stored.originator_version,
            type=name if version.isdecimal() else stored.topic,
            type_version=int(version) if version.isdecimal() else None,
            at=at if isinstance(at, datetime) else None,
            recorded_at=row["recorded_at"].astimezone(UTC),
            data={field: self._shown(field, cls, fields, opened) for field in _names(cls, fields)},
            problem=problem,
        )

    def _read(self, stored: StoredEvent) -> tuple[dict[str, Any], bool, str | None]:
        """The fields, whether the personal ones are among them, and what is wrong with the event."""
        fields: dict[str, Any] = {}
        try:
            fields = open_fields(stored)
            if self._opener is None:
                return fields, False, None if _known(stored.topic) else "this program does not know its type or version"
            event = self._opener.to_domain_event(stored)
        except (MapperDeserialisationError, KeyUnavailable) as error:
            return fields, False, str(error)
        return msgspec.structs.asdict(event), True, None

    def _shown(self, field: str, cls: type[Event] | None, fields: dict[str, Any], opened: bool) -> Any:
        if _SECRETS.search(field):
            return SECRET
        if cls is not None and field in cls.sealed_fields and not opened:
            return SEALED
        value = fields[field]
        if not value and cls is not None and field in cls.sealed_fields and field in _NEVER_EMPTY:
            return ERASED
        if not isinstance(value, bytes):
            return msgspec.to_builtins(value, str_keys=True, enc_hook=lambda strange: f"({type(strange).__name__})")
        if field != "vector" or len(value) % 4:
            return f"{len(value)} bytes"
        numbers = len(value) // 4
        if self._whole_vectors:
            return list(struct.unpack(f"<{numbers}f", value))
        return f"{numbers} numbers of {fields.get('model_name')}"

    def _linked(self, entries: list[HistoryEntry]) -> list[HistoryEntry]:
        """The same entries with the row ids of the streams that they name."""
        named = [{what: _uuid(e.data[field]) for field, what in _LINKS.items() if field in e.data} for e in entries]
        streams = {stream_id for links in named for stream_id in links.values() if stream_id is not None}
        if not streams:
            return entries
        rows = self._births(streams)
        return [
            msgspec.structs.replace(
                entry, links={what: rows[stream_id] for what, stream_id in links.items() if stream_id in rows}
            )
            for entry, links in zip(entries, named, strict=True)
        ]

    @once_more
    def _births(self, stream_ids: set[UUID]) -> dict[UUID | None, int]:
        with self._datastore.get_connection() as conn:
            rows = _LOG.births(conn, stream_ids=list(stream_ids))
            return {row["originator_id"]: row["notification_id"] for row in rows}


def inferences_of(dsn: str, tenant_id: UUID, message_row_id: int) -> list[int]:
    """The row ids of a message's inferences, as far as the read models are. Raises `psycopg.Error`."""
    with connect(dsn, "evosense_app") as conn, conn.transaction():
        _HISTORY.act_for(conn, tenant_id=str(tenant_id))
        return [row["id"] for row in _HISTORY.inferences_of(conn, message_id=message_row_id)]


def leave_trace(who: str, what: str, stream_id: UUID, tenant_id: UUID) -> None:
    """Log that somebody is shown personal data: who and of which stream, never what it says."""
    _log.info("the history of %s %s of tenant %s was opened by %s", what, stream_id, tenant_id, who)


def _names(cls: type[Event] | None, fields: dict[str, Any]) -> list[str]:
    """The fields to show: those of the class in its order, then what else was recorded."""
    known = cls.__struct_fields__ if cls is not None else ()
    sealed = cls.sealed_fields if cls is not None and fields else frozenset()
    names = [name for name in known if name in fields or name in sealed]
    return [name for name in dict.fromkeys((*names, *fields)) if name not in _PLACE]


def _known(topic: str) -> bool:
    name, _, version = topic.rpartition(":")
    cls = event_types().get(name)
    return cls is not None and version.isdecimal() and 1 <= int(version) <= cls.type_version


def _uuid(value: Any) -> UUID | None:
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        return None
