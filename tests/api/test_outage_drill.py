"""The outage drill: a model that is down, slow, wrong, busy and back, with every part that runs in production.

Messages arrive through all of it. None is lost, none is analysed twice, and the server is not overrun when it is back.
"""

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from adapters.analysis.rendering import BUILT_IN
from adapters.analysis.served import served_analyser
from adapters.embedded import NatsServer
from adapters.model_server import AnalyserServer, breaker, gate
from adapters.settings import Settings
from api.answer_cache import AnswerCache
from api.asking import Asking
from api.cli.main import app
from api.cli.screen import console
from api.usage import Usage
from api.wiring import WriteSide, write_side
from api.worker import run_worker
from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageEmbedded, message
from tests.support.amending import Analyser, Embedder, Shop, relay
from tests.support.http import System
from tests.support.model_faults import answers_with, good, slow, status
from tests.support.openai_server import ModelServer, openai_server
from tests.support.transport import process, running, until, wipe

LIMIT = 3
#: What every message of the drill has in it, and nothing else has.
NUMBER = re.compile(r"numero(\d+)")


@pytest.fixture(scope="module")
def settings(settings: Settings, nats_server: NatsServer) -> Settings:
    update = {"nats_url": SecretStr(nats_server.url), "worker_max_deliver": 3, "worker_retry_delay": 0.1}
    return settings.model_copy(update=update)


