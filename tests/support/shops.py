"""Tenants with connections that are listened to, for the tests of the listener."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg

from api.links import Link, link_of
from domain.connections import Connection, DeactivateConnection, connection, connection_id
from tests.support.http import TOKEN, Account, System, envelope, utc_now
from tests.support.transport import until

AT = 1761134400


class Shop:
    """A tenant with one connection, whose Evolution is at `url`."""

    def __init__(self, system: System, url: str, *, name: str | None = None, token: str = TOKEN) -> None:
        self.system = system
        self.name = name or f"loja-{uuid4().hex[:8]}"
        self.who: Account = system.new_user(system.new_tenant())
        body = {"name": self.name, "evo_ws_url": url, "evo_token": token}
        made = system.send(self.who, "POST", "/connections", body, expect=201)
        self.hook = str(made["webhook_url"])
        self.token = token
        system.projected()
        self.id: UUID = connection_id(self.who.tenant_id, self.name)
        self.numbers = 0

    def event(self, text: str, key: str | None = None, **more: Any) -> dict[str, Any]:
        """A message that arrives at the instance, as its channel tells it."""
        self.numbers += 1
        sent = envelope(text, key or f"K{self.numbers:04}", AT + self.numbers)
        return {**sent, "instance": self.name, "apikey": self.token, **more}

    def heard(self) -> list[str]:
        """The texts that are in the read model."""
        self.system.projected()
        return sorted(row["text"] for row in self.system.messages_of(self.who.tenant_id))

    async def until_heard(self, *texts: str) -> None:
        """These and no others."""
        await until(lambda: len(self.heard()) >= len(texts), f"{len(texts)} messages of {self.name}")
        assert self.heard() == sorted(texts)

    async def link(self) -> Link | None:
        """As the API sees it."""
        async with self.reads() as conn:
            return await link_of(conn, self.id)

    async def is_in(self, state: str, error: str | None = None) -> bool:
        link = await self.link()
        return link is not None and (link.state, link.error) == (state, error)

    @asynccontextmanager
    async def reads(self) -> AsyncIterator[Any]:
        """A connection in the application's role that sees this tenant."""
        dsn = self.system.settings.runtime_dsn
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row) as conn:
            await conn.execute("SET ROLE evosense_app")
            await conn.execute("SELECT set_config('evosense.tenant_id', %s, true)", (str(self.who.tenant_id),))
            yield conn

    def does(self, command: Any) -> None:
        self.system.write.commands.handle(connection(self.id), command)

    def state(self) -> Connection:
        return self.system.write.log.load(connection(self.id))


def silence(system: System) -> None:
    """Deactivate all connections: those of one test are none of the next one's."""
    rows = system.rows("SELECT tenant_id, name FROM evosense.connections_evolutionconnection WHERE is_active")
    for row in rows:
        identifier = connection_id(row["tenant_id"], row["name"])
        system.write.commands.handle(connection(identifier), DeactivateConnection(at=utc_now()))
    system.projected()
