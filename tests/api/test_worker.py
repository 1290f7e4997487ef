"""The message worker on real servers: each message is answered once, whatever fails, dies or arrives twice."""

import asyncio
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import nats
import nats.errors
import numpy as np
import psycopg
import pytest
from nats.js import JetStreamContext
from psycopg.rows import dict_row
from pydantic import SecretStr

from adapters import nats as ours
from adapters.embedded import NatsServer, start_nats, start_postgres
from adapters.embeddings import Embedders
from adapters.event_store import RecordedEvent
from adapters.migrations import migrate
from adapters.nats import STREAM, Envelope
from adapters.settings import Settings
from adapters.vault import MasterKey
from api.analysis import MessageWorker
from api.models import Models
from api.relay import Relay
from api.wiring import WriteSide, write_side
from api.worker import PatientPull, Worker, run_worker
from domain.experiments import LIVE_RUN, InferenceRecorded, inference_id
from domain.messages import MessageAnalyzed, MessageEmbedded
from domain.ports import DIMENSIONS, Analysis
from tests.support.transport import jetstream, process, receive, running, settled, until, wipe

POISON = "veneno"
NONSENSE = "disparate"
DEADLY = "mortal"
LONG = "Uma conversa comprida, parte"
TEXTS = ["Adorei o atendimento!", "Meu pedido não chegou", "Qual o horário de vocês?", "Obrigada, resolvido"]


class HashAnalyser:
    """The same text gives the same answer; `POISON` breaks it, `NONSENSE` makes it answer out of range."""

    model_name = "hash-analyser"
    prompt_version = "p1"
    template_hash = "0" * 64

    def __init__(self, slowness: float = 0) -> None:
        self.slowness = slowness
        self.seen: Counter[str] = Counter()
        self.in_hand = asyncio.Event()

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        self.seen.update(texts)
        self.in_hand.set()
        await asyncio.sleep(self.slowness)
        if any(POISON in text for text in texts):
            raise RuntimeError(f"can't digest {texts}")
        return [self.answer(text) for text in texts]

    @staticmethod
    def answer(text: str) -> Analysis:
        number = hashlib.sha256(text.encode()).digest()[0]
        sentiment = 7.0 if NONSENSE in text else number / 255
        return Analysis(sentiment=sentiment, emotion="neutro", satisfaction=50, tone="neutro", summary=text[:50])


class HashEmbedder:
    """A unit vector that follows from the text."""

    model_name = "hash-embedder"

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [self.vector(text) for text in texts]

    @staticmethod
    def vector(text: str) -> bytes:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=DIMENSIONS)
        return (vector / np.linalg.norm(vector)).astype("<f4").tobytes()


@pytest.fixture(scope="module")
def settings(settings: Settings, nats_server: NatsServer) -> Settings:
    update = {
        "nats_url": SecretStr(nats_server.url),
        "worker_batch": 16,
        "worker_max_deliver": 3,
        "worker_retry_delay": 0.2,
    }
    return settings.model_copy(update=update)


@pytest.fixture(autouse=True)
async def _fresh_stream(nats_server: NatsServer) -> None:
    await wipe(nats_server.url)


@pytest.fixture
def parked(database: str) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as conn:
        conn.execute("DELETE FROM evosense_ops.parked_events")
        yield lambda: conn.execute("SELECT * FROM evosense_ops.parked_events ORDER BY position").fetchall()


def relay(settings: Settings) -> Any:
    return Relay(settings.runtime_dsn, settings.nats_dsn, poll=0.2).run


def worker(settings: Settings, analyser: HashAnalyser | None = None, *, ack_wait: float = 10) -> Any:
    async def run(stop: asyncio.Event) -> None:
        await run_worker(
            settings, stop, analyser=analyser or HashAnalyser(), embedder=HashEmbedder(), ack_wait=ack_wait
        )

    return run


