"""Draining the backlog, with a model server behind a socket: what is asked, in which order, and what becomes of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from adapters.embeddings import Embedders
from adapters.nats import Envelope
from adapters.settings import Settings
from api.backlog import Backlog, Order
from api.deferring import Deferring
from api.draining import Drainer
from api.lanes import Analyses
from api.local_asks import LocalAsks
from api.models import Models
from api.understanding import Understanding
from api.wiring import WriteSide
from domain.experiments import InferenceRecorded
from domain.messages import DeleteMessage, EditMessage, Message, MessageAnalyzed, MessageEmbedded, message
from domain.ports import Analysis, Embedder
from tests.support.model_faults import raw, slow, status
from tests.support.openai_server import ModelServer, openai_server
from tests.support.systems import administrator
from tests.support.transport import NOW, receive, running, until
from tests.support.wire_asks import WireAsks, WireEmbedder
from tests.support.world import repeatable, vector

TEXTS = ["Adorei o atendimento!", "Meu pedido não chegou", "Qual o horário de vocês?", "Obrigada, resolvido"]


class HereAnalyser:
    model_name, prompt_version, template_hash = "here", "p1", "0" * 64

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        return [Analysis(sentiment=0.5, emotion="neutro", satisfaction=50, tone="neutro", summary="s") for _ in texts]


class HereEmbedder:
    model_name = "here-vectors"

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [vector(repeatable(1)) for _ in texts]


class Bench:
    """A worker's parts over one database, without NATS in between: events are handed over as the stream would."""

    def __init__(self, write: WriteSide, admin: psycopg.Connection, server: ModelServer) -> None:
        self.write = write
        self.admin = admin
        self.server = server
        self.backlog = Backlog(write.datastore)
        self.asks = WireAsks(server)
        self.embedder: Embedder = HereEmbedder()
        self.tenant = self.a_tenant()

    def a_tenant(self) -> UUID:
        tenant = uuid4()
        self.write.vault.create(tenant)
        return tenant

    @property
    def models(self) -> Models:
        return Models(HereAnalyser(), Embedders(self.embedder))

    async def bring(self, texts: Sequence[str], *, tenant: UUID | None = None) -> list[UUID]:
        """Messages arrive, and the stream has been through with them."""
        ids = receive(self.write, texts, tenant=tenant or self.tenant)
        await self.deliver(ids)
        return ids

    async def deliver(self, ids: Sequence[UUID], asks: Any = None) -> None:
        """The last event of each message that says what its text is."""
        envelopes = []
        for stream in ids:
            last = [r for r in self.write.log.history(stream) if "text" in r.event.sealed_fields][-1]
            envelopes.append(
                Envelope(
                    position=last.position,
                    tenant=last.event.tenant_id,
                    stream=stream,
                    version=last.event.originator_version,
                    type=type(last.event).type_name,
                    type_version=1,
                )
            )
        understanding = Understanding(self.write, self.models, Deferring(self.backlog, asks or self.asks))
        assert await understanding.reach(envelopes) == [None] * len(envelopes)

    @asynccontextmanager
    async def draining(
        self, order: Order = "oldest", *, asks: Any = None, backlog: Backlog | None = None, grace: float = 5.0
    ) -> AsyncIterator[asyncio.Event]:
        drainer = Drainer(
            self.write,
            backlog or self.backlog,
            asks or self.asks,
            self.models,
            order,
            max_deliver=3,
            retry_delay=0.05,
            grace=grace,
        )
        async with running(drainer.run) as stop:
            yield stop

    async def until_drained(self) -> None:
        await until(lambda: not self.rows(), "nothing waits any more")

    def rows(self) -> list[Any]:
        return self.admin.execute(
            "SELECT message_id, wants, attempts, unavailable, reason, claimed_by, due_at "
            "FROM evosense_ops.model_backlog ORDER BY position, wants"
        ).fetchall()

    def parked(self) -> dict[UUID, str]:
        return dict(self.admin.execute("SELECT stream_id, reason FROM evosense_ops.parked_events").fetchall())

    def kinds(self, stream: UUID) -> Counter[type]:
        return Counter(type(recorded.event) for recorded in self.write.log.history(stream)[1:])

    def inferences(self, stream: UUID) -> list[InferenceRecorded]:
        head = self.write.log.head()
        rows = self.admin.execute(
            "SELECT originator_id FROM evosense_log.stored_events WHERE topic LIKE 'experiments.InferenceRecorded%%' "
            "AND tenant_id = %s AND notification_id <= %s",
            (self.write.log.load(message(stream)).tenant_id, head),
        ).fetchall()
        events = [self.write.log.history(one)[0].event for (one,) in rows]
        return [event for event in events if isinstance(event, InferenceRecorded) and event.message_id == stream]

    def asked(self) -> list[str]:
        """The texts of all questions, in the order of their arrival at the server."""
        return [request.json["message"] for request in self.server.requests if request.path == "/webhook"]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
