"""`python -m tests.support.engine_process BATCH [LEASE]`: an engine in a process of its own, for tests that kill it.

It stops at SIGTERM, as the role does.
"""

import signal
import sys
import threading

from adapters.settings import Settings
from api.wiring import ReadSide, read_side
from projections.catalog import all_projections
from projections.engine import Engine
from projections.leases import LEASE_S


def engine_of(side: ReadSide, *, batch: int = 50, lease: float = LEASE_S) -> Engine:
    """A further engine over the same database, with leases of so many seconds."""
    return Engine(side.builder.reader, side.builder._mapper, side.connect, all_projections(), batch=batch, lease=lease)


def main(batch: int, lease: float = LEASE_S) -> None:
    """Project until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    side = read_side(Settings.load())
    engine_of(side, batch=batch, lease=lease).run(stop)
    side.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(float, sys.argv[2:]))
