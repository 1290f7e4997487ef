"""What the message worker does with a batch: has texts analysed and embedded, records the answers, and settles.

It acknowledges after the append, so a message is taken at least once; the commands are idempotent, so it is recorded
once. A message that fails is tried again after a delay and, in the end, parked; what is wrong with the database is
waited out, however long it takes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast
from uuid import UUID

import nats.errors
import psycopg
from eventsourcing import persistence
from nats.aio.msg import Msg

from adapters.nats import Envelope, MalformedEnvelope
from adapters.vault import VaultError
from api.commands import Contended, Intent, Step
from api.models import Models
from api.wiring import WriteSide
from domain.aggregate import Command
from domain.answers import checked
from domain.embedding_models import EmbeddingModels, embedding_models
from domain.errors import DomainError
from domain.experiments import LIVE_RUN, RecordInference, inference, inference_id
from domain.messages import AnalyzeMessage, EmbedMessage, Message, MessageReceived, message
from domain.ports import Analysis, Embedder
from sql import queries

#: Name under which the worker parks events.
SUBSCRIBER: Final = "worker"

_ENGINE: Final = queries("engine")
_log = logging.getLogger(__name__)

#: What is no fault of the message: it is delivered again, and never parked for it.
_PASSING: Final = (
    *(persistence.OperationalError, persistence.InterfaceError, persistence.ProgrammingError),
    *(psycopg.OperationalError, psycopg.InterfaceError, psycopg.ProgrammingError),
    Contended,
)
#: Errors of ours, whose text is fit for an operator and holds no content.
_TELLING: Final = (DomainError, persistence.MapperDeserialisationError, VaultError)
_DEADLY: Final = "the worker that had it in hand ended without an answer"
_EXCUSES_KEPT: Final = 10_000


class NotInThisLog(DomainError):
    """The event is of another log: the database was replaced, and the stream was not."""


class MessageWorker:
    """Takes batches of raw messages and answers each of them: `ack`, `nak` with a delay, or `term`.

    `max_deliver`: tries before an event is parked; `retry_delay`: seconds before the next try.
    """

    def __init__(self, write: WriteSide, models: Models, *, max_deliver: int, retry_delay: float) -> None:
        self._write = write
        self._models = models
        self._max_deliver = max_deliver
        self._retry_delay = retry_delay
        # How many deliveries of a position came to nothing through no fault of its own, as far as this process knows.
        self._excused: Counter[int] = Counter()

    async def take(self, batch: Sequence[Msg]) -> None:
        """Settle a batch. Raises nothing that a message, a model or the database can bring about."""
        jobs: dict[Envelope, list[Msg]] = {}
        for received in batch:
            try:
                jobs.setdefault(_envelope(received), []).append(received)
            except MalformedEnvelope as error:
                _log.error("dropped a message from %s: %s", _shortened(received.subject), error)
                await _tell(received.term())
        again = [envelope.position for envelope, messages in jobs.items() if _deliveries(messages) > 1]
        if again:
            _log.info("%d messages were delivered again, the first at position %d", len(again), min(again))
        # Delivered more often than it may fail: perhaps it kills whoever takes it.
        suspects = [envelope for envelope in jobs if self._attempts(envelope, jobs[envelope]) > self._max_deliver]
        await self._settle({envelope: jobs[envelope] for envelope in jobs if envelope not in suspects})
        for envelope in suspects:
            await self._settle_suspect(envelope, jobs[envelope])

    # ------------------------------------------------------------------------------------------------ answering

    async def _settle(self, jobs: dict[Envelope, list[Msg]]) -> None:
        try:
            for envelope, error in zip(jobs, await self._carry_out(list(jobs)), strict=True):
                await self._answer(envelope, jobs[envelope], error)
        except _PASSING as error:
            await self._excuse(jobs, error)

    async def _settle_suspect(self, envelope: Envelope, messages: Sequence[Msg]) -> None:
        """Take one alone, parked until it is through: where it kills this process, it is found parked next time."""
        try:
            if await asyncio.to_thread(self._is_parked, envelope):
                _log.error("the event at position %d stays parked: %s", envelope.position, _DEADLY)
                for received in messages:
                    await _tell(received.term())
                return
            await asyncio.to_thread(self._park, envelope, _DEADLY, self._attempts(envelope, messages))
            (error,) = await self._carry_out([envelope])
            if error is None or isinstance(error, NotInThisLog):
                await asyncio.to_thread(self._unpark, envelope)
            await self._answer(envelope, messages, error)
        except _PASSING as error:
            await self._excuse({envelope: messages}, error)

    async def _excuse(self, jobs: Mapping[Envelope, Sequence[Msg]], error: Exception) -> None:
        _log.error("the database can't be worked with (%s); trying again", type(error).__name__)
        if len(self._excused) > _EXCUSES_KEPT:
            self._excused.clear()
        for envelope, messages in jobs.items():
            self._excused[envelope.position] += 1
            for received in messages:
                await _tell(received.nak(delay=self._retry_delay))

    async def _answer(self, envelope: Envelope, messages: Sequence[Msg], error: Exception | None) -> None:
        if error is None:
            verdict = "ack"
        elif isinstance(error, NotInThisLog):
            verdict = "term"
            _log.warning("dropped the event at position %d: %s", envelope.position, error)
        elif (attempts := self._attempts(envelope, messages)) < self._max_deliver:
            verdict = "nak"
            _log.warning("the event at position %d failed: %s", envelope.position, _reason(error))
        else:
            verdict = "term"
            _log.error("parked the event at position %d: %s", envelope.position, _reason(error))
            await asyncio.to_thread(self._park, envelope, _reason(error), attempts)
        if verdict != "nak":
            self._excused.pop(envelope.position, None)
        for received in messages:
            match verdict:
                case "ack":
                    await _tell(received.ack())
                case "nak":
                    await _tell(received.nak(delay=self._retry_delay))
                case _:
                    await _tell(received.term())

    def _attempts(self, envelope: Envelope, messages: Sequence[Msg]) -> int:
        return max(1, _deliveries(messages) - self._excused[envelope.position])

    def _park(self, envelope: Envelope, reason: str, attempts: int) -> None:
        with self._write.datastore.get_connection() as conn, conn.transaction():
            _ENGINE.park(
                conn,
                subscriber=SUBSCRIBER,
                position=envelope.position,
                tenant_id=envelope.tenant,
                stream_id=envelope.stream,
                event_type=envelope.topic,
                reason=reason,
                attempts=attempts,
                projections=None,
            )

    def _is_parked(self, envelope: Envelope) -> bool:
        with self._write.datastore.get_connection() as conn:
            return bool(_ENGINE.is_parked(conn, subscriber=SUBSCRIBER, position=envelope.position))

    def _unpark(self, envelope: Envelope) -> None:
        with self._write.datastore.get_connection() as conn, conn.transaction():
            _ENGINE.unpark(conn, subscriber=SUBSCRIBER, position=envelope.position)

    # ------------------------------------------------------------------------------------------------ the work

    async def _carry_out(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        """Do what the events ask for; what went wrong with each, in order. Raises the errors in `_PASSING`.

        A batch that fails as a whole is taken again one by one, so that no event fails its neighbours.
        """
        if not envelopes:
            return []
        try:
            return await self._together(envelopes)
        except _PASSING:
            raise
        except Exception as error:  # whatever a model or a text may provoke
            if len(envelopes) == 1:
                return [error]
            _log.warning("a batch failed (%s); taking it one by one", type(error).__name__)
            return [(await self._carry_out([envelope]))[0] for envelope in envelopes]

    async def _together(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        empties = {envelope.stream: message(envelope.stream) for envelope in envelopes}
        tenants = {tenant: embedding_models(tenant) for tenant in {envelope.tenant for envelope in envelopes}}
        asked: list[Message | EmbeddingModels] = [*empties.values(), *tenants.values()]
        loaded = {state.id: state for state in await asyncio.to_thread(self._write.log.load_many, asked)}
        states = {stream: cast(Message, loaded[stream]) for stream in empties}
        known = {envelope.stream for envelope in envelopes if states[envelope.stream].tenant_id == envelope.tenant}
        embedders = {
            tenant: self._models.embedders_of(cast(EmbeddingModels, loaded[empty.id]))
            for tenant, empty in tenants.items()
        }
        intents = await self._intents([state for state in states.values() if state.id in known], embedders)
        outcomes = await asyncio.to_thread(self._write.commands.handle_many, list(intents.values()))
        results: dict[UUID, Exception | None] = dict.fromkeys(known)
        for stream, outcome in zip(intents, outcomes, strict=True):
            results[stream] = outcome if isinstance(outcome, DomainError) else None
        return [results.get(envelope.stream, NotInThisLog("it is not in this log")) for envelope in envelopes]

    async def _intents(
        self, states: Sequence[Message], embedders: Mapping[UUID, Sequence[Embedder]]
    ) -> dict[UUID, Intent]:
        """What to record, by message; nothing for a message that its models have answered already."""
        analyses, latency_ms = await self._models.analyse(
            [state for state in states if not self._models.analysed(state)]
        )
        vectors = await self._models.embed(states, embedders)
        now = datetime.now(UTC)
        intents: dict[UUID, Intent] = {}
        for state in states:
            commands: list[Command] = []
            steps: list[Step] = []
            if (analysis := analyses.get(state.id)) is not None:
                analysis = _as_stored(analysis)
                commands.append(self._analysis(analysis, now))
                steps.append(self._inference(state, analysis, latency_ms, now))
            commands += (
                EmbedMessage(at=now, model_name=name, vector=vector) for name, vector in vectors.get(state.id, ())
            )
            if commands:
                intents[state.id] = Intent((Step(message(state.id), tuple(commands)), *steps))
        return intents

    def _analysis(self, analysis: Analysis, now: datetime) -> AnalyzeMessage:
        analyser = self._models.analyser
        return AnalyzeMessage(
            at=now, model_name=analyser.model_name, prompt_version=analyser.prompt_version, analysis=analysis
        )

    def _inference(self, state: Message, analysis: Analysis, latency_ms: int, now: datetime) -> Step:
        analyser = self._models.analyser
        if state.tenant_id is None:
            raise NotInThisLog("it is not in this log")
        command = RecordInference(
            at=now,
            tenant_id=state.tenant_id,
            message_id=state.id,
            model_name=analyser.model_name,
            prompt_version=analyser.prompt_version,
            template_hash=analyser.template_hash,
            latency_ms=latency_ms,
            sentiment=analysis.sentiment,
            emotion=analysis.emotion,
            satisfaction=analysis.satisfaction,
            run_id=LIVE_RUN,
        )
        identifier = inference_id(state.id, LIVE_RUN, analyser.prompt_version, analyser.model_name)
        return Step(inference(identifier), (command,))


def _as_stored(analysis: Analysis) -> Analysis:
    """The analysis as the message will keep it, so that its inference says the same; a wrong one is refused there."""
    try:
        return checked(analysis)
    except DomainError:
        return analysis


def _envelope(received: Msg) -> Envelope:
    envelope = Envelope.decode(received.subject, received.data)
    if envelope.type != MessageReceived.type_name:
        raise MalformedEnvelope(f"expected {MessageReceived.type_name}")
    return envelope


def _deliveries(messages: Sequence[Msg]) -> int:
    return max(received.metadata.num_delivered or 1 for received in messages)


def _reason(error: Exception) -> str:
    """What may be shown: a foreign error's text may quote a message, so only its kind is."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, _TELLING) else name


def _shortened(subject: str) -> str:
    # Anyone who may publish can put anything into a subject: no more of it than our own subjects have.
    return subject if len(subject) <= 80 and subject.isascii() and subject.isprintable() else "a foreign subject"


async def _tell(answer: Awaitable[None]) -> None:
    """Send an answer. One that is lost with the connection is made good by the next delivery."""
    try:
        await answer
    except nats.errors.Error as error:
        _log.warning("an answer to NATS was lost (%s)", type(error).__name__)
