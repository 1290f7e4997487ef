"""The two things that messages wait for, each with its own rows and its own pace: analyses and vectors.

Whichever of the two there is, is recorded at once; the other one stays queued, and is neither held up nor lost by it.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, Protocol
from uuid import UUID

from api.answering import Answering
from api.asking import Asks
from api.backlog import Backlog, Claim, Earlier, Wants
from api.commands import Intent, Outcome, Step
from api.models import Models, WrongAnswer, is_served
from api.owing import Owing, patiently
from api.parking import PASSING
from api.recording import answered, embedded
from api.wiring import WriteSide
from domain.embedding_models import embedding_models
from domain.errors import DomainError, NotFound
from domain.messages import EmbedMessage, Message, message
from domain.ports import (
    AnswerRefused,
    Embedder,
    ModelUnavailable,
    Question,
    ServedEmbedder,
    Usage,
    VectorsDoNotFit,
)

#: Texts that an embedder is given at once, and tenants whose texts are on their way at once.
_BATCH: Final = 64
_BATCHES: Final = 4
#: Seconds for which an embedder whose vectors can't be stored is left alone.
_MISFIT_S: Final = 60.0


class Counts(Protocol):
    """Who counts what embedding costs."""

    def __call__(
        self, tenant_id: UUID, model_name: str, used: Usage, outcome: Literal["answered", "refused", "failed"]
    ) -> None:
        """Count what one batch of texts took."""


class Lane(Protocol):
    """One thing that messages wait for."""

    @property
    def wants(self) -> Wants:
        """What the rows call it."""

    def room(self, tenant_id: UUID) -> tuple[int, float]:
        """How many rows may be taken, and seconds for which it should not be asked; blocks on the log."""

    async def work(self, tenant_id: UUID, claims: Sequence[Claim]) -> None:
        """Ask about these rows of a tenant, record, settle."""


class Loader:
    """The messages of rows, as the log has them."""

    def __init__(self, write: WriteSide, owing: Owing) -> None:
        self._write = write
        self._owing = owing

    async def load(self, claims: Sequence[Claim]) -> dict[Claim, Message]:
        """Those that can be opened and are still to be asked about; the rest is settled."""
        try:
            states = await patiently(self._write.log.load_many, [message(claim.message_id) for claim in claims])
        except Exception as error:  # one that can't be opened must not cost its neighbours
            if len(claims) > 1:
                alone = [await self.load([claim]) for claim in claims]
                return {claim: state for found in alone for claim, state in found.items()}
            await self._owing.failed(claims[0], error)
            return {}
        alive: dict[Claim, Message] = {}
        gone: list[Claim] = []
        for claim, state in zip(claims, states, strict=True):
            if state.tenant_id != claim.tenant_id or state.deleted:
                gone.append(claim)
            else:
                alive[claim] = state
        await self._owing.done(gone)
        return alive


class Analyses:
    """Asks for analyses, of each message by itself."""

    wants: Wants = "analysis"

    def __init__(self, write: WriteSide, backlog: Backlog, owing: Owing, asks: Asks) -> None:
        self._write = write
        self._backlog = backlog
        self._owing = owing
        self._asks = asks
        self._loader = Loader(write, owing)

    def room(self, tenant_id: UUID) -> tuple[int, float]:
        """See `Lane.room`."""
        wait = self._asks.wait(tenant_id)
        return (0 if wait > 0 else self._asks.room(tenant_id)), wait

    async def work(self, tenant_id: UUID, claims: Sequence[Claim]) -> None:
        """See `Lane.work`."""
        states = await self._loader.load(claims)
        owed = {claim: state for claim, state in states.items() if state.analyzed_by is None}
        await self._owing.done([claim for claim in states if claim not in owed])
        earlier = await patiently(self._earlier, tenant_id, list(owed.values())) if owed else {}
        asked = (self._one(claim, state, earlier.get(state.id, ())) for claim, state in owed.items())
        await asyncio.gather(*asked)

    async def _one(self, claim: Claim, state: Message, earlier: tuple[str, ...]) -> None:
        try:
            await self._ask(claim, state, earlier)
        except Exception as error:
            await self._owing.unsettled(claim, error)

    async def _ask(self, claim: Claim, state: Message, earlier: tuple[str, ...]) -> None:
        question = Question(
            tenant_id=claim.tenant_id,
            message_id=state.id,
            text=state.text,
            from_me=state.from_me,
            sent_at=state.sent_at,
            earlier=earlier,
        )
        try:
            answer = await self._asks.answer(question)
        except ModelUnavailable as error:
            await self._owing.unavailable([claim], error, await patiently(self._asks.wait, claim.tenant_id))
            return
        except PASSING as error:
            await self._owing.unasked([claim], error)
            return
        except Exception as error:  # whatever a model or a text may provoke
            await self._owing.failed(claim, error)
            return
        # Where two have asked, because one lost its lease, the first answer counts: others may be by another model.
        command, step = answered(state, claim.tenant_id, answer, datetime.now(UTC), only_first=True)
        (outcome,) = await patiently(
            self._write.commands.handle_many, [Intent((Step(message(state.id), (command,)), step))]
        )
        await self._settle(claim, outcome)

    async def _settle(self, claim: Claim, outcome: Outcome) -> None:
        if isinstance(outcome, DomainError) and not isinstance(outcome, NotFound):
            await self._owing.failed(claim, outcome)
        else:
            await self._owing.done([claim])

    def _earlier(self, tenant_id: UUID, states: Sequence[Message]) -> dict[UUID, tuple[str, ...]]:
        most = self._asks.earlier(tenant_id)
        if most <= 0:
            return {}
        births = self._write.log.births({state.id for state in states})
        asked = [
            Earlier(births[state.id], state.chat_id, state.sent_at) for state in states if state.sent_at is not None
        ]
        found = self._backlog.earlier(tenant_id, asked, most)
        return {state.id: found.get(births[state.id], ()) for state in states}


class Vectors:
    """Asks for vectors, of many messages at once."""

    wants: Wants = "vectors"

    def __init__(self, write: WriteSide, owing: Owing, models: Models, count: Counts | None = None) -> None:
        self._write = write
        self._owing = owing
        self._models = models
        self._count = count
        self._loader = Loader(write, owing)
        self._answering = Answering(write.datastore)
        self._busy: set[UUID] = set()

    def room(self, tenant_id: UUID) -> tuple[int, float]:
        """See `Lane.room`. None while the tenant's last batch is on its way."""
        if tenant_id in self._busy or len(self._busy) >= _BATCHES:
            return 0, 0.0
        wait = min(map(_wait, self._embedders(tenant_id)), default=0.0)
        return (0 if wait > 0 else _BATCH), wait

    async def work(self, tenant_id: UUID, claims: Sequence[Claim]) -> None:
        """See `Lane.work`."""
        self._busy.add(tenant_id)
        try:
            states = await self._loader.load(claims)
            left = set(states)
            for embedder in await patiently(self._embedders, tenant_id):
                owed = [claim for claim in states if claim in left and not _has(states[claim], embedder)]
                if owed:
                    left -= await self._embed(tenant_id, embedder, {claim: states[claim] for claim in owed})
            await self._owing.done([claim for claim in states if claim in left])
        finally:
            self._busy.discard(tenant_id)
            self._owing.freed.set()

    async def _embed(self, tenant_id: UUID, embedder: Embedder, states: dict[Claim, Message]) -> set[Claim]:
        """Ask and record; returns those that did not come through, which are settled."""
        claims = list(states)
        try:
            vectors = await self._vectors(tenant_id, embedder, [state.text for state in states.values()])
        except ModelUnavailable as error:
            await self._owing.unavailable(claims, error, _wait(embedder))
            return set(claims)
        except VectorsDoNotFit as error:
            # The model is another one by now, or was never of use: for an operator, and no fault of any message.
            await self._owing.unavailable(claims, ModelUnavailable(str(error), _MISFIT_S), 0.0)
            return set(claims)
        except PASSING as error:
            await self._owing.unasked(claims, error)
            return set(claims)
        except Exception as error:  # whatever a model or a text may provoke
            if len(claims) == 1:
                await self._owing.failed(claims[0], error)
                return set(claims)
            # So that no message fails its neighbours.
            alone = [await self._embed(tenant_id, embedder, {claim: states[claim]}) for claim in claims]
            return set[Claim]().union(*alone)
        now = datetime.now(UTC)
        commands = [
            embedded(state, embedder.model_name, vector, now)
            for state, vector in zip(states.values(), vectors, strict=True)
        ]
        return await self._record(claims, commands)

    async def _record(self, claims: Sequence[Claim], commands: Sequence[EmbedMessage]) -> set[Claim]:
        intents = [
            Intent((Step(message(claim.message_id), (command,)),))
            for claim, command in zip(claims, commands, strict=True)
        ]
        lost: set[Claim] = set()
        for claim, outcome in zip(claims, await patiently(self._write.commands.handle_many, intents), strict=True):
            if isinstance(outcome, DomainError) and not isinstance(outcome, NotFound):
                await self._owing.failed(claim, outcome)
                lost.add(claim)
        return lost

    async def _vectors(self, tenant_id: UUID, embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
        if is_served(embedder):
            vectors = await self._served(tenant_id, embedder, texts)
        else:
            vectors = await embedder.embed(texts)
        if len(vectors) != len(texts):
            raise WrongAnswer(f"the embedder gave {len(vectors)} vectors of {len(texts)} texts")
        return vectors

    async def _served(self, tenant_id: UUID, embedder: ServedEmbedder, texts: Sequence[str]) -> list[bytes]:
        count = self._count or _uncounted
        try:
            answer = await embedder.embed_counted(texts)
        except AnswerRefused as error:
            count(tenant_id, embedder.model_name, error.usage, "refused")
            raise
        except ModelUnavailable:
            count(tenant_id, embedder.model_name, Usage(calls=1), "failed")
            raise
        count(tenant_id, embedder.model_name, answer.usage, "answered")
        return answer.vectors

    def _embedders(self, tenant_id: UUID) -> list[Embedder]:
        chosen = self._write.log.load(embedding_models(tenant_id))
        return self._models.embedders_of(self._answering.filled([(tenant_id, chosen)])[tenant_id])


def _has(state: Message, embedder: Embedder) -> bool:
    return embedder.model_name in state.embedded_by


def _wait(embedder: Embedder) -> float:
    return embedder.wait() if is_served(embedder) else 0.0


def _uncounted(tenant_id: UUID, model_name: str, used: Usage, outcome: str) -> None:
    """Nobody wants to know."""
