"""A system in real processes, some of which are killed: by seed, at a phase that is waited for or at any moment.

`run(ground, seed)` copies a database with a history, lets a projector, a rebuild and an appender work on it, kills one
of them or the server, starts again whatever has died, kills some more by chance, and in the end compares every row of
every table with what the log says (tests/support/model.py).
"""

import copy
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any, Final

import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError
from psycopg.abc import Query
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr

from adapters.embedded import PostgresServer, start_postgres
from adapters.event_store import LogRecorder, PostgresKeyStore, RoleDatastore, StructMapper
from adapters.master_keys import master_keys
from adapters.migrations import migrate
from adapters.settings import Settings
from adapters.vault import MasterKey, Vault
from api.wiring import ReadSide, read_side, write_side
from domain.event import Event
from projections.audit import Auditor
from projections.build import Builder
from projections.catalog import all_projections
from projections.engine import Engine
from projections.rebuild import AlreadyRunning, rebuild
from projections.sharding import lay_out
from sql import queries
from tests.support.chaos import Interrupting
from tests.support.model import differences, fold, stored
from tests.support.systems import administrator, parked
from tests.support.world import World, record, repeatable

#: What is killed, and at which phase of the rebuild; the seed chooses one, and what else is killed afterwards.
SCENES: Final = (
    ("projector", "loading"),
    ("rebuild", "loading"),
    ("rebuild", "finishing"),
    ("rebuild", "committing"),
    ("server", "committing"),
    ("backend", "loading"),
    ("rebuild", "swapping"),
    ("server", "swapping"),
    ("rebuild", "settling"),
    ("server", "finishing"),
    ("backend", "swapping"),
    ("server", "loading"),
    ("projector", "swapping"),
    ("backend", "finishing"),
    ("server", "settling"),
)
#: So long after a phase has begun is killed at most, in seconds: about as long as it lasts.
_LATER_S: Final = {"loading": 0.3, "finishing": 0.5, "swapping": 0.15, "committing": 0.02, "settling": 0.05}
_NAMES: Final = [projection.name for projection in all_projections()]
_RUNTIME: Final = ("evosense_kills", "evosense-kills")
_LOST: Final = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)
_HISTORY: Final = 900
_ENGINE: Final = queries("engine")
#: Short, so that whoever follows a killed one need not wait long, in seconds.
_LEASE_S: Final = 0.5
#: For everything that is waited for, in seconds.
_PATIENCE_S: Final = 60.0
# A fork of a process that has loaded everything: a Python of its own would take a second each time.
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.killing"])


@dataclass
class Report:
    """What happened with a seed; `wrong` has a line for each fault, and is empty where all is right."""

    seed: int
    scene: tuple[str, str]
    shards: int = 0
    rebuilt: tuple[str, ...] = ()
    aimed: bool = False
    kills: list[str] = field(default_factory=list)
    events: int = 0
    appended: int = 0  # of them, beside the kills
    resumed: bool = False
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Ground:
    """A PostgreSQL that may be killed, with a database to copy: migrated, with a history and nothing projected."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.server: PostgresServer = start_postgres(home)
        self._key = SecretStr(MasterKey.generate_text())
        self._world = World(3)
        self._world.prompts = True
        name = "history"
        self.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        migrate(self.server.dsn_for(name), runtime_dsn=self.server.dsn_for(name, *_RUNTIME))
        side = write_side(self._settings(name))
        record(side, [*self._world.births(), *self._world.happen(_HISTORY)])
        side.close()

    @contextmanager
    def system(self, name: str) -> Iterator[tuple[Settings, World]]:
        """A copy of that database, and of the world that made its history."""
        self.execute(SQL("CREATE DATABASE {} TEMPLATE history").format(Identifier(name)))
        try:
            # What belongs to the database and not to what is in it is not copied.
            self.execute(SQL("ALTER DATABASE {} SET search_path = evosense, public").format(Identifier(name)))
            self.execute(SQL("GRANT CREATE ON DATABASE {} TO evosense_owner").format(Identifier(name)))
            yield self._settings(name), copy.deepcopy(self._world)
        finally:
            self.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def crash(self) -> None:
        """Kill the server as a power cut would, and start it again on the same port."""
        port = self.server.port
        os.kill(self.server.pid, signal.SIGKILL)
        self.server = start_postgres(self._home)
        if self.server.port != port:
            raise RuntimeError("the server came back on another port")

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop()

    def execute(self, statement: Query) -> None:
        """A statement in the administrator's own database, once the server answers."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with psycopg.connect(self.server.dsn, autocommit=True) as conn:
                    conn.execute(statement)
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _settings(self, name: str) -> Settings:
        return Settings(
            database_url=SecretStr(self.server.dsn_for(name, *_RUNTIME)),
            admin_database_url=SecretStr(self.server.dsn_for(name)),
            master_key=self._key,
        )


