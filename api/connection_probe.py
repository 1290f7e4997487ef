"""`POST /connections/{id}/test`: is the Evolution server there, is the token right, and is the instance online?"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from litestar import Request, post

from adapters.evolution_api import EvolutionClient, EvolutionError, EvolutionRefused
from adapters.vault import Vault
from api.connections import TOKEN_PURPOSE, stream, webhook_url
from api.global_webhook import PATH as GLOBAL_PATH
from api.security import Principal, admins_only
from api.services import Services
from domain.connections import Connection, connection
from domain.errors import NotFound

#: Events without which something is missed, in the spelling of subscriptions.
NEEDED: Final = ("MESSAGES_UPSERT", "SEND_MESSAGE", "MESSAGES_EDITED", "MESSAGES_DELETE", "CONNECTION_UPDATE")

Webhook = Literal["ok", "none", "disabled", "another address", "events missing", "unknown"]

_STATES: Final = {
    "close": "the instance is not connected to WhatsApp: scan the QR code in Evolution's manager",
    "connecting": "the instance is connecting: if that lasts, scan the QR code in Evolution's manager",
}


class ConnectionTest(msgspec.Struct, frozen=True, kw_only=True):
    """How far we came. What was not reached is null.

    `ok`: the server was reached, accepts the token, and the instance is online. Else `problem` names what is wrong and
    `detail` says what to do. `webhook`: how the instance's own webhook is set up, which is no problem where its
    messages come another way; `events_missing` are the needed events that it does not send.
    """

    ok: bool
    reached: bool
    version: str | None
    token_ok: bool | None
    instance_found: bool | None
    state: str | None
    latency_ms: int | None
    webhook: Webhook
    events_missing: list[str]
    problem: str | None
    detail: str | None


@post("/connections/{identifier:int}/test", guards=[admins_only], status_code=200)
async def probe_connection(
    identifier: int, services: Services, principal: Principal, request: Request[Any, Any, Any]
) -> ConnectionTest:
    """Ask the connection's Evolution server how it is. Changes nothing, on either side."""
    stream_id: UUID = await stream(services, identifier, principal)
    source = await asyncio.to_thread(services.aggregates.load, connection(stream_id))
    hook = webhook_url(services, request, stream_id)
    return await probed(source, await asyncio.to_thread(token_of, services.write.vault, source), hook)


def token_of(vault: Vault, source: Connection) -> str:
    """The connection's token, opened; blocks on the database. Raises `NotFound` where there is no such connection."""
    if source.tenant_id is None:
        raise NotFound("there is no such connection")
    return vault.open_text(source.tenant_id, source.sealed_token, TOKEN_PURPOSE)


async def probed(source: Connection, token: str, hook: str) -> ConnectionTest:
    """Test a connection whose webhook should be at `hook`."""
    found: dict[str, Any] = {
        "reached": False,
        "version": None,
        "token_ok": None,
        "instance_found": None,
        "state": None,
        "latency_ms": None,
        "webhook": "unknown",
        "events_missing": [],
        "problem": None,
        "detail": None,
    }
    async with EvolutionClient(source.evo_ws_url, source.name, token) as client:
        try:
            begun = time.monotonic()
            found["version"] = await client.version()
            found |= {"reached": True, "latency_ms": round((time.monotonic() - begun) * 1000)}
            found |= {"state": await client.state(), "token_ok": True, "instance_found": True}
        except EvolutionError as error:
            found |= {"problem": error.problem, "detail": str(error)}
            if isinstance(error, EvolutionRefused) or error.problem == "busy":
                found["reached"] = True
            if error.problem == "token":
                found["token_ok"] = False
            elif error.problem == "instance":
                found["instance_found"] = False
            return ConnectionTest(ok=False, **found)
        with suppress(EvolutionError):  # a webhook that can't be read is no problem
            found["webhook"], found["events_missing"] = _webhook(await client.webhook(), hook)
    if found["state"] in _STATES:
        found |= {"problem": "not online", "detail": _STATES[found["state"]]}
    return ConnectionTest(ok=found["problem"] is None, **found)


def _webhook(told: Mapping[str, Any] | None, hook: str) -> tuple[Webhook, list[str]]:
    """How the instance's webhook is set up, judged by path alone: a server next door may know us by another name."""
    if told is None:
        return "none", []
    inner = told.get("webhook")  # some versions wrap it
    told = inner if isinstance(inner, Mapping) else told
    if told.get("enabled") is not True:
        return "disabled", []
    if _path(told.get("url")) not in (_path(hook), GLOBAL_PATH):
        return "another address", []
    events = told.get("events")
    # An empty list stands for all of them.
    missing = [event for event in NEEDED if event not in events] if isinstance(events, list) and events else []
    return ("events missing" if missing else "ok"), missing


def _path(address: object) -> str | None:
    try:
        return urlsplit(address).path.rstrip("/") if isinstance(address, str) else None
    except ValueError:
        return None


HANDLERS: list[Any] = [probe_connection]
