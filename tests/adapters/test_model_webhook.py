"""Analysis by a webhook, against a real server that misbehaves."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from adapters.analysis.rendering import Rendered
from adapters.analysis.transport import Completion, Wrong
from adapters.analysis.webhook import Webhook
from adapters.model_server import AnalyserServer
from domain.ports import AnswerRefused, ModelUnavailable, Question
from tests.support import model_faults as faults
from tests.support.model_faults import Fault
from tests.support.openai_server import ModelServer, openai_server

PROMPT = Rendered("evosense-1", "Responda com um objeto JSON.")
QUESTION = Question(
    tenant_id=UUID(int=1),
    message_id=UUID(int=2),
    text="cadê meu pedido?",
    from_me=False,
    sent_at=datetime(2026, 7, 1, 12, tzinfo=UTC),
    earlier=("bom dia", "comprei ontem"),
    run_id="run-7",
)
ANSWER = {"sentiment": 0, "emotion": "neutro", "satisfaction": 50, "tone": "cordial", "summary": "Oi."}


@pytest.fixture(scope="module")
def running() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
def server(running: ModelServer) -> ModelServer:
    running.reset()
    running.key = None
    return running


@pytest.fixture
async def webhook(server: ModelServer) -> AsyncIterator[Webhook]:
    made = Webhook(configured(server))
    yield made
    await made.close()


def configured(server: ModelServer, **more: Any) -> AnalyserServer:
    given = {"name": "n8n", "url": server.webhook_url, "model": "fluxo", "kind": "webhook", "timeout": 10.0} | more
    return AnalyserServer(**given)


async def ask(webhook: Webhook, wrong: Wrong | None = None) -> Completion:
    return await webhook.complete(QUESTION, PROMPT, wrong)


async def test_what_is_sent(server: ModelServer, webhook: Webhook) -> None:
    completion = await ask(webhook)
    assert json.loads(completion.text)["emotion"] == "frustração"
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/webhook")
    assert request.json == {
        "tenant_id": str(UUID(int=1)),
        "message_id": str(UUID(int=2)),
        "message": "cadê meu pedido?",
        "from_me": False,
        "sent_at": "2026-07-01T12:00:00Z",
        "context": ["bom dia", "comprei ontem"],
        "prompt_version": "evosense-1",
        "prompt": PROMPT.system,
        "run_id": "run-7",
    }
    assert "authorization" not in request.headers


async def test_asked_again_it_is_told_what_was_wrong(server: ModelServer, webhook: Webhook) -> None:
    await ask(webhook, Wrong("{}", "sentiment is missing"))
    body = server.requests[0].json
    assert (body["error"], body["previous_answer"]) == ("sentiment is missing", "{}")


async def test_the_key_is_a_bearers_and_stays_out_of_errors(server: ModelServer) -> None:
    server.key = "segredo"
    for key in ("segredo", "outro-segredo"):
        given = configured(server, api_key=SecretStr(key))
        webhook = Webhook(given)
        if key == server.key:
            assert (await ask(webhook)).text
        else:
            with pytest.raises(ModelUnavailable, match="refuses the key") as caught:
                await ask(webhook)
            assert key not in repr(caught.value) + repr(given) + str(webhook.state())
        await webhook.close()


async def test_the_envelope_has_nothing_of_one_message(webhook: Webhook) -> None:
    assert json.loads(webhook.envelope(PROMPT)) == {"prompt_version": "evosense-1", "prompt": PROMPT.system}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (ANSWER, ANSWER),
        ([ANSWER], ANSWER),
        ({"output": ANSWER}, ANSWER),
        ([{"output": json.dumps(ANSWER)}], ANSWER),
        ({"output": ANSWER, "usage": {"input_tokens": 7, "output_tokens": 3}}, ANSWER),
        ({**ANSWER, "usage": {"input_tokens": 7, "output_tokens": 3}}, ANSWER),
    ],
)
async def test_answers_in_every_wrapping(server: ModelServer, webhook: Webhook, said: Any, text: Any) -> None:
    server.script(faults.raw(json.dumps(said).encode()))
    completion = await ask(webhook)
    assert json.loads(completion.text) == text
    counted = (7, 3) if "usage" in said else (0, 0)
    assert (completion.input_tokens, completion.output_tokens) == counted


@pytest.mark.parametrize("usage", [None, "muitos", {"input_tokens": -1, "output_tokens": "3"}, {"input_tokens": True}])
async def test_counts_that_are_none_are_nothing(server: ModelServer, webhook: Webhook, usage: Any) -> None:
    server.script(faults.raw(json.dumps({**ANSWER, "usage": usage}).encode()))
    completion = await ask(webhook)
    assert (completion.input_tokens, completion.output_tokens) == (0, 0)


@pytest.mark.parametrize("fault", [faults.status(429, 0.01), faults.status(500), faults.status(503), faults.cut()])
async def test_what_passes_is_asked_again(server: ModelServer, webhook: Webhook, fault: Fault) -> None:
    server.script(fault)
    assert (await ask(webhook)).text
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.status(404), "is the flow active"),
        (faults.page(), "not JSON"),
        (faults.raw(b""), "not JSON"),
        (faults.redirect("http://127.0.0.1:9/"), "redirect"),
    ],
)
async def test_what_does_not_pass_is_unavailable(
    server: ModelServer, webhook: Webhook, fault: Fault, reason: str
) -> None:
    server.script(fault)
    with pytest.raises(ModelUnavailable, match=reason):
        await ask(webhook)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "text", ["Claro! Aqui está: tudo certo.", "<think>Hm.</think> {}", '{"summary": "Cliente pergunta']
)
async def test_what_a_model_wrote_is_passed_on_unread_and_opens_no_breaker(
    server: ModelServer, webhook: Webhook, text: str
) -> None:
    server.script(*[faults.raw(text.encode())] * 8)
    assert [(await ask(webhook)).text for _ in range(8)] == [text] * 8
    assert webhook.state().breaker == "closed"


async def test_a_huge_answer_is_refused(server: ModelServer, webhook: Webhook) -> None:
    server.script(faults.huge(64))
    with pytest.raises(AnswerRefused, match="larger than"):
        await ask(webhook)
    assert server.requests[0].sent < 32 << 20


async def test_a_slow_flow_is_unavailable(server: ModelServer) -> None:
    webhook = Webhook(configured(server, timeout=0.2))
    server.always(faults.slow(30))
    with pytest.raises(ModelUnavailable, match="does not answer"):
        await ask(webhook)
    await webhook.close()
