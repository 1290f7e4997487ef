"""`POST /webhooks/evolution/{connection}`: where Evolution's messages come in.

The answers are in the sender's terms (EVOLUTION.md): 2xx ends it well, also for a duplicate or what is of no interest;
400, 401, 403 and 404 end it for good, so they are given only where no retry could help; 503 asks for another try.
"""

import asyncio
import hmac
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, post

from adapters.evolution import EnvelopeError, parse
from adapters.telemetry import RECEIVED, REFUSED, count_ignored
from adapters.tokens import is_evolution_bearer
from api.commands import Done, Intent, Step
from api.common import POSITION_HEADER
from api.connections import TOKEN_PURPOSE
from api.problems import ProblemError
from api.receiving import MAX_DOCUMENT, Origin, reception
from api.services import Services, now
from domain.connections import Connection, connection

_log = structlog.stdlib.get_logger(__name__)


class Received(msgspec.Struct, frozen=True):
    """What became of the call's messages: newly stored, stored before, of no interest, refused; and the position."""

    received: int
    duplicates: int
    ignored: int
    refused: int
    position: int


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
            tenant_id = _authenticated(services, source, request, now())
            body = await request.body()
            outcome = await asyncio.to_thread(receive, services, source, tenant_id, body)
    except ProblemError as error:
        REFUSED.labels(str(error.status)).inc()
        raise
    return Response(outcome, headers={POSITION_HEADER: str(outcome.position)})


def receive(services: Services, source: Connection, tenant_id: UUID, body: bytes) -> Received:
    """Parse, mask, hash and record. Raises `ProblemError` 400 where the body is no envelope at all."""
    moment = now()
    try:
        envelope = parse(body, now=moment)
    except EnvelopeError as error:
        raise ProblemError(400, str(error)) from None
    key, origin = services.write.vault.key(tenant_id), Origin(source.id, tenant_id, source.company_sender)
    receptions = [reception(origin, key, inbound, moment) for inbound in envelope.messages]
    intents = [Intent((Step(empty, (command,)),), new=True) for empty, command in receptions]
    outcomes = services.write.commands.handle_many(intents) if intents else []
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    duplicates = sum(outcome.duplicate for outcome in done)
    result = Received(
        received=len(done) - duplicates,
        duplicates=duplicates,
        ignored=len(envelope.ignored),
        refused=len(outcomes) - len(done),
        position=max((outcome.position for outcome in done), default=0),
    )
    for ignored in envelope.ignored:
        count_ignored(ignored.kind, ignored.reason)
        if ignored.reason == "unknown":
            _log.info("an unknown kind arrived", kind=ignored.kind, connection=str(source.id))
    for outcome, number in (("received", result.received), ("duplicate", duplicates), ("refused", result.refused)):
        RECEIVED.labels(outcome).inc(number)
    return result


def _authenticated(services: Services, source: Connection, request: Request[Any, Any, Any], moment: datetime) -> UUID:
    """The tenant whose connection it is. Raises `ProblemError` 401, 403 or 404."""
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
    return source.tenant_id


HANDLERS: list[Any] = [evolution_webhook]
