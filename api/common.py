"""What several contexts' handlers share: pages, positions, and finding the stream behind a row's id."""

import asyncio
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
from litestar import Response
from litestar.params import Parameter

from api.commands import Done, Key
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from domain.aggregate import Aggregate, Command

T = TypeVar("T")

#: Name of the response header with the position that a command reached.
POSITION_HEADER = "EvoSense-Position"

WaitFor = Annotated[
    int | None,
    Parameter(
        ge=0,
        required=False,
        description="a position that a command answered with: the query waits until the read models have reached it",
    ),
]
PageSize = Annotated[int, Parameter(ge=1, le=200, required=False, description="rows a page")]


class Accepted(msgspec.Struct, frozen=True):
    """A command was carried out. Queries that are given `position` as `wait_for` see its outcome."""

    position: int
    #: The thing was so already: nothing was recorded.
    duplicate: bool


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some rows, and the `after` (or `before`) that the next page is asked for with; null on the last page."""

    items: list[T]
    next: str | None


def accepted(done: Done, body: T) -> Response[T]:
    """Answer a command, with the position in a header as well."""
    return Response(body, headers={POSITION_HEADER: str(done.position)})


async def handle(
    services: Services, empty: Aggregate, command: Command, key: Key | None = None, *, new: bool = False
) -> Done:
    """Carry out a command off the event loop."""
    return await asyncio.to_thread(services.write.commands.handle, empty, command, new=new, key=key)


async def answer(services: Services, empty: Aggregate, command: Command, key: Key | None) -> Response[Accepted]:
    """Carry out a command and say how far the log is."""
    done = await handle(services, empty, command, key)
    return accepted(done, Accepted(done.position, done.duplicate))


async def until_reached(services: Services, position: int | None) -> None:
    """Wait until the read models have reached a position. Raises `ProblemError`."""
    if position is not None and position > services.waiter.position:
        await services.waiter.wait(position, services.settings.wait_timeout)


async def stream_of(services: Services, row_id: int, type_name: str, principal: Principal, what: str) -> UUID:
    """The stream whose first event, of that type, gave a row its id.

    Raises `ProblemError` 404 where there is none of this tenant: another tenant's looks like one that does not exist.
    """
    found = await asyncio.to_thread(services.write.log.stream_at, row_id)
    if found is None or found.type_name != type_name or found.tenant_id != principal.tenant_id:
        raise ProblemError(404, f"there is no {what} {row_id}")
    return found.stream_id


def cursor_page(rows: list[Any], items: list[T], limit: int) -> Page[T]:
    """A page of rows that were asked for with one row more than `limit`, in the order of their ids."""
    more = len(rows) > limit
    return Page(items[:limit], str(rows[limit - 1]["id"]) if more else None)