def answers(write: WriteSide, stream: UUID) -> list[RecordedEvent]:
    identifier = inference_id(stream, LIVE_RUN, HashAnalyser.prompt_version, HashAnalyser.model_name)
    return write.log.history(stream)[1:] + write.log.history(identifier)


def answered_once(write: WriteSide, stream: UUID) -> bool:
    kinds = Counter(type(recorded.event) for recorded in answers(write, stream))
    return kinds == {MessageAnalyzed: 1, MessageEmbedded: 1, InferenceRecorded: 1}


async def until_answered(write: WriteSide, streams: Sequence[UUID]) -> None:
    await until(
        lambda: all(len(write.log.history(stream)) >= 3 for stream in streams), "all messages are answered", seconds=30
    )


async def until_settled(js: JetStreamContext) -> None:
    """Everything that is in the stream now was delivered and answered."""
    await until(lambda: settled(js), "the consumer has nothing left")


def envelope_of(write: WriteSide, stream: UUID) -> Envelope:
    first = write.log.history(stream)[0]
    return Envelope(
        position=first.position,
        tenant=first.event.tenant_id,
        stream=stream,
        version=1,
        type="messages.MessageReceived",
        type_version=1,
    )


async def test_a_message_is_analysed_embedded_and_its_inference_recorded(settings: Settings, write: WriteSide) -> None:
    ids = receive(write, TEXTS)
    async with running(relay(settings)), running(worker(settings)):
        await until_answered(write, ids)
    for stream, text in zip(ids, TEXTS, strict=True):
        analysed, embedded, inferred = (recorded.event for recorded in answers(write, stream))
        expected = HashAnalyser.answer(text)
        assert isinstance(analysed, MessageAnalyzed)
        assert (analysed.model_name, analysed.prompt_version) == ("hash-analyser", "p1")
        assert analysed.sentiment == pytest.approx(expected.sentiment, abs=1e-6)
        assert (analysed.emotion, analysed.satisfaction, analysed.summary) == ("neutro", 50, expected.summary)
        assert isinstance(embedded, MessageEmbedded)
        assert (embedded.model_name, embedded.vector) == ("hash-embedder", HashEmbedder.vector(text))
        assert isinstance(inferred, InferenceRecorded)
        assert (inferred.message_id, inferred.run_id, inferred.is_shadow) == (stream, LIVE_RUN, False)
        assert inferred.sentiment == analysed.sentiment
        assert 0 <= inferred.latency_ms < 10_000
        assert analysed.tenant_id == embedded.tenant_id == inferred.tenant_id


async def test_what_arrives_twice_is_answered_once(settings: Settings, write: WriteSide) -> None:
    analyser = HashAnalyser()
    ids = receive(write, [f"{text} (duas vezes)" for text in TEXTS])
    async with jetstream(settings.nats_dsn) as js:
        await ours.ensure_stream(js)
        envelopes = [envelope_of(write, stream) for stream in ids]
        for envelope in envelopes * 2:  # in one batch
            await js.publish(envelope.subject, envelope.encode())
        async with running(worker(settings, analyser)):
            await until_answered(write, ids)
            for envelope in envelopes:  # and again
                await js.publish(envelope.subject, envelope.encode())
            await until_settled(js)
    assert all(answered_once(write, stream) for stream in ids)
    assert max(analyser.seen.values()) == 1, "what is recorded is not computed again"