async def bench(settings: Settings, write: WriteSide, server: ModelServer) -> AsyncIterator[Bench]:
    with administrator(settings) as admin:
        admin.execute("TRUNCATE evosense_ops.model_backlog, evosense_ops.parked_events")
        bench = Bench(write, admin, server)
        yield bench
        await bench.asks.close()


async def test_the_stream_embeds_at_once_and_leaves_the_analysis_to_the_server(bench: Bench) -> None:
    ids = await bench.bring(TEXTS)
    assert [bench.kinds(stream) for stream in ids] == [{MessageEmbedded: 1}] * 4
    assert bench.server.requests == []
    assert [(row[0], row[1]) for row in bench.rows()] == [(stream, "analysis") for stream in ids]
    async with bench.draining():
        await bench.until_drained()
    for stream, text in zip(ids, TEXTS, strict=True):
        assert bench.kinds(stream) == {MessageEmbedded: 1, MessageAnalyzed: 1}
        (inferred,) = bench.inferences(stream)
        said = (inferred.model_name, inferred.prompt_version, inferred.template_hash, inferred.latency_ms)
        assert said == ("wire", "w1", "f" * 64, 7)
        assert inferred.run_id == "live"
        assert bench.asked().count(text) == 1
    # Delivered once more, though the model and the prompt may be others by now.
    bench.asks.prompt_version = "w2"  # type: ignore[misc]
    await bench.deliver(ids)
    assert bench.rows() == []


async def test_tenants_whose_models_are_here_are_answered_by_the_stream(bench: Bench) -> None:
    bench.asks.tenants = {bench.tenant}
    (stream,) = await bench.bring(["Bom dia"], tenant=bench.a_tenant())
    assert bench.kinds(stream) == {MessageAnalyzed: 1, MessageEmbedded: 1}
    assert bench.rows() == []


@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_messages_are_asked_about_in_the_order_that_is_set(bench: Bench, order: Order) -> None:
    texts = [f"Mensagem {number}" for number in range(12)]
    await bench.bring(texts)
    bench.asks.limit = 1
    async with bench.draining(order):
        await bench.until_drained()
    assert bench.asked() == (texts if order == "oldest" else texts[::-1])
    assert bench.asks.high_water == 1


async def test_tenants_are_served_in_turn(bench: Bench) -> None:
    await bench.bring([f"da primeira {number}" for number in range(12)])
    for name in ("segunda", "terceira"):
        await bench.bring([f"da {name} {number}" for number in range(2)], tenant=bench.a_tenant())
    bench.asks.limit = 1
    async with bench.draining():
        await bench.until_drained()
    early = bench.asked()[:6]
    assert sum("primeira" in text for text in early) == 2, early
    assert len(bench.asked()) == 16


