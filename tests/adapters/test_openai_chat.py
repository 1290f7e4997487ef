"""Analysis by OpenAI's protocol, against a real server that misbehaves."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from adapters.analysis.openai_chat import OpenAIChat
from adapters.analysis.rendering import Rendered
from adapters.analysis.transport import Completion, Wrong
from adapters.model_server import AnalyserServer
from domain.ports import AnswerRefused, ModelUnavailable, Question
from tests.support import model_faults as faults
from tests.support.model_faults import Fault
from tests.support.openai_server import ModelServer, openai_server

KEY = "sk-segredo-123"
PROMPT = Rendered("evosense-1", "Responda com um objeto JSON.")
QUESTION = Question(
    tenant_id=UUID(int=1), message_id=UUID(int=2), text="cadê meu pedido [CPF]?", earlier=("bom dia",), run_id="run-7"
)


@pytest.fixture(scope="module")
def running() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
def server(running: ModelServer) -> ModelServer:
    running.reset()
    running.key, running.models, running.knows = None, None, frozenset({"json_schema", "json_object", "text"})
    return running


@pytest.fixture
async def chat(server: ModelServer) -> AsyncIterator[OpenAIChat]:
    made = OpenAIChat(configured(server))
    yield made
    await made.close()


def configured(server: ModelServer, **more: Any) -> AnalyserServer:
    given = {"name": "local", "url": server.url, "model": "modelo", "timeout": 10.0, "input_price": 2.0} | more
    return AnalyserServer(**given)


async def ask(chat: OpenAIChat, wrong: Wrong | None = None) -> Completion:
    return await chat.complete(QUESTION, PROMPT, wrong)


async def test_an_answer_with_its_tokens(server: ModelServer, chat: OpenAIChat) -> None:
    completion = await ask(chat)
    assert json.loads(completion.text)["emotion"] == "frustração"
    assert completion.input_tokens > 0
    assert completion.output_tokens > 0
    [request] = server.requests
    assert request.path == "/v1/chat/completions"
    body = request.json
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("modelo", 0, 400)
    assert body["response_format"]["json_schema"]["strict"] is True
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == PROMPT.system


async def test_what_leaves_the_house_is_the_text_that_was_given_and_no_ids(
    server: ModelServer, chat: OpenAIChat
) -> None:
    await ask(chat)
    assert "cadê meu pedido [CPF]?" in json.loads(server.requests[0].json["messages"][1]["content"])["message"]
    for secret in (str(QUESTION.tenant_id), str(QUESTION.message_id), "run-7"):
        assert secret not in server.texts


async def test_only_headers_that_are_needed_are_sent(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_API_KEY": "do-ambiente",
        "OPENAI_ORG_ID": "do-ambiente",
        "OPENAI_PROJECT_ID": "do-ambiente",
        "OPENAI_ADMIN_KEY": "do-ambiente",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/do-ambiente",
        "OPENAI_CUSTOM_HEADERS": "Host: do-ambiente",
    }.items():
        monkeypatch.setenv(name, value)
    for key in (None, SecretStr(KEY)):
        chat = OpenAIChat(configured(server, api_key=key))
        await ask(chat)
        await chat.close()
    without, with_key = (request.headers for request in server.requests)
    allowed = {"host", "content-type", "content-length", "accept", "connection", "user-agent", "accept-encoding"}
    assert set(without) <= allowed
    assert set(with_key) <= allowed | {"authorization"}
    assert with_key["authorization"] == f"Bearer {KEY}"
    assert "do-ambiente" not in str(without) + str(with_key)


async def test_asked_again_the_conversation_goes_on(server: ModelServer, chat: OpenAIChat) -> None:
    await ask(chat, Wrong('{"emotion": "euforia"}', "the emotion is none of ours"))
    turns = server.requests[0].json["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert "the emotion is none of ours" in turns[3]["content"]
    assert "euforia" in turns[3]["content"]


async def test_the_envelope_is_the_request_without_the_message(server: ModelServer, chat: OpenAIChat) -> None:
    envelope = chat.envelope(PROMPT)
    assert envelope == chat.envelope(PROMPT)
    await ask(chat)
    body = server.requests[0].json
    body["messages"] = body["messages"][:1]
    assert json.loads(envelope) == body
    assert json.loads(chat.envelope(Rendered("evosense-1", "Outra."))) != body


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(429, 0.01),
        faults.status(429, format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)),
        faults.status(500),
        faults.status(502),
        faults.status(503),
        faults.status(504),
        faults.status(408),
        faults.cut("before"),
        faults.cut("middle"),
    ],
)
async def test_what_passes_is_asked_again(server: ModelServer, chat: OpenAIChat, fault: Fault) -> None:
    server.script(fault)
    assert (await ask(chat)).text
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.no_key(), r"wants a key \(401\): set EVOSENSE_MODEL_API_KEY"),
        (faults.status(403), r"\(403\)"),
        (faults.no_model(), r"\(404\).*model's name"),
        (faults.status(429, code="insufficient_quota"), "quota is used up"),
        (faults.redirect("http://127.0.0.1:9/v1"), r"redirect \(307\)"),
        (faults.status(400, message="sem motivo «texto»"), r"does not accept the request \(400\)"),
        (faults.invalid_json(), "not as OpenAI's protocol"),
        (faults.no_completion(), "not as OpenAI's protocol"),
        (faults.page(), "not as OpenAI's protocol"),
        (faults.bomb(), "compresses"),
    ],
)
async def test_what_does_not_pass_is_unavailable_and_says_why(
    server: ModelServer, chat: OpenAIChat, fault: Fault, reason: str
) -> None:
    server.always(fault)
    with pytest.raises(ModelUnavailable, match=reason) as caught:
        await ask(chat)
    said = str(caught.value)
    assert "texto" not in said
    assert "sk-" not in said
    asked = {request.json.get("response_format", {}).get("type", "text") for request in server.requests}
    assert len(server.requests) == len(asked)  # at most once in each form


async def test_a_long_retry_after_is_passed_on(server: ModelServer, chat: OpenAIChat) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    server.script(faults.status(429, at))
    with pytest.raises(ModelUnavailable) as caught:
        await ask(chat)
    assert caught.value.retry_after == pytest.approx(600, abs=60)
    assert chat.wait() > 500
    assert chat.room() == 0


async def test_a_key_that_is_refused_is_not_in_the_error(
    server: ModelServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    server.key = "another"
    given = configured(server, api_key=SecretStr(KEY))
    chat = OpenAIChat(given)
    with pytest.raises(ModelUnavailable, match=r"refuses the key \(401\): check") as caught:
        await ask(chat)
    assert chat.state().breaker == "open"
    everything = repr(caught.value) + repr(given) + repr(vars(chat)) + caplog.text + str(chat.state())
    for secret in (KEY, "cadê meu pedido", PROMPT.system):
        assert secret not in everything
    await chat.close()


@pytest.mark.parametrize("key", ["chave\ninjetada: 1", "ção"])
async def test_a_key_that_no_header_can_carry_is_not_in_the_error(server: ModelServer, key: str) -> None:
    server.key = "another"
    chat = OpenAIChat(configured(server, api_key=SecretStr(key)))
    with pytest.raises(ModelUnavailable) as caught:
        await ask(chat)
    assert key[:5] not in str(caught.value)
    await chat.close()


@pytest.mark.parametrize("fault", [faults.too_long(), faults.filtered(), faults.status(413)])
async def test_what_is_one_messages_fault_is_refused_and_shuts_nobody_out(
    server: ModelServer, chat: OpenAIChat, fault: Fault
) -> None:
    server.script(*[fault] * 6)
    for _ in range(6):
        with pytest.raises(AnswerRefused) as caught:
            await ask(chat)
        assert "texto" not in str(caught.value)
    assert (await ask(chat)).text
    assert len(server.requests) == 7


@pytest.mark.parametrize("announced", [True, False])
async def test_a_huge_answer_is_refused_and_not_read(server: ModelServer, chat: OpenAIChat, announced: bool) -> None:
    server.script(faults.huge(64, announced=announced))
    with pytest.raises(AnswerRefused, match="larger than"):
        await ask(chat)
    assert server.requests[0].sent < 32 << 20
    assert (await ask(chat)).text


@pytest.mark.parametrize("fault", [faults.refusal(), faults.filtered_answer()])
async def test_a_model_that_declines_is_not_asked_again_and_costs(
    server: ModelServer, chat: OpenAIChat, fault: Fault
) -> None:
    server.script(fault)
    with pytest.raises(AnswerRefused, match="declines") as caught:
        await ask(chat)
    usage = caught.value.usage
    assert (usage.calls, usage.cost) == (1, 2 * usage.input_tokens)


async def test_a_model_that_thinks_past_its_limit_is_refused(server: ModelServer, chat: OpenAIChat) -> None:
    server.script(faults._choice(finish_reason="length", message={"content": ""}))
    with pytest.raises(AnswerRefused, match="raise `max_output_tokens`"):
        await ask(chat)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (faults.no_choices(), ""),
        (faults.tool_calls(), ""),
        (faults.cut_short(), '{"sentiment": 0.5, "emo'),
        (faults.answers_with("não sei"), "não sei"),
    ],
)
async def test_wrong_answers_go_to_who_checks_them(
    server: ModelServer, chat: OpenAIChat, fault: Fault, text: str
) -> None:
    server.script(fault)
    assert (await ask(chat)).text == text


@pytest.mark.parametrize("fault", [faults.out_of_range(), faults.unknown_labels(), faults.wrong_language()])
async def test_what_an_answer_says_is_not_judged_here(server: ModelServer, chat: OpenAIChat, fault: Fault) -> None:
    server.script(fault)
    assert json.loads((await ask(chat)).text)


@pytest.mark.parametrize("knows", [{"json_object", "text"}, {"text"}])
async def test_a_server_without_schemas_is_asked_more_simply_and_it_is_said_once(
    server: ModelServer, chat: OpenAIChat, knows: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    server.knows = frozenset(knows)
    before = chat.envelope(PROMPT)
    for _ in range(3):
        assert (await ask(chat)).text
    forms = [request.json.get("response_format", {}).get("type", "text") for request in server.requests]
    assert forms == ["json_schema", "json_object", "text"][: 4 - len(knows)] + [forms[-1]] * 2
    assert chat.envelope(PROMPT) != before
    said = [record for record in caplog.records if "does not know the form" in record.message]
    assert len(said) == 3 - len(knows)
    body = server.requests[-1].json
    assert json.loads(chat.envelope(PROMPT)) == {**body, "messages": body["messages"][:1]}


async def test_an_answer_comes_with_the_form_that_it_was_asked_in_whatever_became_of_it_meanwhile(
    server: ModelServer, chat: OpenAIChat
) -> None:
    server.knows = frozenset({"json_schema", "json_object", "text"})
    server.hold()
    first = asyncio.create_task(ask(chat))
    await asyncio.to_thread(server.wait_for, 1)
    asked_in = chat.envelope(PROMPT)
    chat._form = "text"  # another call has found out that the server knows no more
    server.release()
    assert (await first).sent == asked_in != chat.envelope(PROMPT)


async def test_parameters_that_a_server_refuses_are_left_out(server: ModelServer, chat: OpenAIChat) -> None:
    server.script(
        faults.status(400, message="Use max_completion_tokens.", code="unsupported_parameter", param="max_tokens"),
        faults.status(400, message="Only the default.", code="unsupported_value", param="temperature"),
        faults.raw(b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}', 422),
    )
    await ask(chat)
    body = server.requests[-1].json
    assert body["max_completion_tokens"] == 400
    assert not {"max_tokens", "temperature", "seed"} & set(body)
    await ask(chat)
    assert len(server.requests) == 5


@pytest.mark.parametrize("fault", [faults.slow(30), faults.dripping()])
async def test_a_slow_server_is_unavailable(server: ModelServer, fault: Fault) -> None:
    chat = OpenAIChat(configured(server, timeout=0.3))
    await ask(chat)  # the SDK is loaded
    server.always(fault)
    with pytest.raises(ModelUnavailable, match="does not answer"):
        await ask(chat)
    assert chat.state().in_flight == 0
    await chat.close()


async def test_a_server_that_goes_and_comes_back(server: ModelServer, chat: OpenAIChat) -> None:
    await ask(chat)
    server.down()
    with pytest.raises(ModelUnavailable, match="nothing listens at"):
        await ask(chat)
    server.up()
    await asyncio.sleep(chat.wait())
    assert (await ask(chat)).text


async def test_no_more_at_once_than_configured(server: ModelServer) -> None:
    chat = OpenAIChat(configured(server, concurrency=3))
    await asyncio.gather(*(ask(chat) for _ in range(30)))
    assert server.high_water <= 3
    await chat.close()


async def test_a_cancelled_question_leaves_its_place(server: ModelServer, chat: OpenAIChat) -> None:
    server.hold()
    asked = asyncio.create_task(ask(chat))
    await asyncio.to_thread(server.wait_for, 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    server.release()
    assert chat.state().in_flight == 0
    assert (await ask(chat)).text


async def test_a_proxy_of_the_environment_is_used(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    chat = OpenAIChat(configured(server, url="http://modelo.invalid/v1"))
    with pytest.raises(ModelUnavailable, match="404"):  # it is no proxy, but it was asked
        await ask(chat)
    assert server.requests[0].path == "http://modelo.invalid/v1/chat/completions"
    await chat.close()


async def test_an_error_that_quotes_a_message_changes_nothing_for_the_others(
    server: ModelServer, chat: OpenAIChat
) -> None:
    await ask(chat)
    before = chat.envelope(PROMPT)
    server.script(
        faults.status(422, message='{"input": {"temperature": 0, "response_format": {"type": "json_schema"}}}')
    )
    with pytest.raises(AnswerRefused):
        await ask(chat)
    await ask(chat)
    assert chat.envelope(PROMPT) == before
