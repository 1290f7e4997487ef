"""Processes that load a rebuild together: one interpreter can only keep one core busy.

They are forked before the command has opened a connection or started a thread, and wait for work. Each works on one
tenant shard at a time, and tells how far it is; one that finds its parent gone ends.
"""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

from eventsourcing.persistence import PersistenceError
from psycopg import Error

from adapters.settings import Settings
from adapters.vault import VaultError
from api.memory import collect_less
from api.wiring import ReadSide, read_side
from projections.builds import Build, BuildError
from projections.faults import PoisonEvent, ProjectionConflict

#: More processes than this hinder one another at the database.
MOST: Final = 4
#: Shards for each process: tenants differ in size, and who is done first takes another.
_SHARDS_EACH: Final = 2
#: Below so many events a single process is as fast.
_WORTH_FROM: Final = 100_000


class _Job(NamedTuple):
    settings: Settings
    build: Build
    shard: int
    target: int


class _Told(NamedTuple):
    """What a process tells: how far it is, that it is done, or why it can't go on."""

    shard: int
    events: int
    position: int
    done: bool = False
    failure: str | None = None


class ProcessCrew:
    """See `projections.rebuild.Crew`. A context manager; to be entered before anything else is opened."""

    def __init__(self, size: int, *, worth_from: int = _WORTH_FROM) -> None:
        self.size = size
        self.worth_from = worth_from
        self._settings: Settings | None = None
        self._workers: dict[Any, BaseProcess] = {}

    @property
    def shards(self) -> int:
        """See `Crew`."""
        return self.size * _SHARDS_EACH

    def __enter__(self) -> "ProcessCrew":
        context = multiprocessing.get_context("fork")
        for number in range(self.size):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, ours), name=f"loader {number}", daemon=True)
            worker.start()
            theirs.close()
            self._workers[ours] = worker
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, worker in self._workers.items():
            pipe.close()
            worker.terminate()
            worker.join()
        self._workers.clear()

    def enlist(self, settings: Settings) -> None:
        """Say which database they work with."""
        self._settings = settings

    def load(self, build: Build, target: int, on_progress: Callable[[int, int], None]) -> int:
        """See `Crew`."""
        if self._settings is None or build.positions is None:
            raise ValueError("enlist the crew and divide the build first")
        # Those that are furthest behind first: they have most to do.
        waiting = sorted(
            range(len(build.positions)), key=lambda shard: build.positions[shard] if build.positions else 0
        )
        events, at = [0] * len(waiting), list(build.positions)
        busy: set[Any] = set()
        for pipe in self._workers:
            if waiting:
                pipe.send(_Job(self._settings, build, waiting.pop(0), target))
                busy.add(pipe)
        while busy:
            ready: list[Any] = wait(busy)
            for pipe in ready:
                told = _hear(pipe)
                if told.failure is not None:
                    raise BuildError(told.failure)
                events[told.shard], at[told.shard] = told.events, told.position
                on_progress(sum(events), sum(at) // len(at))
                if told.done and waiting:
                    pipe.send(_Job(self._settings, build, waiting.pop(0), target))
                elif told.done:
                    busy.discard(pipe)
        return sum(events)


def crew_size(wanted: int | None) -> int:
    """How many processes: as many as wanted, or as there are cores, `MOST` at most."""
    return wanted or min(MOST, len(os.sched_getaffinity(0)))


def _hear(pipe: Any) -> _Told:
    try:
        told: _Told = pipe.recv()
    except EOFError:
        raise BuildError(
            "a process that was loading has ended: run the command again, it goes on where it was"
        ) from None
    return told


def _work(pipe: Any, others_end: Any) -> None:
    """The life of a process of the crew."""
    others_end.close()
    parent = os.getppid()
    collect_less()
    side: ReadSide | None = None
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            job: _Job = pipe.recv()

            def tell(events: int, position: int, job: _Job = job, **more: Any) -> None:
                if os.getppid() != parent:
                    raise BrokenPipeError
                pipe.send(_Told(job.shard, events, position, **more))

            try:
                side = side or read_side(job.settings)
                with side.connect() as conn:
                    events = side.builder.load_shard(conn, job.build, job.shard, job.target, tell)
                tell(events, job.target, done=True)
            except (PoisonEvent, ProjectionConflict, BuildError, VaultError) as error:
                tell(0, 0, failure=str(error))
            except (Error, PersistenceError) as error:
                tell(0, 0, failure=f"the database can't be worked with ({type(error).__name__}): run the command again")
