"""A tenant moves to another embedding model while the old one answers: by SQL, over HTTP, with kills and company."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from adapters.embeddings import Embedders
from adapters.embeddings.openai import OpenAIEmbedder
from adapters.model_server import EmbedderServer
from adapters.nats import Envelope
from adapters.settings import Settings
from api import reembedding
from api.analysis import MessageWorker
from api.models import Models
from api.reembedding import Moved, Progress, move
from domain.embedding_models import AdoptModel, embedding_models
from domain.errors import NotAllowed
from domain.messages import MessageEmbedded, MessageReceived
from domain.ports import DIMENSIONS, Embedded, ModelUnavailable
from tests.api.test_worker import HashAnalyser
from tests.support.http import Account, System, envelope, running_system, utc_now
from tests.support.model_faults import status
from tests.support.openai_server import ModelServer, openai_server

START = 1761134400
#: Every hit by meaning there is, by the API and by SQL.
ALL: dict[str, Any] = {"q": "pedido", "mode": "semantic", "threshold": -1, "limit": 100}
BY_SQL = "SELECT message_id, similarity_score FROM evosense.semantic_search(%s, %s::vector, 100, -1)"


class Seeded:
    """Random directions that follow from the model's name and the text: no two models agree on an order."""

    def __init__(self, name: str) -> None:
        self.model_name = name
        self.texts = 0
        self.breaks_after: int | None = None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        self.texts += len(texts)
        if self.breaks_after is not None and self.texts > self.breaks_after:
            raise KilledError
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> bytes:
        seed = hashlib.sha256(f"{self.model_name} {text}".encode()).digest()[:8]
        vector = np.random.default_rng(int.from_bytes(seed, "big")).normal(size=DIMENSIONS)
        return (vector / np.linalg.norm(vector)).astype("<f4").tobytes()


class KilledError(Exception):
    """The end, in the middle of it."""


OLD, NEW, THIRD = Seeded("z-old"), Seeded("a-new"), Seeded("m-third")
#: Known to the API and the workers.
HERE = Embedders(OLD, NEW, THIRD)


class Delivered:
    """A message as NATS would deliver it."""

    class metadata:  # noqa: N801 - the library's own name
        num_delivered = 1

    def __init__(self, one: Envelope) -> None:
        self.subject, self.data, self.acknowledged = one.subject, one.encode(), False

    async def ack(self) -> None:
        self.acknowledged = True


@pytest.fixture(scope="module")
def system(settings: Settings) -> Iterator[System]:
    with running_system(settings, *HERE) as running:
        yield running