async def test_poison_is_parked_after_its_tries_and_harms_nobody(
    settings: Settings, write: WriteSide, parked: Any
) -> None:
    analyser = HashAnalyser()
    tenant = uuid4()
    write.vault.create(tenant)
    texts = [*TEXTS, f"Isto é {POISON}", f"Isto é um {NONSENSE}", "O último, e bom"]
    ids = receive(write, texts, tenant=tenant)
    poison, nonsense = ids[4], ids[5]
    good = [stream for stream in ids if stream not in (poison, nonsense)]
    async with jetstream(settings.nats_dsn) as js, running(relay(settings)), running(worker(settings, analyser)):
        await until_answered(write, good)
        await until(lambda: len(parked()) == 2, "both are parked")
        await until_settled(js)
    rows = {row["stream_id"]: row for row in parked()}
    assert set(rows) == {poison, nonsense}
    for stream, row in rows.items():
        assert (row["subscriber"], row["tenant_id"], row["attempts"]) == ("worker", tenant, 3)
        assert row["event_type"] == "messages.MessageReceived:1"
        assert row["position"] == write.log.history(stream)[0].position
        assert len(write.log.history(stream)) == 1
    assert rows[poison]["reason"] == "RuntimeError"
    assert rows[nonsense]["reason"] == "Invalid: sentiment lies between -1 and 1, not at 7.0"
    assert all(answered_once(write, stream) for stream in good)
    # In each of its three deliveries: once with its neighbours where it had any, and once alone.
    assert 3 <= analyser.seen[f"Isto é {POISON}"] <= 6


