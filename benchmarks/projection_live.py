"""The projector as it runs in production, a process of its own: how fast it catches up, how late it is, its memory."""

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from adapters.settings import Settings
from api.wiring import WriteSide
from benchmarks.projection_baselines import tables
from benchmarks.projection_history import History, append
from domain.messages import MessageReceived
from projections.catalog import all_projections
from sql import queries

_ENGINE: Final = queries("engine")
_SQL: Final = Path(__file__).parent / "sql"
_CHANNEL: Final = "evosense_projected"
#: Seconds without any progress after which a measurement is given up.
_PATIENCE_S: Final = 120
#: How often a command is looked at, in seconds.
_LOOK_S: Final = 0.05
_EARLY: Final = 10_000


class CaughtUp(msgspec.Struct, frozen=True):
    """How a projector went through a log: events a second once it had begun, and its greatest memory in MB, early
    (after some 10,000 events) and at the end."""

    events_per_second: float
    early_mb: float
    late_mb: float


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild took: seconds of the whole command, and the greatest memory of its process in MB."""

    seconds: float
    memory_mb: float


def reset(dsn: str) -> None:
    """Empty the read models, and have the projector begin at the log's beginning. Nothing may project meanwhile."""
    names = SQL(", ").join(Identifier("evosense", table) for table in tables())
    with psycopg.connect(dsn) as conn:
        conn.execute(SQL("TRUNCATE {}").format(names))
        conn.execute((_SQL / "reset_checkpoints.sql").read_bytes())


def checkpoint(dsn: str) -> None:
    """Write out what is dirty, so that no contender pays for the one before."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CHECKPOINT")


def rebuild(settings: Settings) -> Rebuilt:
    """Run `evosense rebuild`. Raises `RuntimeError` where it fails."""
    return _command(settings, "rebuild")


def start_up(settings: Settings) -> float:
    """Seconds that a command takes which does nothing: the interpreter and its imports."""
    return _command(settings, "rebuild", "--help").seconds


@contextmanager
def projector(settings: Settings) -> Iterator[int]:
    """`evosense projector` in a process of its own, whose id this gives; stopped afterwards."""
    argv = [sys.executable, "-m", "api.cli", "projector"]
    process = subprocess.Popen(argv, env={**settings.environment(), "EVOSENSE_LOG_LEVEL": "warning"})
    try:
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"the projector ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait(30)


def catch_up(settings: Settings, last: int) -> CaughtUp:
    """Have a projector go through the whole log, which is there already, up to the position `last`.

    The clock runs from the first batch that is seen to the last: how long the process takes to start is no matter of
    the rate. Raises `TimeoutError`.
    """
    early = 0.0
    with Watch(settings.admin_dsn) as watch, projector(settings) as pid:
        begun = watch.next()
        while (seen := watch.next()).position < last:
            if not early and seen.position >= _EARLY:
                early = _peak(pid)
        late = _peak(pid)
    rate = (seen.position - begun.position) / (seen.at - begun.at)
    return CaughtUp(rate, early or late, late)


def lags(settings: Settings, write: WriteSide, history: History, *, seconds: float, per_second: float) -> list[float]:
    """Milliseconds from each append's commit to the moment at which its rows are seen, under light load.

    So many messages a second arrive one by one, each in an append of its own; what is said of each is appended a second
    later, and counts as well. An append has committed when it returns. A second connection listens to the projector's
    notifications, which are delivered after its commit, and asks at each for the position reached.
    """
    committed: dict[int, float] = {}
    seen: list[Seen] = []
    with Watch(settings.admin_dsn) as watch, projector(settings):
        begun = append(write, [[history.received()]])
        watch.until(begun)
        end = threading.Event()
        watching = threading.Thread(target=lambda: watch.follow(seen, end))
        watching.start()
        try:
            _appear(write, history, committed, seconds=seconds, per_second=per_second)
            deadline = time.monotonic() + _PATIENCE_S
            while not seen or seen[-1].position < max(committed):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the projector did not reach position {max(committed)}")
                end.wait(0.05)
        finally:
            end.set()
            watching.join()
    return _late(committed, seen)


class Seen(msgspec.Struct, frozen=True):
    """A position that the read models had reached, and when (`time.perf_counter`)."""

    at: float
    position: int


class Watch:
    """Hears how far the read models are."""

    def __init__(self, dsn: str) -> None:
        self._conn = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        self._conn.execute(SQL("LISTEN {}").format(Identifier(_CHANNEL)))
        self._names = [projection.name for projection in all_projections()]
        self._position = self._look()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def next(self) -> Seen:
        """The next position that is another one. Raises `TimeoutError`."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if seen := self.heard(1.0):
                return seen
        raise TimeoutError(f"the projector stays at position {self._position}")

    def until(self, position: int) -> None:
        """Return when it is reached. Raises `TimeoutError`."""
        while self._position < position:
            self.next()

    def follow(self, seen: list[Seen], end: threading.Event) -> None:
        """Note all positions until `end` is set."""
        while not end.is_set():
            if one := self.heard(0.1):
                seen.append(one)

    def heard(self, seconds: float) -> Seen | None:
        """The position reached if it changes within so many seconds."""
        for _ in self._conn.notifies(timeout=seconds, stop_after=1):
            pass
        position = self._look()
        if position == self._position:
            return None
        self._position = position
        return Seen(time.perf_counter(), position)

    def _look(self) -> int:
        return int(_ENGINE.projected_position(self._conn, projections=self._names)["position"] or 0)


def _appear(
    write: WriteSide, history: History, committed: dict[int, float], *, seconds: float, per_second: float
) -> None:
    """Append at an even pace: an append that is late does not move those behind it."""
    unsaid: deque[MessageReceived] = deque()
    started = time.perf_counter()
    for number in range(round(seconds * per_second)):
        time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
        unsaid.append(history.received())
        committed[append(write, [[unsaid[-1]]])] = time.perf_counter()
        if len(unsaid) > per_second:
            committed[append(write, [history.said_of(unsaid.popleft())])] = time.perf_counter()


def _late(committed: dict[int, float], seen: list[Seen]) -> list[float]:
    positions, later = sorted(committed), iter(seen)
    one = next(later)
    lags: list[float] = []
    for position in positions:
        while one.position < position:
            one = next(later)
        # Heard of before the append returned: no time at all.
        lags.append(max(0.0, one.at - committed[position]) * 1000)
    return lags


def _command(settings: Settings, *arguments: str) -> Rebuilt:
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", *arguments], env=settings.environment(), stdout=subprocess.DEVNULL
    )
    peak = 0.0
    # Not by wait4: its greatest memory counts what this process had when it forked.
    while process.poll() is None:
        with suppress(OSError, IndexError):
            peak = max(peak, _family(process.pid))
        time.sleep(_LOOK_S)
    took = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"evosense {' '.join(arguments)} ended with {process.returncode}")
    return Rebuilt(took, round(peak, 1))


def _family(pid: int) -> float:
    """The greatest resident memory so far of a process and its children, together, in MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return sum(_peak(int(one)) for one in (str(pid), *children))


def _peak(pid: int) -> float:
    """The greatest resident memory of a process so far, in MB (`VmHWM` is given in kB, proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)
