"""Databases with a whole system in them, what is in their read models, and waiting for a condition."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr

from adapters.embedded import PostgresServer
from adapters.migrations import migrate
from adapters.settings import Settings
from adapters.vault import MasterKey
from projections.engine import Engine
from tests.conftest import RUNTIME

#: A migrated database of each server, by the server's address: to copy it takes a tenth of the time of migrating.
_TEMPLATES: dict[str, str] = {}


def create_migrated(postgres: PostgresServer, name: str) -> None:
    """Make a database of that name and bring it to this program's schema."""
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        if postgres.dsn not in _TEMPLATES:
            template = f"template_{uuid4().hex[:12]}"
            conn.execute(SQL("CREATE DATABASE {}").format(Identifier(template)))
            migrate(postgres.dsn_for(template), runtime_dsn=postgres.dsn_for(template, *RUNTIME))
            _TEMPLATES[postgres.dsn] = template
        template = _TEMPLATES[postgres.dsn]
        conn.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template)))
    # A copy has neither the settings nor the grants of a database.
    migrate(postgres.dsn_for(name), runtime_dsn=postgres.dsn_for(name, *RUNTIME))


@contextmanager
def fresh_system(postgres: PostgresServer) -> Iterator[Settings]:
    """A database of its own, migrated, with a master key of its own; dropped afterwards."""
    name = f"test_{uuid4().hex[:12]}"
    admin, runtime = postgres.dsn_for(name), postgres.dsn_for(name, *RUNTIME)
    try:
        create_migrated(postgres, name)
        yield Settings(
            database_url=SecretStr(runtime),
            admin_database_url=SecretStr(admin),
            master_key=SecretStr(MasterKey.generate_text()),
        )
    finally:
        with psycopg.connect(postgres.dsn, autocommit=True) as conn:
            conn.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def at_port(dsn: str, port: int) -> str:
    """The same database through another port."""
    return make_conninfo(**{**conninfo_to_dict(dsn), "host": "127.0.0.1", "port": str(port)})


def administrator(settings: Settings) -> psycopg.Connection:
    """A superuser's connection in autocommit mode."""
    return psycopg.connect(settings.admin_dsn, autocommit=True)


def tables(conn: psycopg.Connection) -> list[str]:
    """All tables of schema evosense, partitions under their parent's name."""
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'evosense'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition ORDER BY relname"
    )
    return [name for (name,) in rows]


def contents(conn: psycopg.Connection) -> dict[str, list[str]]:
    """Every row of every read model as text, in an order that depends on nothing but the rows."""
    found: dict[str, list[str]] = {}
    for table in tables(conn):
        rows = conn.execute(SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(Identifier("evosense", table)))
        found[table] = [row for (row,) in rows]
    return found


def forget_read_models(conn: psycopg.Connection) -> None:
    """As if nothing had ever been projected."""
    names = SQL(", ").join(Identifier("evosense", table) for table in tables(conn))
    conn.execute(SQL("TRUNCATE {}").format(names))
    conn.execute("TRUNCATE evosense_ops.projection_checkpoints, evosense_ops.parked_events")


def empty(conn: psycopg.Connection, names: Iterable[str]) -> None:
    """Leave no row in these read models."""
    conn.execute(SQL("TRUNCATE {}").format(SQL(", ").join(Identifier("evosense", name) for name in names)))


def drain(engine: Engine) -> None:
    """Project until the log is at its end, then let others have the leases."""
    wait_for(lambda: bool(engine.run_once()) or bool(engine.holding), "the engine gets a lease")
    while engine.run_once():
        pass
    engine.close()


def positions(conn: psycopg.Connection) -> set[int]:
    """Where the projections stand."""
    return {position for (position,) in conn.execute("SELECT position FROM evosense_ops.projection_checkpoints")}


def parked(conn: psycopg.Connection) -> dict[int, str]:
    """The reasons of parked events by position."""
    return dict(conn.execute("SELECT position, reason FROM evosense_ops.parked_events ORDER BY position").fetchall())


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 20) -> None:
    """Return as soon as the condition holds. Fails where it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.01)
