"""Whether the process lives, whether it can work, and what it has counted."""

from contextlib import suppress
from typing import Any, Final

import msgspec
from litestar import Response, get
from litestar.openapi import ResponseSpec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from psycopg import Error as PsycopgError

from adapters.postgres import connect_async
from adapters.telemetry import REGISTRY
from api.services import Services
from api.sweeps import show, sweeps_of
from sql import queries

_ENGINE: Final = queries("engine", "apsycopg")
_LOG: Final = queries("log", "apsycopg")


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


class Ready(msgspec.Struct, frozen=True):
    """Whether requests can be served; where not, `reason` says why. `lag` is in events, `parked` counts events."""

    status: str
    reason: str | None = None
    head: int = 0
    projected: int = 0
    lag: int = 0
    parked: dict[str, int] = {}


@get("/health/live", public=True, tags=["health"])
async def live() -> Live:
    """The process answers; says nothing of the database."""
    return Live()


@get(
    "/health/ready",
    public=True,
    tags=["health"],
    responses={503: ResponseSpec(Ready, description="Requests can't be served.", generate_examples=False)},
)
async def ready(services: Services) -> Response[Ready]:
    """The database answers; also how far the read models are behind the log. (The schema is checked at the start.)"""
    try:
        async with await connect_async(services.settings.runtime_dsn, "evosense_writer") as conn:
            head = int((await _LOG.head(conn))["position"])
            parked = {row["subscriber"]: row["parked"] async for row in _ENGINE.parked_counts(conn)}
            reached = await _ENGINE.projected_position(conn, projections=services.waiter.projections)
            projected = int(reached["position"] or 0)
    except PsycopgError as error:
        return Response(Ready("unavailable", f"the database: {type(error).__name__}"), status_code=503)
    return Response(Ready("ok", None, head, projected, head - projected, parked))


@get("/metrics", public=True, tags=["health"], media_type=CONTENT_TYPE_LATEST, include_in_schema=False)
async def prometheus(services: Services) -> Response[bytes]:
    """What this process has counted, and how the sweep of connections stands, for Prometheus."""
    with suppress(PsycopgError):  # what was counted is told all the same
        async with await connect_async(services.settings.runtime_dsn, "evosense_writer") as conn:
            show(await sweeps_of(conn))
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


HANDLERS: list[Any] = [live, ready, prometheus]
