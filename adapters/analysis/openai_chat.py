"""Analysis by a model behind OpenAI's chat completions: Ollama, vLLM, OpenAI and others."""

import logging
from typing import Any, Final, Literal

import msgspec

from adapters.analysis import framing
from adapters.analysis.contract import SCHEMA
from adapters.analysis.rendering import Rendered
from adapters.analysis.transport import Completion, Wrong
from adapters.model_server import AnalyserServer
from adapters.model_server.client import OpenAIServer
from adapters.model_server.counting import counted, usage_of
from adapters.model_server.faults import Fault
from adapters.model_server.gate import TRUST, Gate, GateState
from domain.ports import AnswerRefused, Question

#: Bytes of an answer: some hundred times what an analysis takes.
MAX_ANSWER: Final = 512 * 1024

_Form = Literal["json_schema", "json_object", "text"]

#: What is asked for where a server does not know the form that it was asked for.
_NEXT: Final[dict[_Form, _Form]] = {"json_schema": "json_object", "json_object": "text"}
#: The form of the answer, in the request.
_FORMS: Final[dict[_Form, dict[str, Any]]] = {
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "analysis", "strict": True, "schema": SCHEMA},
        }
    },
    "json_object": {"response_format": {"type": "json_object"}},
    "text": {},
}
#: Answers do not vary more than they must. Models that think before they answer refuse one or both.
_SETTINGS: Final[dict[str, float]] = {"temperature": 0, "seed": 0}

_log = logging.getLogger(__name__)


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = 0
    completion_tokens: Any = 0


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class OpenAIChat:
    """Implements `adapters.analysis.transport.Transport`.

    What a server refuses of the request's form (`json_schema`, a parameter) is left out from then on, as long as the
    process lives, and said once in the log; `envelope` says what is sent now.
    """

    def __init__(self, server: AnalyserServer) -> None:
        """Nothing is asked before the first question."""
        self._server = server
        self._client = OpenAIServer(
            server.url,
            server.api_key,
            timeout=server.timeout,
            concurrency=server.concurrency,
            most=MAX_ANSWER,
        )
        self._gate = Gate(
            f"{server.name} at {self._client.host}", concurrency=server.concurrency, timeout=server.timeout
        )
        self._form: _Form = server.answers
        self._settings: dict[str, float] = {**_SETTINGS, "max_tokens": server.max_output_tokens}
        #: How many requests in a row the server may still reject before we believe that it does not know the form it is
        #: asked in: it has accepted that one, and an error that quotes a message may name anything.
        self._trusted = 0

    def envelope(self, prompt: Rendered) -> bytes:
        """See `Transport.envelope`."""
        return self._envelope(prompt, self._form, self._settings)

    async def complete(self, question: Question, prompt: Rendered, wrong: Wrong | None) -> Completion:
        """See `Transport.complete`. Raises `AnswerRefused` where the model will not answer, or can't."""
        turns = [_turn("system", prompt.system), _turn("user", framing.user_content(question))]
        if wrong is not None:
            # The answer itself is in the complaint, as data. Its place is kept, because some models' templates take
            # no two turns of the user in a row.
            turns += [_turn("assistant", "{}"), _turn("user", framing.complaint(wrong))]

        async def call(seconds: float) -> tuple[_Answer, _Form, dict[str, float]]:
            return await self._asked(turns, seconds)

        answer, form, settings = await self._gate.run(call)
        return self._read(answer, self._envelope(prompt, form, settings))

    def wait(self) -> float:
        """See `Transport.wait`."""
        return self._gate.wait()

    def room(self) -> int:
        """See `Transport.room`."""
        return self._gate.room()

    def state(self) -> GateState:
        """How its gate stands, for showing."""
        return self._gate.state()

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._client.close()

    def _envelope(self, prompt: Rendered, form: _Form, settings: dict[str, float]) -> bytes:
        request = self._request([_turn("system", prompt.system)], form, settings)
        return msgspec.json.encode(request, order="deterministic")

    def _request(self, turns: list[dict[str, str]], form: _Form, settings: dict[str, float]) -> dict[str, Any]:
        return {"model": self._server.model, "messages": turns, **settings, **_FORMS[form]}

    async def _asked(self, turns: list[dict[str, str]], seconds: float) -> tuple[_Answer, _Form, dict[str, float]]:
        """Ask, and once more for each thing that the server does not know; with the form that was answered."""
        while True:
            form, settings = self._form, self._settings
            try:
                answer = await self._client.completion(self._request(turns, form, settings), seconds, _Answer)
            except Fault as fault:
                # What another call has changed in the meantime needs only to be tried.
                if (form, settings) == (self._form, self._settings) and not self._made_do(fault):
                    raise
            else:
                if (form, settings) == (self._form, self._settings):
                    self._trusted = TRUST
                return answer, form, settings

    def _made_do(self, fault: Fault) -> bool:
        """Leave out what the server does not know. Return whether that was possible."""
        if fault.kind != "rejected":
            return False
        if self._trusted > 0:
            self._trusted -= 1
            return False
        if fault.about == "parameter" and fault.parameter in self._settings:
            rest = {name: value for name, value in self._settings.items() if name != fault.parameter}
            if fault.parameter == "max_tokens":
                rest["max_completion_tokens"] = self._settings["max_tokens"]  # OpenAI's name for it since 2024
            self._settings = rest
            _log.warning("the model server %s does not know the parameter %s", self._gate.name, fault.parameter)
            return True
        if fault.about in {"form", "unknown"}:
            if self._form not in _NEXT:
                return False
            _log.warning(
                "the model server %s does not know the form %s of an answer, and is asked for %s",
                self._gate.name,
                self._form,
                _NEXT[self._form],
            )
            self._form = _NEXT[self._form]
            return True
        return False

    def _read(self, answer: _Answer, sent: bytes) -> Completion:
        usage = answer.usage or _Usage()
        read, written = counted(usage.prompt_tokens), counted(usage.completion_tokens)
        choice = answer.choices[0] if answer.choices else _Choice(_Message())
        text = choice.message.content or ""
        if choice.message.refusal or choice.finish_reason == "content_filter":
            # At temperature 0 it would say so again.
            raise AnswerRefused("the model declines to answer", usage_of(self._server, read, written))
        if choice.finish_reason == "length" and not text:
            raise AnswerRefused(
                f"the model used up its {self._server.max_output_tokens} tokens before it answered: raise "
                "`max_output_tokens`",
                usage_of(self._server, read, written),
            )
        return Completion(text, read, written, sent)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
