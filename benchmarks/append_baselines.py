"""What appends are measured against: the library's own `save`, a plain INSERT and COPY, in the same server."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict

from adapters.event_store import TenantStoredEvent

#: Seconds after which a save of the library counts as hung (DESIGN section 5).
HUNG_AFTER: Final = 60
_SCHEMA: Final = "library"
_SQL: Final = Path(__file__).parent / "sql"
_TYPES: Final = ("uuid", "int8", "text", "bytea", "uuid")


class Hung(Exception):
    """The library's save did not return."""


class Note(Aggregate):
    """An aggregate of the library's own kind with the fields of a message."""

    @event("Received")
    def __init__(self, chat_id: str, sender: str, kind: str, external_id: str, text: str) -> None:
        self.chat_id = chat_id
        self.sender = sender
        self.kind = kind
        self.external_id = external_id
        self.text = text


def note(number: int, text: str) -> Note:
    """One of them, with one pending event."""
    return Note(f"{number % 500:064x}", f"{number % 500:064x}", "text", f"3EB0{number:016X}", text)


class Library:
    """An application of eventsourcing with its default recorder, mapper and transcoder in a schema of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        parts = conninfo_to_dict(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
            conn.execute(f"CREATE SCHEMA {_SCHEMA}")
        self._application: Application[Any] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(parts["dbname"]),
                "POSTGRES_HOST": str(parts["host"]),
                "POSTGRES_PORT": str(parts["port"]),
                "POSTGRES_USER": str(parts["user"]),
                "POSTGRES_PASSWORD": str(parts["password"]),
                "POSTGRES_SCHEMA": _SCHEMA,
                # A connection for each of eight threads: the default five would make three of them wait.
                "POSTGRES_POOL_SIZE": "8",
            }
        )

    def save(self, *notes: Note) -> None:
        """One save, one transaction."""
        self._application.save(*notes)

    def save_or_hang(self, *notes: Note) -> None:
        """The same with a deadline. Raises `Hung`; its connections are ended then, so that the lock is free again."""
        failed: list[BaseException] = []

        def save() -> None:
            try:
                self.save(*notes)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=save, daemon=True)
        thread.start()
        thread.join(HUNG_AFTER)
        if thread.is_alive():
            with psycopg.connect(self._dsn, autocommit=True) as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks "
                    "WHERE mode = 'ExclusiveLock' AND relation = %s::regclass",
                    (f"{_SCHEMA}.stored_events",),
                )
            raise Hung(f"a save of {len(notes):,} aggregates did not return within {HUNG_AFTER} s")
        if failed:
            raise failed[0]

    def close(self) -> None:
        """Let go of the connections."""
        self._application.close()


def insert(dsn: str, events: Sequence[TenantStoredEvent], connections: int) -> float:
    """Events a second, one autocommit INSERT each, into a bare table that is made anew."""
    statement = (_SQL / "insert_event.sql").read_bytes()
    rows = _rows(events)
    _make_bare(dsn)
    with_connections = [psycopg.connect(dsn, autocommit=True) for _ in range(connections)]

    def caller(number: int) -> None:
        conn = with_connections[number]
        for row in rows[number::connections]:
            conn.execute(statement, row, prepare=True)

    try:
        return len(rows) / in_threads(caller, connections)
    finally:
        for conn in with_connections:
            conn.close()


def copy(dsn: str, events: Sequence[TenantStoredEvent], batch: int) -> float:
    """Events a second by binary COPY, `batch` events a transaction, into a bare table that is made anew."""
    statement = (_SQL / "copy_events.sql").read_bytes()
    rows = _rows(events)
    _make_bare(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        started = time.perf_counter()
        for first in range(0, len(rows), batch):
            with conn.cursor().copy(statement) as copying:
                copying.set_types(_TYPES)
                for row in rows[first : first + batch]:
                    copying.write_row(row)
        return len(rows) / (time.perf_counter() - started)


def in_threads(caller: Callable[[int], None], number: int) -> float:
    """Seconds that so many callers take, from a common start to the last one's end. Raises a caller's error."""
    failed: list[BaseException] = []
    start = threading.Barrier(number + 1)

    def guarded(place: int) -> None:
        start.wait()
        try:
            caller(place)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    start.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    return took


def _make_bare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute((_SQL / "bare_events.sql").read_bytes())


def _rows(events: Sequence[TenantStoredEvent]) -> list[tuple[Any, ...]]:
    return [(e.originator_id, e.originator_version, e.topic, e.state, e.tenant_id) for e in events]
