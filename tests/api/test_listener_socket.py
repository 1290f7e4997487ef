"""The listener on real socket.io: nothing that a peer does ends it, and every message is recorded once."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from adapters.settings import Settings
from api.cli import screen
from api.cli.links import show_links
from api.links import link_of
from api.listener import Listener
from api.liveness import NotWorking, check_role
from api.socket_link import Pace
from api.wiring import write_side
from domain.connections import (
    ActivateConnection,
    DeactivateConnection,
    RotateToken,
)
from tests.support import shops
from tests.support.gate import Gate
from tests.support.http import TOKEN, System, utc_now
from tests.support.socketio_server import EvolutionServer
from tests.support.systems import at_port
from tests.support.transport import ROOT, running, until

AT = 1761134400
QUICK = Pace(first=0.05, longest=0.4)
LEASE, BEAT = 1.0, 0.2


class Shop(shops.Shop):
    """A tenant with a connection that is listened to by socket.io."""

    def __init__(self, system: System, evolution: EvolutionServer, *, url: str | None = None, **more: Any) -> None:
        super().__init__(system, url or evolution.url, **more)
        self.evolution = evolution

    def says(self, *texts: str) -> None:
        """Messages that arrive at the instance."""
        for text in texts:
            self.evolution.send(self.name, self.event(text))

    async def until_linked(self) -> None:
        """Its namespace is there, and the listener is in it."""
        self.evolution.open_namespace(self.name)
        await until(lambda: self.evolution.present(self.name) == 1, "the listener is in the namespace")
        await until(lambda: self.is_in("linked"), "the link is shown as linked")


@pytest.fixture
def evolution() -> Iterator[EvolutionServer]:
    server = EvolutionServer(TOKEN)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _silent_afterwards(own_system: System) -> Iterator[None]:
    yield
    shops.silence(own_system)


class Woken:
    """What the listener asks to be caught up on."""

    def __init__(self) -> None:
        self.connections: list[UUID] = []

    def wake(self, connection_id: UUID) -> None:
        self.connections.append(connection_id)


@asynccontextmanager
async def listening(settings: Settings, **more: Any) -> AsyncIterator[Listener]:
    """A listener in this process, with a write side of its own."""
    write = await asyncio.to_thread(write_side, settings)
    listener = Listener(write, **{"lease": LEASE, "beat": BEAT, "pace": QUICK, **more})
    try:
        async with running(listener.run):
            yield listener
    finally:
        await asyncio.to_thread(write.close)


async def test_what_evolution_sends_is_recorded_once(own_system: System, evolution: EvolutionServer) -> None:
    shop = Shop(own_system, evolution)
    woken = Woken()
    async with listening(own_system.settings, catch_up=woken):
        await until(lambda: shop.is_in("waiting", "invalid namespace"), "no namespace before the first event")
        assert woken.connections == []
        await shop.until_linked()
        assert woken.connections == [shop.id]
        # Bytes are bytes over socket.io, and make an event that comes in several packets.
        image = shop.event("", "IMG")
        image["data"]["message"] = {
            "imageMessage": {"caption": "Veja a foto", "mediaKey": b"\x01\x02", "jpegThumbnail": bytes(range(256)) * 40}
        }
        image["data"]["messageType"] = "imageMessage"
        shop.says("Bom dia", "Meu CPF é 529.982.247-25")
        evolution.send(shop.name, image)
        shop.says("Tchau")
        evolution.send(shop.name, shop.event("Bom dia", "K0002"))  # it was sent before
        await until(lambda: len(shop.heard()) >= 4, "four messages")
        await until(lambda: _said_when(shop), "when the last event came is shown")
    assert [text for text in shop.heard() if "CPF" not in text] == ["Bom dia", "Tchau", "Veja a foto"]
    assert not any("529.982" in text for text in shop.heard()), "masked as by any door"
    assert await shop.is_in("unattended")


async def _said_when(shop: Shop) -> bool:
    link = await shop.link()
    return link is not None and link.last_event_at is not None and (link.transport, link.attempts) == ("socket.io", 0)


async def test_global_events_are_heard_without_being_told_and_only_ours(
    own_system: System, evolution: EvolutionServer
) -> None:
    evolution.global_events = True
    shop = Shop(own_system, evolution)
    woken = Woken()
    async with listening(own_system.settings, catch_up=woken):
        await until(lambda: evolution.present("") == 1, "the listener is in /")
        others = {"instance": "de-outro", "apikey": "outro-token-0123456789"}
        evolution.send("de-outro", {**shop.event("de outro"), **others})
        shop.says("Um", "Dois")
        await shop.until_heard("Um", "Dois")
        await until(lambda: shop.is_in("linked"), "global events make a link")
        assert woken.connections == [shop.id]
        evolution.drop()
        await until(lambda: len(woken.connections) == 2, "after a gap it is caught up, before the next event comes")


async def test_tenants_can_not_listen_to_one_anothers_instances(
    own_system: System, evolution: EvolutionServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Evolution lets whoever has the token of any instance listen to all: what others' instances send is refused."""
    evolution.apikeys.add("token-do-curioso-1234")
    shop = Shop(own_system, evolution)
    spy = Shop(own_system, evolution, name=shop.name, token="token-do-curioso-1234")
    async with listening(own_system.settings):
        evolution.open_namespace(shop.name)
        await until(lambda: evolution.present(shop.name) == 2, "both are in the namespace")
        shop.says("Só para a loja")
        await shop.until_heard("Só para a loja")
        await until(lambda: spy.is_in("linked", "foreign apikey"), "the reason is shown")
    assert spy.heard() == []
    ours = [str(vars(record)) for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not any(secret in line for line in ours for secret in ("token-do-curioso", TOKEN))


@pytest.mark.parametrize("global_events", [False, True])
async def test_events_without_a_token_are_nobodys(
    own_system: System, evolution: EvolutionServer, global_events: bool
) -> None:
    """A server that keeps tokens back: whoever registers the name of another's instance must not hear it."""
    evolution.apikeys.add("token-do-curioso-1234")
    evolution.global_events = global_events
    spy = Shop(own_system, evolution, token="token-do-curioso-1234")
    async with listening(own_system.settings) as listener:
        if global_events:
            await until(lambda: evolution.present("") == 1, "the listener is in /")
        else:
            await spy.until_linked()
        unproved = [{"apikey": None}, {"apikey": ""}, {"apikey": "null"}, {"apikey": "Apikey not found"}]
        events = [spy.event("de outra loja", **more) for more in unproved]
        events.append({key: value for key, value in spy.event("de outra loja").items() if key != "apikey"})
        for event in events:
            evolution.send(spy.name, event)
        await until(lambda: listener._counted["socket.io without apikey"] == len(events), "all were refused")
        await until(lambda: spy.is_in("linked", "no apikey"), "the reason is shown")
        spy.says("Com prova")
        await spy.until_heard("Com prova")
        await until(lambda: spy.is_in("linked"), "the reason is gone")


async def test_links_outlast_restarts_of_evolution(
    own_system: System, evolution: EvolutionServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shop = Shop(own_system, evolution)
    woken = Woken()
    async with listening(own_system.settings, catch_up=woken):
        await shop.until_linked()
        shop.says("Antes")
        await shop.until_heard("Antes")
        evolution.stop()
        await until(lambda: shop.is_in("waiting", "unreachable"), "the fall is shown")
        assert shop.state().is_active, "a dropped link is no reason to switch a connection off"
        link = await shop.link()
        assert link is not None
        before = link.attempts
        await until(lambda: _more_attempts(shop, before), "it is tried again and again")
        evolution.start()
        await shop.until_linked()
        evolution.drop()
        await until(lambda: len(woken.connections) == 3, "linked for the third time")
        await shop.until_linked()
        shop.says("Depois")
        await shop.until_heard("Antes", "Depois")
    assert woken.connections == [shop.id] * 3
    assert shop.state().is_active
    # A line when it goes up or down, or the reason changes, and none for each attempt.
    said = [record.getMessage() for record in caplog.records if str(shop.id) in record.getMessage()]
    assert sum("is up" in line for line in said) == 3, said
    assert len(said) <= 12, said


async def _more_attempts(shop: Shop, than: int) -> bool:
    link = await shop.link()
    return link is not None and link.attempts > than + 3


async def test_a_wrong_token_is_shown_and_tried_again(
    own_system: System, evolution: EvolutionServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shop = Shop(own_system, evolution, token="um-token-que-nao-serve")
    async with listening(own_system.settings):
        await until(lambda: shop.is_in("waiting", "refused"), "the reason is shown")
        await until(lambda: evolution.refused >= 4, "it is tried again")
        seal = own_system.write.vault.seal_text
        shop.does(RotateToken(at=utc_now(), sealed_token=seal(shop.who.tenant_id, TOKEN, "connection token")))
        await shop.until_linked()
        shop.token = TOKEN
        shop.says("Agora sim")
        await shop.until_heard("Agora sim")
    # The peer of these tests, a web server, logs what it is asked.
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]
    assert any("refused" in record.getMessage() for record in ours)
    assert not any(secret in str(vars(record)) for record in ours for secret in ("um-token-que-nao-serve", TOKEN))


async def test_what_is_no_evolution_is_shown_and_a_path_leads_to_one(own_system: System) -> None:
    elsewhere = shops.Shop(own_system, own_system.url.replace("http://", "ws://"))
    nowhere = shops.Shop(own_system, "ws://127.0.0.1:1")
    peer = EvolutionServer(TOKEN, below="/evolution")
    peer.start()
    try:
        shop = Shop(own_system, peer)
        async with listening(own_system.settings):
            await until(lambda: elsewhere.is_in("waiting", "not socket.io"), "the API is no Evolution")
            await until(lambda: nowhere.is_in("waiting", "unreachable"), "nobody is there")
            await shop.until_linked()
            shop.says("Pelo caminho")
            await shop.until_heard("Pelo caminho")
    finally:
        peer.stop()


async def test_all_of_it_goes_through_the_proxy_of_the_environment(
    own_system: System, evolution: EvolutionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name that only the proxy can do anything with.
    shop = Shop(own_system, evolution, url="ws://evolution.invalid")
    gate = Gate(int(evolution.url.rpartition(":")[2]))
    await gate.open()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{gate.port}")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    async with listening(own_system.settings):
        await shop.until_linked()
        shop.says("Pelo proxy")
        await shop.until_heard("Pelo proxy")
        await gate.shut()
        await until(lambda: shop.is_in("waiting", "unreachable"), "there is no other way")


async def test_deactivating_ends_the_link_and_activating_brings_it_back(
    own_system: System, evolution: EvolutionServer
) -> None:
    shop = Shop(own_system, evolution)
    async with listening(own_system.settings):
        await shop.until_linked()
        shop.does(DeactivateConnection(at=utc_now()))
        await until(lambda: evolution.present(shop.name) == 0, "nobody listens")
        await until(lambda: shop.is_in("unattended"), "the lease is given back")
        shop.says("Ninguém ouve")
        shop.does(ActivateConnection(at=utc_now()))
        await shop.until_linked()
        shop.says("Ouviram")
        await shop.until_heard("Ouviram")


async def test_what_is_no_envelope_harms_nothing(
    own_system: System, evolution: EvolutionServer, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(own_system, evolution)
    async with listening(own_system.settings) as listener:
        await shop.until_linked()
        evolution.send_raw(shop.name, "messages.upsert")
        evolution.send_raw(shop.name, "messages.upsert", "segredo", 1)
        ours = {"instance": shop.name, "apikey": TOKEN}
        evolution.send_raw(shop.name, "messages.upsert", {**ours, "event": "messages.upsert"})
        evolution.send_raw(shop.name, "messages.upsert", {**ours, "data": "segredo", "event": 7})
        evolution.send_raw(shop.name, "coisa.nova", shop.event("x", event="coisa.nova"))
        shop.says("A boa")
        await shop.until_heard("A boa")
        assert listener._counted["socket.io malformed"] == 4
        assert await shop.is_in("linked")
    assert "segredo" not in caplog.text


async def test_while_the_database_is_away_what_comes_is_kept(own_system: System, evolution: EvolutionServer) -> None:
    settings = own_system.settings
    gate = Gate(int(str(conninfo_to_dict(settings.runtime_dsn)["port"])))
    await gate.open()
    through = settings.model_copy(update={"database_url": SecretStr(at_port(settings.runtime_dsn, gate.port))})
    shop = Shop(own_system, evolution)
    texts = [f"Mensagem {number:03}" for number in range(40)]
    # The queue is shorter than what comes: the rest waits at the server's side.
    async with listening(through, queue=5):
        await shop.until_linked()
        await gate.shut()
        for text in texts:
            await asyncio.to_thread(shop.says, text)
        await asyncio.sleep(3 * LEASE)  # longer than the lease is good
        assert shop.heard() == []
        await gate.open()
        await shop.until_heard(*texts)
        assert evolution.most[f"/{shop.name}"] == 1, "the link was there all along"
    await gate.shut()


async def test_two_listeners_share_connections_and_never_one(own_system: System, evolution: EvolutionServer) -> None:
    shops = [Shop(own_system, evolution) for _ in range(5)]
    for shop in shops:
        evolution.open_namespace(shop.name)

    def all_linked() -> bool:
        return all(evolution.present(shop.name) == 1 for shop in shops)

    async with listening(own_system.settings) as first:
        await until(all_linked, "all are linked")
        async with listening(own_system.settings) as second:
            await until(lambda: {len(first.linked), len(second.linked)} == {2, 3}, "an even share")
            await until(all_linked, "all are linked")
            assert first.linked.keys() & second.linked.keys() == set()
            assert first.linked.keys() | second.linked.keys() == {shop.id for shop in shops}
        await until(lambda: len(first.linked) == 5 and all_linked(), "the first one has them all again")
        for shop in shops:
            shop.says("Olá")
        for shop in shops:
            await shop.until_heard("Olá")
    # Given back when the link had ended, and not before.
    assert {evolution.most[f"/{shop.name}"] for shop in shops} == {1}


async def test_a_killed_listener_is_followed_and_a_frozen_one_finds_itself_replaced(
    own_system: System, evolution: EvolutionServer
) -> None:
    shop = Shop(own_system, evolution)
    environment = {**own_system.settings.environment(), "PYTHONPATH": str(ROOT)}

    async def process() -> asyncio.subprocess.Process:
        program = (sys.executable, "-m", "api.cli", "listener")
        return await asyncio.create_subprocess_exec(
            *program, cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )

    first = await process()
    second = None
    try:
        await shop.until_linked()
        shop.says("Ao primeiro")
        await shop.until_heard("Ao primeiro")
        second = await process()
        await until(lambda: _processes(own_system) == 2, "the second one is there")
        holder = _holder(own_system, shop)
        os.kill(first.pid, signal.SIGSTOP)
        await until(lambda: _holder(own_system, shop) not in (None, holder), "the frozen one is followed")
        await until(lambda: evolution.present(shop.name) == 2, "its socket is still open")
        os.kill(first.pid, signal.SIGCONT)
        await until(lambda: evolution.present(shop.name) == 1, "it finds itself replaced")
        shop.says("Ao segundo")
        await shop.until_heard("Ao primeiro", "Ao segundo")
        second.kill()
        await second.wait()
        await until(lambda: evolution.present(shop.name) == 0, "nobody listens")
        await until(lambda: evolution.present(shop.name) == 1, "the killed one is followed")
        shop.says("Ao primeiro de novo")
        await shop.until_heard("Ao primeiro", "Ao segundo", "Ao primeiro de novo")
        first.terminate()
        _, errors = await asyncio.wait_for(first.communicate(), 20)
        assert first.returncode == 0, errors
        assert b"Traceback" not in errors
        assert TOKEN.encode() not in errors
    finally:
        for one in (first, second):
            if one is not None and one.returncode is None:
                one.kill()
                await one.wait()


def _holder(system: System, shop: Shop) -> str | None:
    statement = "SELECT holder FROM evosense_ops.connection_links WHERE connection_id = %s"
    return next((row["holder"] for row in system.rows(statement, shop.id)), None)


def _processes(system: System) -> int:
    statement = "SELECT count(*) AS n FROM evosense_ops.listeners WHERE seen_at > now() - interval '6 s'"
    return int(system.rows(statement)[0]["n"])


async def test_an_operator_sees_how_links_stand(
    own_system: System, evolution: EvolutionServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen.console, "_width", 200)
    there, away = Shop(own_system, evolution), Shop(own_system, evolution)
    away.does(RotateToken(at=utc_now(), sealed_token="dW0gc2VsbyBxdWUgbsOjbyBhYnJl"))
    by_webhook = shops.Shop(own_system, evolution.url.replace("ws://", "http://"))
    async with listening(own_system.settings):
        await there.until_linked()
        await until(lambda: away.is_in("waiting", "bad token"), "the reason is shown")
        show_links(own_system.settings)
        shown = capsys.readouterr().out
        check_role(own_system.settings, "listener", patience=0.1)
    lines = shown.splitlines()
    places = {shop: next(n for n, line in enumerate(lines) if shop.name in line) for shop in (there, away)}
    rows = {shop: "\n".join(lines[at : at + 2]) for shop, at in places.items()}
    assert "linked" in rows[there]
    assert "waiting" in rows[away]
    assert "bad token" in rows[away]
    assert by_webhook.name not in shown, "by its address, it is not listened to"
    assert await by_webhook.link() is None
    await until(lambda: _processes(own_system) == 0, "a listener that was killed before is forgotten")
    with pytest.raises(NotWorking, match="the listener has not begun"):
        check_role(own_system.settings, "listener", patience=0.1)
    show_links(own_system.settings)
    shown = capsys.readouterr().out
    assert "no process of the listener runs" in shown
    assert "unattended" in shown


async def test_a_tenant_sees_its_own_links_alone(own_system: System, evolution: EvolutionServer) -> None:
    shop, other = Shop(own_system, evolution), Shop(own_system, evolution)
    async with listening(own_system.settings):
        await shop.until_linked()
        await other.until_linked()
    async with shop.reads() as conn:
        assert await link_of(conn, other.id) is None
        found = await conn.execute("SELECT connection_id FROM evosense_ops.connection_links")
        assert [row["connection_id"] for row in await found.fetchall()] == [shop.id]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await conn.execute("SELECT holder FROM evosense_ops.connection_links")
