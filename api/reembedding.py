"""A tenant moves to another embedding model: every message gets a vector of it while the old model still answers.

What is done stands in the log alone, so a move that was stopped goes on where it was, and two that run at once record
nothing twice. Messages that come meanwhile are embedded by both models (`api.models.Models.embedders_of`).
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from api.commands import Intent, Step
from api.models import vectors_of
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
from domain.ports import Embedder

#: Messages in memory at once, with all that the log has on each: a few kilobytes.
BATCH: Final = 128


class Progress(msgspec.Struct, frozen=True):
    """How far a move is: messages looked at, vectors recorded by this run, and how much of the log is behind it."""

    messages: int
    embedded: int
    position: int
    head: int


class Moved(msgspec.Struct, frozen=True):
    """What a run did. `position`: where the adoption stands; `adopted`: whether this run recorded it."""

    messages: int
    embedded: int
    position: int
    adopted: bool


async def move(
    write: WriteSide,
    tenant_id: UUID,
    embedder: Embedder,
    from_model: str,
    *,
    batch: int = BATCH,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Moved:
    """Give every message of the tenant a vector of the embedder's model, then have the tenant adopt it.

    `from_model`: the model that answers until then, for a tenant that never moved. Raises `NotAllowed` where another
    move took the place of this one, `DomainError` where a vector can't be recorded, and what the embedder raises.
    """
    name = embedder.model_name
    handle, empty = write.commands.handle, embedding_models(tenant_id)
    begin = BeginMove(at=_now(), tenant_id=tenant_id, model_name=name, from_model=from_model)
    await asyncio.to_thread(handle, empty, begin)
    read_from = await asyncio.to_thread(_read_from, write, empty, name)
    messages = embedded = position = 0
    head = await asyncio.to_thread(write.log.head)
    before = -1  # vectors recorded when the last look at what had come meanwhile began
    while embedded != before:
        before = embedded
        while found := await asyncio.to_thread(
            write.log.births_after, position, head, tenant_id, MessageReceived, batch
        ):
            position = found[-1][0]
            messages += len(found)
            embedded += await _embed(write, embedder, [stream for _, stream in found], read_from)
            on_progress(Progress(messages, embedded, position, head))
        position, head = head, await asyncio.to_thread(write.log.head)
    done = await asyncio.to_thread(handle, empty, AdoptModel(at=_now(), model_name=name))
    return Moved(messages, embedded, done.position, adopted=not done.duplicate)


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


async def _embed(write: WriteSide, embedder: Embedder, streams: list[UUID], read_from: int) -> int:
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
    vectors = await vectors_of(embedder, [state.text for state in wanting])
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
