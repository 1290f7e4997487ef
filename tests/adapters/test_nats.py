"""The envelope and its subject, the stream and its consumer."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import nats.errors
import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from adapters import nats as ours
from adapters.embedded import NatsServer
from adapters.nats import CONSUMER, STREAM, Envelope, MalformedEnvelope
from tests.support.transport import jetstream, wipe

TENANT = UUID("7d1f0f0e-9f5c-4c0a-8b62-1f8f9a3f1c11")
ENVELOPE = Envelope(
    position=17,
    tenant=TENANT,
    stream=UUID("c2a0c1de-1111-4222-8333-944445555666"),
    version=1,
    type="messages.MessageReceived",
    type_version=1,
)


def test_an_envelope_survives_the_journey() -> None:
    assert ENVELOPE.subject == f"evosense.events.{TENANT}.MessageReceived"
    assert ENVELOPE.topic == "messages.MessageReceived:1"
    assert Envelope.decode(ENVELOPE.subject, ENVELOPE.encode()) == ENVELOPE


def test_an_envelope_is_made_of_a_row_of_the_log() -> None:
    row = {
        "notification_id": 17,
        "tenant_id": TENANT,
        "originator_id": ENVELOPE.stream,
        "originator_version": 1,
        "topic": "messages.MessageReceived:1",
    }
    assert Envelope.of_row(row) == ENVELOPE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"position": 17}',
        ENVELOPE.encode().replace(b"17", b'"dezessete"'),
        ENVELOPE.encode().replace(b"17", b"0"),
        ENVELOPE.encode().replace(str(TENANT).encode(), str(uuid4()).encode()),
        ENVELOPE.encode().replace(b"MessageReceived", b"MessageAnalyzed"),
    ],
)
def test_what_is_no_envelope_of_its_subject_is_refused_without_being_quoted(data: bytes) -> None:
    with pytest.raises(MalformedEnvelope) as refusal:
        Envelope.decode(ENVELOPE.subject, data)
    assert "dezessete" not in str(refusal.value)


def test_a_cluster_is_named_by_several_addresses() -> None:
    assert ours.servers("nats://a:4222, nats://b:4222,") == ["nats://a:4222", "nats://b:4222"]


async def test_the_stream_is_made_once_and_keeps_its_identity(nats_server: NatsServer) -> None:
    await wipe(nats_server.url)
    async with jetstream(nats_server.url) as js:
        made = await ours.ensure_stream(js)
        again = await ours.ensure_stream(js)
        assert made.config.subjects == ["evosense.events.>"]
        assert made.config.storage == StorageType.FILE
        assert made.config.retention == RetentionPolicy.LIMITS
        assert made.config.max_age == timedelta(days=7).total_seconds()
        assert made.config.duplicate_window == 300
        assert ours.incarnation(made) == ours.incarnation(again) == await ours.identity(js) != ""
        await js.delete_stream(STREAM)
        assert ours.incarnation(await ours.ensure_stream(js)) != ours.incarnation(made)


async def test_a_stream_with_other_settings_is_brought_to_ours_and_keeps_limits_that_are_not(
    nats_server: NatsServer,
) -> None:
    await wipe(nats_server.url)
    async with jetstream(nats_server.url) as js:
        await js.add_stream(
            StreamConfig(
                name=STREAM, subjects=["evosense.events.>"], max_bytes=50_000_000, max_age=60, duplicate_window=9
            )
        )
        before = await ours.identity(js)
        config = (await ours.ensure_stream(js)).config
        assert (config.max_age, config.duplicate_window, config.max_bytes) == (7 * 24 * 3600, 300, 50_000_000)
        assert await ours.identity(js) == before


async def test_the_consumer_needs_the_stream_and_takes_new_settings(nats_server: NatsServer) -> None:
    await wipe(nats_server.url)
    async with jetstream(nats_server.url) as js:
        config = ours.consumer_config(ack_wait=60, max_ack_pending=100)
        with pytest.raises(NotFoundError):
            await ours.ensure_consumer(js, config)
        assert not await ours.consumer_exists(js)
        await ours.ensure_stream(js)
        await ours.ensure_consumer(js, config)
        await ours.ensure_consumer(js, ours.consumer_config(ack_wait=5, max_ack_pending=200))
        assert await ours.consumer_exists(js)
        found = (await js.consumer_info(STREAM, CONSUMER)).config
        assert (found.ack_wait, found.max_ack_pending, found.max_deliver) == (5, 200, -1)
        assert found.filter_subject is None
        names = ("MessageReceived", "MessageEdited", "MessageDeleted", "EditAnnounced", "DeletionAnnounced")
        assert found.filter_subjects == [f"evosense.events.*.{name}" for name in names]


async def test_a_consumer_of_before_gets_the_further_subjects_and_goes_on_where_it_was(nats_server: NatsServer) -> None:
    await wipe(nats_server.url)
    async with jetstream(nats_server.url) as js:
        await ours.ensure_stream(js)
        now = ours.consumer_config(ack_wait=60, max_ack_pending=100)
        await js.add_consumer(STREAM, now.evolve(filter_subjects=None, filter_subject=ours.LISTENS_TO[0]))
        pull = await js.pull_subscribe_bind(durable=CONSUMER, stream=STREAM)
        await js.publish("evosense.events.t.MessageReceived", b"1")
        for received in await pull.fetch(1, timeout=5):
            await received.ack_sync()
        await ours.ensure_consumer(js, now)
        for subject in ("MessageReceived", "MessageAnalyzed", "DeletionAnnounced"):
            await js.publish(f"evosense.events.t.{subject}", subject.encode())
        found = [received.data for _ in range(2) for received in await pull.fetch(1, timeout=5)]
        assert found == [b"MessageReceived", b"DeletionAnnounced"]
        assert (await js.consumer_info(STREAM, CONSUMER)).num_pending == 0


async def test_a_server_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(nats.errors.NoServersError):
        await asyncio.wait_for(ours.connect("nats://127.0.0.1:9,nats://127.0.0.1:10", "test"), 3)
