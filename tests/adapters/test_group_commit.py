"""Group commit: shared transactions, own outcomes, a bounded queue, and nothing accepted that is lost."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import DataError, OperationalError
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from adapters.event_store import Appended, Closed, Conflict, GroupCommit, Overloaded, TenantStoredEvent
from adapters.event_store.recorder import Unit
from adapters.settings import Settings
from api.wiring import WriteSide, write_side
from benchmarks.commit_order import Installation
from tests.support.systems import administrator, at_port, wait_for

Outcomes = list[Appended | Conflict]


class Gate:
    """Stands before the real append: holds it while it is shut, and counts the units of each transaction."""

    def __init__(self, append: Callable[[Sequence[Unit]], Outcomes]) -> None:
        self._append = append
        self._open = threading.Event()
        self._open.set()
        self.calls: list[int] = []

    def __call__(self, units: Sequence[Unit]) -> Outcomes:
        self.calls.append(len(units))
        assert self._open.wait(20), "nobody opened the gate"
        return self._append(units)

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(write: WriteSide) -> Gate:
    return Gate(write.log._recorder.append)


@pytest.fixture
def group(gate: Gate) -> Iterator[GroupCommit]:
    group = GroupCommit(gate, waiting_events=300)
    yield group
    gate.open()
    group.close()


def event(stream: UUID | None = None, version: int = 1, *, topic: str = "test.Happened:1") -> TenantStoredEvent:
    return TenantStoredEvent(stream or uuid4(), version, topic, uuid4().bytes, uuid4())


def occupied(group: GroupCommit, gate: Gate) -> "Future[Outcomes]":
    """The appending thread stands at the shut gate with one unit; whatever is submitted now has to wait."""
    gate.shut()
    before = len(gate.calls)
    future = group.submit([[event()]])
    wait_for(lambda: len(gate.calls) > before, "the append is under way")
    return future


def stored(write: WriteSide, stream: UUID | str) -> tuple[int, ...]:
    """The positions of a stream."""
    with write.datastore.get_connection() as conn:
        rows = conn.execute(
            "SELECT notification_id FROM evosense_log.stored_events WHERE originator_id = %s ORDER BY 1", (stream,)
        ).fetchall()
    return tuple(row["notification_id"] for row in rows)


# ---------------------------------------------------------------------------------------------------- batches


def test_what_waits_shares_one_transaction_and_each_caller_gets_its_own_positions(
    write: WriteSide, group: GroupCommit, gate: Gate
) -> None:
    first = occupied(group, gate)
    streams = [uuid4() for _ in range(100)]

    def call(stream: UUID) -> Outcomes:
        return group.submit([[event(stream, 1), event(stream, 2)]]).result(20)

    with ThreadPoolExecutor(len(streams)) as callers:
        calls = [callers.submit(call, stream) for stream in streams]
        wait_for(lambda: group.waiting == 200, "all are queued")
        assert not any(one.done() for one in (first, *calls))
        gate.open()
        outcomes = [one.result(20) for one in calls]
    assert gate.calls == [1, 100]
    assert isinstance(first.result(0)[0], Appended)
    for stream, outcome in zip(streams, outcomes, strict=True):
        assert outcome == [Appended(stored(write, stream))]
    everything = sorted(position for stream in streams for position in stored(write, stream))
    assert everything == list(range(everything[0], everything[0] + 200))


def test_a_transaction_takes_no_more_than_its_measure_and_a_larger_request_goes_alone(
    write: WriteSide, gate: Gate
) -> None:
    group = GroupCommit(gate, batch_events=10)
    occupied(group, gate)
    futures = [group.submit([[event()] for _ in range(size)]) for size in (4, 4, 4, 25, 1)]
    gate.open()
    for size, future in zip((4, 4, 4, 25, 1), futures, strict=True):
        assert [type(outcome) for outcome in future.result(20)] == [Appended] * size
    assert gate.calls == [1, 8, 4, 25, 1]
    group.close()


def test_who_is_alone_waits_for_nobody(write: WriteSide, group: GroupCommit, gate: Gate) -> None:
    def milliseconds(append: Callable[[], object]) -> float:
        started = time.perf_counter()
        append()
        return (time.perf_counter() - started) * 1000

    direct, grouped = [], []
    for _ in range(60):
        direct.append(milliseconds(lambda: write.log._recorder.append([[event()]])))
        grouped.append(milliseconds(lambda: group.submit([[event()]]).result(20)))
    assert gate.calls == [1] * 60
    # Two hand-overs between threads, and no timer: the smallest delay that would gather anything is a millisecond.
    assert median(grouped) < median(direct) + 1


# ---------------------------------------------------------------------------------------------------- own outcomes


def test_a_conflict_a_duplicate_and_a_bad_event_concern_their_own_command_alone(
    write: WriteSide, group: GroupCommit, gate: Gate
) -> None:
    old, twice = uuid4(), uuid4()
    assert isinstance(group.submit([[event(old)]]).result(20)[0], Appended)
    occupied(group, gate)
    good = [uuid4() for _ in range(3)]
    futures = {
        "good": group.submit([[event(good[0])]]),
        "conflict": group.submit([[event(old)]]),
        "first": group.submit([[event(twice)]]),
        "second": group.submit([[event(twice)]]),
        # PostgreSQL's text can't hold a NUL: the statement as a whole is refused.
        "bad": group.submit([[event(topic="a\0b")], [event(good[1])]]),
        "other": group.submit([[event(good[2])], [event(old, 7)]]),
    }
    gate.open()
    with pytest.raises(DataError):
        futures["bad"].result(20)
    outcomes = {name: future.result(20) for name, future in futures.items() if name != "bad"}
    assert outcomes == {
        "good": [Appended(stored(write, good[0]))],
        "conflict": [Conflict(old, 0, 1)],
        "first": [Appended(stored(write, twice))],
        "second": [Conflict(twice, 0, 1)],
        "other": [Appended(stored(write, good[2])), Conflict(old, 6, 1)],
    }
    assert [len(stored(write, stream)) for stream in (old, twice, *good)] == [1, 1, 1, 0, 1]


def test_a_cancelled_request_is_left_out_until_its_append_has_begun(
    write: WriteSide, group: GroupCommit, gate: Gate
) -> None:
    begun = occupied(group, gate)
    streams = [uuid4() for _ in range(3)]
    futures = [group.submit([[event(stream)]]) for stream in streams]
    assert futures[1].cancel()
    assert not begun.cancel()
    gate.open()
    assert isinstance(begun.result(20)[0], Appended)
    assert [futures[n].result(20) for n in (0, 2)] == [[Appended(stored(write, streams[n]))] for n in (0, 2)]
    assert [len(stored(write, stream)) for stream in streams] == [1, 0, 1]
    # All that waits may have been taken back: the thread goes on.
    occupied(group, gate)
    assert group.submit([[event()]]).cancel()
    gate.open()
    assert isinstance(group.submit([[event()]]).result(20)[0], Appended)
    assert group.waiting == 0


# ---------------------------------------------------------------------------------------------------- bounds and end


def test_a_full_queue_refuses_at_once_and_loses_nothing_that_it_accepted(
    write: WriteSide, group: GroupCommit, gate: Gate
) -> None:
    occupied(group, gate)
    accepted = [(stream, group.submit([[event(stream)]])) for stream in (uuid4() for _ in range(300))]
    refused = uuid4()
    with pytest.raises(Overloaded, match="300 events are waiting"):
        group.submit([[event(refused)]])
    assert group.waiting == 300
    gate.open()
    for stream, future in accepted:
        assert isinstance(future.result(20)[0], Appended)
        assert len(stored(write, stream)) == 1
    assert stored(write, refused) == ()
    # There is room again, and the refused one is welcome.
    assert group.submit([[event(refused)]]).result(20) == [Appended(stored(write, refused))]


def test_an_empty_queue_takes_what_is_larger_than_itself(write: WriteSide, group: GroupCommit, gate: Gate) -> None:
    outcomes = group.submit([[event()] for _ in range(1000)]).result(20)
    assert [type(outcome) for outcome in outcomes] == [Appended] * 1000


def test_closing_appends_what_was_accepted_and_refuses_what_comes_later(write: WriteSide, gate: Gate) -> None:
    group = GroupCommit(gate, batch_events=10)
    occupied(group, gate)
    accepted = [(stream, group.submit([[event(stream)]])) for stream in (uuid4() for _ in range(35))]
    closing = threading.Thread(target=group.close, daemon=True)
    closing.start()
    late = uuid4()
    wait_for(lambda: group.closed, "closing has begun")
    with pytest.raises(Closed, match="shutting down"):
        group.submit([[event(late)]])
    assert closing.is_alive()
    gate.open()
    closing.join(20)
    assert not closing.is_alive()
    for stream, future in accepted:
        # No waiting here: close() returns when all is done.
        assert future.result(0) == [Appended(stored(write, stream))]
    assert stored(write, late) == ()
    group.close()


# ---------------------------------------------------------------------------------------------------- restart


@pytest.fixture
def installation() -> Iterator[Installation]:
    """A PostgreSQL of this test's own, which it may kill."""
    home = Path(tempfile.mkdtemp(prefix="evosense-tests-"))
    home.chmod(0o755)
    place = Installation(home)
    yield place
    place.stop()
    shutil.rmtree(home, ignore_errors=True)