async def test_an_outage_touches_few_rows_loses_nothing_and_ends_without_a_stampede(bench: Bench) -> None:
    bench.server.down()
    ids = await bench.bring([f"Durante a queda {number}" for number in range(30)])
    async with bench.draining():
        await until(lambda: sum(row[3] for row in bench.rows()) >= 6, "it was tried in vain, and again")
        rows = bench.rows()
        assert len(rows) == 30
        assert {row[2] for row in rows} == {0}, "no attempt"
        assert sum(row[4] is None for row in rows) > 15, "most rows were not touched"
        assert {row[4] for row in rows if row[4]} == {"the server can't be reached (ConnectError)"}
        bench.server.up()
        await bench.until_drained()
    assert all(bench.kinds(stream)[MessageAnalyzed] == 1 for stream in ids)
    assert all(len(bench.inferences(stream)) == 1 for stream in ids[:3])
    assert bench.parked() == {}
    assert bench.server.high_water <= bench.asks.limit


async def test_a_refused_answer_is_parked_at_once_and_its_vector_is_not_lost(bench: Bench) -> None:
    bench.embedder = WireEmbedder(bench.server)
    bench.asks.limit = 1
    ids = await bench.bring(TEXTS[:2])
    assert [bench.kinds(stream) for stream in ids] == [{}, {}]
    async with bench.draining(asks=_Refusing(bench.asks, ids[0])):
        await bench.until_drained()
    assert bench.kinds(ids[0]) == {MessageEmbedded: 1}
    assert bench.kinds(ids[1]) == {MessageEmbedded: 1, MessageAnalyzed: 1}
    assert bench.parked() == {ids[0]: "AnswerRefused: the answer is not JSON"}
    # Brought again, it is asked about anew, and nothing else is.
    await bench.deliver(ids)
    assert [(row[0], row[1]) for row in bench.rows()] == [(ids[0], "analysis")]
    async with bench.draining():
        await bench.until_drained()
    assert bench.kinds(ids[0]) == {MessageEmbedded: 1, MessageAnalyzed: 1}


async def test_vectors_come_in_batches_and_a_wrong_one_harms_nobody(bench: Bench) -> None:
    embedder = bench.embedder = WireEmbedder(bench.server)
    bench.asks.tenants = set()
    embedder.refuses = {TEXTS[1]}
    ids = await bench.bring(TEXTS)
    assert [bench.kinds(stream) for stream in ids] == [{MessageAnalyzed: 1}] * 4
    async with bench.draining():
        await bench.until_drained()
    assert [bench.kinds(stream)[MessageEmbedded] for stream in ids] == [1, 0, 1, 1]
    assert bench.parked() == {ids[1]: "AnswerRefused: a vector of zeros"}
    assert [len(request.json["input"]) for request in bench.server.requests] == [4, 1, 1, 1, 1]


async def test_vectors_of_the_wrong_size_park_no_message(bench: Bench) -> None:
    embedder = bench.embedder = WireEmbedder(bench.server)
    bench.asks.tenants = set()
    embedder.misfits = True
    ids = await bench.bring(TEXTS)
    async with bench.draining():
        await until(lambda: all(row[4] for row in bench.rows()), "all of them know why they wait")
    assert [(row[1], row[2], row[4]) for row in bench.rows()] == [("vectors", 0, "vectors of 1024 numbers")] * 4
    assert not bench.parked()
    assert [len(request.json["input"]) for request in bench.server.requests] == [4]
    assert [bench.kinds(stream)[MessageEmbedded] for stream in ids] == [0, 0, 0, 0]


async def test_either_answer_is_recorded_while_the_other_model_is_out(bench: Bench) -> None:
    bench.embedder = WireEmbedder(bench.server)
    (stream,) = await bench.bring(["Bom dia"])
    with openai_server() as away:
        away.down()
        elsewhere = WireAsks(away)
        async with bench.draining(asks=elsewhere):
            await until(lambda: bench.kinds(stream) == {MessageEmbedded: 1}, "the vector is there")
            await until(lambda: [row[1] for row in bench.rows()] == ["analysis"], "the vector is not owed any more")
            away.up()
            await bench.until_drained()
        await elsewhere.close()
    assert bench.kinds(stream) == {MessageEmbedded: 1, MessageAnalyzed: 1}


