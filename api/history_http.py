"""Histories over HTTP: everything the log has on a message, a connection or a user, for the admins of its tenant."""

import asyncio
from typing import Annotated, Any

from litestar import get
from litestar.params import Parameter

from adapters.event_store import StructMapper
from api.common import stream_of
from api.history import BIRTHS, PAGE, HistoryEntry, HistoryReader, leave_trace
from api.security import Principal, admins_only
from api.services import Services

After = Annotated[
    int,
    Parameter(
        ge=0,
        le=2**63 - 1,
        required=False,
        description="a version: the events behind it are given, from the first where it is 0",
    ),
]
Limit = Annotated[int, Parameter(ge=1, le=PAGE, required=False, description="events at most")]


@get("/messages/{identifier:int}/history", guards=[admins_only])
async def message_history(
    identifier: int, services: Services, principal: Principal, after: After = 0, limit: Limit = PAGE
) -> list[HistoryEntry]:
    """Everything the log has on a message, in order, opened. A vector is given by its length and its model."""
    return await _history(services, principal, "message", identifier, after, limit)


@get("/connections/{identifier:int}/history", guards=[admins_only])
async def connection_history(
    identifier: int, services: Services, principal: Principal, after: After = 0, limit: Limit = PAGE
) -> list[HistoryEntry]:
    """Everything the log has on a connection, in order, but its tokens."""
    return await _history(services, principal, "connection", identifier, after, limit)


@get("/users/{identifier:int}/history", guards=[admins_only])
async def user_history(
    identifier: int, services: Services, principal: Principal, after: After = 0, limit: Limit = PAGE
) -> list[HistoryEntry]:
    """Everything the log has on a user, in order, but anything of its passwords."""
    return await _history(services, principal, "user", identifier, after, limit)


async def _history(
    services: Services, principal: Principal, what: str, identifier: int, after: int, limit: int
) -> list[HistoryEntry]:
    stream_id = await stream_of(services, identifier, BIRTHS[what].type_name, principal, what)
    # By id: a user's name may be its e-mail address.
    leave_trace(f"user {principal.user_id}", what, stream_id, principal.tenant_id)
    reader = HistoryReader(services.write.datastore, StructMapper(services.write.vault))
    return await asyncio.to_thread(reader.page, stream_id, after=after, limit=limit)


HANDLERS: list[Any] = [message_history, connection_history, user_history]