class Shop:
    """A tenant of its own, its webhook and a worker."""

    def __init__(self, system: System, messages: int) -> None:
        self.system = system
        self.tenant = system.new_tenant()
        self.who: Account = system.new_user(self.tenant)
        _, self._path = system.new_connection(self.who)
        self._number = 0
        self.worker = MessageWorker(system.write, Models(HashAnalyser(), HERE), max_deliver=1, retry_delay=0)
        self.receive(messages)

    def receive(self, number: int = 1, *, work: bool = True) -> list[UUID]:
        """New messages arrive, and the worker does its work on them; their streams."""
        streams = []
        for _ in range(number):
            self._number += 1
            done = self.system.deliver(self._path, envelope(f"pedido {self._number}", f"K{self._number}", START))
            found = self.system.write.log.stream_at(done["position"])
            assert found is not None
            streams.append(found.stream_id)
        if work:
            asyncio.run(self.work(streams))
        self.system.projected()
        return streams

    async def work(self, streams: Sequence[UUID]) -> None:
        """The worker takes these messages."""
        batch = []
        for stream in streams:
            first = (await asyncio.to_thread(self.system.write.log.history, stream))[0]
            assert isinstance(first.event, MessageReceived)
            one = Envelope(
                position=first.position,
                tenant=self.tenant,
                stream=stream,
                version=1,
                type=MessageReceived.type_name,
                type_version=MessageReceived.type_version,
            )
            batch.append(Delivered(one))
        await self.worker.take(batch)  # type: ignore[arg-type]
        assert all(one.acknowledged for one in batch)

    def move(self, to: Seeded, *, batch: int = 4, on_progress: Any = lambda _: None) -> Moved:
        """Move, and wait until it is seen."""
        done = asyncio.run(
            move(self.system.write, self.tenant, to, OLD.model_name, batch=batch, on_progress=on_progress)
        )
        self.system.projected()
        return done

    def hits(self) -> list[tuple[int, float]]:
        """What the API finds, and SQL with the vector of the same model; they agree."""
        found = [(hit["message_id"], hit["similarity_score"]) for hit in self.system.get(self.who, "/search", **ALL)]
        model = HERE.get(self.answering())
        assert isinstance(model, Seeded)
        vector = f"[{','.join(map(str, np.frombuffer(model.vector('pedido'), '<f4').tolist()))}]"
        rows = self.system.rows(BY_SQL, self.tenant, vector)
        by_sql = [(row["message_id"], row["similarity_score"]) for row in rows]
        assert [one for one, _ in by_sql] == [one for one, _ in found]
        assert [score for _, score in by_sql] == pytest.approx([score for _, score in found])
        return found

    def expected(self, model: Seeded) -> list[tuple[int, float]]:
        """What a comparison of every message by that model gives."""
        query = np.frombuffer(model.vector("pedido"), "<f4").astype(np.float64)
        scores = [
            (row["id"], float(np.frombuffer(model.vector(row["text"]), "<f4").astype(np.float64) @ query))
            for row in self.system.messages_of(self.tenant)
        ]
        return sorted(scores, key=lambda hit: -hit[1])

    def assert_answers(self, model: Seeded) -> None:
        """Every message is found, as this model alone sees it."""
        found, wanted = self.hits(), self.expected(model)
        assert [one for one, _ in found] == [one for one, _ in wanted]
        assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-3)

    def answering(self) -> str:
        row = self.system.rows("SELECT evosense.embedding_model(%s) AS model", self.tenant)[0]
        return str(row["model"])

    def vectors(self) -> dict[str, int]:
        """How many of which model."""
        statement = "SELECT model, count(*) AS n FROM evosense.messages_embedding WHERE tenant_id = %s GROUP BY 1"
        return {row["model"]: row["n"] for row in self.system.rows(statement, self.tenant)}

    def embedded(self) -> list[tuple[str, int]]:
        """Every MessageEmbedded of the tenant: model and message."""
        log = self.system.write.log
        streams = [s for _, s in log.births_after(0, log.head(), self.tenant, MessageReceived, 1000)]
        return [
            (one.event.model_name, streams.index(stream))
            for stream in streams
            for one in log.history(stream)
            if isinstance(one.event, MessageEmbedded)
        ]


def test_the_old_model_answers_until_the_adoption_and_the_new_one_from_then_on(system: System) -> None:
    shop = Shop(system, 10)
    shop.assert_answers(OLD)
    seen: list[dict[str, int]] = []

    def look(progress: Progress) -> None:
        system.projected()
        shop.assert_answers(OLD)
        seen.append(shop.vectors())
        assert progress.position <= progress.head

    done = shop.move(NEW, on_progress=look)
    assert (done.messages, done.embedded, done.adopted) == (10, 10, True)
    # Also with as many of the new ones as of the old ones, whose name comes later.
    assert [counts.get(NEW.model_name) for counts in seen] == [4, 8, 10]
    assert shop.vectors() == {NEW.model_name: 10}
    shop.assert_answers(NEW)
    again = shop.move(NEW)
    assert (again.embedded, again.adopted) == (0, False)


def test_a_message_in_the_middle_is_found_before_and_after(system: System) -> None:
    shop = Shop(system, 6)
    came: list[UUID] = []

    def arrive(_: Progress) -> None:
        if not came:
            came.extend(shop_receive(shop))
            system.projected()
            shop.assert_answers(OLD)

    done = shop.move(NEW, on_progress=arrive)
    assert done.messages == 7
    shop.assert_answers(NEW)
    # By the worker, with both; not again by the move.
    assert sorted(shop.embedded())[-1] == (OLD.model_name, 6)
    assert shop.embedded().count((NEW.model_name, 6)) == 1
    shop.receive()
    assert shop.embedded()[-1:] == [(NEW.model_name, 7)]
    assert (OLD.model_name, 7) not in shop.embedded()
    shop.assert_answers(NEW)


def shop_receive(shop: Shop) -> list[UUID]:
    """In a thread of its own: the caller is within a loop."""
    found: list[UUID] = []
    thread = threading.Thread(target=lambda: found.extend(shop.receive()))
    thread.start()
    thread.join(30)
    return found


def test_what_was_not_embedded_yet_is_embedded_by_the_move(system: System) -> None:
    shop = Shop(system, 3)
    late = shop.receive(2, work=False)
    assert shop.move(NEW).embedded == 5
    asyncio.run(shop.work(late))
    system.projected()
    assert sorted(shop.embedded()) == [(NEW.model_name, n) for n in range(5)] + [(OLD.model_name, n) for n in range(3)]
    shop.assert_answers(NEW)