@pytest.fixture(autouse=True)
async def _fresh(nats_server: NatsServer, own_system: System) -> None:
    await wipe(nats_server.url)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes in production takes less than a second here."""
    monkeypatch.setattr(breaker, "OPEN_S", 0.3)
    monkeypatch.setattr(breaker, "LONGEST_S", 0.6)
    monkeypatch.setattr(gate, "PAUSE_S", 0.05)
    monkeypatch.setattr(console, "_width", 250)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@asynccontextmanager
async def asking(write: WriteSide, url: str) -> AsyncIterator[Asking]:
    """The real chain over one model of the server."""
    config = AnalyserServer(name="modelo", url=url, model="modelo-1", timeout=0.8, concurrency=LIMIT)
    served = served_analyser(config)
    usage = Usage(write.datastore)
    configured = SimpleNamespace(analysers={"modelo": served, "offline": Analyser()}, chain=("modelo",))
    prompts = SimpleNamespace(current=lambda: BUILT_IN)
    asks = Asking(write, configured, prompts, usage, AnswerCache(write.datastore, write.vault), None)
    try:
        yield asks
    finally:
        await asks.close()
        await served.close()
        await asyncio.to_thread(usage.close)


class Drill:
    """A shop whose messages are counted through, with everything running around it."""

    def __init__(self, system: System, server: ModelServer) -> None:
        self.system = system
        self.server = server
        self.shop = Shop(system)
        self.ids: list[UUID] = []

    async def receive(self, count: int) -> list[UUID]:
        """So many messages arrive, and are found by their words at once, whatever becomes of the model."""
        first = len(self.ids)
        new = [
            self.shop.receive(f"Bom dia, sobre o pedido numero{number}", f"3EB0{number:04}", seconds=number)
            for number in range(first, first + count)
        ]
        self.ids += new
        await until(lambda: self.found(first) and self.found(first + count - 1), "they are found by their words")
        return new

    def found(self, number: int) -> bool:
        answer = self.system.get(self.shop.account, "/search", q=f"numero{number}", mode="text")
        return any(f"numero{number}" in str(hit["text"]) for hit in answer)

    def kinds(self, stream: UUID) -> Counter[type]:
        return Counter(type(event) for event in self.shop.events(stream)[1:])

    def analysed(self, streams: Sequence[UUID]) -> bool:
        states = self.shop.write.log.load_many([message(stream) for stream in streams])
        return all(state.analyzed_by is not None for state in states)

    async def until_analysed(self) -> None:
        await until(lambda: self.analysed(self.ids), "all messages are analysed")

    def waiting(self) -> int:
        (row,) = self.system.rows("SELECT count(*) AS n FROM evosense_ops.model_backlog")
        return int(row["n"])

    def tried_in_vain(self) -> int:
        (row,) = self.system.rows("SELECT coalesce(sum(unavailable), 0) AS n FROM evosense_ops.model_backlog")
        return int(row["n"])

    def parked(self) -> dict[UUID, str]:
        rows = self.system.rows("SELECT stream_id, reason FROM evosense_ops.parked_events WHERE subscriber = 'worker'")
        return {row["stream_id"]: row["reason"] for row in rows}

    def asked(self, since: int = 0) -> list[int]:
        """Numbers of the messages that were asked about, in the order of the requests, each once."""
        found = [int(match[1]) for r in self.server.requests[since:] if (match := NUMBER.search(r.body.decode()))]
        return list(dict.fromkeys(found))

    def assert_nothing_lost_or_doubled(self) -> None:
        assert self.waiting() == 0
        assert self.parked() == {}
        inferred: Counter[UUID] = Counter()
        rows = self.system.rows(
            "SELECT originator_id FROM evosense_log.stored_events "
            "WHERE tenant_id = %s AND topic LIKE 'experiments.InferenceRecorded%%'",
            self.shop.tenant_id,
        )
        for row in rows:
            (event,) = self.shop.events(row["originator_id"])
            assert isinstance(event, InferenceRecorded)
            assert event.model_name == "modelo-1"
            inferred[event.message_id] += 1
        assert inferred == dict.fromkeys(self.ids, 1)
        for stream in self.ids:
            assert self.kinds(stream) == {MessageAnalyzed: 1, MessageEmbedded: 1}


@pytest.fixture
def drill(own_system: System, server: ModelServer) -> Drill:
    return Drill(own_system, server)


@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_down_slow_busy_wrong_and_back(drill: Drill, server: ModelServer, order: str) -> None:
    settings = drill.system.settings.model_copy(update={"analysis_order": order})
    write = write_side(settings)

    async def worker(stop: asyncio.Event) -> None:
        await run_worker(settings, stop, embedder=Embedder(), asks=asks, ack_wait=30)

    async with asking(write, server.url) as asks, running(relay(drill.system)), running(worker):
        # Well.
        await drill.receive(3)
        await drill.until_analysed()

        # Down: nothing is asked, everything arrives, and the vector of this house is there at once.
        server.down()
        down = await drill.receive(24)
        await until(lambda: drill.tried_in_vain() >= 5, "it was tried in vain")
        await until(lambda: all(drill.kinds(stream) == {MessageEmbedded: 1} for stream in down), "they have vectors")
        assert drill.waiting() == len(down)
        status_says = await asyncio.to_thread(_evosense, settings, "status")
        assert f"{len(down)} answers of models wait" in status_says
        assert "is left alone" in status_says or "nothing listens" in status_says or "is out" in status_says

        # Back, after some of the outage: in the order that is set, and no more at once than the server is given.
        before = len(server.requests)
        server.requests.clear()
        server.high_water = 0
        server.up()
        await drill.until_analysed()
        order_of = drill.asked()
        expected = sorted(order_of, reverse=order == "newest")
        assert sorted(order_of) == list(range(3, 27)), before
        misplaced = [n for place, n in enumerate(order_of) if abs(expected.index(n) - place) > 2 * LIMIT]
        # One or two were the probes of the server, and may have been put off.
        assert len(misplaced) <= 2, order_of
        assert server.high_water <= LIMIT

        # Slow: longer than a call may take.
        server.always(slow(3.0))
        late = await drill.receive(3)
        await until(lambda: drill.tried_in_vain() >= 2, "it was given up")
        assert not drill.analysed(late)
        assert drill.waiting() == 3
        server.always(None)
        await drill.until_analysed()

        # Busy, and says for how long.
        server.always(status(429, retry_after=1))
        await drill.receive(3)
        await until(lambda: len(drill.asked()) >= 4 and drill.waiting() == 3, "it was asked")
        server.always(None)
        await drill.until_analysed()

        # Wrong, and again when it is told so: parked with the reason, and through when the operator says so.
        server.always(answers_with("{"))
        broken = await drill.receive(2)
        await until(lambda: set(drill.parked()) == set(broken), "they are parked")
        server.always(answers_with('{"sentiment": 7, "emotion": "raiva", "satisfaction": 5, "tone": "formal"}'))
        wrong = await drill.receive(2)
        await until(lambda: set(drill.parked()) == {*broken, *wrong}, "and these")
        assert all(reason.startswith("AnswerRefused: ") for reason in drill.parked().values())
        assert "numero" not in str(drill.parked())
        assert drill.waiting() == 0
        server.always(None)
        sent = await asyncio.to_thread(_evosense, settings, "parked", "retry", "--all")
        assert sent.count("to the worker again") == 4
        await drill.until_analysed()
        await until(lambda: drill.waiting() == 0, "nothing waits")
    write.close()
    drill.assert_nothing_lost_or_doubled()


async def test_a_worker_that_is_killed_while_it_asks_loses_and_doubles_nothing(
    drill: Drill, server: ModelServer
) -> None:
    settings = drill.system.settings
    write = write_side(settings)

    async def worker(stop: asyncio.Event) -> None:
        await run_worker(settings, stop, embedder=Embedder(), asks=asks, ack_wait=2)

    async with running(relay(drill.system)):
        async with process(settings, __file__, server.url) as child:
            # Some are answered; then it is killed with others in hand.
            server.script(*[good()] * 4)
            server.always(slow(30))
            await drill.receive(10)
            await until(
                lambda: drill.waiting() < 10 and len(server.requests) > 4, "some are recorded, others are asked"
            )
            assert drill.waiting() >= 6
            child.kill()
            await child.wait()
        server.always(None)
        async with asking(write, server.url) as asks, running(worker):
            await drill.until_analysed()
            await until(lambda: drill.waiting() == 0, "nothing waits")
    write.close()
    drill.assert_nothing_lost_or_doubled()


def _evosense(settings: Settings, *arguments: str) -> str:
    clean = {name: None for name in os.environ if name.startswith("EVOSENSE_")}
    ours = {name: value for name, value in settings.environment().items() if name.startswith("EVOSENSE_")}
    done = CliRunner(env={**clean, **ours, "COLUMNS": "250"}).invoke(app, arguments, prog_name="evosense")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return str(done.output)


async def _work_until_killed(url: str) -> None:
    settings = Settings.load()
    async with asking(write_side(settings), url) as asks:
        await run_worker(settings, asyncio.Event(), embedder=Embedder(), asks=asks, ack_wait=2, lease=1.5)


if __name__ == "__main__":
    asyncio.run(_work_until_killed(sys.argv[1]))
