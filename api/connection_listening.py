"""How a connection is listened to beside its webhook: its link by socket.io, and the sweep."""

import asyncio
from typing import Any, Final

import msgspec
from litestar import get

from api.common import WaitFor, until_reached
from api.links import Link, link_of
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from api.sweeps import ConnectionSweep, sweeps
from domain.connections import connection_id
from sql import queries

_CONNECTIONS: Final = queries("connections", "apsycopg")


class ConnectionListening(msgspec.Struct, frozen=True):
    """`link` is null where the connection was never listened to by socket.io, `sweep` where it was never swept.

    `troubles`: what an operator should know and do, each a sentence; none where all is well.
    """

    link: Link | None
    sweep: ConnectionSweep | None
    troubles: list[str]


@get("/connections/{identifier:int}/listening")
async def connection_listening(
    identifier: int, services: Services, principal: Principal, wait_for: WaitFor = None
) -> ConnectionListening:
    """The link by socket.io with its heartbeat, the sweep with what only it found, and silence beyond the habit."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _CONNECTIONS.connection(conn, id=identifier)
        if row is None:
            raise ProblemError(404, f"there is no connection {identifier}")
        stream_id = connection_id(row["tenant_id"], row["name"])
        link = await link_of(conn, stream_id)
    standings = await asyncio.to_thread(sweeps, services.write, principal.tenant_id)
    sweep = next((one for one in standings if one.connection_id == stream_id), None)
    troubles = sweep.troubles() if sweep else []
    if link is not None and link.state != "linked" and row["is_active"]:
        troubles.append(f"not linked by socket.io: {link.error or link.state}")
    return ConnectionListening(link, sweep, troubles)


HANDLERS: list[Any] = [connection_listening]
