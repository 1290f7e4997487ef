"""A tenant's chain against a model server behind a real socket: fall-back, refusal, budget and cache."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from adapters.analysis.rendering import BUILT_IN
from adapters.model_server import AnalyserServer
from adapters.model_settings import ModelConfig
from api.asking import Asking
from api.model_catalogue import Catalogue
from api.wiring import WriteSide
from domain.ports import Answer, AnswerRefused, ModelUnavailable, Prompt, Question, Usage
from tests.support.model_faults import no_key, raw
from tests.support.openai_server import ModelServer, openai_server

LONG = "O bolo que encomendei para a festa da minha filha chegou amassado, que vergonha, quero o dinheiro."


@pytest.fixture(scope="module")
def first() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@pytest.fixture(scope="module")
def second() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@dataclass
class Place:
    """Two servers and the offline analyser, of which a chain is made."""

    write: WriteSide
    first: ModelServer
    second: ModelServer
    catalogue: Catalogue
    tenant_id: UUID

    def asking(self, *chain: str, budget: int | None = None) -> Asking:
        self.catalogue.chain = chain
        return Asking(self.write, self.catalogue, self, self.write.usage, self.write.answers, budget)

    def current(self) -> Prompt:
        return BUILT_IN

    def question(self, text: str = LONG) -> Question:
        return Question(tenant_id=self.tenant_id, message_id=uuid4(), text=text)


@pytest.fixture
async def place(write: WriteSide, first: ModelServer, second: ModelServer) -> AsyncIterator[Place]:
    tenant_id = uuid4()
    write.vault.create(tenant_id)
    for server in (first, second):
        server.reset()
    prices = {"input_price": 1.0, "output_price": 2.0, "timeout": 5.0}
    servers = (
        AnalyserServer(name="a", url=first.url, model="modelo-a", **prices),
        AnalyserServer(name="b", url=second.url, model="modelo-b", **prices),
    )
    catalogue = Catalogue(ModelConfig(analysers=servers, chain=("a",)))
    yield Place(write, first, second, catalogue, tenant_id)
    await catalogue.close()


async def test_answers_cost_what_their_tokens_cost(place: Place) -> None:
    answer = await place.asking("a", "b").answer(place.question())
    used = answer.usage
    assert (answer.model_name, answer.analysis.emotion, used.calls) == ("modelo-a", "raiva", 1)
    assert used.cost == used.input_tokens + 2 * used.output_tokens > 0
    assert place.write.usage.spent(place.tenant_id) == used.cost
    assert place.second.requests == []


async def test_a_server_that_refuses_us_is_stood_in_for(place: Place) -> None:
    place.first.always(no_key())
    assert (await place.asking("a", "b").answer(place.question())).model_name == "modelo-b"
    place.second.always(no_key())
    assert (await place.asking("a", "b", "offline").answer(place.question())).usage.cost == 0
    with pytest.raises(ModelUnavailable):
        await place.asking("a", "b").answer(place.question())


async def test_a_model_that_answers_wrongly_twice_is_paid_and_not_stood_in_for(place: Place) -> None:
    place.first.always(raw(b'{"choices": [{"message": {"content": "gosto"}}], "usage": {"prompt_tokens": 7}}'))
    with pytest.raises(AnswerRefused) as refused:
        await place.asking("a", "b", "offline").answer(place.question())
    assert refused.value.usage.calls == len(place.first.requests) == 2
    assert place.second.requests == []
    assert place.write.usage.spent(place.tenant_id) == refused.value.usage.cost


async def test_a_spent_budget_keeps_the_server_from_being_asked(place: Place) -> None:
    asking = place.asking("a", budget=1)
    answers: list[Answer] = [await asking.answer(place.question()) for _ in range(3)]
    assert [one.model_name == "modelo-a" for one in answers] == [True, False, False]
    assert len(place.first.requests) == 1
    assert [one.usage.cost for one in answers[1:]] == [0, 0]


async def test_a_short_text_reaches_the_server_once(place: Place) -> None:
    asking = place.asking("a")
    one = await asking.answer(place.question("bom dia"))
    again = await asking.answer(place.question("bom dia"))
    assert len(place.first.requests) == 1
    assert (again.analysis, again.template_hash, again.usage) == (one.analysis, one.template_hash, Usage())
