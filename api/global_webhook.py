"""`POST /webhooks/evolution/global`: one address for all instances of an Evolution server (its global webhook).

Such a webhook sends no header, so it proves itself with a token of the installation in the address; the delivery itself
says which instance it is from. Whose that is must be beyond doubt: `chosen` says how it is told.
"""

import asyncio
import hmac
from ipaddress import ip_address
from typing import Any, Final

import structlog
from litestar import Request, Response, post

from adapters.evolution import Envelope, EnvelopeError, parse
from adapters.evolution.sender import Sender, read_sender
from adapters.telemetry import count_ignored
from adapters.vault import Vault
from api.common import POSITION_HEADER
from api.door_counts import Visitor, refusals_counted
from api.instances import host_of, same, secret_of
from api.known_connections import known_connections
from api.problems import ProblemError
from api.receiving import MAX_DOCUMENT, Received, record
from api.services import Services, now
from domain.connections import Connection

_log = structlog.stdlib.get_logger(__name__)

PATH: Final = "/webhooks/evolution/global"
TRANSPORT: Final = "global-webhook"
#: Seconds that a delivery waits for the read models, before its instance is believed to be unknown.
_PATIENCE_S: Final = 2.0


@post(PATH, public=True, missing=True, status_code=200, tags=["webhooks"], request_max_body_size=MAX_DOCUMENT)
async def global_webhook(services: Services, request: Request[Any, Any, Any]) -> Response[Received]:
    """Take what any instance of an Evolution server sends through the server's global webhook.

    Authenticate with the installation's token (`EVOSENSE_WEBHOOK_TOKEN`): `?token=` in the address, header
    `X-EvoSense-Token` or `apikey`, or a bearer token. The instance is the connection of that name; what comes from
    one that nobody has connected is ignored.
    """
    visitor = Visitor(TRANSPORT)
    with refusals_counted(services.write.activity, visitor), services.door.entered():
        _authenticate(services, request)
        outcome = await _receive(services, visitor, await request.body())
    return Response(outcome, headers={POSITION_HEADER: str(outcome.position)})


@post(
    f"{PATH}/{{event:str}}",
    public=True,
    status_code=200,
    include_in_schema=False,
    request_max_body_size=MAX_DOCUMENT,
)
async def global_webhook_by_events(
    event: str, services: Services, request: Request[Any, Any, Any]
) -> Response[Received]:
    """The same with the event's name behind the address, as Evolution's `webhook by events` has it."""
    return await global_webhook.fn(services, request)  # type: ignore[no-any-return]


async def _receive(services: Services, visitor: Visitor, body: bytes) -> Received:
    """Parse and record. Raises `ProblemError` 400, 403 or 409, and 503 where it can't be told yet whose it is."""
    moment = now()
    try:
        envelope = await asyncio.to_thread(parse, body, now=moment)
    except EnvelopeError as error:
        raise ProblemError(400, str(error)) from None
    found = await _candidates(services, envelope.instance.strip())
    if not found:
        return _unknown(envelope)
    sender = await asyncio.to_thread(read_sender, body)
    source = await asyncio.to_thread(chosen, services.write.vault, found, sender)
    if source is None:
        visitor.source, visitor.reason = (found[0], "token") if len(found) == 1 else (None, None)
        _log.warning("a delivery of the global webhook fits no connection beyond doubt", candidates=len(found))
        raise ProblemError(
            409,
            "the delivery's instance has the name of a connection, but neither its apikey nor its server_url says for "
            "certain that it is this one: set the connection's token to the instance's apikey",
            retry_after=60,
        )
    visitor.source = source
    if not source.is_active:
        raise ProblemError(403, "the connection is deactivated")
    return await asyncio.to_thread(record, services.write, source, envelope, moment, TRANSPORT)


async def _candidates(services: Services, name: str) -> list[Connection]:
    """The connections of that name. Raises `ProblemError` 503 where the read models can't be asked about it yet."""
    found = await asyncio.to_thread(known_connections, services.write, name)
    if not found:
        # One that was registered a moment ago may not be there yet, and a 2xx would be the end of its message.
        head = await asyncio.to_thread(services.write.log.head)
        if head > services.waiter.position:
            await services.waiter.wait(head, _PATIENCE_S)
            found = await asyncio.to_thread(known_connections, services.write, name)
    return found


def _unknown(envelope: Envelope) -> Received:
    """Of no interest: nobody has connected the instance. Its name is not logged, as it may be a person's number."""
    count_ignored("delivery", "unknown instance")
    _log.info("an instance that nobody has connected sent something", event_name=envelope.event)
    return Received(0, 0, len(envelope.messages) + len(envelope.ignored), 0, 0)


def chosen(vault: Vault, candidates: list[Connection], sender: Sender) -> Connection | None:
    """Which of the connections (of one name) the delivery is from; None where that can't be told for certain.

    Where the delivery has the instance's apikey, that has to be the token of one of them. Among those that have it, or
    all where the server keeps it back, the address of the server decides, if it is that of exactly one; a server that
    was never told its own address is believed where there is one candidate alone.
    """
    if sender.apikey is not None:
        fitting = [one for one in candidates if same(sender.apikey, secret_of(vault, one))]
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        candidates = fitting
    host = host_of(sender.server_url)
    at_home = [one for one in candidates if host and host_of(one.evo_ws_url) == host]
    if len(at_home) == 1:
        return at_home[0]
    return candidates[0] if len(candidates) == 1 and _says_nothing(host) else None


def _says_nothing(host: str | None) -> bool:
    """Whether a server with this address was never told its own: every server is localhost to itself."""
    if host is None or host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _authenticate(services: Services, request: Request[Any, Any, Any]) -> None:
    """Let in whoever knows the installation's token. Raises `ProblemError` 401, and 404 where there is none."""
    secret = services.settings.webhook_token
    if secret is None:
        raise ProblemError(
            404,
            "the global webhook is off: set EVOSENSE_WEBHOOK_TOKEN, or use the connection's own address "
            "(GET /api/v1/connections has it)",
        )
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    # With `webhook by events`, Evolution puts "/" and the event's name behind everything, the query included.
    given = [request.query_params.get("token", "").partition("/")[0]]
    given += [request.headers.get(name, "") for name in ("x-evosense-token", "apikey")]
    given += [bearer.strip()] if scheme.lower() == "bearer" else []
    expected = secret.get_secret_value().encode()
    if not any(hmac.compare_digest(token.encode("utf-8", "surrogatepass"), expected) for token in given):
        raise ProblemError(401, "the installation's token is missing or wrong: put ?token=… behind the address")


HANDLERS: list[Any] = [global_webhook, global_webhook_by_events]