async def test_malformed_and_foreign_messages_are_dropped_with_a_line_in_the_log(
    settings: Settings, write: WriteSide, parked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (stream,) = receive(write, ["Entre lixo, uma mensagem boa"])
    good = envelope_of(write, stream)
    other_log = Envelope(**{**{f: getattr(good, f) for f in Envelope.__struct_fields__}, "stream": uuid4()})
    async with jetstream(settings.nats_dsn) as js:
        await ours.ensure_stream(js)
        for data in (b"", b"{", b"\xff\x00", b'{"text": "segredo"}', good.encode()[:-5]):
            await js.publish(good.subject, data)
            await js.publish(good.subject, data, headers={"content-type": "application/json"})
        await js.publish(f"evosense.events.{uuid4()}.MessageReceived", good.encode())
        await js.publish(other_log.subject, other_log.encode())
        await js.publish(good.subject, good.encode())
        async with running(worker(settings)):
            await until_answered(write, [stream])
            await until_settled(js)
    assert answered_once(write, stream)
    assert parked() == []
    assert caplog.text.count("dropped a message") == 11
    assert caplog.text.count("it is not in this log") == 1
    assert "segredo" not in caplog.text


async def test_a_killed_worker_loses_and_doubles_nothing(settings: Settings, write: WriteSide) -> None:
    ids = receive(write, [f"{LONG} {number}" for number in range(60)])
    async with running(relay(settings)):
        async with process(settings, __file__) as child:
            assert child.stdout is not None
            # It tells when it has a batch in hand, and never finishes the second one.
            assert (await asyncio.wait_for(child.stdout.readline(), 20)).strip() == b"in hand"
            assert (await asyncio.wait_for(child.stdout.readline(), 20)).strip() == b"in hand"
            child.kill()
            await child.wait()
        done = [stream for stream in ids if len(write.log.history(stream)) > 1]
        assert 0 < len(done) < len(ids), "it was killed in the middle"
        async with running(worker(settings, ack_wait=2)):
            await until_answered(write, ids)
            async with jetstream(settings.nats_dsn) as js:
                await until_settled(js)
    assert all(answered_once(write, stream) for stream in ids)


async def test_a_message_that_kills_its_worker_is_parked_and_harms_nobody(
    settings: Settings, write: WriteSide, parked: Any
) -> None:
    strict = settings.model_copy(update={"worker_max_deliver": 1})
    texts = ["Antes dela", f"Esta é {DEADLY}", "Depois dela"]
    ids = receive(write, texts)
    async with jetstream(settings.nats_dsn) as js:
        await ours.ensure_stream(js)
        for stream in ids:
            envelope = envelope_of(write, stream)
            await js.publish(envelope.subject, envelope.encode())
        deaths = 0
        while deaths < 2:
            async with process(strict, __file__) as child:
                assert await asyncio.wait_for(child.wait(), 20) == 9
            deaths += 1
        async with process(strict, __file__):
            await until_answered(write, [ids[0], ids[2]])
            await until_settled(js)
    (row,) = parked()
    assert (row["stream_id"], row["subscriber"]) == (ids[1], "worker")
    assert row["reason"] == "the worker that had it in hand ended without an answer"
    assert [len(write.log.history(stream)) for stream in ids] == [3, 1, 3]


async def test_the_batch_in_hand_is_finished_before_the_worker_stops(settings: Settings, write: WriteSide) -> None:
    analyser = HashAnalyser(slowness=0.5)
    ids = receive(write, [f"{text} (antes do fim)" for text in TEXTS])
    async with jetstream(settings.nats_dsn) as js:
        await ours.ensure_stream(js)
        for stream in ids:
            envelope = envelope_of(write, stream)
            await js.publish(envelope.subject, envelope.encode())
        async with running(worker(settings, analyser)) as stop:
            await asyncio.wait_for(analyser.in_hand.wait(), 10)
            stop.set()
        assert all(answered_once(write, stream) for stream in ids)
        assert await settled(js), "and was acknowledged"


async def test_a_stream_that_was_lost_is_subscribed_to_anew(settings: Settings, write: WriteSide) -> None:
    async with jetstream(settings.nats_dsn) as js, running(relay(settings)), running(worker(settings)):
        before = receive(write, ["Antes de perder o fluxo"])
        await until_answered(write, before)
        await js.delete_stream(STREAM)
        after = receive(write, ["Depois de perder o fluxo"])
        await until_answered(write, after)
    assert all(answered_once(write, stream) for stream in before + after)


async def test_a_restart_of_nats_is_waited_out(settings: Settings, write: WriteSide, servers_home: Path) -> None:
    home = servers_home / "worker-nats"
    home.mkdir()
    home.chmod(0o755)
    server = start_nats(home)
    try:
        elsewhere = settings.model_copy(update={"nats_url": SecretStr(server.url)})
        async with running(relay(elsewhere)), running(worker(elsewhere, ack_wait=2)):
            before = receive(write, ["Antes do reinício"])
            await until_answered(write, before)
            await asyncio.to_thread(server.stop)
            after = receive(write, ["Depois do reinício"])
            server = start_nats(home)
            await until_answered(write, after)
        assert all(answered_once(write, stream) for stream in before + after)
    finally:
        server.stop()


async def test_a_restart_of_the_database_in_the_middle_parks_nothing(settings: Settings, servers_home: Path) -> None:
    home = servers_home / "worker-postgres"
    home.mkdir()
    home.chmod(0o755)
    server = start_postgres(home)
    try:
        runtime = server.dsn_for("evosense", "evosense_test", "evosense-test")
        migrate(server.dsn, runtime_dsn=runtime)
        update = {"database_url": SecretStr(runtime), "master_key": SecretStr(MasterKey.generate_text())}
        elsewhere = settings.model_copy(update=update)
        write = write_side(elsewhere)
        # Or an outage shows only after the pool's half a minute.
        write.datastore.pool.timeout = 0.3
        ids = receive(write, [f"Durante o reinício {number}" for number in range(20)])
        analyser = FailsOnce(slowness=0.2)
        # After the outage each message fails once; a second time would park it, and the outage must not count as one.
        messages = MessageWorker(write, Models(analyser, Embedders(HashEmbedder())), max_deliver=2, retry_delay=0.2)
        role = Worker(messages, settings.nats_dsn, batch=16, ack_wait=10).run
        async with jetstream(settings.nats_dsn) as js, running(relay(elsewhere)), running(role):
            await asyncio.wait_for(analyser.in_hand.wait(), 20)
            # In the middle of the first batch: it has been analysed, and can't be recorded.
            await asyncio.to_thread(server.stop)

            async def met() -> bool:
                return bool((await js.consumer_info(STREAM, ours.CONSUMER)).num_redelivered)

            await until(met, "the worker has met the missing database, and is given its messages again")
            # In this thread, as the supervisor wants it; nothing else has to go on meanwhile.
            analyser.failing, analyser.slowness = True, 0
            server = start_postgres(home)
            # The pool takes some seconds to trust the server again, and this test asks through it, too.
            write.datastore.pool.timeout = 10
            await until_answered(write, ids)
        assert len(analyser.failed) == len(ids)
        assert all(answered_once(write, stream) for stream in ids)
        with psycopg.connect(server.dsn) as conn:
            assert conn.execute("SELECT count(*) FROM evosense_ops.parked_events").fetchone() == (0,)
        write.close()
    finally:
        server.stop()


async def test_a_pull_that_fails_at_once_does_not_block_the_loop(nats_server: NatsServer) -> None:
    async with jetstream(nats_server.url) as js:
        await ours.ensure_stream(js)
        await ours.ensure_consumer(js, ours.consumer_config(ack_wait=5, max_ack_pending=10))
    client = await nats.connect(nats_server.url)
    pull = await client.jetstream().pull_subscribe_bind(durable=ours.CONSUMER, stream=STREAM)
    patient = PatientPull.of(pull)
    await client.close()
    with pytest.raises(nats.errors.ConnectionClosedError):
        await pull.fetch(10, timeout=5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(patient.fetch(10, timeout=5), 0.2)


async def test_a_pull_loses_nothing_when_more_is_here_than_it_asks_for(nats_server: NatsServer) -> None:
    """nats-py 2.16 drains what earlier pulls left, asks for a negative rest, and drops it all at the server's 400."""
    async with jetstream(nats_server.url) as js:
        await js.add_stream(name="PULLED", subjects=["pulled.*"])
        pull = await js.pull_subscribe("pulled.*", durable="pulled")
        for number in range(20):
            await js.publish("pulled.x", str(number).encode())
        patient = PatientPull.of(pull)
        request = json.dumps({"batch": 15, "expires": 5_000_000_000}).encode()
        await patient._nc.publish(patient._nms, request, patient._deliver)
        await until(lambda: patient._sub.pending_msgs >= 15, "15 messages here")
        pulled: list[bytes] = []
        while len(pulled) < 20:
            messages = await patient.fetch(4, timeout=2)
            assert 1 <= len(messages) <= 4
            pulled += [message.data for message in messages]
        assert pulled == [str(number).encode() for number in range(20)]
        assert await patient.fetch(4, timeout=0.2) == []
        await js.delete_stream("PULLED")


class FailsOnce(HashAnalyser):
    """While `failing`, fails every text alone once, and every batch with one that has not failed alone."""

    def __init__(self, slowness: float) -> None:
        super().__init__(slowness)
        self.failing = False
        self.failed: set[str] = set()

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        analyses = await super().analyse(texts)
        if self.failing and not self.failed.issuperset(texts):
            if len(texts) == 1:
                self.failed.update(texts)
            raise RuntimeError("not yet")
        return analyses


class TellingAnalyser(HashAnalyser):
    """Tells on standard output when it has `LONG` texts in hand, answers the first batch of them and holds the next.

    `DEADLY` ends the process.
    """

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        if any(DEADLY in text for text in texts):
            os._exit(9)
        if any(text.startswith(LONG) for text in texts):
            sys.stdout.write("in hand\n")
            sys.stdout.flush()
            if self.seen:
                await asyncio.sleep(60)
            self.seen.update(texts)
        return [self.answer(text) for text in texts]


async def _work_until_killed() -> None:
    await run_worker(Settings.load(), asyncio.Event(), analyser=TellingAnalyser(), embedder=HashEmbedder(), ack_wait=2)


if __name__ == "__main__":
    asyncio.run(_work_until_killed())