def test_every_caller_has_an_outcome_when_the_database_is_killed_and_no_event_is_lost_or_doubled(
    installation: Installation,
) -> None:
    side = write_side(installation.settings)
    stop = threading.Event()
    appended: dict[UUID, tuple[int, ...]] = {}
    found: set[UUID] = set()
    unanswered = [0]

    def caller(number: int) -> None:
        source = Random(number)  # noqa: S311 - nothing secret comes of it
        while not stop.is_set():
            stream = UUID(bytes=source.randbytes(16), version=4)
            unit = [event(stream, version) for version in range(1, source.randint(2, 4))]
            while True:
                try:
                    outcome = side.group.submit([unit]).result(60)[0]
                except OperationalError:
                    unanswered[0] += 1
                    continue  # as every caller may: the same command once more
                if isinstance(outcome, Appended):
                    appended[stream] = outcome.positions
                else:
                    # An append whose answer was lost: nobody else writes to this stream.
                    assert outcome == Conflict(stream, 0, len(unit))
                    found.add(stream)
                break

    with ThreadPoolExecutor(32) as callers:
        calls = [callers.submit(caller, number) for number in range(32)]
        try:
            wait_for(lambda: len(appended) > 500 or any(call.done() for call in calls), "appends are under way")
            installation.crash()
            reached = len(appended)
            wait_for(lambda: len(appended) > reached + 500 or any(call.done() for call in calls), "appends go on")
        finally:
            stop.set()
        for call in calls:
            call.result(60)
    side.close()
    with administrator(installation.settings) as conn:
        rows = conn.execute(
            "SELECT originator_id, array_agg(notification_id ORDER BY originator_version) "
            "FROM evosense_log.stored_events GROUP BY 1"
        ).fetchall()
    log = {stream: tuple(positions) for stream, positions in rows}
    assert {stream: log[stream] for stream in appended} == appended
    assert log.keys() == appended.keys() | found


