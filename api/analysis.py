"""What the message worker does with a batch: has it carried out (`api.understanding`), and settles.

It acknowledges after the append, so a message is taken at least once; the commands are idempotent, so it is recorded
once. A message that fails is tried again after a delay and, in the end, parked; what is wrong with the database is
waited out, however long it takes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

import nats.errors
from nats.aio.msg import Msg

from adapters.nats import Envelope, MalformedEnvelope
from api.applying import NotInThisLog, NotYet
from api.deferring import Deferring
from api.models import Models
from api.parking import PASSING, Parking, reason_of
from api.understanding import TAKEN, TEXTS, Understanding
from api.wiring import WriteSide

_log = logging.getLogger(__name__)

#: Seconds after which a read model that was behind is looked at again.
_PATIENCE_S: Final = 1.0
_DEADLY: Final = "the worker that had it in hand ended without an answer"
_EXCUSES_KEPT: Final = 10_000


class MessageWorker:
    """Takes batches of raw messages and answers each of them: `ack`, `nak` with a delay, or `term`.

    `max_deliver`: tries before an event is parked; `retry_delay`: seconds before the next try. `deferring`: see
    `Understanding`.
    """

    def __init__(
        self,
        write: WriteSide,
        models: Models,
        *,
        max_deliver: int,
        retry_delay: float,
        deferring: Deferring | None = None,
    ) -> None:
        self._parking = Parking(write.datastore)
        self._understanding = Understanding(write, models, deferring)
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
        # Delivered more often than it may fail: perhaps it kills whoever takes it. What is not given to a model never
        # does, and waits for the read model as often as it takes: this process may not have counted all the times.
        suspects = [
            envelope
            for envelope in jobs
            if envelope.type in TEXTS and self._attempts(envelope, jobs[envelope]) > self._max_deliver
        ]
        await self._settle({envelope: jobs[envelope] for envelope in jobs if envelope not in suspects})
        if suspects:
            await self._settle_suspects({envelope: jobs[envelope] for envelope in suspects})

    # ------------------------------------------------------------------------------------------------ answering

    async def _settle(self, jobs: dict[Envelope, list[Msg]]) -> None:
        try:
            for envelope, error in zip(jobs, await self._carry_out(list(jobs)), strict=True):
                await self._answer(envelope, jobs[envelope], error)
        except PASSING as error:
            await self._excuse(jobs, error)

    async def _settle_suspects(self, jobs: Mapping[Envelope, Sequence[Msg]]) -> None:
        try:
            behind = await asyncio.to_thread(self._understanding.behind, list(jobs))
        except PASSING as error:
            await self._excuse(jobs, error)
            return
        for envelope, messages in jobs.items():
            if envelope in behind:
                # It may have come back for that alone.
                await self._answer(envelope, messages, NotYet("the read model of messages is behind"))
            else:
                await self._settle_suspect(envelope, messages)

    async def _settle_suspect(self, envelope: Envelope, messages: Sequence[Msg]) -> None:
        """Take one alone, parked until it is through: where it kills this process, it is found parked next time."""
        try:
            if await asyncio.to_thread(self._parking.is_parked, envelope):
                _log.error("the event at position %d stays parked: %s", envelope.position, _DEADLY)
                for received in messages:
                    await _tell(received.term())
                return
            await asyncio.to_thread(self._parking.park, envelope, _DEADLY, self._attempts(envelope, messages))
            (error,) = await self._carry_out([envelope])
            if error is None or isinstance(error, NotInThisLog | NotYet):
                await asyncio.to_thread(self._parking.unpark, envelope, _DEADLY)
            await self._answer(envelope, messages, error)
        except PASSING as error:
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
        delay = self._retry_delay
        if error is None:
            verdict = "ack"
        elif isinstance(error, NotInThisLog):
            verdict = "term"
            _log.warning("dropped the event at position %d: %s", envelope.position, error)
        elif isinstance(error, NotYet):
            verdict, delay = "nak", min(_PATIENCE_S, self._retry_delay)
            self._excused[envelope.position] += 1
        elif (attempts := self._attempts(envelope, messages)) < self._max_deliver:
            verdict = "nak"
            _log.warning("the event at position %d failed: %s", envelope.position, reason_of(error))
        else:
            verdict = "term"
            _log.error("parked the event at position %d: %s", envelope.position, reason_of(error))
            await asyncio.to_thread(self._parking.park, envelope, reason_of(error), attempts)
        if verdict != "nak":
            self._excused.pop(envelope.position, None)
        for received in messages:
            match verdict:
                case "ack":
                    await _tell(received.ack())
                case "nak":
                    await _tell(received.nak(delay=delay))
                case _:
                    await _tell(received.term())

    def _attempts(self, envelope: Envelope, messages: Sequence[Msg]) -> int:
        return max(1, _deliveries(messages) - self._excused[envelope.position])

    # ------------------------------------------------------------------------------------------------ the work

    async def _carry_out(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        """Do what the events ask for; what went wrong with each, in order. Raises the errors in `PASSING`.

        A batch that fails as a whole is taken again one by one, so that no event fails its neighbours.
        """
        if not envelopes:
            return []
        try:
            return await self._understanding.reach(envelopes)
        except PASSING:
            raise
        except Exception as error:  # whatever a model or a text may provoke
            if len(envelopes) == 1:
                return [error]
            _log.warning("a batch failed (%s); taking it one by one", type(error).__name__)
            return [(await self._carry_out([envelope]))[0] for envelope in envelopes]


def _envelope(received: Msg) -> Envelope:
    envelope = Envelope.decode(received.subject, received.data)
    if envelope.type not in TAKEN:
        raise MalformedEnvelope(f"expected one of {', '.join(sorted(TAKEN))}")
    return envelope


def _deliveries(messages: Sequence[Msg]) -> int:
    return max(received.metadata.num_delivered or 1 for received in messages)


def _shortened(subject: str) -> str:
    # Anyone who may publish can put anything into a subject: no more of it than our own subjects have.
    return subject if len(subject) <= 80 and subject.isascii() and subject.isprintable() else "a foreign subject"


async def _tell(answer: Awaitable[None]) -> None:
    """Send an answer. One that is lost with the connection is made good by the next delivery."""
    try:
        await answer
    except nats.errors.Error as error:
        _log.warning("an answer to NATS was lost (%s)", type(error).__name__)
