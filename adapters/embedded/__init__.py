"""PostgreSQL and NATS without an installation: started, adopted and stopped by this process, on loopback only.

The home directory holds everything: `postgres/` and `nats/` with data, password, log and locks, and `runtime/` with
copies of the executables where they cannot be run in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.errors import EmbeddedError
from adapters.embedded.home import HomeChoice, choose_home, existing_home, prepare_home
from adapters.embedded.nats import NatsProgram, NatsServer, start_nats
from adapters.embedded.postgres import PostgresProgram, PostgresServer, start_postgres
from adapters.embedded.supervisor import Held, attachable

__all__ = [
    "EmbeddedError",
    "HomeChoice",
    "NatsServer",
    "PostgresServer",
    "Servers",
    "choose_home",
    "prepare_home",
    "running",
    "start_nats",
    "start_postgres",
]


@dataclass(frozen=True)
class Servers:
    """Both embedded servers of one home."""

    postgres: PostgresServer
    nats: NatsServer


def running(home: Path) -> Servers | None:
    """Attach to the servers of `home` without starting or creating anything; None unless both answer.

    Raises EmbeddedError when they run but are not ours to use.
    """
    home, account = existing_home(home)
    postgres, nats = PostgresProgram(home, account, {}), NatsProgram(home, account)
    database, broker = attachable(postgres), attachable(nats)
    if database is None or broker is None:
        return None
    return Servers(PostgresServer(postgres, Held(database, None, None)), NatsServer(nats, Held(broker, None, None)))
