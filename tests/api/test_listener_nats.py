"""The listener on a real NATS to which Evolution publishes: what a stream captured is recorded once, whatever falls."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import psycopg
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from adapters.embedded import NatsServer, start_nats
from adapters.evolution_stream import CONSUMER, STREAM, covers
from adapters.settings import Settings, SettingsError
from api.connections import TOKEN_PURPOSE
from api.evolution_nats import EvolutionNats
from api.instances import Instances
from api.links import all_links
from api.listener import Listener
from api.socket_link import Pace
from api.unclaimed import PATIENCE_S, Unclaimed
from api.wiring import write_side
from domain.connections import ActivateConnection, Connection, DeactivateConnection, RotateToken
from tests.support import shops
from tests.support.gate import Gate
from tests.support.http import TOKEN, System, utc_now
from tests.support.shops import Shop
from tests.support.socketio_server import EvolutionServer
from tests.support.systems import at_port
from tests.support.transport import jetstream, running, until

URL = "https://evo.example.com"
QUICK = Pace(first=0.05, longest=0.4)


@pytest.fixture(autouse=True)
async def _fresh_stream(nats_server: NatsServer) -> None:
    await _without_stream(nats_server.url)


@pytest.fixture(autouse=True)
def _silent_afterwards(own_system: System) -> Iterator[None]:
    yield
    shops.silence(own_system)


async def _without_stream(url: str) -> None:
    async with jetstream(url) as js:
        with suppress(NotFoundError):
            await js.delete_stream(STREAM)


def subjects() -> list[str]:
    return Settings().evolution_subjects()


@asynccontextmanager
async def listening(settings: Settings, url: str, **more: Any) -> AsyncIterator[EvolutionNats]:
    """A listener in this process, with a write side of its own."""
    write = await asyncio.to_thread(write_side, settings)
    ours = EvolutionNats(write, url, subjects(), **{"retry": 0.2, "ack_wait": 5, **more})
    try:
        async with running(Listener(write, nats=ours, lease=1, beat=0.2, pace=QUICK).run):
            yield ours
    finally:
        await asyncio.to_thread(write.close)


class Evolution:
    """Publishes as Evolution does: core messages, that nobody acknowledges."""

    def __init__(self, client: nats.aio.client.Client) -> None:
        self._client = client

    async def sends(self, shop: Shop, *texts: str, prefix: str | None = None) -> None:
        for text in texts:
            await self.raw(f"{prefix or shop.name}.messages.upsert", json.dumps(shop.event(text)).encode())

    async def raw(self, subject: str, data: bytes) -> None:
        await self._client.publish(subject, data)
        await self._client.flush()


@asynccontextmanager
async def evolution_at(url: str) -> AsyncIterator[Evolution]:
    client = await nats.connect(url)
    try:
        yield Evolution(client)
    finally:
        await client.close()


async def until_there(url: str) -> None:
    async with jetstream(url) as js:
        await until(lambda: _there(js), "stream and consumer are there")


async def _there(js: JetStreamContext) -> bool:
    try:
        await js.consumer_info(STREAM, CONSUMER)
    except NotFoundError:
        return False
    return True


async def until_settled(url: str) -> None:
    """Everything that is in the stream was delivered and answered."""
    async with jetstream(url) as js:

        async def settled() -> bool:
            info = await js.consumer_info(STREAM, CONSUMER)
            return not info.num_pending and not info.num_ack_pending

        await until(settled, "the consumer has nothing left")


async def test_what_evolution_publishes_is_recorded_once(own_system: System, nats_server: NatsServer) -> None:
    shop = Shop(own_system, URL)
    async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        await evolution.sends(shop, "Bom dia")
        await evolution.sends(shop, "Com prefixo", prefix="evolution")
        again = json.dumps(shop.event("Global, sem prefixo")).encode()
        await evolution.raw("messages.upsert", again)
        await evolution.raw(f"{shop.name}.messages.upsert", again)
        await shop.until_heard("Bom dia", "Com prefixo", "Global, sem prefixo")
        await until_settled(nats_server.url)
        assert ours.counted == {"nats recorded": 4}
        assert (ours.state, ours.error) == ("linked", None)
    async with jetstream(nats_server.url) as js:
        config = (await js.stream_info(STREAM)).config
        assert (config.storage, config.max_age, config.discard) == ("file", 7 * 24 * 3600, "old")
        assert config.subjects == subjects()


async def test_what_comes_while_nobody_listens_is_there_afterwards(own_system: System, nats_server: NatsServer) -> None:
    shop = Shop(own_system, URL)
    async with listening(own_system.settings, nats_server.url):
        await until_there(nats_server.url)
    async with evolution_at(nats_server.url) as evolution:
        await evolution.sends(shop, "Um", "Dois")
    async with listening(own_system.settings, nats_server.url), listening(own_system.settings, nats_server.url):
        await shop.until_heard("Um", "Dois")
        await until_settled(nats_server.url)


async def test_events_without_proof_are_nobodys(own_system: System, nats_server: NatsServer) -> None:
    shop = Shop(own_system, URL)
    spy = Shop(own_system, URL, name=shop.name, token="token-do-curioso-1234")
    subject = f"{shop.name}.messages.upsert"
    listener = listening(own_system.settings, nats_server.url, patience=0)
    async with listener as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        for more in ({"apikey": None}, {"apikey": ""}, {"apikey": "x"}, {"instance": "ninguem"}, {"instance": 7}):
            await evolution.raw(subject, json.dumps(shop.event("de ninguém", **more)).encode())
        await evolution.raw(subject, json.dumps(spy.event("para o curioso")).encode())
        await evolution.sends(shop, "para a loja")
        await shop.until_heard("para a loja")
        await spy.until_heard("para o curioso")
        await until_settled(nats_server.url)
        counted = {name: count for name, count in ours.counted.items() if name != "nats again"}  # the read models' lag
        assert counted == {"nats without apikey": 2, "nats unknown": 3, "nats recorded": 2}


async def test_what_carries_another_token_waits_until_the_connection_has_it(
    own_system: System, nats_server: NatsServer
) -> None:
    shop = Shop(own_system, URL)
    other = Shop(own_system, URL)
    renewed = "token-renovado-0123456789"
    listener = listening(own_system.settings, nats_server.url, later=0.2)
    async with listener as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        event = shop.event("Com o token novo", apikey=renewed)
        await evolution.raw(f"{shop.name}.messages.upsert", json.dumps(event).encode())
        await evolution.sends(other, "Sem esperar")
        await other.until_heard("Sem esperar")
        await until(lambda: ours.counted["nats foreign apikey"] == 1, "it waits")
        assert shop.heard() == []
        seal = own_system.write.vault.seal_text
        shop.does(RotateToken(at=utc_now(), sealed_token=seal(shop.who.tenant_id, renewed, TOKEN_PURPOSE)))
        await shop.until_heard("Com o token novo")
        await until_settled(nats_server.url)
        assert (ours.counted["nats foreign apikey"], ours.counted["nats unknown"]) == (1, 0)


async def test_what_carries_another_token_does_not_wait_for_ever(own_system: System, nats_server: NatsServer) -> None:
    shop = Shop(own_system, URL)
    listener = listening(own_system.settings, nats_server.url, later=0.2, patience=0.5)
    async with listener as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        event = shop.event("De ninguém", apikey="de-ninguem-0123456789")
        await evolution.raw(f"{shop.name}.messages.upsert", json.dumps(event).encode())
        await until(lambda: ours.counted["nats unknown"] == 1, "it is given up")
        await until_settled(nats_server.url)
        assert ours.counted["nats foreign apikey"] == 1
    assert shop.heard() == []


async def test_what_comes_before_the_read_models_know_its_connection_waits(
    own_system: System, nats_server: NatsServer
) -> None:
    shop = Shop(own_system, URL)
    name, event = f"{shop.name}-nova", shop.event("Primeira", instance=f"{shop.name}-nova")
    async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        with own_system.projector.paused():
            body = {"name": name, "evo_ws_url": URL, "evo_token": TOKEN}
            own_system.send(shop.who, "POST", "/connections", body, expect=201)
            await evolution.raw(f"{name}.messages.upsert", json.dumps(event).encode())
            await until(lambda: ours.counted["nats again"] > 1, "it waits")
            assert ours.counted["nats unknown"] == 0
        await shop.until_heard("Primeira")
        await until_settled(nats_server.url)


async def test_only_failures_of_its_own_count_against_a_message(
    own_system: System, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(own_system, URL)
    faults: list[Exception] = [*([psycopg.OperationalError()] * 6), *([RuntimeError()] * 4)]
    async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        record = ours._record_one

        def fails(*given: Any) -> None:
            if faults:
                raise faults.pop(0)
            record(*given)

        monkeypatch.setattr(ours, "_record_one", fails)
        await until_there(nats_server.url)
        await evolution.sends(shop, "Na décima primeira vez")
        await until(lambda: ours.counted["nats recorded"] + ours.counted["nats unrecorded"] == 1, "it is settled")
        assert ours.counted == {"nats again": 10, "nats recorded": 1}
        faults += [RuntimeError()] * 5
        await evolution.sends(shop, "Nunca")
        await until(lambda: ours.counted["nats unrecorded"] == 1, "it is given up")
        await until_settled(nats_server.url)
    assert faults == []
    assert shop.heard() == ["Na décima primeira vez"]


def test_few_messages_may_wait_for_a_token_and_fewer_of_one_instance(own_system: System) -> None:
    moment = [0.0]
    unclaimed = Unclaimed(own_system.write, clock=lambda: moment[0])
    numbers = itertools.count()

    def waiting(instance: str) -> int:
        return sum(unclaimed.may_wait(next(numbers), instance) for _ in range(600))

    assert [waiting(f"loja-{number}") for number in range(5)] == [500, 500, 500, 500, 0]
    assert unclaimed.may_wait(0, "loja-0"), "one that waits goes on waiting"
    unclaimed.forget(0)
    assert waiting("loja-0") == 1
    moment[0] = PATIENCE_S
    assert not unclaimed.may_wait(1, "loja-0"), "its time is over"
    moment[0] = 2 * PATIENCE_S + 1
    assert waiting("loja-5") == 500, "what another process has answered makes room"


async def test_a_deactivated_connection_is_not_recorded(own_system: System, nats_server: NatsServer) -> None:
    shop = Shop(own_system, URL)
    shop.does(DeactivateConnection(at=utc_now()))
    async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        await evolution.sends(shop, "Ninguém ouve")
        await until(lambda: ours.counted["nats inactive"] == 1, "it was seen")
        shop.does(ActivateConnection(at=utc_now()))

        async def heard() -> bool:
            await evolution.sends(shop, "Ouviram")
            return shop.heard() != []

        await until(heard, "it is listened to again")
        assert set(shop.heard()) == {"Ouviram"}


async def test_what_is_no_envelope_is_dropped_with_a_line(
    own_system: System, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(own_system, URL)
    subject = f"{shop.name}.messages.upsert"
    async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        for data in (b"", b"{", b"\xff\x00", b'["segredo"]', json.dumps(shop.event("segredo", event=7)).encode()):
            await evolution.raw(subject, data)
        await evolution.sends(shop, "A boa")
        await shop.until_heard("A boa")
        await until_settled(nats_server.url)
        assert ours.counted == {"nats malformed": 5, "nats recorded": 1}
    assert caplog.text.count("dropped a message of Evolution") == 5
    assert "segredo" not in caplog.text
    assert TOKEN not in caplog.text


async def test_while_the_database_is_away_messages_come_again(own_system: System, nats_server: NatsServer) -> None:
    settings = own_system.settings
    gate = Gate(int(str(conninfo_to_dict(settings.runtime_dsn)["port"])))
    await gate.open()
    through = settings.model_copy(update={"database_url": SecretStr(at_port(settings.runtime_dsn, gate.port))})
    shop = Shop(own_system, URL)
    texts = [f"Mensagem {number:03}" for number in range(30)]
    async with listening(through, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        await evolution.sends(shop, "Antes")
        await shop.until_heard("Antes")
        await gate.shut()
        await evolution.sends(shop, *texts)
        await until(lambda: ours.counted["nats again"] > 0, "it is put off")
        await gate.open()
        await shop.until_heard("Antes", *texts)
        await until_settled(nats_server.url)
    await gate.shut()


async def test_the_server_of_nats_is_restarted(own_system: System, servers_home: Path) -> None:
    home = servers_home / "evolution-nats"
    server = start_nats(home)
    try:
        shop, port = Shop(own_system, URL), server.port
        gate = Gate(port)
        await gate.open()
        url = server.url.replace(str(port), str(gate.port))
        async with listening(own_system.settings, url) as ours:
            await until_there(server.url)
            async with evolution_at(server.url) as evolution:
                await evolution.sends(shop, "Antes")
            await shop.until_heard("Antes")
            await gate.shut()
            server.stop()
            await until(lambda: ours.state == "waiting" and ours.error is not None, "the fall is shown")
            server = start_nats(home)
            async with evolution_at(server.url) as evolution:  # before the listener is back
                await evolution.sends(shop, "Depois")
            gate._server_port = server.port
            await gate.open()
            await shop.until_heard("Antes", "Depois")
            assert (ours.state, ours.error) == ("linked", None)
        await gate.shut()
    finally:
        server.stop()


async def test_a_stream_that_is_lost_is_made_again(own_system: System, nats_server: NatsServer) -> None:
    shop = Shop(own_system, URL)
    async with listening(own_system.settings, nats_server.url), evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        await _without_stream(nats_server.url)
        await until_there(nats_server.url)
        await evolution.sends(shop, "Ouviram")
        await shop.until_heard("Ouviram")


async def test_a_stream_of_somebody_elses_is_used_as_it_is(
    own_system: System, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(own_system, URL)
    theirs = StreamConfig(name=STREAM, subjects=["*.messages.upsert"], max_msgs=1000, no_ack=True)
    async with jetstream(nats_server.url) as js:
        await js.add_stream(theirs)
    async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
        await until_there(nats_server.url)
        await evolution.sends(shop, "Ouviram")
        await shop.until_heard("Ouviram")
        assert ours.error is not None
        assert ours.error.startswith("the stream EVOLUTION does not capture messages.upsert, *.messages.set")
        await until(lambda: _shown(own_system) == [("linked", ours.error)], "an operator sees it")
    async with jetstream(nats_server.url) as js:
        assert (await js.stream_info(STREAM)).config.subjects == ["*.messages.upsert"]
    assert caplog.text.count("does not capture") == 1


def _shown(system: System) -> list[tuple[str, str | None]]:
    with system.write.datastore.get_connection() as conn:
        return [(row["nats"], row["nats_error"]) for row in all_links(conn)[1]]


async def test_subjects_that_another_stream_has_are_an_error_in_words(
    own_system: System, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with jetstream(nats_server.url) as js:
        await js.add_stream(StreamConfig(name="THEIRS", subjects=["*.messages.upsert"], no_ack=True))
        try:
            async with listening(own_system.settings, nats_server.url) as ours:
                await until(lambda: ours.error is not None and "overlap" in ours.error, "the reason is shown")
                assert ours.state == "waiting"
        finally:
            await js.delete_stream("THEIRS")
    assert caplog.text.count("overlap") == 1


async def test_by_webhook_socket_and_nats_at_once_a_message_is_one(own_system: System, nats_server: NatsServer) -> None:
    peer = EvolutionServer(TOKEN)
    peer.start()
    try:
        shop = Shop(own_system, peer.url)
        peer.open_namespace(shop.name)
        async with listening(own_system.settings, nats_server.url) as ours, evolution_at(nats_server.url) as evolution:
            await until_there(nats_server.url)
            await until(lambda: peer.present(shop.name) == 1, "the link is there")
            texts = [f"Três vezes {number}" for number in range(20)]
            for text in texts:
                event = shop.event(text)
                hook = asyncio.to_thread(own_system.deliver, shop.hook.removeprefix(own_system.url), event)
                socket = asyncio.to_thread(peer.send, shop.name, event)
                core = evolution.raw(f"{shop.name}.messages.upsert", json.dumps(event).encode())
                await asyncio.gather(hook, socket, core)
            await until(lambda: ours.counted["socket.io recorded"] == ours.counted["nats recorded"] == 20, "all ways")
            await shop.until_heard(*texts)
    finally:
        peer.stop()


def test_an_instance_is_found_by_name_and_token(own_system: System) -> None:
    shop = Shop(own_system, "https://um.example.com")
    twin = Shop(own_system, "https://dois.example.com", name=shop.name)
    other = Shop(own_system, URL, name=shop.name, token="outro-token-0123456789")
    moment = [0.0]
    instances = Instances(own_system.write, clock=lambda: moment[0])

    def found(*given: Any) -> object:
        source = instances.connection_of(*given)
        return source if isinstance(source, str) else source.id

    assert found(shop.name, other.token) == other.id
    assert found(shop.name, TOKEN) == shop.id, "the oldest"
    assert found(shop.name, TOKEN, "http://dois.example.com:8080") == twin.id
    assert found(shop.name, TOKEN, "https://tres.example.com") == shop.id
    for apikey in (None, "", "x", 7, TOKEN + " ", "\ud800"):
        assert found(shop.name, apikey) == "foreign apikey"
    for instance in (None, "", 7, "ninguem", shop.name.upper()):
        assert found(instance, TOKEN) == "unknown"
    shop.does(DeactivateConnection(at=utc_now()))
    before = instances.connection_of(shop.name, TOKEN)
    moment[0] = 10
    after = instances.connection_of(shop.name, TOKEN)
    assert isinstance(before, Connection)
    assert isinstance(after, Connection)
    assert (before.is_active, after.is_active) == (True, False), "remembered for two seconds"
    shop.does(ActivateConnection(at=utc_now()))
    back = instances.connection_of(shop.name, TOKEN)
    assert isinstance(back, Connection)
    assert back.is_active, "what is no use is not remembered"


def test_that_a_connection_is_missing_is_not_remembered(own_system: System) -> None:
    instances = Instances(own_system.write, clock=lambda: 0.0)
    name = f"loja-{uuid4().hex[:8]}"
    assert instances.connection_of(name, TOKEN) == "unknown"
    shop = Shop(own_system, URL, name=name)
    found = instances.connection_of(name, TOKEN)
    assert isinstance(found, Connection)
    assert found.id == shop.id
    renewed = "token-renovado-0123456789"
    assert instances.connection_of(name, renewed) == "foreign apikey"
    seal = own_system.write.vault.seal_text
    shop.does(RotateToken(at=utc_now(), sealed_token=seal(shop.who.tenant_id, renewed, TOKEN_PURPOSE)))
    assert isinstance(instances.connection_of(name, renewed), Connection)


@pytest.mark.parametrize(
    ("pattern", "subject", "is_covered"),
    [
        ("*.messages.upsert", "*.messages.upsert", True),
        ("*.messages.upsert", "loja.messages.upsert", True),
        ("*.messages.*", "loja.messages.upsert", True),
        ("loja.messages.upsert", "*.messages.upsert", False),
        (">", "*.messages.upsert", True),
        ("*.>", "*.messages.upsert", True),
        ("*.messages.upsert.>", "*.messages.upsert", False),
        ("*.messages", "*.messages.upsert", False),
        ("*.messages.upsert", "*.messages", False),
        ("*.*.*", "loja.>", False),
        ("*.>", "loja.>", True),
    ],
)
def test_what_a_stream_captures(pattern: str, subject: str, is_covered: bool) -> None:
    assert covers(pattern, subject) is is_covered


@pytest.mark.parametrize("subject", ["a b.c", "a..b", ".a", ">.a", "a*.b", " , "])
def test_what_can_be_no_subject_is_refused(subject: str) -> None:
    with pytest.raises(SettingsError, match="EVOSENSE_EVOLUTION_NATS_SUBJECTS"):
        Settings(evolution_nats_subjects=subject).evolution_subjects()
