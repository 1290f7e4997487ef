"""The answers of the analyser in this process, for an installation without a server: it still drains what one left."""

import asyncio
import time
from typing import Final
from uuid import UUID

from api.models import Models
from domain.ports import Answer, Question

#: Messages in hand at once. The analyser computes in this very process: more would be no faster.
_ROOM: Final = 16


class LocalAsks:
    """An `Asks` that knows no server."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._turn = asyncio.Lock()

    def served(self, tenant_id: UUID) -> bool:
        """See `Asks.served`."""
        return False

    def room(self, tenant_id: UUID) -> int:
        """See `Asks.room`."""
        return _ROOM

    def wait(self, tenant_id: UUID) -> float:
        """See `Asks.wait`."""
        return 0.0

    def earlier(self, tenant_id: UUID) -> int:
        """See `Asks.earlier`."""
        return 0

    async def answer(self, question: Question) -> Answer:
        """See `Asks.answer`. Raises what the analyser raises."""
        analyser = self._models.analyser
        async with self._turn:
            started = time.perf_counter()
            (analysis,) = await analyser.analyse([question.text])
            latency_ms = round(1000 * (time.perf_counter() - started))
        return Answer(
            analysis=analysis,
            model_name=analyser.model_name,
            prompt_version=analyser.prompt_version,
            template_hash=analyser.template_hash,
            latency_ms=latency_ms,
        )
