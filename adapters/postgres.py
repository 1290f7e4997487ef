"""Plain connections to PostgreSQL in one of our database roles, and the pool that queries are answered from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool

from adapters.event_store import Role, send_arrays_in_binary


def connect(dsn: str, role: Role) -> Connection[DictRow]:
    """One connection in autocommit mode that has taken on `role`. Raises `psycopg.OperationalError`."""
    return _connect(dsn, role)


def connect_as_owner(admin_dsn: str) -> Connection[DictRow]:
    """The same as the owner of the schema, for which an administrator's address is needed: to make and drop indexes."""
    return _connect(admin_dsn, "evosense_owner")


def _connect(dsn: str, role: str) -> Connection[DictRow]:
    conn = psycopg.connect(dsn, autocommit=True, row_factory=dict_row, connect_timeout=10)
    try:
        conn.execute(SQL("SET ROLE {}").format(Identifier(role)))
    except BaseException:
        conn.close()
        raise
    send_arrays_in_binary(conn)
    return conn


async def connect_async(dsn: str, role: Role) -> AsyncConnection[DictRow]:
    """The same for coroutines."""
    conn = await AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row, connect_timeout=10)
    try:
        await conn.execute(SQL("SET ROLE {}").format(Identifier(role)))
    except BaseException:
        await conn.close()
        raise
    return conn


class ReadPool:
    """Answers queries as `evosense_app`: the role that row-level security binds and that can write nothing."""

    def __init__(self, dsn: str, *, size: int = 8) -> None:
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=size,
            open=False,
            kwargs={"autocommit": True, "row_factory": dict_row, "connect_timeout": 10},
            configure=_become_app,
            check=AsyncConnectionPool.check_connection,
            timeout=10,
            # After a fall of the database the next who asks tries at once, not when a long pause has passed.
            reconnect_timeout=5,
        )

    async def open(self) -> None:
        """Connect. Raises `psycopg_pool.PoolTimeout` where the server does not answer."""
        await self._pool.open(wait=True, timeout=30)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def as_tenant(self, tenant_id: UUID) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection within a transaction that sees this tenant's rows and no others."""
        async with self._transaction("evosense.tenant_id", str(tenant_id)) as conn:
            yield conn

    @asynccontextmanager
    async def all_tenants(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection within a transaction that sees the list of tenants, and no row of any other table."""
        async with self._transaction("evosense.all_tenants", "on") as conn:
            yield conn

    @asynccontextmanager
    async def _transaction(self, setting: str, value: str) -> AsyncIterator[AsyncConnection[Any]]:
        async with self._pool.connection() as conn, conn.transaction():
            # Local to the transaction: the next user of the connection starts with none.
            await conn.execute("SELECT set_config(%s, %s, true)", (setting, value))
            yield conn


async def _become_app(conn: AsyncConnection[Any]) -> None:
    await conn.execute(SQL("SET ROLE {}").format(Identifier("evosense_app")))
