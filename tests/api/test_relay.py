"""The relay: every event in order, nothing of its content, and nothing lost whatever is killed or wiped."""

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from psycopg.rows import dict_row
from pydantic import SecretStr

from adapters.embedded import NatsServer, PostgresServer, start_nats
from adapters.nats import STREAM
from adapters.settings import Settings, SettingsError
from api.relay import Relay, jetstream_state, run_relay
from api.wiring import WriteSide
from domain.tenancy import RegisterTenant, Tenant
from tests.support.transport import (
    EXTERNAL,
    NOW,
    NUMBER,
    count,
    jetstream,
    process,
    receive,
    running,
    secrets_of,
    stored,
    until,
    wipe,
)

TEXT = "Meu pedido atrasou de novo, quero falar com a Márcia"
COMPANY = "Padaria Flor de Trigo"


@pytest.fixture(scope="module")
def settings(settings: Settings, nats_server: NatsServer) -> Settings:
    return settings.model_copy(update={"nats_url": SecretStr(nats_server.url)})


@pytest.fixture(autouse=True)
async def _fresh_stream(nats_server: NatsServer) -> None:
    await wipe(nats_server.url)


@pytest.fixture
def log(database: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as conn:
        yield conn


def positions_in_log(log: psycopg.Connection[dict[str, Any]]) -> list[int]:
    rows = log.execute("SELECT notification_id FROM evosense_log.stored_events ORDER BY 1").fetchall()
    return [row["notification_id"] for row in rows]


def positions_in(messages: list[RawStreamMsg]) -> list[int]:
    return [json.loads(message.data or b"")["position"] for message in messages]


def relay(settings: Settings, *, batch: int = 100, poll: float = 0.2) -> Relay:
    return Relay(settings.runtime_dsn, settings.nats_dsn, batch=batch, poll=poll)


async def until_all_sent(js: JetStreamContext, log: psycopg.Connection[dict[str, Any]]) -> None:
    wanted = len(positions_in_log(log))

    async def all_sent() -> bool:
        return await count(js) >= wanted

    await until(all_sent, "everything is in the stream")


async def test_publishes_everything_in_order_and_nothing_of_its_content(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]]
) -> None:
    tenant = uuid4()
    write.vault.create(tenant)
    write.commands.handle(Tenant(id=tenant), RegisterTenant(at=NOW, name=COMPANY))
    receive(write, [f"{TEXT} {number}" for number in range(250)], tenant=tenant)
    async with jetstream(settings.nats_dsn) as js, running(relay(settings).run):
        await until_all_sent(js, log)
        messages = await stored(js)
    rows = log.execute("SELECT * FROM evosense_log.stored_events ORDER BY notification_id").fetchall()
    for row, message in itertools.zip_longest(rows, messages):
        assert message.data is not None
        assert message.headers is not None
        name, _, version = row["topic"].rpartition(":")
        assert json.loads(message.data) == {
            "position": row["notification_id"],
            "tenant": str(row["tenant_id"]),
            "stream": str(row["originator_id"]),
            "version": row["originator_version"],
            "type": name,
            "type_version": int(version),
        }
        assert message.subject == f"evosense.events.{row['tenant_id']}.{name.partition('.')[2]}"
        assert message.headers["Nats-Msg-Id"].endswith(f".{row['notification_id']}")
    raw = b"\n".join(
        b"\n".join((str(message.subject).encode(), message.data or b"", repr(message.headers).encode()))
        for message in messages
    )
    key = write.vault.key(tenant)
    for secret in (TEXT, "Márcia", COMPANY, NUMBER, EXTERNAL, key.pseudonym(NUMBER)):
        assert secret.encode() not in raw
    assert not any(secret in raw for secret in secrets_of(settings))


async def test_a_killed_relay_is_continued_and_nothing_is_lost_or_doubled(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]]
) -> None:
    receive(write, [f"{TEXT} {number}" for number in range(3000)])
    wanted = positions_in_log(log)
    async with jetstream(settings.nats_dsn) as js:
        async with process(settings, __file__) as child:

            async def under_way() -> bool:
                return await count(js) >= 20

            await until(under_way, "the relay has begun")
            child.kill()
            await child.wait()
        assert 20 <= await count(js) < len(wanted), "it was killed in the middle"
        async with running(relay(settings, batch=500).run):
            await until_all_sent(js, log)
        # Once more from the end: there is nothing left to send.
        assert positions_in(await stored(js)) == wanted


