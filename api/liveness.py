"""Whether a role does its work, seen from outside: by what waits for it and by what moves.

The projector and the relay are well while they have reached the log's end, or their position moves; the worker while
somebody asks JetStream for messages, or messages are being answered; the keeper of the vector index while its session
is there; the listener while some process of it says that it lives; the sweep while no connection waits for its turn
for minutes, or some connection is being swept. That tells how a role is as a whole. Of several processes of one role it
can't tell which one stands still.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import nats.errors
import psycopg
from eventsourcing.persistence import PersistenceError
from nats.js.errors import NotFoundError

from adapters import nats as jetstream
from adapters.postgres import connect
from adapters.settings import Settings
from api.known_connections import known_connections
from api.links import LEASE_S
from api.relay import jetstream_state
from api.wiring import write_side
from projections.catalog import all_projections
from sql import queries

#: The roles that serve no HTTP.
SilentRole = Literal["projector", "relay", "worker", "vector", "listener", "sweep"]

#: How long something may stand still in front of its work before it counts as stuck, in seconds. Longer than the
#: pauses of an idle role, shorter than the time limit of a container's health check.
PATIENCE_S: Final = 8.0
_LOOK_S: Final = 0.25

_ENGINE: Final = queries("engine")
_LOG: Final = queries("log")
_VECTOR: Final = queries("vector_index")
_SWEEPING: Final = queries("sweeping")
_LINKS: Final = queries("links")


class NotWorking(Exception):
    """The role does not do its work; the message says how that shows."""


@dataclass(frozen=True)
class Look:
    """What was seen of a role: nothing is left to do (`well`), and where it stands (`at`)."""

    well: bool
    at: object


def check_role(settings: Settings, role: SilentRole, *, patience: float = PATIENCE_S) -> None:
    """Return as soon as the role is seen at work.

    Raises `NotWorking` after `patience` seconds, at once where the role has never begun; `SettingsError` too.
    """
    looks: dict[SilentRole, Callable[[Settings], Look]] = {
        "projector": _projector,
        "relay": _relay,
        "worker": _worker,
        "vector": _vector,
        "sweep": _sweep,
        "listener": _listener,
    }
    look = looks[role]
    deadline = time.monotonic() + patience
    first = now = look(settings)
    while not now.well and now.at == first.at:
        if time.monotonic() > deadline:
            raise NotWorking(f"the {role} stands still: it has been at {now.at} for {patience:g} s")
        time.sleep(_LOOK_S)
        now = look(settings)


def _projector(settings: Settings) -> Look:
    names = [projection.name for projection in all_projections()]
    try:
        with connect(settings.runtime_dsn, "evosense_writer") as conn:
            head = int(_LOG.head(conn)["position"])
            at = _ENGINE.projected_position(conn, projections=names)["position"]
    except psycopg.Error as error:
        raise NotWorking(f"the database does not answer ({type(error).__name__})") from None
    if at is None:
        raise NotWorking("the projector has not begun: there is no checkpoint yet")
    return Look(at >= head, f"position {at}")


def _relay(settings: Settings) -> Look:
    # The head first: what is appended meanwhile is not held against the relay.
    try:
        with connect(settings.runtime_dsn, "evosense_writer") as conn:
            head = int(_LOG.head(conn)["position"])
    except psycopg.Error as error:
        raise NotWorking(f"the database does not answer ({type(error).__name__})") from None
    state = asyncio.run(jetstream_state(settings))
    if "error" in state:
        raise NotWorking(str(state["error"]))
    if state["relayed"] is None:
        raise NotWorking("the relay has not begun: there is no checkpoint for the stream yet")
    return Look(state["relayed"] >= head, f"position {state['relayed']}")


def _worker(settings: Settings) -> Look:
    return asyncio.run(_consumer(settings.nats_dsn))


def _vector(settings: Settings) -> Look:
    try:
        with connect(settings.runtime_dsn, "evosense_writer") as conn:
            present = not _VECTOR.nobody_is_present(conn)
    except psycopg.Error as error:
        raise NotWorking(f"the database does not answer ({type(error).__name__})") from None
    if not present:
        raise NotWorking("no process keeps the vector index: `evosense vector maintain` does not run")
    return Look(well=True, at=None)


def _listener(settings: Settings) -> Look:
    try:
        with connect(settings.runtime_dsn, "evosense_writer") as conn:
            living = list(_LINKS.living_listeners(conn, lease=LEASE_S))
    except psycopg.Error as error:
        raise NotWorking(f"the database does not answer ({type(error).__name__})") from None
    if not living:
        raise NotWorking("the listener has not begun: no process of it has said lately that it lives")
    return Look(well=True, at=None)


def _sweep(settings: Settings) -> Look:
    if not settings.sweep_seconds:
        return Look(well=True, at=None)
    write = write_side(settings)
    try:
        active = [one.id for one in known_connections(write) if one.is_active]
        with write.datastore.get_connection() as conn:
            row = _SWEEPING.overdue(conn, connection_ids=active)
    except (psycopg.Error, PersistenceError) as error:
        raise NotWorking(f"the database does not answer ({type(error).__name__})") from None
    finally:
        write.close()
    # A lease is short and renewed by progress alone: while there is one, those that wait do so for a server.
    well = not row["overdue"] or row["in_hand"] > 0
    return Look(well, f"{row['overdue']:,} overdue, the last begun with {row['last_started_at']}")


async def _consumer(url: str) -> Look:
    try:
        client = await jetstream.connect(url, "evosense healthcheck")
        try:
            info: Any = await client.jetstream().consumer_info(jetstream.STREAM, jetstream.CONSUMER)
        finally:
            await client.close()
    except NotFoundError:
        raise NotWorking("the worker has not begun: JetStream has no consumer of its name yet") from None
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise NotWorking(f"NATS does not answer ({type(error).__name__})") from None
    delivered = info.delivered.consumer_seq if info.delivered else 0
    answered = info.ack_floor.consumer_seq if info.ack_floor else 0
    at = f"{delivered} deliveries, {answered} of them answered, {info.num_ack_pending} in hand"
    return Look(bool(info.num_waiting), at)