def test_a_kill_in_the_middle_and_a_second_run(system: System) -> None:
    shop = Shop(system, 10)
    mortal = Seeded(NEW.model_name)
    mortal.breaks_after = 7
    with pytest.raises(KilledError):
        shop.move(mortal)
    system.projected()
    assert shop.vectors() == {OLD.model_name: 10, NEW.model_name: 4}
    shop.assert_answers(OLD)
    # While a move stands still, new messages still get both.
    shop.receive()
    assert shop.vectors() == {OLD.model_name: 11, NEW.model_name: 5}
    done = shop.move(NEW)
    assert (done.messages, done.embedded, done.adopted) == (11, 6, True)
    shop.assert_answers(NEW)


def test_two_runs_at_once_are_harmless(system: System) -> None:
    shop = Shop(system, 12)

    async def both() -> list[Moved]:
        runs = (move(system.write, shop.tenant, NEW, OLD.model_name, batch=3) for _ in range(2))
        return list(await asyncio.gather(*runs))

    done = asyncio.run(both())
    system.projected()
    assert sum(one.embedded for one in done) == 12
    assert sorted(one.adopted for one in done) == [False, True]
    assert sorted(shop.embedded()).count((NEW.model_name, 0)) == 1
    shop.assert_answers(NEW)


def test_there_and_back_again(system: System) -> None:
    shop = Shop(system, 5)
    shop.move(NEW)
    shop.receive()
    assert shop.move(OLD).embedded == 6
    assert shop.vectors() == {OLD.model_name: 6}
    shop.assert_answers(OLD)
    assert shop.move(NEW).embedded == 6
    shop.assert_answers(NEW)


def test_another_move_takes_the_place_of_one_that_was_given_up(system: System) -> None:
    shop = Shop(system, 5)
    mortal = Seeded(NEW.model_name)
    mortal.breaks_after = 3
    with pytest.raises(KilledError):
        shop.move(mortal, batch=3)
    shop.move(THIRD)
    assert shop.vectors() == {THIRD.model_name: 5}
    shop.assert_answers(THIRD)
    with pytest.raises(NotAllowed, match="no move to a-new is under way"):
        system.write.commands.handle(embedding_models(shop.tenant), AdoptModel(at=utc_now(), model_name=NEW.model_name))


def test_a_move_that_is_overtaken_by_another_adopts_nothing(system: System) -> None:
    shop = Shop(system, 5)

    async def overtaken() -> None:
        began = asyncio.Event()

        class Slow(Seeded):
            async def embed(self, texts: Sequence[str]) -> list[bytes]:
                began.set()
                await asyncio.sleep(1)
                return await super().embed(texts)

        slow = asyncio.create_task(move(system.write, shop.tenant, Slow(NEW.model_name), OLD.model_name))
        await began.wait()
        await move(system.write, shop.tenant, THIRD, OLD.model_name)
        with pytest.raises(NotAllowed):
            await slow

    asyncio.run(overtaken())
    system.projected()
    shop.assert_answers(THIRD)


def test_messages_like_one_are_of_the_model_that_answers(system: System) -> None:
    shop = Shop(system, 6)
    first = system.messages_of(shop.tenant)[0]["id"]

    def like() -> list[int]:
        hits = system.get(shop.who, f"/messages/{first}/similar", threshold=-1)
        return [hit["message_id"] for hit in hits]

    def expected(model: Seeded) -> list[int]:
        rows = system.messages_of(shop.tenant)
        vectors = {row["id"]: np.frombuffer(model.vector(row["text"]), "<f4") for row in rows}
        scores = {one: float(vector @ vectors[first]) for one, vector in vectors.items() if one != first}
        return sorted(scores, key=lambda one: -scores[one])

    def look(_: Progress) -> None:
        system.projected()
        assert like() == expected(OLD)

    assert like() == expected(OLD)
    shop.move(NEW, on_progress=look)
    assert like() == expected(NEW)


def test_a_model_that_is_not_here_is_said_to_be_missing_and_words_still_find(system: System) -> None:
    shop = Shop(system, 2)
    shop.move(Seeded("from-elsewhere"))
    told = system.get(shop.who, "/search", expect=409, q="pedido", mode="semantic")
    assert "evosense reembed" in told["detail"]
    for mode in ("text", "hybrid"):
        hits = system.get(shop.who, "/search", q="pedido", mode=mode)
        assert {tuple(hit["found_by"]) for hit in hits} == {("text",)}
        assert len(hits) == 2
    # What comes now gets the default's vector, and waits for a move.
    shop.receive()
    assert shop.vectors() == {"from-elsewhere": 2, OLD.model_name: 1}
    shop.move(NEW)
    shop.assert_answers(NEW)


