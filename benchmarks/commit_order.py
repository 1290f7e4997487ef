"""The order of the log under fire: many writers, roll-backs, stalls, killed connections, restarts, and one reader.

`make soak` runs it with a million events; tests/adapters/test_commit_order.py with fewer. Some writers append through
group commit, from two write sides as two processes would; some insert by hand, and roll back at random; one takes the
turn, stalls with it, and has its connection killed now and then. The server is killed and started again on the way.
Meanwhile a reader asks for what stands behind the last position it has seen, as every projection does. In the end the
log is compared with what the reader saw and with what the writers were told.
"""

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError
from psycopg import Connection
from pydantic import SecretStr

from adapters import postgres
from adapters.embedded import PostgresServer, start_postgres
from adapters.event_store import Appended, TenantStoredEvent
from adapters.migrations import migrate
from adapters.settings import Settings
from adapters.vault import MasterKey
from api.wiring import WriteSide, write_side
from sql import queries

MILLION: Final = 1_000_000
SEED: Final = 7
_LOG: Final = queries("log")
_RUNTIME: Final = ("evosense_soak", "evosense-soak")
_TAIL: Final = (
    "SELECT notification_id, originator_id FROM evosense_log.stored_events "
    "WHERE notification_id > %s ORDER BY notification_id LIMIT 5000"
)
_LOST: Final = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)


