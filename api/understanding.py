"""What a batch of events asks for: what was announced of messages is applied, then texts are analysed and embedded.

In that order: what is deleted is not analysed, and what is edited is analysed as it stands now. An answer that comes
when its text is gone is not recorded; the edit is an event, too, and brings the message here again. What only a model
behind a server can answer is left to `api.draining`: nothing here waits for one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast
from uuid import UUID

from adapters.nats import Envelope
from api.answering import Answering
from api.applying import Amender, Announced, Deleted, NotInThisLog, Task
from api.commands import Intent, Step
from api.deferring import Deferring
from api.models import Models, is_served
from api.recording import answered, embedded
from api.wiring import WriteSide
from domain.aggregate import Command
from domain.amendments import DeletionAnnounced, EditAnnounced
from domain.embedding_models import EmbeddingModels, embedding_models
from domain.errors import DomainError
from domain.messages import Message, MessageDeleted, MessageEdited, MessageReceived, message
from domain.ports import Analysis, Answer, Embedder

#: Types of the events that are announcements of a key, and of those of which a message is analysed.
_ANNOUNCEMENTS: Final = frozenset({EditAnnounced.type_name, DeletionAnnounced.type_name})
TEXTS: Final = frozenset({MessageReceived.type_name, MessageEdited.type_name})
#: All types that are taken.
TAKEN: Final = _ANNOUNCEMENTS | TEXTS | {MessageDeleted.type_name}


class Understanding:
    """Carries out batches of events; blocks on nothing but what it awaits.

    `deferring`: what is left to models behind servers; nothing where it is None.
    """

    def __init__(self, write: WriteSide, models: Models, deferring: Deferring | None = None) -> None:
        self._write = write
        self._models = models
        self._deferring = deferring
        self._amender = Amender(write)
        self._answering = Answering(write.datastore)

    def behind(self, envelopes: Sequence[Envelope]) -> set[Envelope]:
        """Those of messages of which something was announced, which wait for the messages' read model; blocks."""
        states = self._write.log.load_many([message(envelope.stream) for envelope in envelopes])
        keys = self._amender.keys_of(states)
        reached = self._amender.reached({envelope.tenant for envelope in envelopes})
        waiting = [envelope for envelope in envelopes if envelope.position > reached.get(envelope.tenant, 0)]
        return {envelope for envelope in waiting if envelope.stream in keys}

    async def reach(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        """Do what the events ask for; what went wrong with each, in order.

        Raises whatever a model, the database or an event that can't be opened may raise: of all together then.
        """
        texts = [envelope for envelope in envelopes if envelope.type in TEXTS]
        tenants = {tenant: embedding_models(tenant) for tenant in {envelope.tenant for envelope in texts}}
        states, moves = await asyncio.to_thread(self._load, texts, tenants)
        results = dict[Envelope, Exception | None].fromkeys(envelopes)
        for envelope in texts:
            if states[envelope.stream].tenant_id != envelope.tenant:
                results[envelope] = NotInThisLog("it is not in this log")
        amended = await self._amend(envelopes, [e for e in texts if results[e] is None], states, results)
        states.update(amended)
        wanted = {envelope.stream for envelope in texts if results[envelope] is None}
        embedders = {tenant: self._models.embedders_of(moves[tenant]) for tenant in tenants}
        alive = [state for stream, state in states.items() if stream in wanted and not state.deleted]
        served: set[UUID] = set()
        if self._deferring is not None:
            served = await asyncio.to_thread(self._deferring.served, set(tenants))
            # First, whatever becomes of the rest: who acknowledges this batch has seen the rows committed.
            await self._deferring.defer([e for e in texts if results[e] is None], alive, served, embedders)
        intents = await self._intents(alive, served, embedders)
        outcomes = await asyncio.to_thread(self._write.commands.handle_many, list(intents.values()))
        refused = {
            stream: outcome
            for stream, outcome in zip(intents, outcomes, strict=True)
            if isinstance(outcome, DomainError)
        }
        return [results[envelope] or refused.get(envelope.stream) for envelope in envelopes]

    def _load(
        self, texts: Sequence[Envelope], tenants: Mapping[UUID, EmbeddingModels]
    ) -> tuple[dict[UUID, Message], dict[UUID, EmbeddingModels]]:
        """The messages, and the tenants' models by tenant, with one question to the log."""
        streams = {envelope.stream for envelope in texts}
        asked: list[Message | EmbeddingModels] = [*map(message, streams), *tenants.values()]
        loaded = {state.id: state for state in self._write.log.load_many(asked)}
        moves = self._answering.filled((t, cast(EmbeddingModels, loaded[empty.id])) for t, empty in tenants.items())
        return {stream: cast(Message, loaded[stream]) for stream in streams}, moves

    async def _amend(
        self,
        envelopes: Sequence[Envelope],
        texts: Sequence[Envelope],
        states: Mapping[UUID, Message],
        results: dict[Envelope, Exception | None],
    ) -> dict[UUID, Message]:
        """Carry out what the batch announces, or was announced of its messages; the messages that it may have changed.

        Enters into `results` what could not be carried out.
        """
        received = [envelope for envelope in texts if envelope.type == MessageReceived.type_name]
        keys = await asyncio.to_thread(self._amender.keys_of, [states[envelope.stream] for envelope in received])
        tasks: dict[Envelope, Task] = {
            e: Announced(e.tenant, keys[e.stream], e.position, e.stream) for e in received if e.stream in keys
        }
        for e in envelopes:
            if e.type in _ANNOUNCEMENTS:
                tasks[e] = Announced(e.tenant, e.stream, e.position)
            elif e.type == MessageDeleted.type_name:
                tasks[e] = Deleted(e.tenant, e.stream, e.position)
        if not tasks:
            return {}
        failed = await asyncio.to_thread(self._amender.carry_out, list(tasks.values()))
        results.update({envelope: failed[task] for envelope, task in tasks.items() if task in failed})
        # An edit of this batch may concern any message of it.
        again = await asyncio.to_thread(self._write.log.load_many, [message(stream) for stream in states])
        return {state.id: state for state in again}

    async def _intents(
        self, states: Sequence[Message], served: set[UUID], embedders: Mapping[UUID, Sequence[Embedder]]
    ) -> dict[UUID, Intent]:
        """What to record, by message; nothing for a message that its models have answered already.

        Analyses of tenants that are not `served`, and vectors of the embedders that are here.
        """
        analyses, latency_ms = await self._models.analyse(
            [state for state in states if state.tenant_id not in served and not self._analysed(state)]
        )
        here = {tenant: [one for one in of_tenant if not is_served(one)] for tenant, of_tenant in embedders.items()}
        vectors = await self._models.embed(states, here)
        now = datetime.now(UTC)
        intents: dict[UUID, Intent] = {}
        for state in states:
            commands: list[Command] = []
            steps: list[Step] = []
            if (analysis := analyses.get(state.id)) is not None:
                if state.tenant_id is None:
                    raise NotInThisLog("it is not in this log")
                command, step = answered(state, state.tenant_id, self._answer(analysis, latency_ms), now)
                commands.append(command)
                steps.append(step)
            commands += (embedded(state, name, vector, now) for name, vector in vectors.get(state.id, ()))
            if commands:
                intents[state.id] = Intent((Step(message(state.id), tuple(commands)), *steps))
        return intents

    def _analysed(self, state: Message) -> bool:
        """Whether nothing is to be asked about its text.

        As in `api.deferring`, what any model has answered stays: an event that is delivered once more must not put the
        offline analysis in the place of one that a server gave, when the tenant has left that server since.
        """
        return self._models.analysed(state) or (self._deferring is not None and state.analyzed_by is not None)

    def _answer(self, analysis: Analysis, latency_ms: int) -> Answer:
        analyser = self._models.analyser
        return Answer(
            analysis=analysis,
            model_name=analyser.model_name,
            prompt_version=analyser.prompt_version,
            template_hash=analyser.template_hash,
            latency_ms=latency_ms,
        )
