"""A tenant's chain: budget, cache, one flight for the same question, and the next model where one is out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from api import asking as asking_module
from api import usage as usage_module
from api.answer_cache import AnswerCache
from api.asking import OFFLINE_ROOM, Asking
from api.usage import Usage
from api.wiring import WriteSide
from domain.model_choices import ChooseModels, ClearChoice, model_choice
from domain.ports import (
    Analyser,
    Analysis,
    Answer,
    AnswerRefused,
    ModelUnavailable,
    Prompt,
    Question,
    ServedAnalyser,
)
from domain.ports import Usage as Used
from tests.support.http import utc_now

SAID = Analysis(sentiment=-0.5, emotion="raiva", satisfaction=20, tone="urgente", summary="reclama")
CALM = Analysis(sentiment=0.0, emotion="neutro", satisfaction=50, tone="neutro", summary="resumo")
LONG = "O bolo que encomendei para a festa da minha filha chegou amassado e frio, quero o dinheiro."
PRICE = 100
PROMPT = Prompt("p-1", "corpo")


class Offline:
    """In this process."""

    model_name = "offline-1"
    prompt_version = "rules-1"
    template_hash = "0" * 64

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.says = [CALM]

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        self.texts += texts
        return self.says


class Fake:
    """Behind no server: what it does is set."""

    def __init__(self, name: str, *, earlier: int = 0) -> None:
        self.name = name
        self.model_name = f"modelo-{name}"
        self.earlier = earlier
        self.asked: list[Question] = []
        self.out = 0.0
        self.free = 5
        self.does: Callable[[Question], Awaitable[Answer]] | Exception | None = None

    def template_hash(self, prompt: Prompt) -> str:
        return f"{prompt.body}{self.name}".ljust(64, "-")

    def wait(self) -> float:
        return self.out

    def room(self) -> int:
        return self.free if self.out <= 0 else 0

    async def ask(self, question: Question, prompt: Prompt) -> Answer:
        self.asked.append(question)
        if isinstance(self.does, Exception):
            raise self.does
        if self.does is not None:
            return await self.does(question)
        return self.said(prompt)

    def said(self, prompt: Prompt) -> Answer:
        used = Used(calls=1, input_tokens=30, output_tokens=9, cost=PRICE)
        told = (self.model_name, prompt.version, self.template_hash(prompt))
        return Answer(
            analysis=SAID,
            model_name=told[0],
            prompt_version=told[1],
            template_hash=told[2],
            latency_ms=900,
            usage=used,
        )

    async def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class World:
    """Models, a prompt and a tenant; `asking` is what is tested."""

    write: WriteSide
    usage: Usage
    a: Fake = field(default_factory=lambda: Fake("a"))
    b: Fake = field(default_factory=lambda: Fake("b"))
    offline: Offline = field(default_factory=Offline)
    chain: tuple[str, ...] = ("a",)
    prompt: Prompt = PROMPT
    daily_budget: int | None = None
    tenant_id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.write.vault.create(self.tenant_id)

    @property
    def analysers(self) -> Mapping[str, Analyser | ServedAnalyser]:
        return {"a": self.a, "b": self.b, "offline": self.offline}

    def current(self) -> Prompt:
        return self.prompt

    def make(self, chain: str = "a", *, budget: int | None = None) -> Asking:
        self.chain = tuple(chain.split())
        cache = AnswerCache(self.write.datastore, self.write.vault)
        return Asking(self.write, self, self, self.usage, cache, budget)

    def choose(self, *analysers: str, budget: int | None = None) -> None:
        command = ChooseModels(at=utc_now(), tenant_id=self.tenant_id, analysers=analysers, daily_budget=budget)
        self.write.commands.handle(model_choice(self.tenant_id), command)

    def question(self, text: str = LONG, **more: Any) -> Question:
        return Question(**{"tenant_id": self.tenant_id, "message_id": uuid4(), "text": text, **more})

    def counted(self) -> dict[str, tuple[int, int, int, int]]:
        """Calls, cached, refused and cost by model, written or not."""
        with self.usage._lock:
            return {
                key.model_name: (one.calls, one.cached, one.refused, one.cost)
                for key, one in self.usage._counts.items()
                if key.tenant_id == self.tenant_id
            }


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, for as long as a test may take."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


@pytest.fixture
def world(write: WriteSide) -> Iterator[World]:
    usage = Usage(write.datastore, pause=3600)
    yield World(write, usage)
    usage.close()


# ------------------------------------------------------------------------------------------------------ the chain


async def test_the_first_of_the_installation_s_chain_answers(world: World) -> None:
    asking = world.make("a b offline")
    assert asking.served(world.tenant_id)
    answer = await asking.answer(world.question())
    assert answer == world.a.said(world.prompt)
    assert (len(world.a.asked), world.b.asked, world.offline.texts) == (1, [], [])
    assert world.counted() == {"modelo-a": (1, 0, 0, PRICE)}


@pytest.mark.parametrize("down", ["says so", "is known to be"])
async def test_the_next_answers_where_one_is_out(world: World, down: str) -> None:
    asking = world.make("a b offline")
    if down == "says so":
        world.a.does = ModelUnavailable("connection refused", usage=Used(calls=1, cost=3))
    else:
        world.a.out = 5.0
    answer = await asking.answer(world.question())
    assert answer.model_name == "modelo-b", "who answered is recorded"
    assert len(world.a.asked) == (1 if down == "says so" else 0), "nobody knocks where nobody is"
    paid = {"modelo-a": (1, 0, 0, 3)} if down == "says so" else {}
    assert world.counted() == {**paid, "modelo-b": (1, 0, 0, PRICE)}


async def test_the_offline_analyser_answers_last(world: World) -> None:
    asking = world.make("a offline")
    world.a.does = ModelUnavailable("connection refused")
    answer = await asking.answer(world.question())
    assert (answer.model_name, answer.prompt_version, answer.template_hash) == ("offline-1", "rules-1", "0" * 64)
    assert (answer.analysis, answer.usage.cost) == (CALM, 0)
    assert world.offline.texts == [LONG]
    assert world.counted() == {"offline-1": (1, 0, 0, 0)}


async def test_without_it_messages_wait_for_whoever_is_back_first(world: World) -> None:
    asking = world.make("a b")
    world.a.does, world.b.does = ModelUnavailable("429", 40.0), ModelUnavailable("503", 7.5)
    with pytest.raises(ModelUnavailable, match="429; 503") as out:
        await asking.answer(world.question())
    assert out.value.retry_after == 7.5
    world.a.does, world.b.does = ModelUnavailable("429"), ModelUnavailable("503")
    with pytest.raises(ModelUnavailable) as unknown:
        await asking.answer(world.question())
    assert unknown.value.retry_after is None


async def test_a_wrong_answer_is_nobody_else_s_business(world: World) -> None:
    asking = world.make("a b offline")
    world.a.does = AnswerRefused("the emotion is none", Used(calls=2, input_tokens=60, cost=2 * PRICE))
    with pytest.raises(AnswerRefused, match="the emotion is none"):
        await asking.answer(world.question())
    assert (world.b.asked, world.offline.texts) == ([], [])
    assert world.counted() == {"modelo-a": (2, 0, 1, 2 * PRICE)}, "it was paid for"


@pytest.mark.parametrize("wrong", [[], [CALM, CALM]])
async def test_an_analyser_in_this_process_that_miscounts_is_refused(world: World, wrong: list[Analysis]) -> None:
    world.offline.says = wrong
    with pytest.raises(AnswerRefused, match="analyses of one text"):
        await world.make("offline").answer(world.question())
    assert world.counted() == {"offline-1": (1, 0, 1, 0)}


async def test_a_tenant_chooses_for_itself(world: World) -> None:
    asking = world.make("a")
    stranger = uuid4()
    world.choose("b", "a")
    assert (await asking.answer(world.question())).model_name == "modelo-b"
    world.write.vault.create(stranger)
    assert (await asking.answer(world.question(tenant_id=stranger))).model_name == "modelo-a"


async def test_a_change_of_the_choice_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = world.make("offline")
    assert not asking.served(world.tenant_id)
    now = [0.0]
    monkeypatch.setattr(asking._chains, "_clock", lambda: 1e9 + now[0])
    assert not asking.served(world.tenant_id)
    world.choose("a")
    assert not asking.served(world.tenant_id), "for a second it may be an old one"
    now[0] = 1.0
    assert asking.served(world.tenant_id)
    world.write.commands.handle(model_choice(world.tenant_id), ClearChoice(at=utc_now()))
    now[0] = 2.0
    assert not asking.served(world.tenant_id)


async def test_a_name_that_is_no_longer_configured_is_passed_over_and_said_once(world: World) -> None:
    world.choose("gone", "b")
    with structlog.testing.capture_logs() as logs:
        for asking in [world.make("a")] * 2:
            asking._chains._fresh.clear()
            assert (await asking.answer(world.question())).model_name == "modelo-b"
    assert [(entry["analyser"], entry["tenant"]) for entry in logs] == [("gone", str(world.tenant_id))]
    world.choose("gone")
    assert (await world.make("a").answer(world.question())).model_name == "offline-1", "nothing is left of its choice"


async def test_each_model_gets_as_much_context_as_it_wants(world: World) -> None:
    world.a.earlier, world.b.earlier = 1, 3
    asking = world.make("a b")
    assert asking.earlier(world.tenant_id) == 3
    world.a.does = ModelUnavailable("down")
    await asking.answer(world.question(earlier=("um", "dois", "três", "quatro")))
    assert [one.asked[0].earlier for one in (world.a, world.b)] == [("quatro",), ("dois", "três", "quatro")]
    assert world.make("offline").earlier(world.tenant_id) == 0
    world.a.does, world.a.earlier = None, 0
    await asking.answer(world.question(earlier=("um",)))
    assert world.a.asked[-1].earlier == ()


# ------------------------------------------------------------------------------------------------- room and waiting


def test_room_is_that_of_the_first_that_is_not_out(world: World) -> None:
    asking, tenant_id = world.make("a b"), world.tenant_id
    assert (asking.room(tenant_id), asking.wait(tenant_id)) == (5, 0.0)
    world.a.free = 0  # busy, and not out: the next one is for when it is
    assert (asking.room(tenant_id), asking.wait(tenant_id)) == (0, 0.0)
    world.a.out, world.b.free = 9.0, 2
    assert (asking.room(tenant_id), asking.wait(tenant_id)) == (2, 0.0)
    world.b.out = 4.0
    assert (asking.room(tenant_id), asking.wait(tenant_id)) == (0, 4.0)
    last = world.make("a offline")
    assert (last.room(tenant_id), last.wait(tenant_id)) == (OFFLINE_ROOM, 0.0)


# ------------------------------------------------------------------------------------------------------ the budget


async def test_when_the_budget_is_spent_the_offline_analyser_answers_and_says_so(world: World) -> None:
    asking = world.make("a b", budget=2 * PRICE)
    with structlog.testing.capture_logs() as logs:
        names = [(await asking.answer(world.question(f"{LONG} {number}"))).model_name for number in range(4)]
    assert names == ["modelo-a", "modelo-a", "offline-1", "offline-1"], "although no chain names it"
    assert [(entry["log_level"], entry["tenant"]) for entry in logs] == [("warning", str(world.tenant_id))]
    assert asking.served(world.tenant_id)
    assert (asking.room(world.tenant_id), asking.wait(world.tenant_id)) == (OFFLINE_ROOM, 0.0)
    assert world.counted()["modelo-a"] == (2, 0, 0, 2 * PRICE)


async def test_the_day_after_it_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = world.make("a", budget=PRICE)
    await asking.answer(world.question())
    assert (await asking.answer(world.question())).model_name == "offline-1"
    tomorrow = usage_module.today() + usage_module.timedelta(days=1)
    for module in (usage_module, asking_module):
        monkeypatch.setattr(module, "today", lambda: tomorrow)
    assert (await asking.answer(world.question())).model_name == "modelo-a"


async def test_what_another_worker_spent_counts(world: World) -> None:
    other = Usage(world.write.datastore, pause=3600)
    asking = world.make("a", budget=PRICE)
    mine = world.tenant_id
    assert (await asking.answer(world.question())).model_name == "modelo-a"
    other.count(mine, "modelo-a", Used(calls=1, cost=5))
    third = World(world.write, other)
    assert (await third.make("a", budget=PRICE).answer(third.question())).model_name == "modelo-a"
    world.usage.flush()
    other.flush()
    restarted = Usage(world.write.datastore, pause=3600)
    world.usage = restarted
    assert restarted.spent(mine) == PRICE + 5
    assert (await world.make("a", budget=PRICE).answer(world.question())).model_name == "offline-1"
    restarted.close()
    other.close()


async def test_a_tenant_s_own_budget_goes_before_the_installation_s(world: World) -> None:
    world.choose(budget=0)
    asking = world.make("a", budget=10 * PRICE)
    assert not asking.served(world.tenant_id), "no model behind a server at all"
    assert (await asking.answer(world.question())).model_name == "offline-1"
    assert world.a.asked == []
    free = World(world.write, world.usage)
    free.choose(budget=10 * PRICE)
    assert (await free.make("a", budget=0).answer(free.question())).model_name == "modelo-a"


async def test_another_tenant_s_spending_is_its_own(world: World) -> None:
    other = World(world.write, world.usage)
    world.usage.count(other.tenant_id, "modelo-a", Used(calls=1, cost=PRICE))
    assert (await world.make("a", budget=PRICE).answer(world.question())).model_name == "modelo-a"


# ------------------------------------------------------------------------------------------------------- the cache


async def test_a_short_text_is_asked_once(world: World) -> None:
    asking = world.make("a")
    first, second = [await asking.answer(world.question("bom dia")) for _ in range(2)]
    assert len(world.a.asked) == 1
    assert (first.latency_ms, first.usage.cost) == (900, PRICE)
    assert (second.latency_ms, second.usage) == (0, Used())
    assert second.analysis == first.analysis
    assert (second.model_name, second.prompt_version, second.template_hash) == (
        first.model_name,
        first.prompt_version,
        first.template_hash,
    )
    assert world.counted() == {"modelo-a": (1, 1, 0, PRICE)}
    # Also by another worker, under this prompt alone.
    assert (await world.make("a").answer(world.question("bom dia"))).usage == Used()
    world.prompt = Prompt("p-2", "outro corpo")
    assert (await world.make("a").answer(world.question("bom dia"))).prompt_version == "p-2"
    assert len(world.a.asked) == 2


@pytest.mark.parametrize("more", [{}, {"earlier": ("cadê meu pedido?",)}])
async def test_longer_texts_and_those_in_a_conversation_are_not_kept(world: World, more: dict[str, Any]) -> None:
    world.a.earlier = 2
    asking = world.make("a")
    text = "ok" if more else LONG
    for _ in range(2):
        await asking.answer(world.question(text, **more))
    assert len(world.a.asked) == 2
    with world.write.datastore.get_connection() as conn:
        found = conn.execute("SELECT FROM evosense_ops.answer_cache WHERE tenant_id = %s", (world.tenant_id,))
        assert found.fetchall() == []


async def test_the_cache_answers_while_the_model_is_out(world: World) -> None:
    asking = world.make("a")
    await asking.answer(world.question("ok"))
    world.a.out = 60.0
    assert (await asking.answer(world.question("ok"))).model_name == "modelo-a"
    with pytest.raises(ModelUnavailable):
        await asking.answer(world.question("sim"))


async def test_the_same_question_at_the_same_time_is_asked_once(world: World) -> None:
    gate = asyncio.Event()

    async def slowly(_: Question) -> Answer:
        await gate.wait()
        return world.a.said(world.prompt)

    world.a.does = slowly
    asking = world.make("a")
    waiting = [asyncio.create_task(asking.answer(world.question("oi"))) for _ in range(10)]
    others = [asyncio.create_task(asking.answer(world.question(LONG))) for _ in range(2)]
    await until(lambda: len(world.a.asked) == 3)
    waiting[0].cancel()  # who asked goes away: the others still want to know
    waiting[5].cancel()
    gate.set()
    results = await asyncio.gather(*waiting, *others, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in results) == 2
    assert len([one for one in world.a.asked if one.text == "oi"]) == 1
    assert len([one for one in world.a.asked if one.text == LONG]) == 2, "long ones are each their own"
    assert sum(one.usage.cost for one in results if isinstance(one, Answer)) <= 3 * PRICE
    assert world.counted()["modelo-a"] in {(3, 7, 0, 3 * PRICE), (3, 8, 0, 3 * PRICE)}
    assert asking._flights == {}


@pytest.mark.parametrize("error", [AnswerRefused("no JSON", Used(calls=2, cost=7)), ModelUnavailable("503", 3.0)])
async def test_who_joined_hears_of_the_failure_as_well(world: World, error: Exception) -> None:
    gate = asyncio.Event()

    async def fails(_: Question) -> Answer:
        await gate.wait()
        raise error

    world.a.does = fails
    asking = world.make("a")
    waiting = [asyncio.create_task(asking.answer(world.question("oi"))) for _ in range(3)]
    await until(lambda: bool(world.a.asked))
    await asyncio.sleep(0.05)
    gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in results] == [type(error)] * 3
    refused = isinstance(error, AnswerRefused)
    assert sum(one.usage.cost for one in results if isinstance(one, AnswerRefused)) == (7 if refused else 0)
    assert world.counted() == ({"modelo-a": (2, 0, 1, 7)} if refused else {})
    # Nothing of it is kept.
    world.a.does = None
    assert (await asking.answer(world.question("oi"))).analysis == SAID


async def test_two_tenants_share_nothing(world: World) -> None:
    other = World(world.write, world.usage, a=world.a)
    asking = world.make("a")
    for one in (world, other, world, other):
        await asking.answer(one.question("ok"))
    assert [question.tenant_id for question in world.a.asked] == [world.tenant_id, other.tenant_id]


async def test_closing_gives_up_what_is_asked(world: World) -> None:
    async def never(_: Question) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world.a.does = never
    asking = world.make("a")
    waiting = asyncio.create_task(asking.answer(world.question("oi")))
    await until(lambda: bool(world.a.asked))
    await asking.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asking._flights == {}
