"""Parked events as an operator works with them, whoever parked them: the projections or the worker."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from nats.js.api import Header

from adapters import nats as jetstream
from adapters.nats import Envelope
from adapters.postgres import connect
from adapters.settings import Settings
from api.parking import SUBSCRIBER as WORKER
from sql import queries

_ENGINE: Final = queries("engine")
_LOG: Final = queries("log")
_ACK_TIMEOUT_S: Final = 10.0


def send_again(settings: Settings, positions: Sequence[int]) -> list[int]:
    """Publish again what the worker has parked, and unpark it: it is then tried anew, as often as any other message.

    Returns the positions that were parked by the worker and are on their way. Raises `nats.errors.Error`, `OSError`,
    `TimeoutError` where NATS can't be reached; nothing is unparked then.
    """
    with connect(settings.runtime_dsn, "evosense_writer") as conn:
        found = [list(_LOG.envelopes_after(conn, position=position - 1, batch=1)) for position in positions]
        rows = [row for rows in found for row in rows if row["notification_id"] in positions]
        since = {
            row["notification_id"]: _ENGINE.parked_since(conn, subscriber=WORKER, position=row["notification_id"])
            for row in rows
        }
        envelopes = [Envelope.of_row(row) for row in rows if since[row["notification_id"]] is not None]
        asyncio.run(_publish(settings.nats_dsn, envelopes))
        for envelope in envelopes:
            # What was sent may have been tried, and parked again, before all was sent.
            at = since[envelope.position]
            _ENGINE.unpark_as_it_was(conn, subscriber=WORKER, position=envelope.position, parked_at=at)
    return [envelope.position for envelope in envelopes]


async def _publish(url: str, envelopes: Sequence[Envelope]) -> None:
    client = await jetstream.connect(url, "evosense parked")
    try:
        js: Any = client.jetstream()
        for envelope in envelopes:
            # An id of its own: under that of the first time, JetStream would take it for a duplicate and drop it.
            await js.publish(
                envelope.subject,
                envelope.encode(),
                timeout=_ACK_TIMEOUT_S,
                stream=jetstream.STREAM,
                headers={Header.MSG_ID: f"again.{uuid4()}"},
            )
    finally:
        await client.close()
