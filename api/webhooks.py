"""`POST /webhooks/evolution/{connection}`: where Evolution's messages come in.

The answers are in the sender's terms (EVOLUTION.md): 2xx ends it well, also for a duplicate or what is of no interest;
400, 401, 403 and 404 end it for good, so they are given only where no retry could help; 503 asks for another try.
"""

import asyncio
import hmac
from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Request, Response, post

from adapters.evolution import EnvelopeError, parse
from adapters.tokens import is_evolution_bearer
from api.common import POSITION_HEADER
from api.connections import TOKEN_PURPOSE
from api.door_counts import Visitor, refusals_counted
from api.problems import ProblemError
from api.receiving import MAX_DOCUMENT, Received, record
from api.services import Services, now
from domain.connections import Connection, connection


@post(
    "/webhooks/evolution/{identifier:uuid}",
    public=True,
    status_code=200,
    tags=["webhooks"],
    # Read after the sender has proved itself, so that nobody else can make the process hold so much.
    request_max_body_size=MAX_DOCUMENT,
)
async def evolution_webhook(
    identifier: UUID, services: Services, request: Request[Any, Any, Any]
) -> Response[Received]:
    """Take what an Evolution instance sends.

    Authenticate with the connection's token: header `X-EvoSense-Token` or `apikey`, a bearer token, or Evolution's
    `jwt_key`.
    """
    # As it was when last asked for, so that also what is refused without a look at the log is counted.
    visitor = Visitor("webhook", services.aggregates.known(connection(identifier)))
    with refusals_counted(services.write.activity, visitor), services.door.entered():
        visitor.source = source = await asyncio.to_thread(services.aggregates.load, connection(identifier))
        _authenticate(services, source, request, now())
        body = await request.body()
        outcome = await asyncio.to_thread(receive, services, source, body)
    return Response(outcome, headers={POSITION_HEADER: str(outcome.position)})


@post(
    "/webhooks/evolution/{identifier:uuid}/{event:str}",
    public=True,
    status_code=200,
    include_in_schema=False,
    request_max_body_size=MAX_DOCUMENT,
)
async def evolution_webhook_by_events(
    identifier: UUID, event: str, services: Services, request: Request[Any, Any, Any]
) -> Response[Received]:
    """The same with the event's name behind the address, as Evolution's `webhook by events` has it."""
    return await evolution_webhook.fn(identifier, services, request)  # type: ignore[no-any-return]


def receive(services: Services, source: Connection, body: bytes) -> Received:
    """Parse and record. Raises `ProblemError` 400 where the body is no envelope at all."""
    moment = now()
    try:
        envelope = parse(body, now=moment)
    except EnvelopeError as error:
        raise ProblemError(400, str(error)) from None
    return record(services.write, source, envelope, moment)


def _authenticate(services: Services, source: Connection, request: Request[Any, Any, Any], moment: datetime) -> None:
    """Let in whoever knows the connection's token. Raises `ProblemError` 401, 403 or 404."""
    if source.tenant_id is None:
        raise ProblemError(404, "there is no such connection: copy the address from GET /api/v1/connections")
    secret = services.write.vault.open_text(source.tenant_id, source.sealed_token, TOKEN_PURPOSE)
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = [request.headers.get("x-evosense-token", ""), request.headers.get("apikey", "")]
    if scheme.lower() == "bearer":
        given.append(bearer.strip())
    if not any(hmac.compare_digest(token.encode(), secret.encode()) for token in given if token) and not (
        scheme.lower() == "bearer" and is_evolution_bearer(bearer.strip(), secret, moment)
    ):
        raise ProblemError(
            401,
            "the connection's token is missing or wrong: send it as the header X-EvoSense-Token, or set it as jwt_key",
        )
    if not source.is_active:
        raise ProblemError(403, "the connection is deactivated")


HANDLERS: list[Any] = [evolution_webhook, evolution_webhook_by_events]
