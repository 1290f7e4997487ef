"""An `Asks` and a `ServedEmbedder` of the tests' own, which ask `openai_server` over its socket and nothing in between.

What is asked stands in the server's requests, in the order of its arrival.
"""

import array
import time
from collections.abc import Sequence
from uuid import UUID

import httpx

from domain.ports import Analysis, Answer, AnswerRefused, Embedded, ModelUnavailable, Question, Usage, VectorsDoNotFit
from tests.support.openai_server import ModelServer

#: Seconds for which a server that did not answer is left alone.
LEFT_ALONE_S = 0.3


class _Wire:
    def __init__(self, server: ModelServer, timeout: float) -> None:
        self.server = server
        self._client = httpx.AsyncClient(timeout=timeout, trust_env=False)
        self._shut_until = 0.0

    async def _post(self, path: str, body: dict[str, object]) -> httpx.Response:
        try:
            answer = await self._client.post(f"http://127.0.0.1:{self.server.port}{path}", json=body)
        except httpx.HTTPError as error:
            self._shut_until = time.monotonic() + LEFT_ALONE_S
            raise ModelUnavailable(f"the server can't be reached ({type(error).__name__})") from None
        if answer.status_code != 200:
            self._shut_until = time.monotonic() + LEFT_ALONE_S
            raise ModelUnavailable(f"the server answers {answer.status_code}")
        return answer

    def left(self) -> float:
        return max(0.0, self._shut_until - time.monotonic())

    async def close(self) -> None:
        await self._client.aclose()


class WireAsks(_Wire):
    """Asks the webhook of the server about every tenant's messages, or those of `tenants`."""

    model_name, prompt_version, template_hash = "wire", "w1", "f" * 64

    def __init__(
        self, server: ModelServer, *, limit: int = 4, earlier: int = 0, tenants: set[UUID] | None = None
    ) -> None:
        super().__init__(server, 5.0)
        self.limit = limit
        self.wants_earlier = earlier
        self.tenants = tenants
        self.questions: list[Question] = []
        self.in_flight = 0
        self.high_water = 0

    def served(self, tenant_id: UUID) -> bool:
        return self.tenants is None or tenant_id in self.tenants

    def earlier(self, tenant_id: UUID) -> int:
        return self.wants_earlier

    def room(self, tenant_id: UUID) -> int:
        return 0 if self.left() else max(0, self.limit - self.in_flight)

    def wait(self, tenant_id: UUID) -> float:
        return self.left()

    async def answer(self, question: Question) -> Answer:
        self.questions.append(question)
        self.in_flight += 1
        self.high_water = max(self.high_water, self.in_flight)
        try:
            answer = await self._post("/webhook", {"message": question.text})
        finally:
            self.in_flight -= 1
        try:
            analysis = Analysis(**answer.json())
        except (ValueError, TypeError):
            raise AnswerRefused("the answer is not JSON") from None
        return Answer(
            analysis=analysis,
            model_name=self.model_name,
            prompt_version=self.prompt_version,
            template_hash=self.template_hash,
            latency_ms=7,
        )


class WireEmbedder(_Wire):
    """Embeds by the server."""

    name, model_name = "wire", "wire-vectors"

    def __init__(self, server: ModelServer) -> None:
        super().__init__(server, 5.0)
        self.refuses: set[str] = set()
        self.misfits = False

    def wait(self) -> float:
        return self.left()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return (await self.embed_counted(texts)).vectors

    async def embed_counted(self, texts: Sequence[str]) -> Embedded:
        answer = await self._post("/v1/embeddings", {"model": "m", "input": list(texts)})
        if self.misfits:
            raise VectorsDoNotFit("vectors of 1024 numbers")
        if self.refuses.intersection(texts):
            raise AnswerRefused("a vector of zeros")
        vectors = [array.array("f", one["embedding"]).tobytes() for one in answer.json()["data"]]
        return Embedded(vectors, Usage(calls=1, input_tokens=1))