# ---------------------------------------------------------------------------------------------------- lost answers


class LosesOneAnswer:
    """Passes bytes on; when armed, it lets the next append through to the server and drops what comes back."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.armed = False
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                dropping = threading.Event()
                threading.Thread(target=self._pass, args=(client, server, dropping, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, dropping, False), daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, dropping: threading.Event, outward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if outward and self.armed and b"INSERT INTO evosense_log.stored_events" in data:
                    self.armed = False
                    dropping.set()
                if not outward and dropping.is_set():
                    self.lost += 1
                    break
                to.sendall(data)
        for end in (source, to):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_an_append_in_one_statement_whose_answer_is_lost_stands_once(write: WriteSide, settings: Settings) -> None:
    port = int(str(conninfo_to_dict(settings.runtime_dsn)["port"]))
    proxy = LosesOneAnswer(port)
    dsn = SecretStr(at_port(settings.runtime_dsn, proxy.port))
    side = write_side(settings.model_copy(update={"database_url": dsn}))
    side.log.head()
    stream = uuid4()
    unit = [event(stream, 1), event(stream, 2)]
    proxy.armed = True
    outcome = side.group.submit([unit]).result(30)
    side.close()
    proxy.close()
    assert proxy.lost == 1
    assert outcome == [Appended(stored(write, stream))]
    assert len(stored(write, stream)) == 2
