"""A model behind a server, asked as the others are: many texts at once, answers in their order."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid5

from domain.ports import Analysis, Answer, AnswerRefused, ModelUnavailable, Prompt, Question, ServedAnalyser, Usage

#: What stands for an answer that was refused: no label is right then.
REFUSED: Final = Analysis(sentiment=0.0, emotion="refused", satisfaction=50, tone="neutro", summary="")
#: Seconds for which a server may give no answer at all before the measurement ends.
PATIENCE_S: Final = 300.0
_TENANT: Final = UUID(int=1)


class Concurrent:
    """Implements `Analyser` over a `ServedAnalyser`, asking `concurrency` times at once; a message, an answer.

    `refused`: answers that broke the contract twice; `latencies_ms` and `usage`: of the answers.
    """

    def __init__(self, served: ServedAnalyser, prompt: Prompt, concurrency: int) -> None:
        self._served = served
        self._prompt = prompt
        self._room = asyncio.Semaphore(concurrency)
        self.refused: list[str] = []
        self.latencies_ms: list[int] = []
        self.usage = Usage()

    @property
    def model_name(self) -> str:
        """See `Analyser`."""
        return self._served.model_name

    @property
    def prompt_version(self) -> str:
        """See `Analyser`."""
        return self._prompt.version

    @property
    def template_hash(self) -> str:
        """See `Analyser`."""
        return self._served.template_hash(self._prompt)

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        """See `Analyser`. Raises `ModelUnavailable` where the server has been away for `PATIENCE_S`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(text)) for text in texts]
        return [task.result() for task in tasks]

    async def _one(self, text: str) -> Analysis:
        async with self._room:
            try:
                answer = await self._patiently(Question(tenant_id=_TENANT, message_id=uuid5(_TENANT, text), text=text))
            except AnswerRefused as error:
                self.refused.append(str(error))
                self.usage += error.usage
                return REFUSED
        self.latencies_ms.append(answer.latency_ms)
        self.usage += answer.usage
        return answer.analysis

    async def _patiently(self, question: Question) -> Answer:
        waited = 0.0
        while True:
            try:
                return await self._served.ask(question, self._prompt)
            except ModelUnavailable as error:
                wait = max(1.0, error.retry_after or 0.0, self._served.wait())
                if waited + wait > PATIENCE_S:
                    raise
            waited += wait
            await asyncio.sleep(wait)