async def test_a_message_that_fails_is_tried_as_often_as_any_and_then_parked(bench: Bench) -> None:
    ids = await bench.bring(TEXTS[:2])
    broken = _Broken(bench.asks, ids[0])
    async with bench.draining(asks=broken):
        await bench.until_drained()
    assert broken.failed == 3
    assert bench.parked() == {ids[0]: "RuntimeError"}
    assert bench.kinds(ids[1])[MessageAnalyzed] == 1


async def test_what_is_edited_or_deleted_meanwhile_is_taken_as_it_is_then(bench: Bench) -> None:
    edited, deleted, late = await bench.bring(["Texto velho", "A ser apagado", "Editado durante a pergunta"])
    _edit(bench, edited, "Texto novo")
    bench.write.commands.handle(message(deleted), DeleteMessage(at=NOW, key_id=uuid4(), announcement=1, deleted_at=NOW))
    bench.server.hold()
    async with bench.draining():
        await asyncio.to_thread(bench.server.wait_for, 2)
        _edit(bench, late, "Editado depois da pergunta")
        await bench.deliver([late])
        bench.server.release()
        await bench.until_drained()
    assert sorted(bench.asked()) == ["Editado depois da pergunta", "Editado durante a pergunta", "Texto novo"]
    for stream in (edited, late):
        assert bench.kinds(stream)[MessageAnalyzed] == 1
        assert len(bench.inferences(stream)) == 1
    assert bench.kinds(deleted)[MessageAnalyzed] == 0


async def test_two_workers_ask_about_each_message_once(bench: Bench) -> None:
    ids = await bench.bring([f"Para dois {number}" for number in range(40)])
    another = Backlog(bench.write.datastore)
    async with bench.draining(), bench.draining(backlog=another):
        await bench.until_drained()
    assert Counter(bench.asked()) == {f"Para dois {number}": 1 for number in range(40)}
    assert all(bench.kinds(stream)[MessageAnalyzed] == 1 for stream in ids)


async def test_two_answers_to_one_question_are_recorded_as_one(bench: Bench) -> None:
    """The first one's lease ran out while it asked; and they have asked different models."""
    (stream,) = await bench.bring(["Uma pergunta, duas respostas"])
    bench.server.hold()
    other = WireAsks(bench.server)
    other.model_name = "another"  # type: ignore[misc]
    async with bench.draining():
        await asyncio.to_thread(bench.server.wait_for, 1)
        bench.admin.execute("UPDATE evosense_ops.model_backlog SET claimed_until = clock_timestamp()")
        async with bench.draining(asks=other, backlog=Backlog(bench.write.datastore)):
            await asyncio.to_thread(bench.server.wait_for, 2)
            bench.server.release()
            await bench.until_drained()
    await other.close()
    assert bench.kinds(stream)[MessageAnalyzed] == 1
    assert len(bench.inferences(stream)) == 1


async def test_long_calls_keep_their_leases(bench: Bench) -> None:
    bench.backlog.lease = 0.3
    await bench.bring(["Uma resposta demorada"])
    bench.server.script(slow(1.0))
    async with bench.draining(), bench.draining(backlog=Backlog(bench.write.datastore)):
        await bench.until_drained()
    assert len(bench.asked()) == 1


async def test_at_the_end_what_is_in_hand_is_finished_or_left_to_others(bench: Bench) -> None:
    done, left = await bench.bring(["Respondida a tempo", "Sem resposta"])
    bench.asks.limit = 2
    bench.server.script(slow(0.3), slow(60))
    async with bench.draining(grace=1.0) as stop:
        await asyncio.to_thread(bench.server.wait_for, 2)
        stop.set()
    assert bench.kinds(done)[MessageAnalyzed] + bench.kinds(left)[MessageAnalyzed] == 1
    ((_, _, attempts, unavailable, _, holder, _),) = bench.rows()
    assert (attempts, unavailable, holder) == (0, 0, None)


