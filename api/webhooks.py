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
from adapters.telemetry import REFUSED
from adapters.tokens import is_evolution_bearer
from api.common import POSITION_HEADER
from api.connections import TOKEN_PURPOSE
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
    try:
        with services.door.entered():
            source = await asyncio.to_thread(services.aggregates.load, connection(identifier))
            _authenticate(services, source, request, now())
            body = await request.body()
            outcome = await asyncio.to_thread(receive, services, source, body)
    except ProblemError as error:
        REFUSED.labels(str(error.status)).inc()
        raise
    return Response(outcome, headers={POSITION_HEADER: str(outcome.position)})


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


HANDLERS: list[Any] = [evolution_webhook]
