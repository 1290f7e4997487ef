"""A tenant moves to another embedding model: every message gets a vector of it while the old model still answers.

What is done stands in the log alone, so a move that was stopped goes on where it was, and two that run at once record
nothing twice. Messages that come meanwhile are embedded by both models (`api.models.Models.embedders_of`).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from api.commands import Intent, Step
from api.models import WrongAnswer, is_served, vectors_of
from api.wiring import WriteSide
from domain.embedding_models import (
    AdoptModel,
    BeginMove,
    EmbeddingModelAdopted,
    EmbeddingModels,
    embedding_models,
)
from domain.errors import DomainError
from domain.messages import EmbedMessage, Message, MessageReceived, message
from domain.ports import Embedder, ModelUnavailable, Usage

#: Messages in memory at once, with all that the log has on each: a few kilobytes.
BATCH: Final = 128
#: Seconds for which a model server may be away before a move ends, and between two tries at least and at most.
PATIENCE_S: Final = 120.0
_PAUSES_S: Final = (1.0, 20.0)


class Progress(msgspec.Struct, frozen=True):
    """How far a move is: messages looked at, vectors recorded by this run, and how much of the log is behind it.

    `waiting`: why the model server can't be asked now, while that is so.
    """

    messages: int
    embedded: int
    position: int
    head: int
    waiting: str | None = None


class Moved(msgspec.Struct, frozen=True):
    """What a run did, and cost. `position`: where the adoption stands; `adopted`: whether this run recorded it."""

    messages: int
    embedded: int
    position: int
    adopted: bool
    usage: Usage = Usage()


class _Patient:
    """An embedder that is asked again while its server is away, and what it cost."""

    def __init__(self, embedder: Embedder, patience: float, on_wait: Callable[[str], None]) -> None:
        self.model_name = embedder.model_name
        self.usage = Usage()
        self._embedder = embedder
        self._patience = patience
        self._on_wait = on_wait

    async def vectors(self, texts: Sequence[str]) -> list[bytes]:
        """A vector a text. Raises `ModelUnavailable` where the server was away for as long as is waited."""
        if not is_served(self._embedder):
            return await vectors_of(self._embedder, texts)
        began = time.monotonic()
        pause, longest = _PAUSES_S
        while True:
            try:
                embedded = await self._embedder.embed_counted(texts)
                break
            except ModelUnavailable as error:
                wait = max(pause, error.retry_after or 0.0, self._embedder.wait())
                if time.monotonic() + wait > began + self._patience:
                    raise
                self._on_wait(str(error))
            await asyncio.sleep(wait)
            pause = min(2 * pause, longest)
        self.usage += embedded.usage
        if len(embedded.vectors) != len(texts):
            raise WrongAnswer(f"the embedder gave {len(embedded.vectors)} vectors of {len(texts)} texts")
        return embedded.vectors


async def move(
    write: WriteSide,
    tenant_id: UUID,
    embedder: Embedder,
    from_model: str,
    *,
    batch: int = BATCH,
    patience: float = PATIENCE_S,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Moved:
    """Give every message of the tenant a vector of the embedder's model, then have the tenant adopt it.

    `from_model`: the model that answers until then, for a tenant that never moved; `patience`: seconds for which a
    model server may be away. Raises `NotAllowed` where another move took the place of this one, `DomainError` where a
    vector can't be recorded, and what the embedder raises.
    """
    name = embedder.model_name
    handle, empty = write.commands.handle, embedding_models(tenant_id)
    begin = BeginMove(at=_now(), tenant_id=tenant_id, model_name=name, from_model=from_model)
    await asyncio.to_thread(handle, empty, begin)
    read_from = await asyncio.to_thread(_read_from, write, empty, name)
    messages = embedded = position = 0
    head = await asyncio.to_thread(write.log.head)

    def away(why: str) -> None:
        on_progress(Progress(messages, embedded, position, head, why))

    patient = _Patient(embedder, patience, away)
    before = -1  # vectors recorded when the last look at what had come meanwhile began
    while embedded != before:
        before = embedded
        while found := await asyncio.to_thread(
            write.log.births_after, position, head, tenant_id, MessageReceived, batch
        ):
            position = found[-1][0]
            messages += len(found)
            embedded += await _embed(write, patient, [stream for _, stream in found], read_from)
            on_progress(Progress(messages, embedded, position, head))
        position, head = head, await asyncio.to_thread(write.log.head)
    done = await asyncio.to_thread(handle, empty, AdoptModel(at=_now(), model_name=name))
    return Moved(messages, embedded, done.position, adopted=not done.duplicate, usage=patient.usage)


def _read_from(write: WriteSide, empty: EmbeddingModels, model: str) -> int:
    """Position from which on vectors of the model are read: the adoption of another one put an end to those before."""
    return max(
        (
            recorded.position
            for recorded in write.log.history(empty.id)
            if isinstance(recorded.event, EmbeddingModelAdopted) and recorded.event.model_name != model
        ),
        default=0,
    )


async def _embed(write: WriteSide, embedder: _Patient, streams: list[UUID], read_from: int) -> int:
    """Record a vector of each message that has none that is read; how many were recorded."""
    name = embedder.model_name
    states = await asyncio.to_thread(write.log.load_many, [message(stream) for stream in streams])
    given = {state.id: state.embedded_by[name] for state in states if name in state.embedded_by}
    if read_from and given:
        positions = await asyncio.to_thread(write.log.positions_of, given)
        of_use = {stream for stream in given if positions[stream] > read_from}
    else:
        of_use = set(given)
    wanting = [state for state in states if state.id not in of_use and not state.deleted]
    if not wanting:
        return 0
    vectors = await embedder.vectors([state.text for state in wanting])
    intents = [
        _intent(state, name, vector, given.get(state.id, 0)) for state, vector in zip(wanting, vectors, strict=True)
    ]
    recorded = 0
    for outcome in await asyncio.to_thread(write.commands.handle_many, intents):
        if isinstance(outcome, DomainError):
            raise outcome
        recorded += not outcome.duplicate
    return recorded


def _intent(state: Message, model: str, vector: bytes, replaces: int) -> Intent:
    command = EmbedMessage(
        at=_now(), model_name=model, vector=vector, replaces=replaces, text_version=state.text_version
    )
    return Intent((Step(message(state.id), (command,)),))


def _now() -> datetime:
    return datetime.now(UTC)
