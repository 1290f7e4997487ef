"""An analyser behind a server: asked, asked once more, refused and paid for. The transport here is a script."""

import asyncio
import hashlib
import json
from typing import Any, Literal
from uuid import UUID

import pytest

from adapters.analysis.rendering import BUILT_IN, Rendered, render
from adapters.analysis.served import Served, served_analyser
from adapters.analysis.transport import Completion, Wrong
from adapters.model_server.config import AnalyserServer
from domain.ports import AnswerRefused, ModelUnavailable, Prompt, Question, ServedAnalyser, Usage

RIGHT = json.dumps(
    {"summary": "Cadê o pedido?", "emotion": "worried", "tone": "informal", "sentiment": -0.25, "satisfaction": 40.0}
)
WRONG = RIGHT.replace("40.0", "4000")
QUESTION = Question(tenant_id=UUID(int=1), message_id=UUID(int=2), text="cadê meu pedido")


class Script:
    """Answers what it is told to, and notes what it was asked. The real transports have tests with a real server."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Question, Rendered, Wrong | None]] = []
        self.model = "m"
        self.closed = False

    def envelope(self, prompt: Rendered) -> bytes:
        return json.dumps({"model": self.model, "system": prompt.system}).encode()

    async def complete(self, question: Question, prompt: Rendered, wrong: Wrong | None) -> Completion:
        await asyncio.sleep(0)
        self.asked.append((question, prompt, wrong))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Completion(answer, 1000, 100)

    def wait(self) -> float:
        return 1.5

    def room(self) -> int:
        return 3

    async def close(self) -> None:
        self.closed = True


def served(script: Script, **changes: Any) -> Served:
    server: dict[str, Any] = {"name": "big", "url": "http://127.0.0.1:1/v1", "model": "model-1", "earlier": 2}
    return Served(AnalyserServer(**(server | changes)), script)


async def test_a_right_answer() -> None:
    script = Script(RIGHT)
    model: ServedAnalyser = served(script)
    answer = await model.ask(QUESTION, BUILT_IN)
    assert answer.analysis.emotion == "ansiedade"
    assert (answer.analysis.sentiment, answer.analysis.satisfaction) == (-0.25, 40)
    assert (answer.model_name, answer.prompt_version) == ("model-1", "evosense-1")
    assert answer.template_hash == model.template_hash(BUILT_IN)
    assert answer.latency_ms >= 0
    assert answer.usage == Usage(calls=1, input_tokens=1000, output_tokens=100)
    assert [wrong for _, _, wrong in script.asked] == [None]
    assert (model.name, model.model_name, model.earlier, model.wait(), model.room()) == ("big", "model-1", 2, 1.5, 3)
    await model.close()
    assert script.closed


async def test_a_wrong_answer_is_asked_about_once() -> None:
    script = Script(WRONG, RIGHT)
    answer = await served(script).ask(QUESTION, BUILT_IN)
    assert answer.analysis.satisfaction == 40
    assert answer.usage == Usage(calls=2, input_tokens=2000, output_tokens=200)
    assert script.asked[1][2] == Wrong(WRONG, "satisfaction is a whole number from 0 to 100, without quotes")
    assert script.asked[1][:2] == script.asked[0][:2]


async def test_a_model_that_is_wrong_twice_is_refused_with_what_it_cost() -> None:
    script = Script(WRONG, "Sorry, I can't: cadê meu pedido")
    with pytest.raises(AnswerRefused, match="no complete JSON object") as refused:
        await served(script, call_price=0.01).ask(QUESTION, BUILT_IN)
    assert refused.value.usage == Usage(calls=2, input_tokens=2000, output_tokens=200, cost=20_000)
    assert "pedido" not in str(refused.value)
    assert script.answers == []


async def test_unavailable_is_not_wrong() -> None:
    with pytest.raises(ModelUnavailable) as first:
        await served(Script(ModelUnavailable("down"))).ask(QUESTION, BUILT_IN)
    assert first.value.usage == Usage()
    with pytest.raises(ModelUnavailable) as second:
        await served(Script(WRONG, ModelUnavailable("down", 7))).ask(QUESTION, BUILT_IN)
    assert second.value.retry_after == 7
    assert second.value.usage == Usage(calls=1, input_tokens=1000, output_tokens=100)
    with pytest.raises(AnswerRefused) as declined:
        await served(Script(WRONG, AnswerRefused("declined", Usage(calls=1)))).ask(QUESTION, BUILT_IN)
    assert declined.value.usage == Usage(calls=2, input_tokens=1000, output_tokens=100)


async def test_a_prompt_that_can_not_be_rendered_leaves_messages_waiting() -> None:
    script = Script(RIGHT)
    with pytest.raises(ModelUnavailable, match="line 1: there is no such variable"):
        await served(script).ask(QUESTION, Prompt("broken", "{{ nothing }}"))
    assert script.asked == []


def test_the_hash_is_of_what_is_sent_now() -> None:
    script = Script()
    model = served(script)
    body = Prompt("v", "Analise.")
    expected = json.dumps({"model": "m", "system": render(body).system}).encode()
    assert model.template_hash(body) == hashlib.sha256(expected).hexdigest()
    assert model.template_hash(body) == served(Script()).template_hash(body)
    assert model.template_hash(body) != model.template_hash(Prompt("v", "Analise!"))
    before = model.template_hash(body)
    script.model = "m2"  # as where a server turned out not to know a form of answer
    assert model.template_hash(body) != before


@pytest.mark.parametrize("kind", ["openai", "webhook"])
async def test_the_transport_is_that_of_the_kind(kind: Literal["openai", "webhook"]) -> None:
    model = served_analyser(AnalyserServer(name="a", url="http://127.0.0.1:9/v1", model="m", kind=kind))
    assert type(model._transport).__name__ == {"openai": "OpenAIChat", "webhook": "Webhook"}[kind]
    assert len(model.template_hash(BUILT_IN)) == 64
    assert model.wait() == 0
    await model.close()


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"input_price": 0.15, "output_price": 0.6}, 150 + 60),
        ({"input_price": 0.1501}, 151),
        ({"input_price": 0.0001}, 1),
        ({"call_price": 0.000001}, 1),
        ({"input_price": 2.5, "output_price": 10.0, "call_price": 0.001}, 2500 + 1000 + 1000),
    ],
)
async def test_what_an_answer_costs_is_rounded_up(prices: dict[str, float], cost: int) -> None:
    answer = await served(Script(RIGHT), **prices).ask(QUESTION, BUILT_IN)
    assert answer.usage.cost == cost


async def test_a_server_may_count_what_it_likes() -> None:
    class Liar(Script):
        async def complete(self, question: Question, prompt: Rendered, wrong: Wrong | None) -> Completion:
            return Completion(RIGHT, -5, 10**30)

    usage = (await served(Liar(), output_price=1.0).ask(QUESTION, BUILT_IN)).usage
    assert (usage.input_tokens, usage.output_tokens) == (0, 2**31 - 1)
