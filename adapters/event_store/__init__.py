"""The event store: `eventsourcing` on PostgreSQL through its own recorder, mapper and transcoder interfaces."""

from adapters.event_store.cache import AggregateCache
from adapters.event_store.datastore import Role, RoleDatastore, send_arrays_in_binary
from adapters.event_store.group_commit import Closed, GroupCommit, Overloaded
from adapters.event_store.keys import PostgresKeyStore
from adapters.event_store.log import EventLog, RecordedEvent, StreamAt
from adapters.event_store.recorder import CHANNEL, Appended, Conflict, LogRecorder
from adapters.event_store.wire import (
    BrokenSeal,
    KeyUnavailable,
    MsgpackTranscoder,
    Standing,
    StructMapper,
    TenantStoredEvent,
    UndecodableEvent,
    UnknownEventType,
    standing,
)

__all__ = [
    "CHANNEL",
    "AggregateCache",
    "Appended",
    "BrokenSeal",
    "Closed",
    "Conflict",
    "EventLog",
    "GroupCommit",
    "KeyUnavailable",
    "LogRecorder",
    "MsgpackTranscoder",
    "Overloaded",
    "PostgresKeyStore",
    "RecordedEvent",
    "Role",
    "RoleDatastore",
    "Standing",
    "StreamAt",
    "StructMapper",
    "TenantStoredEvent",
    "UndecodableEvent",
    "UnknownEventType",
    "send_arrays_in_binary",
    "standing",
]