def test_a_new_default_begins_with_tenants_that_have_no_vectors(system: System) -> None:
    """Otherwise what is new of the others could not be found: they are searched by the model of their vectors."""
    old, new = Shop(system, 3), Shop(system, 0)
    for shop in (old, new):
        models = Models(HashAnalyser(), Embedders(NEW, OLD, THIRD))
        shop.worker = MessageWorker(system.write, models, max_deliver=1, retry_delay=0)
        shop.receive(2)
        # Asked again, it is remembered.
        shop.receive(1)
    assert old.vectors() == {OLD.model_name: 6}
    old.assert_answers(OLD)
    assert new.vectors() == {NEW.model_name: 3}
    new.assert_answers(NEW)
    old.move(NEW)
    old.receive(1)
    assert old.vectors() == {NEW.model_name: 7}
    old.assert_answers(NEW)


def test_a_tenant_whose_model_is_gone_gets_vectors_of_the_default(system: System) -> None:
    shop = Shop(system, 2)
    models = Models(HashAnalyser(), Embedders(THIRD))
    shop.worker = MessageWorker(system.write, models, max_deliver=1, retry_delay=0)
    shop.receive(1)
    assert shop.vectors() == {OLD.model_name: 2, THIRD.model_name: 1}


# -------------------------------------------------------------------------------------------- a model behind a server


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with openai_server() as running:
        yield running


def served_move(shop: Shop, server: ModelServer, model: str, **options: Any) -> tuple[Moved, list[Progress]]:
    seen: list[Progress] = []

    async def run() -> Moved:
        config = EmbedderServer(name="embedding", url=server.url, model=model, input_price=0.5, timeout=5)
        embedder = OpenAIEmbedder(config)
        try:
            return await move(
                shop.system.write, shop.tenant, embedder, OLD.model_name, batch=4, on_progress=seen.append, **options
            )
        finally:
            await embedder.close()

    server.reset()
    done = asyncio.run(run())
    shop.system.projected()
    return done, seen


def test_a_move_to_a_served_model_shows_what_it_cost(system: System, server: ModelServer) -> None:
    shop = Shop(system, 6)
    done, _ = served_move(shop, server, "nomic")
    assert (done.embedded, done.adopted) == (6, True)
    assert shop.vectors() == {"nomic": 6}
    assert done.usage.calls == 2
    assert done.usage.input_tokens > 0
    assert done.usage.cost > 0


def test_a_server_that_is_away_for_a_while_is_waited_for(
    system: System, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "_PAUSES_S", (0.01, 0.02))
    shop = Shop(system, 2)
    waited: list[str] = []

    class Away(OpenAIEmbedder):
        """Its server is away the first two times."""

        async def embed_counted(self, texts: Sequence[str]) -> Embedded:
            if len(waited) < 2:
                waited.append("away")
                raise ModelUnavailable("nobody is there")
            return await super().embed_counted(texts)

    seen: list[Progress] = []

    async def run() -> Moved:
        embedder = Away(EmbedderServer(name="embedding", url=server.url, model="patient"))
        try:
            return await move(system.write, shop.tenant, embedder, OLD.model_name, on_progress=seen.append)
        finally:
            await embedder.close()

    assert asyncio.run(run()).embedded == 2
    assert [now.waiting for now in seen] == ["nobody is there"] * 2 + [None]


def test_a_move_that_lost_its_server_goes_on_where_it_was(system: System, server: ModelServer) -> None:
    shop = Shop(system, 8)

    async def run() -> None:
        embedder = OpenAIEmbedder(EmbedderServer(name="embedding", url=server.url, model="lost", timeout=5))
        try:
            await move(
                system.write,
                shop.tenant,
                embedder,
                OLD.model_name,
                batch=4,
                patience=0,
                on_progress=lambda _: server.always(status(503)),
            )
        finally:
            await embedder.close()

    with pytest.raises(ModelUnavailable):
        asyncio.run(run())
    system.projected()
    assert shop.vectors() == {OLD.model_name: 8, "lost": 4}
    shop.assert_answers(OLD)
    done, _ = served_move(shop, server, "lost")
    assert (done.embedded, done.adopted) == (4, True)
    assert shop.vectors() == {"lost": 8}