@contextmanager
def ground() -> Iterator[Ground]:
    """A ground in a directory of its own, gone afterwards. To be used in the main thread."""
    home = Path(tempfile.mkdtemp(prefix="evosense-kills-"))
    home.chmod(0o755)
    try:
        place = Ground(home)
        try:
            yield place
        finally:
            place.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(place: Ground, seed: int) -> Report:
    """One seed, from a copied database to the comparison. Raises `TimeoutError` where something hangs."""
    report = Report(seed, SCENES[seed % len(SCENES)])
    began = time.monotonic()
    with place.system(f"kills_{seed}") as (settings, world):
        _Scene(place, settings, world, report).play()
    report.seconds = round(time.monotonic() - began, 2)
    return report


class _Scene:
    def __init__(self, place: Ground, settings: Settings, world: World, report: Report) -> None:
        self._place = place
        self._settings = settings
        self._report = report
        self._random: Random = repeatable(report.seed)
        self._appender = _Appender(settings, world)
        self._actors: dict[str, ForkServerProcess] = {}
        report.shards = self._random.choice([1, 1, 2, 3])
        all_of_them = self._random.random() < 0.7
        report.rebuilt = tuple(_NAMES if all_of_them else self._random.sample(_NAMES, self._random.randint(1, 3)))
        self._batch = self._random.choice([15, 40, 200])

    def play(self) -> None:
        victim, phase = self._report.scene
        side = read_side(self._settings)
        lay_out(side.builder, self._report.shards)
        side.close()
        # Live tables have to hold something before they are swapped out.
        self._finish_projecting()
        self._appender.start()
        try:
            self._start("projector")
            deadline = time.monotonic() + _PATIENCE_S
            while not self._report.aimed:
                _in_time(deadline, f"the rebuild comes to {phase}")
                self._start("rebuild")
                self._report.aimed = self._aim(victim, phase)
            for _ in range(self._random.randint(0, 2)):
                self._start("projector")
                self._start("rebuild")
                time.sleep(self._random.uniform(0, 0.4))
                self._kill(self._random.choice(["projector", "projector", "rebuild", "rebuild", "backend", "server"]))
        finally:
            self._appender.stop()
            for name in list(self._actors):
                self._end(name)
        self._rebuild_at_last()
        self._finish_projecting()
        self._compare()

    # ------------------------------------------------------------------------------------------------ actors

    def _start(self, name: str) -> None:
        """Unless it is there."""
        if name in self._actors and self._actors[name].is_alive():
            return
        self._end(name)
        target: Callable[..., None] = _project if name == "projector" else _rebuild
        arguments = () if name == "projector" else (self._report.rebuilt,)
        process = _CONTEXT.Process(target=target, args=(self._settings, self._batch, *arguments), daemon=True)
        process.start()
        self._actors[name] = process

    def _end(self, name: str) -> None:
        if process := self._actors.pop(name, None):
            process.kill()
            process.join(10)
            process.close()

    # ------------------------------------------------------------------------------------------------ killing

    def _aim(self, victim: str, phase: str) -> bool:
        """Kill at that phase of the rebuild; False where the rebuild was done before."""
        deadline = time.monotonic() + _PATIENCE_S
        with administrator(self._settings) as watching:
            while not self._is_at(watching, phase):
                _in_time(deadline, f"the rebuild comes to {phase}")
                if not self._actors["rebuild"].is_alive():
                    return False
                time.sleep(0.001)
        time.sleep(self._random.uniform(0, _LATER_S[phase]))
        self._kill(victim)
        return True

    @staticmethod
    def _is_at(conn: psycopg.Connection[Any], phase: str) -> bool:
        if phase == "committing":
            query = (
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%build_swap(%' AND state = 'active' "
                "AND datname = current_database() AND pid <> pg_backend_pid()"
            )
            return bool(conn.execute(query).fetchall())
        wanted = {
            "loading": "purpose = 'rebuild' AND state = 'loading' AND position > 0",
            "finishing": "purpose = 'rebuild' AND state = 'finishing'",
            "swapping": "purpose = 'rebuild' AND state = 'ready'",
            "settling": "purpose = 'kept'",
        }[phase]
        return bool(conn.execute(f"SELECT 1 FROM evosense_ops.builds WHERE {wanted}").fetchall())  # noqa: S608 - no input

    def _kill(self, victim: str) -> None:
        self._report.kills.append(victim)
        if victim == "server":
            self._place.crash()
        elif victim == "backend":
            self._kill_backend()
        else:
            self._end(victim)

    def _kill_backend(self) -> None:
        """One backend with -9, a busy one of ours where there is one: the server ends all others and recovers."""
        with suppress(psycopg.OperationalError), administrator(self._settings) as conn:
            row = conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "ORDER BY usename = 'evosense_kills' DESC, state = 'active' DESC, pid LIMIT 1"
            ).fetchone()
            if row is not None:
                os.kill(row[0], signal.SIGKILL)
        self._place.execute("SELECT 1")

    # ------------------------------------------------------------------------------------------------ the end

    def _rebuild_at_last(self) -> None:
        """Finish the rebuild that was begun, or repeat it."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            _in_time(deadline, "the guard of a killed rebuild is let go")
            watcher = Interrupting(None)
            try:
                with _builder(self._settings, self._batch) as builder:
                    rebuild(builder, self._report.rebuilt, watcher, patience=10)
                self._report.resumed = watcher.resumed
                return
            except AlreadyRunning:  # its backend has not noticed yet
                time.sleep(0.05)
            except psycopg.OperationalError:  # the server is coming back
                time.sleep(0.1)

    def _finish_projecting(self) -> None:
        side = read_side(self._settings)
        engine = _engine(side, self._settings, 500)
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while {row["position"] for row in _checkpoints(side)} != {side.builder.head()}:
                _in_time(deadline, "the projections come to the head")
                if not engine.run_once():
                    time.sleep(0.05)
        finally:
            engine.close()
            side.close()

    def _compare(self) -> None:
        wrong = self._report.wrong
        log = _log(self._settings)
        self._report.events = len(log)
        self._report.appended = len(self._appender.told)
        with administrator(self._settings) as admin:
            wrong += differences(stored(admin), fold(log))[:20]
            wrong += [f"parked at {position}: {reason}" for position, reason in parked(admin).items()]
            left = admin.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'evosense_%' "
                "AND nspname NOT IN ('evosense_log', 'evosense_ops')"
            )
            wrong += [f"schema {name} was left behind" for (name,) in left]
            left = admin.execute("SELECT schema_name FROM evosense_ops.builds")
            wrong += [f"build {name} was left behind" for (name,) in left]
        told = self._appender.told - log.keys()
        wrong += [f"the event at position {position} is gone" for position in sorted(told)]
        with _builder(self._settings, 10_000) as builder:
            audit = Auditor(builder, _NAMES).audit(lambda *_: None)
        wrong += [f"audit: {one.table} {one.key} {one.kind}" for one in audit.differences]


class _Appender:
    """Appends what happens in a world; an append whose answer is lost is repeated."""

    def __init__(self, settings: Settings, world: World) -> None:
        self._settings = settings
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failed: list[BaseException] = []
        self.told: set[int] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the append that is under way. Raises what made it end before."""
        self._stop.set()
        self._thread.join(_PATIENCE_S)
        if self._failed:
            raise self._failed[0]
        if self._thread.is_alive():
            raise TimeoutError("the appender hangs")

    def _run(self) -> None:
        try:
            side = None
            while not self._stop.is_set():
                units = self._world.happen(6)
                while True:
                    try:
                        side = side or write_side(self._settings)
                        for outcome in side.log.append(units):
                            # A conflict: stored by an append whose answer was lost.
                            self.told.update(getattr(outcome, "positions", ()))
                        break
                    except _LOST:
                        time.sleep(0.05)
                self._stop.wait(0.02)
            if side is not None:
                side.close()
        except BaseException as error:
            self._failed.append(error)


