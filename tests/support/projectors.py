"""A database with both sides and a history, and engines over it: in threads, and in processes of their own."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide, read_side, write_side
from projections.engine import Engine
from projections.sharding import lay_out
from tests.support.engine_process import engine_of
from tests.support.systems import (
    administrator,
    contents,
    drain,
    forget_read_models,
    fresh_system,
    parked,
    positions,
    wait_for,
)
from tests.support.world import World, record

ROOT = Path(__file__).parents[2]


class System:
    """A database of its own with both sides and a growing history."""

    def __init__(self, settings: Settings, admin: psycopg.Connection, *, tenants: int = 3) -> None:
        self.settings = settings
        self.admin = admin
        self.write: WriteSide = write_side(settings)
        self.read: ReadSide = read_side(settings, batch=50)
        self.world = World(9, tenants=tenants)
        self.world.prompts = True
        self.head = 0

    def grow(self, steps: int) -> int:
        """Append a history of so many steps; returns where the log ends."""
        units = self.world.births() if not self.head else []
        return self.append([*units, *self.world.happen(steps)])

    def append(self, units: list[Any]) -> int:
        """Append these units; returns where the log ends."""
        if units:
            self.head = record(self.write, units)
        return self.head

    def project(self, *, batch: int = 200) -> None:
        """Bring everything to the head, then give the leases back."""
        engine = engine_of(self.read, batch=batch)
        drain(engine)
        assert self.at_head()

    def projected_afresh(self) -> dict[str, list[str]]:
        """What an undisturbed engine makes of the log."""
        forget_read_models(self.admin)
        self.project()
        assert not parked(self.admin)
        return contents(self.admin)

    def assert_undisturbed(self) -> None:
        """All is projected, nothing is parked, and the rows are those of an engine that was never disturbed."""
        assert self.at_head()
        assert not parked(self.admin)
        found = contents(self.admin)
        afresh = self.projected_afresh()
        for table, rows in afresh.items():
            assert found[table] == rows, table

    def at_head(self) -> bool:
        """Whether all projections have come to the end."""
        return positions(self.admin) == {self.head}

    def lay_out(self, shards: int) -> int:
        """See `projections.sharding.lay_out`."""
        return lay_out(self.read.builder, shards, folder=self.read.parked.folder, patience=20)

    def one(self, query: str, *parameters: Any) -> Any:
        """The only value of the only row."""
        row = self.admin.execute(query, parameters).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]

    def holders(self) -> list[str]:
        """Whose leases are good, by shard; fails where the rows of a shard are not all one holder's."""
        rows = self.admin.execute(
            "SELECT min(holder), count(DISTINCT coalesce(holder, '')) FROM evosense_ops.projection_checkpoints "
            "WHERE held_until > clock_timestamp() OR held_until IS NULL GROUP BY shard ORDER BY shard"
        ).fetchall()
        assert all(number == 1 for _, number in rows), "a shard is held by two"
        return [holder for holder, _ in rows if holder]

    def close(self) -> None:
        """Let go of the database."""
        self.write.close()
        self.read.close()


@contextmanager
def a_system(postgres: PostgresServer, *, tenants: int = 3) -> Iterator[System]:
    """A system that goes when the block ends."""
    with fresh_system(postgres) as settings, administrator(settings) as admin:
        system = System(settings, admin, tenants=tenants)
        try:
            yield system
        finally:
            system.close()


@contextmanager
def running(*engines: Engine, poll: float = 0.2) -> Iterator[Callable[[Engine], None]]:
    """Engines in threads for as long as the block lasts, each still alive at its end; gives what stops one earlier."""
    stops = {engine.holder: threading.Event() for engine in engines}
    threads = {
        engine.holder: threading.Thread(
            target=engine.run, args=(stops[engine.holder],), kwargs={"poll": poll}, daemon=True
        )
        for engine in engines
    }

    def stop(engine: Engine) -> None:
        stops[engine.holder].set()
        threads[engine.holder].join(10)
        assert not threads[engine.holder].is_alive(), "the engine does not hear that it should stop"

    for thread in threads.values():
        thread.start()
    try:
        yield stop
        assert all(thread.is_alive() or stops[name].is_set() for name, thread in threads.items()), "an engine died"
    finally:
        for engine in engines:
            stop(engine)


class Process:
    """An engine in a process of its own."""

    def __init__(self, system: System, *, batch: int, lease: float | None = None) -> None:
        self._system = system
        arguments = [str(batch), *([str(lease)] if lease else [])]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.support.engine_process", *arguments],
            cwd=ROOT,
            env=system.settings.environment(),
            stderr=subprocess.DEVNULL,
        )

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    @property
    def holds(self) -> bool:
        """Whether it holds the lease of every shard."""
        holders = self._system.holders()
        return bool(holders) and all(f":{self.popen.pid}:" in holder for holder in holders)

    def seen(self) -> bool:
        """Whether it said within the last second that it lives."""
        count = self._system.one(
            "SELECT count(*) FROM evosense_ops.projectors WHERE position(%s IN holder) > 0 "
            "AND seen_at > clock_timestamp() - interval '1 second'",
            f":{self.popen.pid}:",
        )
        return bool(count)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; it must be there to get it."""
        assert self.alive, "it ended by itself"
        self.popen.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.popen.wait(10)

    def freeze(self) -> None:
        """Stop it where it is, and return when the kernel has done so."""
        self.signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.popen.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it is frozen")

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)


@contextmanager
def processes(system: System) -> Iterator[Callable[..., Process]]:
    """What starts engine processes; all are ended with the block."""
    with ExitStack() as stack:

        def start(*, batch: int = 50, lease: float | None = None) -> Process:
            process = Process(system, batch=batch, lease=lease)
            stack.callback(_end, process)
            return process

        yield start


def _end(process: Process) -> None:
    process.popen.kill()
    process.popen.wait(10)
