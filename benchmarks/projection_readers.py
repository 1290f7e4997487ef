"""Readers beside a rebuild: how long their slowest query takes, and where the tables are swapped in the meantime.

Each reader is a process of its own with one connection as `evosense_app`, bound to one tenant, and asks again and again
with a short pause between: one row by its id, prepared; the tenant's metrics; a search by meaning; an aggregate over
the tenant's messages.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

_SQL: Final = Path(__file__).parent / "sql"
_KINDS: Final = ("point", "metrics", "search", "aggregate")
_PAUSE_S: Final = 0.003
_WATCH_S: Final = 0.005
#: Seconds around the swap in which a query counts as one that had to do with it.
_AROUND_S: Final = 1.0
_START_S: Final = 60
_SEED: Final = 5

#: Beginning and end of each query, in seconds of the clock that all processes share (`time.monotonic`).
Times = list[tuple[float, float]]


class Slowest(msgspec.Struct):
    """Milliseconds of one kind of query: how many there were, how many failed, and how slow they were."""

    queries: int
    failed: int
    p50: float
    p999: float
    most: float


class Calm(msgspec.Struct):
    """What the readers saw in a time: each kind's figures; `swap_ms`: the slowest query of each kind that overlaps the
    second around the swap; empty where the tables were not swapped."""

    kinds: dict[str, Slowest]
    swap_ms: dict[str, float]
    #: What the server said of queries that failed: nothing, if all is well.
    errors: list[str]


class Answers(msgspec.Struct):
    """What one reader brings home."""

    times: Times
    errors: list[str]


class Readers:
    """Readers at work; `result` is there when `reading` has ended."""

    def __init__(self) -> None:
        self.result = Calm({}, {}, [])


@contextmanager
def reading(dsn: str, runtime_dsn: str, tenant_id: UUID) -> Iterator[Readers]:
    """Have all readers read meanwhile.

    `dsn` is an administrator's: it looks which table bears the name `messages_message`, which no lock keeps it from.
    """
    context = get_context("spawn")
    stop, readers = context.Event(), Readers()
    pipes, processes = [], []
    for kind in _KINDS:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_read, args=(kind, runtime_dsn, tenant_id, stop, theirs))
        process.start()
        theirs.close()  # or the end of a reader would not be the end of its pipe
        processes.append(process)
        pipes.append(ours)
    try:
        for kind, pipe in zip(_KINDS, pipes, strict=True):
            if not pipe.poll(_START_S):
                raise TimeoutError(f"the reader did not start ({kind})")
            pipe.recv()
        swaps: list[float] = []
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(dsn, swaps, ended))
        watcher.start()
        try:
            yield readers
        finally:
            stop.set()
            ended.set()
            watcher.join()
        readers.result = _calm({kind: pipe.recv() for kind, pipe in zip(_KINDS, pipes, strict=True)}, swaps)
    finally:
        stop.set()
        for process in processes:
            process.join(_START_S)
            if process.is_alive():
                process.terminate()


def _read(kind: str, dsn: str, tenant_id: UUID, stop: Event, pipe: Any) -> None:
    random = Random(_SEED)  # noqa: S311 - nothing secret comes of it
    statement = (_SQL / f"reader_{kind}.sql").read_bytes()
    vector = "[" + ",".join(f"{random.gauss(0, 1):.4f}" for _ in range(768)) + "]"
    answers = Answers([], [])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant_id),))
        found = conn.execute((_SQL / "reader_ids.sql").read_bytes(), {"tenant_id": tenant_id}).fetchall()
        pipe.send("ready")
        while not stop.is_set():
            values = {"id": random.choice(found)[0], "tenant_id": tenant_id, "vector": vector}
            started = time.monotonic()
            try:
                conn.execute(statement, values, prepare=True).fetchall()
            except psycopg.Error as error:  # a deadlock, or a plan that no longer fits: to be told, and gone on from
                answers.errors.append(error.diag.message_primary or type(error).__name__)
            answers.times.append((started, time.monotonic()))
            time.sleep(_PAUSE_S)
    pipe.send(answers)


def _watch(dsn: str, swaps: list[float], ended: threading.Event) -> None:
    """Note when another table takes the name."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        before: object = None
        while not ended.wait(_WATCH_S):
            # Not prepared: a plan would hold the number that it found at first.
            now = conn.execute("SELECT 'evosense.messages_message'::regclass::oid", prepare=False).fetchone()
            if before is not None and now != before:
                swaps.append(time.monotonic())
            before = now


def _calm(taken: dict[str, Answers], swaps: list[float]) -> Calm:
    kinds: dict[str, Slowest] = {}
    around: dict[str, float] = {}
    for kind, answers in taken.items():
        times = answers.times
        durations = sorted((end - start) * 1000 for start, end in times)
        number = len(durations)
        rank = [durations[min(number - 1, int(number * share))] for share in (0.5, 0.999)]
        kinds[kind] = Slowest(
            number, len(answers.errors), round(rank[0], 2), round(rank[1], 2), round(durations[-1], 2)
        )
        near = [
            (end - start) * 1000
            for start, end in times
            if any(start < swap + _AROUND_S and end > swap - _AROUND_S for swap in swaps)
        ]
        if near:
            around[kind] = round(max(near), 2)
    return Calm(kinds, around, sorted({error for answers in taken.values() for error in answers.errors}))
