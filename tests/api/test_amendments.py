"""Edits and deletions through the whole system, on real servers: whichever comes first, and whatever stands still."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.js.errors import NotFoundError
from pydantic import SecretStr

from adapters.embedded import NatsServer
from adapters.event_store import LogRecorder, StructMapper
from adapters.nats import CONSUMER, STREAM
from adapters.settings import Settings
from api.reembedding import move
from api.wiring import read_side
from domain.message_keys import message_key_id
from domain.messages import (
    DeleteMessage,
    MessageAnalyzed,
    MessageDeleted,
    MessageEdited,
    MessageEmbedded,
    message,
)
from projections.audit import Auditor
from projections.build import Builder
from projections.catalog import all_projections
from projections.rebuild import rebuild
from tests.support.amending import Analyser, Embedder, Shop, found_anywhere, relay, said, worker
from tests.support.chaos import Interrupting
from tests.support.http import System, utc_now
from tests.support.systems import contents
from tests.support.transport import jetstream, running, settled, until, wipe

SAMPLES = Path(__file__).parent.parent / "samples" / "evolution"
OLD = "Bom dia! Meu pedido 48213 ainda não chegou"
NEW = "Bom dia! Meu pedido 48231 ainda não chegou"
KEY = "1F00AAA9107DAEBFC534DA16A3367E19"


@pytest.fixture(scope="module")
def settings(settings: Settings, nats_server: NatsServer) -> Settings:
    update = {
        "nats_url": SecretStr(nats_server.url),
        "worker_batch": 16,
        "worker_max_deliver": 2,
        "worker_retry_delay": 0.1,
    }
    return settings.model_copy(update=update)


@pytest.fixture(autouse=True)
async def _fresh_stream(nats_server: NatsServer) -> None:
    await wipe(nats_server.url)


@pytest.fixture
def shop(own_system: System) -> Shop:
    return Shop(own_system)


@pytest.fixture
def parked(database: str) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield lambda: conn.execute("SELECT position FROM evosense_ops.parked_events").fetchall()


async def until_quiet(shop: Shop) -> None:
    """All that is in the log was relayed, delivered and answered, and is in the tables."""
    async with jetstream(shop.system.settings.nats_dsn) as js:
        head = 0
        while head != shop.write.log.head():
            head = shop.write.log.head()

            async def quiet(head: int = head) -> bool:
                with psycopg.connect(shop.system.settings.admin_dsn) as conn:
                    row = conn.execute("SELECT max(position) FROM evosense_ops.relay_checkpoints").fetchone()
                return row is not None and (row[0] or 0) >= head and await settled(js)

            await until(quiet, "everything is relayed and answered")
            await asyncio.to_thread(shop.system.projected)


async def test_an_edit_is_analysed_again(shop: Shop, parked: Any) -> None:
    analyser = Analyser()
    async with running(relay(shop.system)), running(worker(shop.system, analyser)):
        stream = shop.receive(OLD, KEY)
        await until(lambda: shop.analysed(stream, OLD), "the message is analysed")
        first = shop.edit(NEW, KEY)
        assert (first.announced, first.received, first.duplicates) == (1, 0, 0)
        again = shop.edit(NEW, KEY)
        assert (again.announced, again.received, again.duplicates) == (0, 0, 1)
        await until(lambda: shop.analysed(stream, NEW), "the edit is analysed")
        await until_quiet(shop)
    assert analyser.seen == [OLD, NEW]
    kinds = [type(event) for event in shop.events(stream)[1:]]
    answers = [MessageAnalyzed, MessageEmbedded]
    assert kinds == [*answers, MessageEdited, *answers]
    assert shop.row(stream)["sentiment"] == len(NEW) / 1000
    inferences = shop.system.rows("SELECT * FROM evosense.experiments_inference WHERE tenant_id = %s", shop.tenant_id)
    assert len(inferences) == 2, "what a model said of the old text was said"
    assert parked() == []


@pytest.mark.parametrize("first", ["message", "change"])
async def test_what_evolution_sends_edits_and_deletes(shop: Shop, first: str) -> None:
    """Through the webhook; the edit's key is written from the editor's side."""

    def sample(name: str) -> bytes:
        return (SAMPLES / f"{name}.json").read_bytes()

    # The message that the deletion speaks of.
    other = json.loads(sample("01-text-conversation"))
    other["data"]["key"] |= {"id": "3AD3F0AEFA5EB182A17D", "remoteJid": "5521998760002@s.whatsapp.net"}
    messages: list[Any] = [sample("01-text-conversation"), other]
    changes = [sample("15-edited-message"), sample("16-deleted-revoked")]
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        for deliveries in (messages, changes) if first == "message" else (changes, messages):
            for body in deliveries:
                answer = await asyncio.to_thread(shop.system.deliver, shop.hook, body)
                counted = int(deliveries is messages), int(deliveries is changes)
                assert (answer["received"], answer["announced"]) == counted
                assert (answer["ignored"], answer["refused"]) == (0, 0)
                again = await asyncio.to_thread(shop.system.deliver, shop.hook, body)
                assert (again["received"], again["announced"], again["duplicates"]) == (0, 0, 1)
            await until_quiet(shop)
        rows = await asyncio.to_thread(shop.system.messages_of, shop.tenant_id)
    edited = json.loads(sample("15-edited-message"))["data"]["editedMessage"]["conversation"]
    assert sorted((row["text"], row["summary"]) for row in rows) == [("", None), (edited, edited)]
    streams = shop.write.log.streams_at([row["id"] for row in rows])
    assert [shop.gone(streams[row["id"]]) for row in rows if not row["text"]] == [True]


async def test_an_edit_that_comes_first_waits_for_its_message(shop: Shop) -> None:
    analyser = Analyser()
    async with running(relay(shop.system)), running(worker(shop.system, analyser)):
        shop.edit(NEW, KEY)
        await until_quiet(shop)
        stream = shop.receive(OLD, KEY)
        await until(lambda: shop.analysed(stream, NEW), "the edited text is analysed")
        await until_quiet(shop)
    assert analyser.seen == [NEW], "nobody was asked about a text that was no longer there"


async def test_the_later_edit_wins_whenever_it_comes(shop: Shop) -> None:
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        stream = shop.receive(OLD, KEY)
        shop.edit(NEW, KEY, seconds=60)
        await until(lambda: shop.analysed(stream, NEW), "the edit is analysed")
        shop.edit("Uma versão anterior", KEY, seconds=30)
        await until_quiet(shop)
        assert shop.analysed(stream, NEW)
        shop.edit("A última versão", KEY, seconds=90)
        await until(lambda: shop.analysed(stream, "A última versão"), "the last edit is analysed")


@pytest.mark.parametrize("first", ["message", "deletion"])
async def test_a_deleted_message_says_nothing_anywhere(shop: Shop, database: str, first: str) -> None:
    secret, edited = f"segredo {first} inicial", f"segredo {first} corrigido"
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        if first == "message":
            stream = shop.receive(secret, KEY)
            shop.edit(edited, KEY)
            await until(lambda: shop.analysed(stream, edited), "the edit is analysed")
            shop.delete(KEY)
        else:
            shop.edit(edited, KEY)
            shop.delete(KEY)
            await until_quiet(shop)
            stream = shop.receive(secret, KEY)
        await until(lambda: shop.gone(stream), "the message is gone")
        for late in (lambda: shop.edit(edited, KEY), lambda: shop.receive(secret, KEY), lambda: shop.delete(KEY)):
            late()
        await until_quiet(shop)
    assert shop.gone(stream)
    assert shop.state(stream).deleted
    with psycopg.connect(database, autocommit=True) as conn:
        assert found_anywhere(conn, "segredo") == []
        live = contents(conn)
        # Every event of the tenant, opened: there is no trace of what it said.
        streams = conn.execute(
            "SELECT DISTINCT originator_id FROM evosense_log.stored_events WHERE tenant_id = %s", (shop.tenant_id,)
        ).fetchall()
        opened = [event for (one,) in streams for event in shop.events(one)]
        assert len(opened) > 5
        assert not [value for value in said(opened) if "segredo" in str(value)]
        assert not any(isinstance(event, MessageEmbedded) and event.vector for event in opened)
        _rebuild_and_audit(shop)
        assert contents(conn) == live
        assert found_anywhere(conn, "segredo") == []
        key_row = conn.execute(
            "SELECT key FROM evosense.messages_messagekey WHERE tenant_id = %s", (shop.tenant_id,)
        ).fetchall()
        assert key_row == [(message_key_id(shop.source.id, KEY),)]


def _rebuild_and_audit(shop: Shop) -> None:
    side = read_side(shop.system.settings)
    try:
        builder = Builder(LogRecorder(side.datastore), StructMapper(shop.write.vault), side.connect)
        names = [projection.name for projection in all_projections()]
        rebuild(builder, names, Interrupting(None), patience=5)
        report = Auditor(builder, names).audit(lambda events, position: None)
        assert report.equal, report
    finally:
        side.close()


async def test_while_nothing_is_projected_nothing_is_lost(shop: Shop, parked: Any) -> None:
    """More deliveries come to nothing than an event may have; none of them counts."""
    analyser = Analyser()
    async with running(relay(shop.system)), running(worker(shop.system, analyser)):
        with shop.system.projector.paused():
            stream, other = shop.receive(OLD, KEY), shop.receive("Outra mensagem", "OTHER")
            shop.edit(NEW, KEY)
            shop.delete("OTHER")
            async with jetstream(shop.system.settings.nats_dsn) as js:

                async def tried() -> bool:
                    try:
                        consumer = await js.consumer_info(STREAM, CONSUMER)
                    except NotFoundError:
                        return False
                    return consumer.delivered is not None and consumer.delivered.consumer_seq > 20

                await until(tried, "it was delivered again and again")
            assert shop.state(stream).text == OLD
        await until(lambda: shop.analysed(stream, NEW), "the edit is analysed")
        await until(lambda: shop.gone(other), "the other is gone")
    assert parked() == []


async def test_a_late_answer_is_not_stored_over_a_newer_text(shop: Shop) -> None:
    analyser = Analyser()
    analyser.open.clear()
    async with running(relay(shop.system)), running(worker(shop.system, analyser)):
        stream = shop.receive(OLD, KEY)
        await asyncio.wait_for(analyser.in_hand.wait(), 20)
        await asyncio.to_thread(shop.system.projected)
        # Another worker is faster.
        async with running(worker(shop.system, Analyser())):
            shop.edit(NEW, KEY)
            await until(lambda: shop.analysed(stream, NEW), "the other worker has analysed the edit")
        analyser.open.set()
        await until_quiet(shop)
    kinds = [type(event) for event in shop.events(stream)]
    assert kinds[1] is MessageEdited, "what was said of the old text came too late"
    assert kinds.count(MessageAnalyzed) == kinds.count(MessageEmbedded) == 1
    assert shop.analysed(stream, NEW)
    rows = shop.system.rows("SELECT * FROM evosense.experiments_inference WHERE tenant_id = %s", shop.tenant_id)
    assert len(rows) == 1


async def test_of_two_messages_with_one_key_the_hint_chooses(shop: Shop) -> None:
    here, there = "5521998760002", "5511987650001"
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        first, second = shop.receive(OLD, KEY, chat=here), shop.receive("A outra", KEY, chat=there, seconds=5)
        shop.delete(KEY, chat=there)
        await until(lambda: shop.gone(second), "the one that is meant is gone")
        await until(lambda: shop.analysed(first, OLD), "the other one stays")
        await until_quiet(shop)
    assert shop.analysed(first, OLD)


async def test_a_deletion_takes_both_of_one_message_that_came_under_phone_and_lid(shop: Shop) -> None:
    phone, lid = "5511987650001", "lid:118273645546372"
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        first = shop.receive(OLD, KEY, chat=phone)
        shop.delete(KEY, chat=phone)
        await until(lambda: shop.gone(first), "the one by phone is gone")
        await until_quiet(shop)
        second = shop.receive(OLD, KEY, chat=lid)
        await until(lambda: shop.gone(second), "what comes again under the LID does not stay")


async def test_one_edit_that_is_told_in_two_ways_is_analysed_once(shop: Shop) -> None:
    analyser = Analyser()
    async with running(relay(shop.system)), running(worker(shop.system, analyser)):
        stream = shop.receive(OLD, KEY)
        await until(lambda: shop.analysed(stream, OLD), "the message is analysed")
        shop.edit(NEW, KEY, seconds=9)
        shop.edit(NEW, KEY, seconds=9, chat="5521998760002")
        await until(lambda: shop.analysed(stream, NEW), "the edit is analysed")
        await until_quiet(shop)
    kinds = [type(event) for event in shop.events(stream)]
    assert kinds.count(MessageEdited) == 1
    assert kinds.count(MessageAnalyzed) == 2


async def test_who_dies_between_deleting_and_sealing_leaves_it_to_the_next(shop: Shop) -> None:
    """The deletion stands in the log, and nobody has sealed anything away."""
    stream = shop.receive("segredo interrompido", KEY)
    shop.delete(KEY)
    command = DeleteMessage(
        at=utc_now(), key_id=message_key_id(shop.source.id, KEY), announcement=1, deleted_at=utc_now()
    )
    shop.write.commands.handle(message(stream), command)
    assert said(shop.events(stream))
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        await until(lambda: shop.gone(stream), "it is sealed away")
        await until_quiet(shop)
    assert [type(event) for event in shop.events(stream)][1:] == [MessageDeleted]


async def test_a_deleted_message_is_not_embedded_by_another_model(shop: Shop) -> None:
    class Other(Embedder):
        model_name = "other"

    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        kept, deleted = shop.receive(OLD, KEY), shop.receive("Apagada", "OTHER")
        shop.delete("OTHER")
        await until(lambda: shop.gone(deleted) and shop.analysed(kept, OLD), "one is gone, one is there")
        shop.edit(NEW, KEY)
        await until(lambda: shop.analysed(kept, NEW), "the edit is analysed")
        moved = await move(shop.write, shop.tenant_id, Other(), "seeded")
    assert (moved.messages, moved.embedded) == (2, 1)
    last = shop.events(kept)[-1]
    assert isinstance(last, MessageEmbedded)
    assert (last.model_name, last.vector) == ("other", Other.vector(NEW))
    assert not any(isinstance(event, MessageEmbedded) for event in shop.events(deleted))


async def test_metrics_count_an_edited_message_as_waiting_until_it_is_analysed(shop: Shop) -> None:
    def counted() -> tuple[int, int]:
        rows = shop.system.rows(
            "SELECT sum(messages)::int AS m, sum(analysed)::int AS a FROM evosense.metrics_rollup WHERE tenant_id = %s",
            shop.tenant_id,
        )
        return rows[0]["m"], rows[0]["a"]

    analyser = Analyser()
    async with running(relay(shop.system)), running(worker(shop.system, analyser)):
        stream = shop.receive(OLD, KEY)
        await until(lambda: shop.analysed(stream, OLD), "the message is analysed")
        await until(lambda: counted() == (1, 1), "it is counted")
        analyser.open.clear()
        shop.edit(NEW, KEY)
        await until(lambda: counted() == (1, 0), "it waits for its analysis")
        analyser.open.set()
        await until(lambda: counted() == (1, 1), "it is analysed anew")
        shop.delete(KEY)
        await until(lambda: shop.gone(stream) and counted() == (1, 0), "it is a message, and not an analysed one")
