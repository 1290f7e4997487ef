"""The sweep against a server behind a real socket, over a real database, with a clock that the test turns."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from adapters import evolution_api
from api import sweeping
from api.known_connections import known_connections
from api.liveness import NotWorking, check_role
from api.sweeping import Sweeper
from api.sweeps import ConnectionSweep, enrol, sweeps
from api.waking import CatchUp, TableWaker
from domain.connections import ActivateConnection, DeactivateConnection, connection, connection_id
from domain.ports import Usage
from tests.support.find_messages_server import TOKEN, FindMessagesServer, row
from tests.support.http import Account, System, utc_now
from tests.support.systems import administrator, wait_for

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


class Place:
    """A connection, its instance at the server, and the time."""

    def __init__(self, system: System, server: FindMessagesServer) -> None:
        self.system = system
        self.server = server
        self.owner: Account = system.new_user(system.new_tenant())
        self.name, self.id, self.hook = self.register()
        #: An hour after it was registered.
        self.start = utc_now() + HOUR
        self.now = self.start
        self._keys = iter(range(10_000))

    def register(self, url: str | None = None) -> tuple[str, UUID, str]:
        """Another connection: its name, its id, and the path of its webhook."""
        name = f"loja-{uuid4().hex[:8]}"
        body = {"name": name, "evo_ws_url": url or self.server.url, "evo_token": TOKEN}
        self.system.send(self.owner, "POST", "/connections", body, expect=201)
        self.system.projected()
        self.server.instances[name] = []
        identifier = connection_id(self.owner.tenant_id, name)
        return name, identifier, f"/webhooks/evolution/{identifier}"

    def clock(self) -> datetime:
        return self.now

    def happens(self, number: int, ago: timedelta, *, name: str | None = None) -> list[dict[str, Any]]:
        """So many messages are sent, the last one so long ago; the server has them."""
        last = int((self.now - ago).timestamp())
        rows = [row(f"K{next(self._keys)}", last - number + n + 1) for n in range(number)]
        self.server.instances[name or self.name] += rows
        return rows

    def delivered(self, rows: list[dict[str, Any]]) -> None:
        """The webhook brings them."""
        self.system.deliver(
            self.hook, {"event": "messages.upsert", "instance": self.name, "data": rows, "sender": self.server.owner}
        )

    def sweeper(self, **changes: Any) -> Sweeper:
        settings = self.system.settings.model_copy(update=changes)
        return Sweeper(self.system.write, settings, clock=self.clock)

    async def sweep(self, *, everything: bool = True) -> ConnectionSweep:
        """Sweep now, as at a start or, with `everything=False`, as when the time has come."""
        if not everything:
            self.change("next_due_at = now()")
        await self.sweeper().once(everything=everything)
        return self.standing()

    def standing(self, identifier: UUID | None = None) -> ConnectionSweep:
        (found,) = [one for one in sweeps(self.system.write) if one.connection_id == (identifier or self.id)]
        return found

    def change(self, assignment: str) -> None:
        with self.system.write.datastore.get_connection() as conn:
            statement = f"UPDATE evosense_ops.connection_sweeps SET {assignment} WHERE connection_id = %s"  # noqa: S608
            conn.execute(statement.encode(), (self.id,))

    def stored(self) -> int:
        self.system.projected()
        return len(self.system.messages_of(self.owner.tenant_id))


@pytest.fixture(scope="module")
def server() -> Iterator[FindMessagesServer]:
    with FindMessagesServer() as server:
        yield server


@pytest.fixture
def place(own_system: System, server: FindMessagesServer) -> Iterator[Place]:
    place = Place(own_system, server)
    yield place
    server.faults.clear()
    server.on_request = lambda _: None
    # The next test's sweeper has its own connection alone to sweep.
    for one in known_connections(own_system.write):
        own_system.write.commands.handle(connection(one.id), DeactivateConnection(at=utc_now()))


async def test_a_gap_is_filled_at_the_start(place: Place) -> None:
    place.happens(250, timedelta(minutes=5))
    after = await place.sweep()
    assert place.stored() == 250
    assert (after.found_catching_up, after.found_only_by_sweep, after.last_error) == (250, 0, None)
    assert after.swept_until == place.now.replace(microsecond=0)
    assert after.rows_seen >= 250


async def test_what_only_the_sweep_found_is_counted_and_nothing_else(place: Place) -> None:
    await place.sweep()
    place.now += timedelta(minutes=5)
    rows = place.happens(20, timedelta(minutes=2))
    place.delivered(rows[:12])
    after = await place.sweep(everything=False)
    assert (after.found_only_by_sweep, after.found_catching_up) == (8, 0)
    assert place.stored() == 20
    # The windows overlap: the same messages are seen again, and counted no more.
    again = await place.sweep(everything=False)
    assert again.rows_seen > after.rows_seen
    assert again.found_only_by_sweep == 8


async def test_what_was_sent_just_now_is_recorded_and_missed_by_nobody(place: Place) -> None:
    await place.sweep()
    place.now += timedelta(minutes=5)
    place.happens(3, timedelta(seconds=70))
    rows = place.happens(4, timedelta(seconds=20))
    after = await place.sweep(everything=False)
    assert place.stored() == 7
    assert after.found_only_by_sweep == 3
    place.delivered(rows)
    assert place.stored() == 7


async def test_what_is_read_again_is_not_counted_again(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    refused = row("BROKEN", int(place.now.timestamp()) - 100)
    refused["key"]["id"] = "x" * 2000
    unknown = row("UNKNOWN", int(place.now.timestamp()) - 100)
    unknown |= {"messageType": "teleportMessage", "message": {"teleportMessage": {}}}
    place.delivered(place.happens(2, timedelta(minutes=2)))
    place.server.instances[place.name] += [refused, unknown]
    place.happens(3, timedelta(minutes=2))
    metrics = place.system.client.get("/metrics").text
    for _ in range(3):
        assert (await place.sweep()).last_error is None
    place.system.write.activity.flush()
    with administrator(place.system.settings) as admin:
        counted = admin.execute(
            "SELECT outcome, kind, count FROM evosense_ops.connection_activity "
            "WHERE connection_id = %s AND transport = 'sweep' AND hour = '-infinity'",
            (place.id,),
        ).fetchall()
    assert counted == [("accepted", "conversation", 3)]
    shown = capfd.readouterr()
    assert "an unknown kind arrived" not in shown.out + shown.err
    after = place.system.client.get("/metrics").text
    for name in ("duplicate", "refused"):
        series = f'evosense_webhook_messages_total{{outcome="{name}"}}'
        assert [line for line in after.splitlines() if series in line] == [
            line for line in metrics.splitlines() if series in line
        ]


async def test_a_long_pause_is_a_gap_of_ours(place: Place) -> None:
    await place.sweep()
    place.now += timedelta(hours=3)
    place.happens(5, timedelta(hours=2))
    after = await place.sweep(everything=False)
    assert (after.found_catching_up, after.found_only_by_sweep) == (5, 0)


async def test_a_message_that_the_phone_brings_late_is_found_by_the_deep_look(place: Place) -> None:
    await place.sweep()
    place.now += timedelta(hours=5)
    await place.sweep(everything=False)
    place.now += timedelta(minutes=5)
    place.happens(2, timedelta(hours=3))
    assert (await place.sweep(everything=False)).found_only_by_sweep == 0
    place.change("deep_at = deep_at - interval '6 hours'")
    assert (await place.sweep(everything=False)).found_only_by_sweep == 2


async def test_what_was_sent_before_it_was_registered_or_while_it_was_inactive_is_not_fetched(place: Place) -> None:
    place.server.instances[place.name] = [row("OLD", int((place.start - 3 * HOUR).timestamp()))]
    await place.sweep()
    assert place.stored() == 0
    place.system.write.commands.handle(connection(place.id), DeactivateConnection(at=utc_now()))
    place.now += 2 * HOUR
    place.happens(3, timedelta(minutes=30))
    await place.sweeper().once()
    place.system.write.commands.handle(connection(place.id), ActivateConnection(at=utc_now()))
    place.now += timedelta(minutes=5)
    place.happens(2, timedelta(minutes=2))
    await place.sweep(everything=False)
    assert place.stored() == 2


async def test_a_gap_that_is_too_long_is_said_and_left_to_backfill(place: Place) -> None:
    await place.sweep()
    place.change("swept_until = swept_until - interval '10 days', not_before = not_before - interval '20 days'")
    until = place.standing().swept_until
    after = await place.sweep()
    assert after.left_out_from == until
    assert after.left_out_until == place.now - timedelta(days=7)
    (trouble,) = after.troubles()
    assert f"evosense backfill --connection {place.id} --since" in trouble
    assert until is not None
    assert f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" in trouble


async def test_who_was_never_swept_begins_some_days_ago_without_complaint(place: Place) -> None:
    await asyncio.to_thread(enrol, place.system.write, known_connections(place.system.write))
    place.change("not_before = not_before - interval '20 days'")
    after = await place.sweep()
    assert after.troubles() == []
    first = min(body["where"]["messageTimestamp"]["gte"] for body in place.server.asked(place.name))
    assert first == f"{place.now - timedelta(days=7):%Y-%m-%dT%H:%M:%S.000Z}"


async def test_woken_it_catches_up_from_where_it_had_come_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.sweep()
    monkeypatch.setattr(sweeping, "_TICK_S", 60.0)
    stop = asyncio.Event()
    sweeper = place.sweeper()
    waker: CatchUp = sweeper
    running = asyncio.create_task(sweeper.run(stop))
    await until(lambda: (place.standing().last_ended_at or utc_now()) > (place.standing().last_started_at or utc_now()))
    asked = len(place.server.asked(place.name))
    place.now += timedelta(minutes=4)
    place.happens(6, timedelta(minutes=2))
    waker.wake(place.id)
    waker.wake(uuid4())  # of no connection: nothing happens
    await until(lambda: place.standing().found_catching_up == 6)
    assert len(place.server.asked(place.name)) > asked
    stop.set()
    await running
    assert place.stored() == 6


async def test_woken_while_it_is_swept_it_is_swept_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_TICK_S", 60.0)
    await place.sweep()
    asked = len(place.server.asked(place.name))
    sweeper = place.sweeper()
    woken: list[int] = []

    def wake(_: dict[str, Any]) -> None:
        if not woken:
            woken.append(1)
            with place.system.write.datastore.get_connection() as conn:
                sweeping._SWEEPING.wake(conn, connection_id=place.id)

    place.server.on_request = wake
    stop = asyncio.Event()
    running = asyncio.create_task(sweeper.run(stop))
    # Once at its start, and once more.
    await until(lambda: len(place.server.asked(place.name)) == asked + 2)
    stop.set()
    await running


async def test_another_process_wakes_through_the_table(place: Place) -> None:
    await place.sweep()
    waker: CatchUp = TableWaker(place.system.write)
    before = place.standing().next_due_at
    assert before > utc_now() + timedelta(minutes=4)
    waker.wake(place.id)
    await until(lambda: place.standing().next_due_at <= utc_now() + timedelta(seconds=5))
    place.happens(3, timedelta(minutes=2))
    await place.sweeper().once(everything=False)
    assert place.standing().found_catching_up == 3


async def test_deactivated_in_the_middle_it_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.now += 5 * HOUR
    sweeper = place.sweeper()

    def deactivate(_: dict[str, Any]) -> None:
        sweeper._sources.clear()  # what the next look would find

    place.server.on_request = deactivate
    await sweeper.once()
    assert len(place.server.asked(place.name)) == 1


async def test_two_sweepers_never_have_the_same_connection(place: Place) -> None:
    others = [place.register() for _ in range(5)]
    names = [place.name, *(name for name, _, _ in others)]
    place.now += timedelta(minutes=1)
    for name in names:
        place.happens(30, timedelta(minutes=3), name=name)
    await asyncio.gather(*(place.sweeper().once() for _ in range(3)))
    # `once` begins with all that are not in another's hand: some are asked for again, and none at the same time.
    assert place.stored() == 30 * len(names)
    assert sum(place.standing(one).found_catching_up for one in [place.id, *(i for _, i, _ in others)]) == 180
    assert all(one.failures == 0 for one in sweeps(place.system.write))


async def test_a_connection_in_anothers_hand_is_left_until_the_lease_is_over(place: Place) -> None:
    await place.sweep()
    place.happens(3, timedelta(minutes=3))
    place.change("claimed_by = 'other', claimed_until = now() + interval '1 hour', next_due_at = now()")
    asked = len(place.server.asked(place.name))
    await place.sweeper().once()
    assert len(place.server.asked(place.name)) == asked
    place.change("claimed_until = now() - interval '1 second'")
    await place.sweeper().once()
    assert place.standing().found_catching_up == 3


async def test_who_was_frozen_changes_nothing_when_it_wakes(place: Place) -> None:
    await place.sweep()
    place.now += timedelta(minutes=5)
    place.happens(3, timedelta(minutes=2))
    before = place.standing()
    place.server.on_request = lambda _: place.change("claimed_by = 'other', claimed_until = now() + interval '1 hour'")
    await place.sweeper().once()
    after = place.standing()
    assert place.stored() == 3  # which harms nobody
    assert (after.swept_until, after.found_catching_up) == (before.swept_until, 0)
    place.change("claimed_by = NULL, claimed_until = NULL")


async def test_broken_off_in_the_middle_it_goes_on_where_it_had_come_to(place: Place) -> None:
    place.now += 5 * HOUR
    hours = [place.happens(10, ago * HOUR + timedelta(minutes=30)) for ago in range(5)]
    server, asked = place.server, asyncio.Event()
    loop = asyncio.get_running_loop()

    def break_off(_: dict[str, Any]) -> None:
        if len(server.asked(place.name)) == 3:
            loop.call_soon_threadsafe(asked.set)
            server.released.wait(5)

    server.on_request = break_off
    stop = asyncio.Event()
    running = asyncio.create_task(place.sweeper().run(stop))
    await asyncio.wait_for(asked.wait(), 10)
    stop.set()
    await running
    server.released.set()
    middle = place.standing()
    assert middle.swept_until is not None
    assert place.start < middle.swept_until < place.now
    server.on_request = lambda _: None
    server.requests.clear()
    after = await place.sweep()
    assert place.stored() == sum(map(len, hours))
    assert after.found_catching_up == 50
    first = min(body["where"]["messageTimestamp"]["gte"] for body in server.asked(place.name))
    # Not from the beginning, but for the deep look, which here reaches back to the registration.
    assert first >= f"{place.start - HOUR - timedelta(minutes=1):%Y-%m-%dT%H:%M}"


async def test_a_server_that_is_away_stops_nobody_else(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    gone = FindMessagesServer()
    gone.start()
    gone.stop()
    _, away, _ = place.register(gone.url)
    _, nowhere, _ = place.register("wss://evolution.example.invalid")
    place.now += timedelta(minutes=1)
    place.happens(4, timedelta(minutes=3))
    await place.sweeper().once()
    assert place.stored() == 4
    assert "nothing listens there" in str(place.standing(away).last_error)
    assert "name is not known" in str(place.standing(nowhere).last_error)
    assert place.standing().last_error is None
    first = place.standing(away)
    assert first.failures == 1
    for failures in range(2, 6):
        await place.sweeper().once()
        assert place.standing(away).failures == failures
    later = place.standing(away)
    assert timedelta(minutes=55) < later.next_due_at - utc_now() <= timedelta(hours=1)
    gone.instances = place.server.instances
    gone.start()
    await place.sweeper().once()
    gone.stop()
    assert (place.standing(away).last_error, place.standing(away).failures) == (None, 0)
    shown = capfd.readouterr()
    assert (shown.out + shown.err).count("nothing listens there") == 1, "said once"
    assert "the sweep works again" in shown.out + shown.err


@pytest.mark.parametrize(
    ("fault", "said"),
    [(401, "does not accept the token"), (500, "answers with 500"), ("bad json", "not as Evolution"), ("cut", "ends")],
)
async def test_faults_are_kept_in_words_and_never_quote(place: Place, fault: Any, said: str) -> None:
    place.server.faults.extend([fault] * 2)
    place.happens(2, timedelta(minutes=5))
    broken = await place.sweep()
    assert said in str(broken.last_error)
    assert "segredo" not in str(broken.last_error)
    assert broken.swept_until is None
    place.server.faults.clear()
    assert (await place.sweep()).found_catching_up == 2


async def test_the_server_says_when_to_come_again(place: Place) -> None:
    place.server.faults.append((429, "1800"))
    after = await place.sweep()
    assert timedelta(minutes=29) < after.next_due_at - utc_now() <= timedelta(minutes=30)


async def test_a_sweep_that_takes_too_long_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "DEADLINE_S", 0.3)
    place.server.faults.append("hang")
    assert "took longer than 0.3 s" in str((await place.sweep()).last_error)
    place.server.released.set()


async def test_of_an_erased_tenant_nothing_stays(place: Place) -> None:
    before = Place(place.system, place.server)
    for one in (before, place):
        one.delivered(one.happens(1, timedelta(minutes=2)))
    await place.sweep()
    place.system.write.activity.flush()
    counted = ("connection_activity", "connection_last", "model_usage", "answer_cache")
    tables = ("connection_sweeps", "connection_links", *counted)
    tenants = (before.owner.tenant_id, place.owner.tenant_id)
    with administrator(place.system.settings) as admin:

        def kept() -> set[tuple[str, UUID]]:
            return {
                (table, tenant_id)
                for table in tables
                for (tenant_id,) in admin.execute(f"SELECT tenant_id FROM evosense_ops.{table}".encode())  # noqa: S608
                if tenant_id in tenants
            }

        for one in (before, place):
            admin.execute(
                "INSERT INTO evosense_ops.connection_links (connection_id, tenant_id, transport) "
                "VALUES (%s, %s, 'socket.io')",
                (one.id, one.owner.tenant_id),
            )
            admin.execute(
                "INSERT INTO evosense_ops.answer_cache (tenant_id, key, sealed) VALUES (%s, '', '')",
                (one.owner.tenant_id,),
            )
            place.system.write.usage.count(one.owner.tenant_id, "m-1", Usage(calls=1))
        place.system.write.usage.flush()
        assert kept() == {(table, tenant_id) for table in tables for tenant_id in tenants}
        erased = (before.owner.tenant_id,)
        key = admin.execute("SELECT * FROM evosense_log.tenant_keys WHERE tenant_id = %s", erased).fetchone()
        admin.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", erased)
        try:
            # Also while this process still has the key.
            for _ in range(2):
                await place.sweeper().once(everything=False)
                assert kept() == {(table, place.owner.tenant_id) for table in tables}
                place.system.write.vault.forget(before.owner.tenant_id)
        finally:
            # The other tests look at all tenants.
            admin.execute("INSERT INTO evosense_log.tenant_keys VALUES (%s, %s, %s, %s)", key)


async def test_a_server_that_hangs_keeps_nobody_waiting(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolution_api, "TOTAL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(sweeping, "_TRIES", 1)
    await place.sweep()
    with FindMessagesServer() as hung:
        hung.faults.extend(["hang"] * 20)
        away = [place.register(hung.url) for _ in range(5)]
        hung.instances.update({name: [] for name, _, _ in away})
        stop = asyncio.Event()
        running = asyncio.create_task(place.sweeper().run(stop))
        await until(lambda: sum(place.standing(one).failures for _, one, _ in away if known(place, one)) == 2)
        await until(lambda: all(place.standing(one).next_due_at > utc_now() + 4 * MINUTE for _, one, _ in away))
        stop.set()
        await running
        # Two were enough to see it.
        assert len(hung.requests) == 2
        assert sum(place.standing(one).last_started_at is None for _, one, _ in away) == 3


def known(place: Place, identifier: UUID) -> bool:
    return identifier in {one.connection_id for one in sweeps(place.system.write)}


async def test_an_older_server_is_read_once_for_all_windows(place: Place) -> None:
    place.server.style = "unfiltered"
    place.now += 4 * HOUR
    try:
        place.happens(150, timedelta(minutes=30))
        after = await place.sweep()
    finally:
        place.server.style = "2.3"
    assert place.stored() == 150
    assert after.found_catching_up == 150
    assert len(place.server.asked(place.name)) <= 4


async def test_the_look_for_silence_keeps_nobody_waiting(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    place.system.projected()
    place.happens(4, timedelta(minutes=5))
    stop = asyncio.Event()
    with administrator(place.system.settings) as admin, admin.transaction(force_rollback=True):
        # Habits can't be read, and the sweep does without.
        admin.execute("LOCK TABLE evosense.metrics_span IN ACCESS EXCLUSIVE MODE")
        running = asyncio.create_task(place.sweeper().run(stop))
        await until(lambda: waits_for_a_lock(admin))
        await until(lambda: place.standing().found_catching_up == 4)
    stop.set()
    await running
    with administrator(place.system.settings) as admin:
        admin.execute("REVOKE EXECUTE ON FUNCTION evosense.connection_habits(timestamptz) FROM evosense_writer")
        try:
            place.happens(3, timedelta(minutes=4))
            stop.clear()
            running = asyncio.create_task(place.sweeper().run(stop))
            await until(lambda: place.standing().found_catching_up == 7)
            shown = ""
            async with asyncio.timeout(30):
                while "who is silent can't be looked for" not in shown:
                    await asyncio.sleep(0.01)
                    captured = capfd.readouterr()
                    shown += captured.out + captured.err
            stop.set()
            await running
        finally:
            admin.execute("GRANT EXECUTE ON FUNCTION evosense.connection_habits(timestamptz) TO evosense_writer")


def waits_for_a_lock(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return row is not None and row[0] > 0


async def test_switched_off_nothing_is_asked(place: Place) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(place.sweeper(sweep_seconds=0).run(stop))
    await asyncio.sleep(0)
    stop.set()
    await running
    assert place.server.asked(place.name) == []
    check_role(place.system.settings.model_copy(update={"sweep_seconds": 0}), "sweep", patience=0)


async def test_whether_it_works_is_seen_from_outside(place: Place) -> None:
    with pytest.raises(NotWorking, match="1 overdue"):
        await asyncio.to_thread(check_role, place.system.settings, "sweep", patience=0.1)
    await place.sweep()
    await asyncio.to_thread(check_role, place.system.settings, "sweep", patience=0.1)
    place.change("next_due_at = now() - interval '3 minutes'")
    with pytest.raises(NotWorking, match="1 overdue"):
        await asyncio.to_thread(check_role, place.system.settings, "sweep", patience=0.1)
    place.change("claimed_by = 'x', claimed_until = now() + interval '1 minute'")
    await asyncio.to_thread(check_role, place.system.settings, "sweep", patience=0.1)
    # Others wait for a server that is slow, and somebody is at it.
    place.register()
    await asyncio.to_thread(check_role, place.system.settings, "sweep", patience=0.1)
    place.change("claimed_by = NULL, claimed_until = NULL")
    with pytest.raises(NotWorking, match="2 overdue"):
        await asyncio.to_thread(check_role, place.system.settings, "sweep", patience=0.1)


async def test_prometheus_and_a_tenant_see_how_it_stands(place: Place) -> None:
    await place.sweep()
    place.change("found_only_by_sweep = 17, silent_since = now(), last_error = 'x'")
    text = place.system.client.get("/metrics").text
    assert f"evosense_sweep_found_only {sum(one.found_only_by_sweep for one in sweeps(place.system.write))}.0" in text
    assert f'evosense_connection_silent{{connection="{place.id}"}} 1.0' in text
    assert "evosense_sweep_failing 1.0" in text
    assert [one.connection_id for one in sweeps(place.system.write, place.owner.tenant_id)] == [place.id]
    assert sweeps(place.system.write, uuid4()) == []
    place.change("silent_since = NULL, found_only_by_sweep = 0")
    assert "evosense_connection_silent{" not in place.system.client.get("/metrics").text


async def until(condition: Callable[[], bool]) -> None:
    """Wait, while the loop goes on."""
    await asyncio.to_thread(wait_for, condition, "the sweep")
