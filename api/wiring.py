"""Where the parts are put together, and the only place that knows them all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from psycopg import Connection
from psycopg.rows import DictRow

from adapters import postgres
from adapters.event_store import (
    EventLog,
    GroupCommit,
    LogRecorder,
    PostgresKeyStore,
    Role,
    RoleDatastore,
    StructMapper,
)
from adapters.master_keys import master_keys
from adapters.settings import Settings
from adapters.vault import Vault
from api.activity import Activity
from api.answer_cache import AnswerCache
from api.commands import CommandBus
from api.known_connections import KnownConnections
from api.people import People
from api.usage import Usage
from projections.build import Builder
from projections.catalog import all_projections
from projections.engine import Engine
from projections.folding import Folder
from projections.parking import ParkedEvents
from projections.vector_index import VectorIndex
from projections.vectors import register

#: Events in the first batch of a projector; later ones follow the time that a batch takes.
FIRST_BATCH: Final = 1000


@dataclass(frozen=True)
class WriteSide:
    """What a door needs to carry out commands."""

    datastore: RoleDatastore
    vault: Vault
    log: EventLog
    commands: CommandBus
    group: GroupCommit
    activity: Activity
    people: People
    known: KnownConnections
    usage: Usage
    answers: AnswerCache

    def close(self) -> None:
        """Append what was accepted, write what was counted, then let go of the database."""
        self.group.close()
        self.activity.close()
        self.usage.close()
        self.datastore.close()


def write_side(settings: Settings, *, role: Role = "evosense_writer") -> WriteSide:
    """The write side over the configured database. Raises `SettingsError` and `MasterKeyError` at the start."""
    datastore, vault = _opened(settings, role)
    recorder = LogRecorder(datastore)
    group = GroupCommit(recorder.append)
    log = EventLog(recorder, StructMapper(vault), group)
    commands = CommandBus(log)
    return WriteSide(
        datastore,
        vault,
        log,
        commands,
        group,
        Activity(datastore),
        People(log, commands),
        KnownConnections(datastore, log),
        Usage(datastore),
        AnswerCache(datastore, vault),
    )


@dataclass(frozen=True)
class ReadSide:
    """What projecting, and everything an operator does with projections, needs."""

    datastore: RoleDatastore
    engine: Engine
    builder: Builder
    parked: ParkedEvents
    dsn: str

    def connect(self) -> Connection[DictRow]:
        """A connection as the projector."""
        return _connect_projector(self.dsn)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.close()
        self.datastore.close()


def read_side(settings: Settings, *, batch: int | None = None) -> ReadSide:
    """The projection engine over the configured database. Raises `SettingsError` and `MasterKeyError`.

    `batch`: how many events the engine takes at once, from the first batch on; otherwise up to the configured number.
    """
    dsn = settings.runtime_dsn
    datastore, vault = _opened(settings, "evosense_projector")
    reader, mapper = LogRecorder(datastore), StructMapper(vault)
    engine = Engine(
        reader,
        mapper,
        lambda: _connect_projector(dsn),
        all_projections(),
        batch=batch or settings.projector_batch,
        first=batch or FIRST_BATCH,
    )
    builder = Builder(reader, mapper, lambda: _connect_projector(dsn))
    return ReadSide(datastore, engine, builder, ParkedEvents(reader, Folder(mapper, all_projections())), dsn)


@contextmanager
def key_store(settings: Settings) -> Iterator[PostgresKeyStore]:
    """The tenants' wrapped keys over the configured database, whether or not any master key fits them."""
    datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer")
    try:
        yield PostgresKeyStore(datastore)
    finally:
        datastore.close()


def vector_index(settings: Settings) -> VectorIndex:
    """The vector index over the configured database. Raises `SettingsError` without an administrator's address."""
    dsn = settings.admin_dsn
    return VectorIndex(lambda: postgres.connect_as_owner(dsn))


def _opened(settings: Settings, role: Role) -> tuple[RoleDatastore, Vault]:
    """The event store's connections and a vault whose master key is the right one."""
    master, previous = master_keys(settings)
    datastore = RoleDatastore(settings.runtime_dsn, role)
    vault = Vault(master, PostgresKeyStore(datastore), previous=previous)
    try:
        vault.verify()
    except BaseException:
        datastore.close()
        raise
    return datastore, vault


def _connect_projector(dsn: str) -> Connection[DictRow]:
    conn = postgres.connect(dsn, "evosense_projector")
    try:
        register(conn)
    except BaseException:
        conn.close()
        raise
    return conn