async def test_what_a_server_was_to_answer_is_answered_here_when_there_is_none_any_more(bench: Bench) -> None:
    (stream,) = await bench.bring(["Sem servidor"])
    async with bench.draining(asks=LocalAsks(bench.models)):
        await bench.until_drained()
    assert [inferred.model_name for inferred in bench.inferences(stream)] == ["here"]


async def test_what_a_server_answered_stays_when_it_is_delivered_again_to_a_tenant_without_one(bench: Bench) -> None:
    ids = await bench.bring([TEXTS[0]])
    async with bench.draining():
        await bench.until_drained()
    here = LocalAsks(bench.models)
    await bench.deliver(ids, here)
    assert bench.kinds(ids[0])[MessageAnalyzed] == 1
    _edit(bench, ids[0], "Agora é outra coisa")
    await bench.deliver(ids, here)
    assert bench.kinds(ids[0])[MessageAnalyzed] == 2, "another text is analysed, by the model that is here"


async def test_an_error_of_the_server_is_no_attempt(bench: Bench) -> None:
    (stream,) = await bench.bring(["Sobrecarregado"])
    bench.server.script(status(503), status(429, retry_after=1))
    async with bench.draining():
        await bench.until_drained()
    assert bench.kinds(stream)[MessageAnalyzed] == 1
    assert len(bench.asked()) == 3


async def test_what_breaks_on_the_way_is_an_attempt_of_its_message_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither finding earlier texts nor recording may send the same batch around for ever."""
    poison, good = await bench.bring(["Não leiam isto", TEXTS[0]])
    earlier = Analyses._earlier

    def breaks(lane: Analyses, tenant_id: UUID, states: Sequence[Message]) -> dict[UUID, tuple[str, ...]]:
        if any(state.id == poison for state in states):
            raise ValueError("quotes a message")
        return earlier(lane, tenant_id, states)

    monkeypatch.setattr(Analyses, "_earlier", breaks)
    async with bench.draining():
        await bench.until_drained()
    assert bench.parked() == {poison: "ValueError"}
    assert bench.kinds(good)[MessageAnalyzed] == 1


async def test_an_answer_that_cannot_be_recorded_is_not_asked_for_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> list[Any]:
        raise ValueError("quotes a message")

    (stream,) = await bench.bring([TEXTS[0]])
    monkeypatch.setattr(bench.write.commands, "handle_many", breaks)
    async with bench.draining():
        await bench.until_drained()
    assert bench.parked() == {stream: "ValueError"}
    assert len(bench.asked()) == 3


async def test_a_tenant_that_cannot_be_asked_about_stops_no_other(bench: Bench) -> None:
    broken = bench.a_tenant()
    (stuck,) = await bench.bring([TEXTS[0]], tenant=broken)
    (good,) = await bench.bring([TEXTS[1]])

    class Locked(_Between):
        def wait(self, tenant_id: UUID) -> float:
            if tenant_id == self._victim:
                raise ValueError("its choices can't be opened")
            return bench.asks.wait(tenant_id)

    async with bench.draining(asks=Locked(bench.asks, broken)):
        await until(lambda: bench.kinds(good)[MessageAnalyzed] == 1, "the other one is answered")
    assert [row[0] for row in bench.rows()] == [stuck]


def _edit(bench: Bench, stream: UUID, text: str) -> None:
    command = EditMessage(at=NOW, key_id=uuid4(), announcement=1, edited_at=NOW + timedelta(minutes=1), text=text)
    bench.write.commands.handle(message(stream), command)


class _Between:
    """Stands between the drainer and an `Asks`."""

    def __init__(self, asks: WireAsks, victim: UUID) -> None:
        self._asks = asks
        self._victim = victim
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asks, name)


class _Broken(_Between):
    async def answer(self, question: Any) -> Any:
        if question.message_id == self._victim:
            self.failed += 1
            raise RuntimeError(f"can't digest {question.text}")
        return await self._asks.answer(question)


class _Refusing(_Between):
    async def answer(self, question: Any) -> Any:
        if question.message_id == self._victim:
            self._asks.server.script(raw(b"nem json"))
        return await self._asks.answer(question)
