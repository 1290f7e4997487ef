"""Analysis by a webhook, such as a flow of n8n (docs/model-webhook.md)."""

from typing import Any, Final

import msgspec

from adapters.analysis import framing
from adapters.analysis.rendering import Rendered
from adapters.analysis.transport import Completion, Wrong
from adapters.model_server import AnalyserServer
from adapters.model_server.counting import counted
from adapters.model_server.faults import Fault
from adapters.model_server.gate import Gate, GateState
from adapters.model_server.http import ModelHttp
from domain.ports import Question

#: Bytes of an answer.
MAX_ANSWER: Final = 512 * 1024

_ABSENT = "check the webhook's address; is the flow active?"


class Webhook:
    """Implements `adapters.analysis.transport.Transport`."""

    def __init__(self, server: AnalyserServer) -> None:
        """Nothing is asked before the first question."""
        self._server = server
        self._http = ModelHttp(
            server.url,
            server.api_key,
            timeout=server.timeout,
            concurrency=server.concurrency,
            most=MAX_ANSWER,
            absent=_ABSENT,
        )
        self._gate = Gate(f"{server.name} at {self._http.host}", concurrency=server.concurrency, timeout=server.timeout)

    def envelope(self, prompt: Rendered) -> bytes:
        """See `Transport.envelope`."""
        return msgspec.json.encode(_about_prompt(prompt), order="deterministic")

    async def complete(self, question: Question, prompt: Rendered, wrong: Wrong | None) -> Completion:
        """See `Transport.complete`."""
        # Cleaned and bounded as for any other model.
        frame = msgspec.json.decode(framing.user_content(question))
        body = _about_prompt(prompt) | {
            "tenant_id": question.tenant_id,
            "message_id": question.message_id,
            "message": frame["message"],
            "from_me": question.from_me,
            "sent_at": question.sent_at,
            "context": frame["earlier"],
            "run_id": question.run_id,
        }
        if wrong is not None:
            answer = framing.shown(wrong.answer[: framing.MAX_ANSWER])
            body |= {"error": wrong.complaint, "previous_answer": answer}
        content = msgspec.json.encode(body)

        async def call(seconds: float) -> Completion:
            answer = await self._http.post(
                self._server.url,
                content=content,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                timeout=seconds,
            )
            return self._read(answer.content)

        return await self._gate.run(call)

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
        await self._http.aclose()

    def _read(self, content: bytes) -> Completion:
        """The answer out of what n8n may have put around it. Raises `Fault` for a page or nothing: that is no flow."""
        try:
            said = msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            text = content.decode("utf-8", "replace").strip()
            if not text or (text.startswith("<") and not text.startswith("<think>")):
                raise Fault(
                    "broken", f"the webhook at {self._http.host} answers with something that is not JSON: {_ABSENT}"
                ) from None
            # What a model wrote, passed on as it was: it may be of use, or is asked for once more. A message that has a
            # model write something else must not make the whole server look as if it were down.
            return Completion(text, 0, 0)
        if isinstance(said, list) and len(said) == 1:
            said = said[0]
        usage: Any = {}
        if isinstance(said, dict):
            usage = said.pop("usage", None)
            said = said.get("output", said)
        text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
        usage = usage if isinstance(usage, dict) else {}
        return Completion(text, counted(usage.get("input_tokens")), counted(usage.get("output_tokens")))


def _about_prompt(prompt: Rendered) -> dict[str, Any]:
    return {"prompt_version": prompt.version, "prompt": prompt.system}
