"""The whole way of a question to a served model and back, over a real socket, in OpenAI's protocol and by webhook."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from adapters.analysis.rendering import BUILT_IN, render
from adapters.analysis.served import Served, served_analyser
from adapters.model_server import AnalyserServer
from domain.ports import AnswerRefused, Question
from tests.support.injections import attempts, kept
from tests.support.model_faults import Fault, answers_with, raw
from tests.support.openai_server import ModelServer, openai_server

QUESTION = Question(tenant_id=UUID(int=1), message_id=UUID(int=2), text="cadê meu pedido? já faz dez dias")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with openai_server() as running:
        yield running


@pytest.fixture(params=["openai", "webhook"])
def model(request: pytest.FixtureRequest, server: ModelServer) -> Served:
    server.reset()
    url = server.webhook_url if request.param == "webhook" else server.url
    return served_analyser(AnalyserServer(name="a", url=url, model="m", kind=request.param, timeout=20.0))


def said(model: Served, text: str) -> Fault:
    """The model's words, as OpenAI's protocol carries them, and as a flow of n8n does."""
    if type(model._transport).__name__ == "OpenAIChat":
        return answers_with(text)
    return raw(json.dumps({"output": text}).encode())


async def test_a_wrong_answer_is_repaired_and_two_are_refused(server: ModelServer, model: Served) -> None:
    server.script(said(model, '{"summary": "Cadê o pedido?"}'))
    answer = await model.ask(QUESTION, BUILT_IN)
    assert answer.analysis.emotion == "frustração"
    assert answer.usage.calls == 2
    assert "the answer has no emotion" in server.requests[1].body.decode()
    server.script(said(model, "Não sei."), said(model, "Já disse."))
    with pytest.raises(AnswerRefused, match="no complete JSON object") as refused:
        await model.ask(QUESTION, BUILT_IN)
    assert refused.value.usage.calls == 2
    await model.close()


async def test_the_hash_is_of_the_request_without_the_message(server: ModelServer) -> None:
    model = served_analyser(AnalyserServer(name="a", url=server.url, model="m"))
    server.reset()
    answer = await model.ask(QUESTION, BUILT_IN)
    [request] = server.requests
    sent: dict[str, Any] = request.json
    assert sent["messages"][0] == {"role": "system", "content": render(BUILT_IN).system}
    sent["messages"] = sent["messages"][:1]
    envelope = msgspec.json.encode(sent, order="deterministic")
    assert hashlib.sha256(envelope).hexdigest() == answer.template_hash
    await model.close()


async def test_attempts_to_steer_reach_the_model_as_data_and_its_obedience_nobody(
    server: ModelServer, model: Served
) -> None:
    systems = set()
    for attempt in attempts():
        server.reset()
        server.always(said(model, attempt.answer))
        if attempt.outcome == "refused":
            with pytest.raises(AnswerRefused, match=re.escape(attempt.rule)):
                await model.ask(attempt.question, BUILT_IN)
        else:
            assert kept(attempt, (await model.ask(attempt.question, BUILT_IN)).analysis)
        body = server.requests[0].json
        systems.add(body["prompt"] if "prompt" in body else json.dumps(body["messages"][0]))
    assert len(systems) == 1
    server.reset()
    await model.close()
