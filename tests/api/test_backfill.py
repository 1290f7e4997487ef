"""`evosense backfill` and `evosense sweep` as a person meets them: as processes, against a server behind a socket."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from adapters.settings import Settings
from api.cli import backfill
from api.cli.screen import CommandError
from api.known_connections import known_connections
from api.sweeps import sweeps
from api.wiring import ReadSide, WriteSide
from domain.connections import DeactivateConnection, RegisterConnection, connection, connection_id
from domain.tenancy import RegisterTenant, tenant
from tests.api.test_cli import ROOT, environment, evosense, refused
from tests.support.find_messages_server import TOKEN, FindMessagesServer, row
from tests.support.http import utc_now
from tests.support.systems import administrator, drain, wait_for

SENTENCE = "não chegou até hoje"


@pytest.fixture
def server() -> Iterator[FindMessagesServer]:
    with FindMessagesServer() as server:
        yield server


class Shop:
    """A connection, at a server."""

    def __init__(self, write: WriteSide, read: ReadSide, url: str, name: str | None = None, token: str = TOKEN) -> None:
        self.tenant, self.name = uuid4(), name or f"loja-{uuid4().hex[:6]}"
        self.id = connection_id(self.tenant, self.name)
        write.vault.create(self.tenant)
        write.commands.handle(tenant(self.tenant), RegisterTenant(at=utc_now(), name="Loja", plan="pro"), new=True)
        register = RegisterConnection(
            at=utc_now(),
            tenant_id=self.tenant,
            name=self.name,
            evo_ws_url=url,
            sealed_token=write.vault.seal_text(self.tenant, token, "connection token"),
            company_sender="f" * 64,
        )
        write.commands.handle(connection(self.id), register, new=True)
        drain(read.engine)


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings)


@pytest.fixture
def shop(write: WriteSide, read: ReadSide, server: FindMessagesServer) -> Iterator[Shop]:
    shop = Shop(write, read, server.url.replace("http", "ws"))
    server.instances[shop.name] = []
    yield shop
    for one in known_connections(write):
        write.commands.handle(connection(one.id), DeactivateConnection(at=utc_now()))


def stored(settings: Settings, shop: Shop) -> int:
    with administrator(settings) as admin:
        found = admin.execute(
            "SELECT count(DISTINCT originator_id) FROM evosense_log.stored_events "
            "WHERE tenant_id = %s AND topic LIKE 'messages.MessageReceived%%'",
            (shop.tenant,),
        ).fetchone()
    assert found is not None
    return int(found[0])


def history(days: int, each: int) -> list[dict[str, Any]]:
    """So many messages on each of the last days, and some things that are none."""
    now = int(utc_now().timestamp())
    rows = [row(f"D{day}N{n}", now - day * 86400 - 60 - n, SENTENCE) for day in range(days) for n in range(each)]
    rows += [
        {**row("P", now - 90), "message": {"pollUpdateMessage": {}}, "messageType": "pollUpdateMessage"},
        {**row("B", now - 91), "key": {"remoteJid": "status@broadcast", "fromMe": False, "id": "B"}},
        {**row("X", now - 92), "key": {}},
    ]
    return rows


def test_a_history_is_fetched_and_a_second_time_nothing_is_doubled(
    env: dict[str, str], settings: Settings, server: FindMessagesServer, shop: Shop
) -> None:
    server.instances[shop.name] = history(5, 60)
    first = evosense("backfill", "--connection", shop.name, "--since", "10d", env=env).stdout
    assert stored(settings, shop) == 300
    assert "100%" in first
    assert "300 messages, 300 new" in first
    figures = {line[0]: line[1] for line in _rows(first)}
    assert figures["new"] == "300"
    assert figures["refused"] == "0"
    assert int(figures["seen"]) >= 303
    assert "no key.remoteJid" in first
    assert "status or broadcast list" in first
    assert SENTENCE not in first
    again = {line[0]: line[1] for line in _rows(_backfill(env, shop.id, "10d"))}
    assert again["new"] == "0"
    assert int(again["duplicates"]) >= 300
    assert stored(settings, shop) == 300


def test_a_window_with_two_ends(
    env: dict[str, str], settings: Settings, server: FindMessagesServer, shop: Shop
) -> None:
    at = int(datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp())
    server.instances[shop.name] = [row(f"K{n}", at + n * 3600) for n in range(-48, 49)]
    evosense(
        *("backfill", "--connection", str(shop.id), "--tenant", str(shop.tenant)),
        *("--since", "2026-11-02T00:00-03:00", "--until", "2026-11-03"),
        env=env,
    )
    assert stored(settings, shop) == 22  # from 3 o'clock to midnight, both included


def test_nothing_there_is_no_error_and_explained(env: dict[str, str], shop: Shop) -> None:
    assert (
        "DATABASE_SAVE_DATA_NEW_MESSAGE"
        in evosense("backfill", "--connection", shop.name, "--since", "1h", env=env).stdout
    )


def test_what_is_wrong_is_said_in_one_sentence(
    env: dict[str, str], write: WriteSide, read: ReadSide, server: FindMessagesServer, shop: Shop
) -> None:
    twins = [Shop(write, read, server.url, "balcão") for _ in range(2)]
    wrong = Shop(write, read, server.url, token="another-token-0123456789")
    server.instances[wrong.name] = []
    unknown = Shop(write, read, server.url)
    away = FindMessagesServer()
    away.start()
    away.stop()
    gone = Shop(write, read, away.url)
    off = Shop(write, read, server.url)
    write.commands.handle(connection(off.id), DeactivateConnection(at=utc_now()))
    several = refused("backfill", "--connection", "balcão", "--since", "3d", env=env)
    for twin in twins:
        assert str(twin.id) in several
        assert str(twin.tenant) in several
    for name, said in {
        wrong.name: "does not accept the token",
        unknown.name: "knows no such instance",
        off.name: "is deactivated",
        gone.name: "nothing listens there: check host and port, and that it is running. 0 new messages are recorded",
        "nenhuma": "there is no connection 'nenhuma'",
        str(uuid4()): "there is no connection",
    }.items():
        failed = evosense("backfill", "--connection", name, "--since", "3d", env=env, rc=1)
        (sentence,) = failed.stderr.splitlines()
        assert said in sentence, name
    assert "there is no connection" in refused(
        "backfill", "--connection", shop.name, "--tenant", str(twins[0].tenant), "--since", "3d", env=env
    )


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-11-01", "2026-11-01T00:00:00+00:00"),
        ("2026-11-01T08:30-03:00", "2026-11-01T11:30:00+00:00"),
        ("2026-11-01 08:30:15Z", "2026-11-01T08:30:15+00:00"),
        ("3d", "2026-11-22T12:00:00+00:00"),
        ("12h", "2026-11-25T00:00:00+00:00"),
        ("30m", "2026-11-25T11:30:00+00:00"),
        (" 2W ", "2026-11-11T12:00:00+00:00"),
        ("99999w", "2009-01-01T00:00:00+00:00"),
    ],
)
def test_moments(given: str, moment: str) -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert backfill._moment("--since", given, now).isoformat() == moment


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("yesterday", "is no moment"),
        ("3 fortnights", "is no moment"),
        ("0d", "is no moment"),
        ("2026-13-01", "is no moment"),
        ("2026-11-26", "has yet to come"),
        ("1999-01-01", "nothing earlier than 2009"),
        ("0001-01-01T00:00+05:00", "nothing earlier than 2009"),
    ],
)
def test_what_is_no_moment(given: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        backfill._moment("--since", given, datetime(2026, 11, 25, 12, tzinfo=UTC))


def test_the_wrong_way_round(env: dict[str, str], shop: Shop) -> None:
    assert "--since is not before" in refused(
        "backfill", "--connection", shop.name, "--since", "1h", "--until", "2d", env=env
    )


def test_broken_off_it_says_how_far_it_came_and_goes_on(
    env: dict[str, str], settings: Settings, server: FindMessagesServer, shop: Shop
) -> None:
    server.instances[shop.name] = history(6, 10)
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: dict[str, Any]) -> None:
        if len(server.requests) == 3:
            reached.set()
            go_on.wait(60)

    server.on_request = hold
    command = [sys.executable, "-m", "api.cli", "backfill", "--connection", shop.name, "--since", "8d"]
    running = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200", **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert reached.wait(60)
        running.send_signal(signal.SIGINT)
        told, _ = running.communicate(timeout=60)
    finally:
        running.kill()
        go_on.set()
    assert running.returncode == 130, told
    assert "Traceback" not in told
    assert "is recorded" in told
    server.on_request = lambda _: None
    _backfill(env, shop.id, "8d")
    assert stored(settings, shop) == 60


def test_a_backfill_fills_what_the_sweep_left_out(
    env: dict[str, str], write: WriteSide, server: FindMessagesServer, shop: Shop
) -> None:
    evosense("sweep", "--once", env=env)
    statement = (
        "UPDATE evosense_ops.connection_sweeps SET left_out_from = now() - interval '9 days', "
        "left_out_until = now() - interval '7 days' WHERE connection_id = %s"
    )
    with write.datastore.get_connection() as conn:
        conn.execute(statement, (shop.id,))
    status = evosense("status", env={**env, "COLUMNS": "300"}).stdout
    assert f"connection {shop.name} of tenant {shop.tenant}: not fetched" in status
    _backfill(env, shop.id, "8d")
    assert _standing(write, shop).left_out_from is not None
    _backfill(env, shop.id, "10d")
    assert _standing(write, shop).left_out_from is None


def test_sweep_once_shows_how_it_went(env: dict[str, str], server: FindMessagesServer, shop: Shop) -> None:
    shown = evosense("sweep", "--once", env={**env, "COLUMNS": "250"}).stdout
    assert shop.name in shown
    server.stop()
    failing = evosense("sweep", "--once", env={**env, "COLUMNS": "250"}, rc=1).stdout
    assert "nothing listens there" in failing
    assert "nothing listens there" in evosense("status", env={**env, "COLUMNS": "250"}).stdout


def test_the_role_sweeps_until_it_is_told_to_stop(
    env: dict[str, str], settings: Settings, write: WriteSide, server: FindMessagesServer, shop: Shop
) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "sweep"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # A process takes its time to start on a busy machine.
        wait_for(lambda: bool(server.requests), "the first sweep", seconds=60)
        wait_for(lambda: _standing(write, shop).last_ended_at is not None, "its end")
        evosense("healthcheck", "--role", "sweep", env=env)
        running.terminate()
        told, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, told
    assert "Traceback" not in told


def test_killed_in_the_middle_another_goes_on_when_the_lease_is_over(
    env: dict[str, str], settings: Settings, write: WriteSide, server: FindMessagesServer, shop: Shop
) -> None:
    now = utc_now()
    evosense("sweep", "--once", env=env)
    with write.datastore.get_connection() as conn:
        conn.execute(
            "UPDATE evosense_ops.connection_sweeps SET not_before = now() - interval '9 hours', swept_until = NULL, "
            "next_due_at = now() WHERE connection_id = %s",
            (shop.id,),
        )
    server.requests.clear()
    server.instances[shop.name] = [row(f"K{n}", int(now.timestamp()) - 120 - n * 600, SENTENCE) for n in range(48)]
    reached = threading.Event()

    def hold(_: dict[str, Any]) -> None:
        if len(server.requests) == 4:
            reached.set()
            server.released.wait(60)

    server.on_request = hold
    running = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "sweep"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert reached.wait(60)
    finally:
        running.kill()
        running.wait(20)
    server.on_request = lambda _: None
    server.released.set()
    killed = _standing(write, shop)
    assert killed.swept_until is not None
    assert killed.swept_until < now
    server.requests.clear()
    evosense("sweep", "--once", env=env)
    assert server.requests == [], "it is in the dead one's hand"
    with write.datastore.get_connection() as conn:
        conn.execute("UPDATE evosense_ops.connection_sweeps SET claimed_until = now() WHERE claimed_by IS NOT NULL")
    evosense("sweep", "--once", env=env)
    assert stored(settings, shop) == 48
    assert _standing(write, shop).found_catching_up == 48


def _standing(write: WriteSide, shop: Shop) -> Any:
    (found,) = sweeps(write, shop.tenant)
    return found


def _backfill(env: dict[str, str], identifier: UUID, since: str) -> str:
    return evosense("backfill", "--connection", str(identifier), "--since", since, env=env).stdout


def _rows(shown: str) -> list[list[str]]:
    """Name and number of the summary's rows."""
    lines = [line.strip("│ ").split("│") for line in shown.splitlines() if line.startswith("│")]
    return [[cell.strip().replace(",", "") for cell in line] for line in lines if len(line) == 2]


@pytest.mark.parametrize("command", [("sweep", "--once"), ("backfill", "--connection", "loja", "--since", "3d")])
def test_before_the_system_was_ever_up_it_is_said_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    said = refused(*command, env={"EVOSENSE_HOME": str(home)})
    assert said.startswith(f"there is no installation below {home}: `evosense up` makes one")
    assert not home.exists()
