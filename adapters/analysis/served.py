"""An analyser behind a server: asks it, checks the answer, asks once more where that was wrong, and then refuses."""

import hashlib
import math
import time
from fractions import Fraction
from typing import Final

from adapters.analysis.contract import BrokenContract, parse
from adapters.analysis.rendering import PromptError, Rendered, render
from adapters.analysis.transport import Completion, Transport, Wrong
from adapters.model_server.config import AnalyserServer
from domain.ports import Answer, AnswerRefused, ModelUnavailable, Prompt, Question, Usage

#: What a token count and a cost are stored in.
_MAX_COUNT: Final = 2**31 - 1
#: Seconds after which a prompt that can't be rendered is tried again: another one has to be activated.
_PROMPT_RETRY: Final = 30.0


class Served:
    """Implements `domain.ports.ServedAnalyser` over a transport."""

    def __init__(self, server: AnalyserServer, transport: Transport) -> None:
        self._server = server
        self._transport = transport
        self._prices = _Prices(server)

    @property
    def name(self) -> str:
        """See `ServedAnalyser`."""
        return self._server.name

    @property
    def model_name(self) -> str:
        """See `ServedAnalyser`."""
        return self._server.model

    @property
    def earlier(self) -> int:
        """See `ServedAnalyser`."""
        return self._server.earlier

    def template_hash(self, prompt: Prompt) -> str:
        """See `ServedAnalyser`. Raises `ModelUnavailable` where the prompt can't be rendered."""
        return self._hash(_rendered(prompt))

    def wait(self) -> float:
        """See `ServedAnalyser`."""
        return self._transport.wait()

    def room(self) -> int:
        """See `ServedAnalyser`."""
        return self._transport.room()

    async def ask(self, question: Question, prompt: Prompt) -> Answer:
        """See `ServedAnalyser`. What both raise has the `usage` of all calls that were answered."""
        rendered = _rendered(prompt)
        started = time.monotonic()
        usage = Usage()
        wrong: Wrong | None = None
        for _attempt in range(2):
            try:
                completion = await self._transport.complete(question, rendered, wrong)
            except (ModelUnavailable, AnswerRefused) as error:
                error.usage += usage
                raise
            usage += self._prices.usage(completion)
            try:
                analysis = parse(completion.text, question, rendered.system)
            except BrokenContract as error:
                wrong = Wrong(completion.text, str(error))
                continue
            return Answer(
                analysis=analysis,
                model_name=self._server.model,
                prompt_version=rendered.version,
                template_hash=self._hash(rendered, completion.sent),
                latency_ms=min(max(0, round((time.monotonic() - started) * 1000)), _MAX_COUNT),
                usage=usage,
            )
        raise AnswerRefused(f"the model answered wrongly twice: {wrong.complaint if wrong else ''}", usage)

    async def close(self) -> None:
        """See `ServedAnalyser`."""
        await self._transport.close()

    def _hash(self, rendered: Rendered, sent: bytes | None = None) -> str:
        # Anew each time: a transport leaves out what its server turns out not to know.
        return hashlib.sha256(self._transport.envelope(rendered) if sent is None else sent).hexdigest()


def served_analyser(server: AnalyserServer) -> Served:
    """The analyser of a configured server. Nothing is asked of it before the first question."""
    if server.kind == "webhook":
        from adapters.analysis.webhook import Webhook  # noqa: PLC0415 - nobody pays for the client who has no server

        return Served(server, Webhook(server))
    from adapters.analysis.openai_chat import OpenAIChat  # noqa: PLC0415 - as above

    return Served(server, OpenAIChat(server))


def _rendered(prompt: Prompt) -> Rendered:
    """Raises `ModelUnavailable` where the prompt can't be rendered: messages wait until there is one that can.

    A prompt is rendered before it is stored, so that happens only where an older version of EvoSense took more.
    """
    try:
        return render(prompt)
    except PromptError as error:
        raise ModelUnavailable(f"the prompt can't be rendered: {error}", _PROMPT_RETRY) from None


class _Prices:
    """What calls cost, in millionths of a dollar: a price a million tokens is one of a token in these."""

    def __init__(self, server: AnalyserServer) -> None:
        # From the decimals that were configured: in binary fractions, "rounded up" would add one now and then.
        self._input, self._output = Fraction(str(server.input_price)), Fraction(str(server.output_price))
        self._call = Fraction(str(server.call_price)) * 1_000_000

    def usage(self, completion: Completion) -> Usage:
        """Of one call; its cost is rounded up."""
        tokens_in, tokens_out = _count(completion.input_tokens), _count(completion.output_tokens)
        cost = math.ceil(tokens_in * self._input + tokens_out * self._output + self._call)
        return Usage(calls=1, input_tokens=tokens_in, output_tokens=tokens_out, cost=cost)


def _count(tokens: int) -> int:
    """What a server counted, within what can be stored: it may say anything."""
    return min(max(0, tokens), _MAX_COUNT)
