"""Connections: the Evolution instances of a tenant. A token goes in and never comes out."""

import asyncio
from collections import defaultdict
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post, put
from psycopg import AsyncConnection

from adapters.vault import Vault
from api.activity import totals
from api.commands import Key
from api.common import (
    Accepted,
    Page,
    PageSize,
    WaitFor,
    accepted,
    answer,
    cursor_page,
    handle,
    stream_of,
    until_reached,
)
from api.connection_activity import Totals
from api.problems import ProblemError
from api.security import Principal, admins_only
from api.services import Services, now
from domain.connections import (
    ActivateConnection,
    ConnectionRegistered,
    DeactivateConnection,
    RegisterConnection,
    RotateToken,
    connection,
    connection_id,
)
from sql import queries

_ACTIVITY: Final = queries("activity", "apsycopg")
_CONNECTIONS: Final = queries("connections", "apsycopg")

#: Where connections' webhooks are.
PATH: Final = "/webhooks/evolution"
#: What a connection's token is sealed for; part of what its ciphertext is bound to.
TOKEN_PURPOSE: Final = "connection token"  # noqa: S105 - a purpose, not a token
#: Shorter ones are guessed; longer ones do not fit the documented column once encrypted.
Token = Annotated[str, msgspec.Meta(min_length=16, max_length=160)]


class NewConnection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An Evolution instance: its name at our side, where its server is, and the secret it will prove itself with."""

    name: str
    evo_ws_url: str
    evo_token: Token


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another token."""

    evo_token: Token


class ConnectionRow(msgspec.Struct, frozen=True):
    """A connection as the read model has it, where its webhook goes, and what came from it.

    `state`: the last recorded state of the Evolution instance (`open`, `connecting`, `close`), with WhatsApp's number
    for why; null where it never told one. `last_message_at`: when a new message was last taken. `totals`: of all time.
    """

    id: int
    name: str
    evo_ws_url: str
    is_active: bool
    webhook_url: str
    created_at: datetime
    updated_at: datetime
    state: str | None
    state_reason: int | None
    state_changed_at: datetime | None
    last_message_at: datetime | None
    totals: Totals


class ConnectionCreated(msgspec.Struct, frozen=True):
    """The new connection's id, the address to enter in Evolution, and the position that queries can wait for."""

    id: int
    webhook_url: str
    position: int


@post("/connections", guards=[admins_only])
async def register_connection(
    data: NewConnection, services: Services, principal: Principal, request: Request[Any, Any, Any], key: Key | None
) -> Response[ConnectionCreated]:
    """Let an Evolution instance send messages. Give it `webhook_url`, and the token as `X-EvoSense-Token` header,
    as bearer token or as `jwt_key`."""
    identifier = connection_id(principal.tenant_id, data.name)
    command = await asyncio.to_thread(registration, services.write.vault, principal, data)
    done = await handle(services, connection(identifier), command, key, new=True)
    url = webhook_url(services, request, identifier)
    return accepted(done, ConnectionCreated(done.positions[0], url, done.position))


@get("/connections")
async def list_connections(
    services: Services,
    principal: Principal,
    request: Request[Any, Any, Any],
    limit: PageSize = 50,
    after: int = 0,
    wait_for: WaitFor = None,
) -> Page[ConnectionRow]:
    """The connections of your tenant, oldest first."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [row async for row in _CONNECTIONS.connections(conn, after=after, page=limit + 1)]
        shown = await _with_activity(conn, services, request, rows)
    return cursor_page(rows, shown, limit)


@get("/connections/{identifier:int}")
async def get_connection(
    identifier: int,
    services: Services,
    principal: Principal,
    request: Request[Any, Any, Any],
    wait_for: WaitFor = None,
) -> ConnectionRow:
    """One connection of your tenant."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _CONNECTIONS.connection(conn, id=identifier)
        if row is None:
            raise ProblemError(404, f"there is no connection {identifier}")
        return (await _with_activity(conn, services, request, [row]))[0]


@put("/connections/{identifier:int}/token", guards=[admins_only])
async def rotate_token(
    identifier: int, data: TokenRequest, services: Services, principal: Principal, key: Key | None
) -> Response[Accepted]:
    """Set another token; the old one stops working at once."""
    stream_id = await stream(services, identifier, principal)
    sealed = await asyncio.to_thread(services.write.vault.seal_text, principal.tenant_id, data.evo_token, TOKEN_PURPOSE)
    return await answer(services, connection(stream_id), RotateToken(at=now(), sealed_token=sealed), key)


@post("/connections/{identifier:int}/activate", guards=[admins_only], status_code=200)
async def activate_connection(
    identifier: int, services: Services, principal: Principal, key: Key | None
) -> Response[Accepted]:
    """Accept messages again."""
    stream_id = await stream(services, identifier, principal)
    return await answer(services, connection(stream_id), ActivateConnection(at=now()), key)


@post("/connections/{identifier:int}/deactivate", guards=[admins_only], status_code=200)
async def deactivate_connection(
    identifier: int, services: Services, principal: Principal, key: Key | None
) -> Response[Accepted]:
    """Refuse messages from now on. Evolution does not send again what was refused."""
    stream_id = await stream(services, identifier, principal)
    return await answer(services, connection(stream_id), DeactivateConnection(at=now()), key)


def registration(vault: Vault, principal: Principal, data: NewConnection) -> RegisterConnection:
    """The command, with the token sealed and the hash under which the company itself will write."""
    identifier = connection_id(principal.tenant_id, data.name)
    return RegisterConnection(
        at=now(),
        tenant_id=principal.tenant_id,
        name=data.name,
        evo_ws_url=data.evo_ws_url,
        sealed_token=vault.seal_text(principal.tenant_id, data.evo_token, TOKEN_PURPOSE),
        company_sender=vault.key(principal.tenant_id).pseudonym(f"company:{identifier}"),
    )


def webhook_url(services: Services, request: Request[Any, Any, Any], identifier: object) -> str:
    """The address that Evolution posts to."""
    base = services.settings.public_url or str(request.base_url)
    return f"{base.rstrip('/')}{PATH}/{identifier}"


async def stream(services: Services, identifier: int, principal: Principal) -> UUID:
    """The stream of the tenant's connection with that id. Raises `ProblemError` 404."""
    return await stream_of(services, identifier, ConnectionRegistered.type_name, principal, "connection")


async def _with_activity(
    conn: AsyncConnection[Any], services: Services, request: Request[Any, Any, Any], rows: list[dict[str, Any]]
) -> list[ConnectionRow]:
    ids = [connection_id(row["tenant_id"], row["name"]) for row in rows]
    counted: defaultdict[UUID, list[dict[str, Any]]] = defaultdict(list)
    async for count in _ACTIVITY.totals(conn, connection_ids=ids):
        counted[count["connection_id"]].append(count)
    last = {one["connection_id"]: one["message_at"] async for one in _ACTIVITY.last(conn, connection_ids=ids)}
    return [
        msgspec.convert(
            {
                **row,
                "webhook_url": webhook_url(services, request, identifier),
                "last_message_at": last.get(identifier),
                "totals": totals(counted[identifier]),
            },
            ConnectionRow,
        )
        for row, identifier in zip(rows, ids, strict=True)
    ]


HANDLERS: list[Any] = [
    register_connection,
    list_connections,
    get_connection,
    rotate_token,
    activate_connection,
    deactivate_connection,
]