async def test_a_stream_that_was_lost_is_made_and_filled_again_while_the_relay_runs(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]]
) -> None:
    receive(write, [TEXT] * 5)
    async with jetstream(settings.nats_dsn) as js, running(relay(settings).run):
        await until_all_sent(js, log)
        await js.delete_stream(STREAM)
        await until_all_sent(js, log)
        assert positions_in(await stored(js)) == positions_in_log(log)
    names = log.execute("SELECT name FROM evosense_ops.relay_checkpoints").fetchall()
    assert len(names) == 1, "the checkpoint of the stream that is gone is gone, too"


async def test_a_new_event_is_sent_without_waiting_for_the_poll(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]]
) -> None:
    receive(write, [TEXT])
    async with jetstream(settings.nats_dsn) as js, running(relay(settings, poll=3600).run):
        await until_all_sent(js, log)
        for _ in range(3):
            await asyncio.to_thread(receive, write, [TEXT])
            await until_all_sent(js, log)


async def test_several_relays_at_once_send_everything_once(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]]
) -> None:
    relays = [relay(settings, batch=size) for size in (7, 50, 300)]
    async with jetstream(settings.nats_dsn) as js:
        async with running(relays[0].run), running(relays[1].run), running(relays[2].run):
            await asyncio.to_thread(receive, write, [TEXT] * 200)
            await until_all_sent(js, log)
        assert sorted(positions_in(await stored(js))) == positions_in_log(log)


async def test_lost_connections_to_postgres_are_made_again(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]], postgres: PostgresServer
) -> None:
    async with jetstream(settings.nats_dsn) as js, running(relay(settings, poll=3600).run):
        await asyncio.to_thread(receive, write, [TEXT])
        await until_all_sent(js, log)
        with psycopg.connect(postgres.dsn, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s",
                (log.info.dbname, log.info.backend_pid),
            )
        await asyncio.to_thread(receive, write, [TEXT])
        await until_all_sent(js, log)


async def test_a_restart_of_nats_is_waited_out(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]], servers_home: Path
) -> None:
    home = servers_home / "relay-restart"
    home.mkdir()
    home.chmod(0o755)
    server = start_nats(home)
    try:
        elsewhere = settings.model_copy(update={"nats_url": SecretStr(server.url)})
        async with running(relay(elsewhere).run):
            receive(write, [TEXT])
            async with jetstream(server.url) as js:
                await until_all_sent(js, log)
            await asyncio.to_thread(server.stop)
            receive(write, [TEXT] * 3)
            server = start_nats(home)
            async with jetstream(server.url) as js:
                await until_all_sent(js, log)
                assert positions_in(await stored(js)) == positions_in_log(log)
    finally:
        server.stop()


async def test_the_state_says_what_an_operator_wants_to_know(
    settings: Settings, write: WriteSide, log: psycopg.Connection[dict[str, Any]]
) -> None:
    assert await jetstream_state(settings) == {
        "stream": STREAM,
        **dict.fromkeys(("messages", "bytes", "relayed", "pending", "ack_pending", "redelivered")),
    }
    receive(write, [TEXT])
    positions = positions_in_log(log)
    async with jetstream(settings.nats_dsn) as js, running(relay(settings).run):
        await until_all_sent(js, log)

        async def known() -> bool:
            return (await jetstream_state(settings)).get("relayed") == positions[-1]

        await until(known, "the checkpoint has moved")
        state = await jetstream_state(settings)
    assert state["messages"] == len(positions)
    assert state["bytes"] > 0
    assert state["pending"] is None


async def test_the_state_of_a_server_that_is_away_is_an_explanation(settings: Settings) -> None:
    away = settings.model_copy(update={"nats_url": SecretStr("nats://evosense:geheim@127.0.0.1:9")})
    state = await jetstream_state(away)
    assert "NATS does not answer" in state["error"]
    assert "geheim" not in state["error"]


async def test_what_is_not_configured_is_said(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="EVOSENSE_NATS_URL"):
        await run_relay(settings.model_copy(update={"nats_url": None}), asyncio.Event())


async def _relay_slowly() -> None:
    """The program that the test kills: one message a batch, so that there is a middle."""
    settings = Settings.load()
    await Relay(settings.runtime_dsn, settings.nats_dsn, batch=1).run(asyncio.Event())


if __name__ == "__main__":
    sys.exit(asyncio.run(_relay_slowly()))