# ---------------------------------------------------------------------------------------------------- processes


def _project(settings: Settings, batch: int) -> None:
    """A projector, until it is killed."""
    _quiet()
    _engine(read_side(settings), settings, batch).run(threading.Event(), poll=0.1)


def _rebuild(settings: Settings, batch: int, names: tuple[str, ...]) -> None:
    """A rebuild, once the one before it has let go of the guard."""
    _quiet()
    for _ in range(100):
        try:
            with _builder(settings, batch) as builder:
                rebuild(builder, names, Interrupting(None))
            return
        except AlreadyRunning:
            time.sleep(0.05)


def _quiet() -> None:
    """What a killed server tells its clients is no news here."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


@contextmanager
def _builder(settings: Settings, batch: int) -> Iterator[Builder]:
    side = read_side(settings)
    try:
        yield Builder(LogRecorder(side.datastore), _mapper(settings, side.datastore), side.connect, batch=batch)
    finally:
        side.close()


def _engine(side: ReadSide, settings: Settings, batch: int) -> Engine:
    return Engine(
        LogRecorder(side.datastore),
        _mapper(settings, side.datastore),
        side.connect,
        all_projections(),
        batch=batch,
        lease=_LEASE_S,
    )


def _mapper(settings: Settings, datastore: RoleDatastore) -> StructMapper:
    return StructMapper(Vault(master_keys(settings)[0], PostgresKeyStore(datastore)))


def _checkpoints(side: ReadSide) -> list[dict[str, Any]]:
    with side.connect() as conn:
        return list(_ENGINE.checkpoints(conn))


def _log(settings: Settings) -> dict[int, Event]:
    """The whole log, opened."""
    side = read_side(settings)
    try:
        mapper = _mapper(settings, side.datastore)
        notifications, _ = LogRecorder(side.datastore).page(0, 1_000_000)
        return {one.id: mapper.to_domain_event(one) for one in notifications}
    finally:
        side.close()


def _in_time(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"waited in vain: {what}")
