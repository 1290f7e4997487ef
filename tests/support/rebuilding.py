"""A system whose read models are rebuilt, kept, audited and looked back at, and what a watcher was told."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide, read_side, write_side
from projections.build import Builder
from projections.builds import Build, Missing
from projections.catalog import all_projections
from projections.engine import Engine
from projections.rebuild import RebuildReport, rebuild
from tests.support.systems import administrator, contents, drain, forget_read_models, fresh_system, wait_for
from tests.support.world import World, record

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = [projection.name for projection in all_projections()]


class Watched:
    """A watcher that remembers; `on` is called at every step with its name, and may raise."""

    def __init__(self, on: Callable[[str], None] = lambda _: None) -> None:
        self.builds: list[tuple[Build, bool, int]] = []
        self.positions: list[int] = []
        self.events: list[int] = []
        self.made: list[Missing] = []
        self.waits: list[str] = []
        self._on = on

    def began(self, build: Build, resumed: bool) -> None:
        self.builds.append((build, resumed, build.position))
        self._on("began")

    def loaded(self, events: int, position: int, head: int) -> None:
        assert position <= head
        self.events.append(events)
        self.positions.append(position)
        self._on("loaded")

    def making(self, one: Missing, number: int, of: int) -> None:
        assert number < of
        self.made.append(one)
        self._on(one.kind)

    def waiting(self, what: str) -> None:
        self.waits.append(what)
        self._on("waiting")

    @property
    def resumed_at(self) -> int | None:
        """Where an interrupted build was taken up, or None where a new one was begun."""
        _, resumed, position = self.builds[-1]
        return position if resumed else None


class StoppedHereError(Exception):
    """Raised by a watcher, as if the operator had pressed Ctrl-C at that step."""


def stop_at(step: str, times: int = 1) -> Callable[[str], None]:
    """For `Watched`: stops when that step has come so many times."""
    left = [times]

    def on(now: str) -> None:
        if now == step:
            left[0] -= 1
            if not left[0]:
                raise StoppedHereError(step)

    return on


class System:
    """A database with both sides and a history."""

    def __init__(self, settings: Settings, admin: psycopg.Connection, seed: int = 9) -> None:
        self.settings = settings
        self.admin = admin
        self.write: WriteSide = write_side(settings)
        self.read: ReadSide = read_side(settings, batch=200)
        self.world = World(seed)
        self.world.prompts = True
        self.head = 0

    def grow(self, steps: int, *, project: bool = True) -> int:
        """Append a history of so many steps; returns where it ends."""
        units = self.world.births() if not self.head else []
        self.head = record(self.write, [*units, *self.world.happen(steps)]) or self.head
        if project:
            drain(self.read.engine)
        return self.head

    def builder(self, batch: int = 300) -> Builder:
        """A builder that takes so many events at once."""
        given = self.read.builder
        return Builder(given.reader, given._mapper, given.connect, batch=batch)

    def rebuild(
        self, names: Sequence[str] = (), watcher: Watched | None = None, *, batch: int = 300, **options: Any
    ) -> RebuildReport:
        """Rebuild these projections, all where none is named."""
        return rebuild(self.builder(batch), names or NAMES, watcher or Watched(), **options)

    def contents(self) -> dict[str, list[str]]:
        """Every row of the live tables."""
        return contents(self.admin)

    def projected_afresh(self) -> dict[str, list[str]]:
        """What an undisturbed engine makes of the log; the live tables hold that afterwards."""
        forget_read_models(self.admin)
        drain(self.read.engine)
        return self.contents()

    def builds(self) -> list[Build]:
        """The builds that are recorded."""
        with self.read.connect() as conn:
            return self.read.builder.builds(conn)

    def build_schemas(self) -> set[str]:
        """Schemas besides those of every installation."""
        rows = self.admin.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' "
            "AND nspname NOT IN ('evosense', 'evosense_log', 'evosense_ops', 'public', 'information_schema')"
        )
        return {name for (name,) in rows}

    def one(self, query: str, *values: object) -> Any:
        """The only column of the only row."""
        row = self.admin.execute(query.encode(), values or None).fetchone()
        assert row is not None, query
        return row[0]

    def checkpoints(self) -> list[tuple[Any, ...]]:
        """Where each shard of each projection stands."""
        query = "SELECT projection, shard, position FROM evosense_ops.projection_checkpoints ORDER BY 1, 2"
        return self.admin.execute(query).fetchall()

    def environment(self) -> dict[str, str]:
        """The environment of a process of this system."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVOSENSE_")}
        given = {name: value for name, value in self.settings.environment().items() if name.startswith("EVOSENSE_")}
        return {**clean, **given, "PYTHONPATH": str(ROOT), "COLUMNS": "150", "NO_COLOR": "1"}

    def close(self) -> None:
        self.write.close()
        self.read.close()


@contextmanager
def a_system(postgres: PostgresServer, seed: int = 9) -> Iterator[System]:
    """A system in a database of its own."""
    with fresh_system(postgres) as settings, administrator(settings) as admin:
        system = System(settings, admin, seed)
        try:
            yield system
        finally:
            system.close()


@contextmanager
def projecting_meanwhile(system: System) -> Iterator[Engine]:
    """An engine in a thread, with a connection of its own, that has to be alive to the end."""
    side, stop = read_side(system.settings, batch=40), threading.Event()
    thread = threading.Thread(target=side.engine.run, args=(stop,), kwargs={"poll": 0.05}, daemon=True)
    thread.start()
    try:
        yield side.engine
        assert thread.is_alive(), "the engine died"
    finally:
        stop.set()
        thread.join(10)
        side.close()


@contextmanager
def appending_meanwhile(system: System, *, steps: int = 5, pause: float = 0.01) -> Iterator[None]:
    """Things go on happening in the world; afterwards `system.head` is where they ended."""
    stop, faults = threading.Event(), []

    def append() -> None:
        try:
            while not stop.wait(pause):
                system.grow(steps, project=False)
        except BaseException as error:  # told to the test below
            faults.append(error)

    thread = threading.Thread(target=append, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not faults, faults


def run(system: System, *arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", *arguments],
        env=system.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(process: subprocess.Popen[str], when: Callable[[], bool], what: str) -> None:
    """Kill a process at once when something is so. Fails where it ended before."""

    def now() -> bool:
        if when():
            return True
        assert process.poll() is None, process.communicate()
        return False

    try:
        wait_for(now, what, seconds=30)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def session_gone(system: System) -> Callable[[], bool]:
    """Whether the server has noticed that nobody holds a guard of builds any more."""
    held = (
        "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
        "WHERE l.locktype = 'advisory' AND d.datname = current_database() "
        "AND l.classid = 'evosense_ops.builds'::regclass::oid"
    )
    return lambda: system.one(held) == 0