@dataclass
class Report:
    """What happened; `wrong` has a line for each fault, and is empty where the order held."""

    appended: int = 0
    seen: int = 0
    rollbacks: int = 0
    stalls: int = 0
    killed: int = 0
    restarts: int = 0
    lost_answers: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One run over a server that may be killed. `restart` does it and returns when the server is back."""

    def __init__(self, settings: Settings, *, events: int, seed: int = SEED) -> None:
        self._settings = settings
        self._events = events
        self._seed = seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []
        self._told: list[tuple[int, int]] = []  # position and stream of every event that a writer was told of
        self._rolled_back: set[int] = set()
        self._seen_positions = array("q")
        self._seen_streams: list[int] = []
        self.report = Report()

    @property
    def seen(self) -> int:
        """How many events the reader has seen so far."""
        return len(self._seen_positions)

    def run(self, *, restarts: int = 0, restart: Callable[[], None] = lambda: None, deadline: float = 600) -> Report:
        """Until so many events are in the log, or `deadline` seconds are over."""
        started = time.monotonic()
        sides = [write_side(self._settings) for _ in range(2)]
        targets = [lambda n=n: self._append(n, sides[n % 2]) for n in range(8)]
        targets += [lambda n=n: self._insert(n) for n in range(8, 11)]
        targets += [lambda: self._stall(11)]
        writers = [threading.Thread(target=self._guarded, args=(target,), daemon=True) for target in targets]
        done = threading.Event()
        reader = threading.Thread(target=self._guarded, args=(lambda: self._tail(done),), daemon=True)
        for thread in (*writers, reader):
            thread.start()
        marks = [self._events * (n + 1) // (restarts + 1) for n in range(restarts)]
        while not self._stop.is_set():
            if marks and self.seen >= marks[0]:
                del marks[0]
                restart()
                self.report.restarts += 1
            if time.monotonic() - started > deadline:
                self.report.wrong += [f"stopped after {deadline:.0f} s"] if marks else []
                self._stop.set()
            self._stop.wait(0.02)
        for thread in writers:
            thread.join(60)
        done.set()
        reader.join(60)
        for side in sides:
            side.close()
        if any(thread.is_alive() for thread in (*writers, reader)):
            self.report.wrong.append("a thread hangs")
        if self._failed:
            raise self._failed[0]
        self.report.seconds = round(time.monotonic() - started, 1)
        self._compare()
        return self.report

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            self._failed.append(error)
            self._stop.set()

    # ------------------------------------------------------------------------------------------------ writers

    def _append(self, number: int, side: WriteSide) -> None:
        """Through group commit; an append whose answer is lost is repeated by its caller."""
        source = Random(f"{self._seed}/{number}")  # noqa: S311 - nothing secret comes of it
        while not self._stop.is_set():
            units = [_unit(source) for _ in range(source.randint(1, 60))]
            while not self._stop.is_set():
                try:
                    outcomes = side.group.submit(units).result()
                except OperationalError:
                    self._count(lost_answers=1)
                    continue
                told = [
                    (position, _short(event.originator_id))
                    for unit, outcome in zip(units, outcomes, strict=True)
                    if isinstance(outcome, Appended)
                    for event, position in zip(unit, outcome.positions, strict=True)
                ]
                # Units that are refused here were stored by an append whose answer was lost.
                self._tell(told, sum(map(len, units)))
                break

    def _insert(self, number: int) -> None:
        """By hand, without asking for a turn, and half of the time rolled back."""
        source = Random(f"{self._seed}/{number}")  # noqa: S311 - nothing secret comes of it
        while not self._stop.is_set():
            try:
                with self._connect() as conn:
                    while not self._stop.is_set():
                        self._transaction(conn, source, lambda: None)
                        # By hand one after the other: group commit is to have most of the turns.
                        time.sleep(source.uniform(0.005, 0.03))
            except _LOST:
                self._count(lost_answers=1)
                time.sleep(0.05)

    def _stall(self, number: int) -> None:
        """Takes the turn and sits on it; one time in three its connection is killed meanwhile."""
        source = Random(f"{self._seed}/{number}")  # noqa: S311 - nothing secret comes of it
        while not self._stop.is_set():
            try:
                with self._connect() as conn:
                    while not self._stop.is_set():
                        kill = source.random() < 1 / 3
                        pid = conn.info.backend_pid
                        self._transaction(conn, source, lambda: self._sit(source, pid if kill else None))  # noqa: B023 - called at once
                        time.sleep(source.uniform(0.2, 0.6))
            except _LOST:
                time.sleep(0.05)

    def _sit(self, source: Random, kill: int | None) -> None:
        self._count(stalls=1)
        time.sleep(source.uniform(0.02, 0.12))
        if kill is not None:
            with psycopg.connect(self._settings.admin_dsn, autocommit=True) as conn:
                conn.execute("SELECT pg_terminate_backend(%s)", (kill,))
            self._count(killed=1)

    def _transaction(self, conn: Connection[Any], source: Random, meanwhile: Callable[[], None]) -> None:
        events = [event for _ in range(source.randint(1, 10)) for event in _unit(source)]
        back = source.random() < 0.5
        streams = {_short(event.originator_id) for event in events}
        with conn.transaction(force_rollback=back):
            if source.random() < 0.5:
                _LOG.lock_for_append(conn)
            if back:
                with self._lock:
                    self._rolled_back |= streams
            rows = _LOG.append(
                conn,
                originator_ids=[event.originator_id for event in events],
                originator_versions=[event.originator_version for event in events],
                topics=[event.topic for event in events],
                states=[event.state for event in events],
                tenant_ids=[event.tenant_id for event in events],
            )
            positions = [row["notification_id"] for row in rows]
            meanwhile()
        if back:
            self._count(rollbacks=1)
        else:
            told = [(at, _short(event.originator_id)) for at, event in zip(positions, events, strict=True)]
            self._tell(told, len(events))

    def _connect(self) -> Connection[Any]:
        return postgres.connect(self._settings.runtime_dsn, "evosense_writer")

    def _tell(self, told: list[tuple[int, int]], appended: int) -> None:
        with self._lock:
            self._told += told
            self.report.appended += appended
            if self.report.appended >= self._events:
                self._stop.set()

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self.report, name, getattr(self.report, name) + number)

    # ------------------------------------------------------------------------------------------------ reader

    def _tail(self, done: threading.Event) -> None:
        while True:
            try:
                with psycopg.connect(self._settings.admin_dsn, autocommit=True) as conn:
                    while True:
                        finished = done.is_set()
                        last = self._seen_positions[-1] if self._seen_positions else 0
                        rows = conn.execute(_TAIL, (last,), binary=True).fetchall()
                        for position, stream in rows:
                            self._seen_positions.append(position)
                            self._seen_streams.append(_short(stream))
                        if finished and not rows:
                            return
            except _LOST:
                time.sleep(0.02)

    def _compare(self) -> None:
        with psycopg.connect(self._settings.admin_dsn, autocommit=True) as conn:
            rows = conn.execute(
                "SELECT notification_id, originator_id FROM evosense_log.stored_events ORDER BY notification_id"
            ).fetchall()
        log = {position: _short(stream) for position, stream in rows}
        seen = dict(zip(self._seen_positions, self._seen_streams, strict=True))
        self.report.seen = self.seen
        pairs = zip(self._seen_positions, self._seen_positions[1:], strict=False)
        faults = {
            "events were missed by the reader": len(log.keys() - seen.keys()),
            "events were seen that are not in the log": sum(log.get(at) != stream for at, stream in seen.items()),
            "events were seen out of order": sum(after <= before for before, after in pairs),
            "events stand not where their writer was told": sum(log.get(at) != stream for at, stream in self._told),
            "events were rolled back and are there": len(self._rolled_back & set(log.values())),
            "events are there twice": len(log) - len(set(log.values())),
        }
        self.report.wrong += [f"{number:,} {fault}" for fault, number in faults.items() if number]


class Installation:
    """A migrated PostgreSQL below `home` that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server: PostgresServer = start_postgres(home)
        admin, runtime = self._server.dsn, self._server.dsn_for("evosense", *_RUNTIME)
        migrate(admin, runtime_dsn=runtime)
        self.settings = Settings(
            database_url=SecretStr(runtime),
            admin_database_url=SecretStr(admin),
            master_key=SecretStr(MasterKey.generate_text()),
        )

    def crash(self) -> None:
        """Kill the server as a power cut would, and start it again on the same port."""
        port = self._server.port
        os.kill(self._server.pid, signal.SIGKILL)
        self._server = start_postgres(self._home)
        if self._server.port != port:
            raise RuntimeError("the server came back on another port")

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=MILLION)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1800, help="stop after that time with what there is")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="evosense-soak-"))
    home.chmod(0o755)
    try:
        place = Installation(home)
        try:
            soak = Soak(place.settings, events=arguments.events)
            report = soak.run(restarts=arguments.restarts, restart=place.crash, deadline=arguments.seconds)
        finally:
            place.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for name, value in asdict(report).items():
        print(f"{name}: {value}")
    if report.wrong:
        raise SystemExit("the order did not hold")


def _unit(source: Random) -> list[TenantStoredEvent]:
    stream, tenant = (UUID(bytes=source.randbytes(16), version=4) for _ in range(2))
    return [TenantStoredEvent(stream, 1, "soak.Happened:1", source.randbytes(60), tenant)]


def _short(stream: UUID | str) -> int:
    """Eight bytes stand for a stream: with a million of them, two agree once in 37 million runs."""
    return int(stream.int & 0xFFFFFFFFFFFFFFFF) if isinstance(stream, UUID) else _short(UUID(stream))


if __name__ == "__main__":
    main()
