"""How a message gets its answer from the models that its tenant has chosen.

The chain's models are asked in their order. The next one is asked where one is unavailable, and not where one answers
wrongly: it would be asked about the same text. Before that stand the tenant's budget, which leaves the offline analyser
alone when it is spent, and the cache (docs/model-costs.md).
"""

import asyncio
import threading
import time
from contextlib import suppress
from datetime import date
from typing import Final, NamedTuple, Protocol, cast
from uuid import UUID

import structlog
from msgspec.structs import replace

from api.answer_cache import AnswerCache, cacheable
from api.chains import OFFLINE, Chain, Chains, Configured, is_served
from api.usage import Usage, today
from api.wiring import WriteSide
from domain.answers import checked
from domain.errors import DomainError
from domain.ports import Analyser, Answer, AnswerRefused, ModelUnavailable, Prompt, Question, ServedAnalyser
from domain.ports import Usage as Used

_log = structlog.stdlib.get_logger(__name__)

#: How many messages at once the analyser in this process is given: it has no server that could be crowded.
OFFLINE_ROOM: Final = 64


class Asks(Protocol):
    """What the backlog needs of a tenant's chain of models. All but `answer` block on the database now and then."""

    def served(self, tenant_id: UUID) -> bool:
        """Whether a server is the first to be asked about the tenant's messages."""

    def earlier(self, tenant_id: UUID) -> int:
        """How many earlier texts of the conversation a question is to have."""

    def room(self, tenant_id: UUID) -> int:
        """How many of the tenant's messages may be asked about at this moment; 0 while all its models are out."""

    def wait(self, tenant_id: UUID) -> float:
        """Seconds until one of the tenant's models may be asked again; 0 where one may be now."""

    async def answer(self, question: Question) -> Answer:
        """The answer of the first model that gives one. Raises `ModelUnavailable` and `AnswerRefused`."""


class Prompts(Protocol):
    """Where the prompt that is active comes from: `api.active_prompt.ActivePrompt`, or a test's."""

    def current(self) -> Prompt:
        """The one to ask with; blocks on the log now and then."""


class _Place(NamedTuple):
    """What one cached answer is of."""

    tenant_id: UUID
    model: str
    key: bytes


class Asking(Asks):
    """Asks the models of `configured`.

    `daily_budget`: in millionths of a US dollar, for tenants without one of their own; None for no limit.
    `answer` is for one event loop, the others are safe to share among threads.
    """

    def __init__(
        self,
        write: WriteSide,
        configured: Configured,
        prompts: Prompts,
        usage: Usage,
        cache: AnswerCache,
        daily_budget: int | None,
    ) -> None:
        self._configured = configured
        self._chains = Chains(write.log, configured, daily_budget)
        self._prompts = prompts
        self._usage = usage
        self._cache = cache
        self._flights: dict[_Place, asyncio.Task[Answer]] = {}
        self._lock = threading.Lock()
        self._told: tuple[date, set[UUID]] = (today(), set())

    def served(self, tenant_id: UUID) -> bool:
        """See `Asks`. Not where the budget is nothing at all; where it is spent, the offline analyser is asked here."""
        if not any(map(is_served, self._configured.analysers.values())):
            # The stream asks for each tenant of each batch: where nothing is behind a server, the log is spared it.
            return False
        chain = self._chains.of(tenant_id)
        return chain.daily_budget != 0 and is_served(self._configured.analysers[chain.names[0]])

    def earlier(self, tenant_id: UUID) -> int:
        """See `Asks`: the most that one of its models is to be given."""
        return max((one.earlier for one in self._served(self._chains.of(tenant_id))), default=0)

    def room(self, tenant_id: UUID) -> int:
        """See `Asks`. That of the first model that is not out: the others are for when it is."""
        for one in self._asked(tenant_id):
            if not is_served(one):
                return OFFLINE_ROOM
            if one.wait() <= 0:
                return one.room()
        return 0

    def wait(self, tenant_id: UUID) -> float:
        """See `Asks`."""
        return min(one.wait() if is_served(one) else 0.0 for one in self._asked(tenant_id))

    async def answer(self, question: Question) -> Answer:
        """See `Asks`."""
        asked = await asyncio.to_thread(self._asked, question.tenant_id)
        reasons: list[str] = []
        retries: list[float] = []
        for one in asked:
            if not is_served(one):
                return await self._computed(cast(Analyser, one), question)
            own = replace(question, earlier=question.earlier[-one.earlier :] if one.earlier else ())
            try:
                return await self._answered(one, own, await asyncio.to_thread(self._prompts.current))
            except ModelUnavailable as error:
                reasons.append(str(error))
                seconds = one.wait() if error.retry_after is None else error.retry_after
                retries += [seconds] if seconds > 0 else []
        raise ModelUnavailable("; ".join(reasons), min(retries, default=None))

    async def close(self) -> None:
        """Ask nobody any more: what is being asked is given up. The models are closed by who made them."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------ the chain

    def _asked(self, tenant_id: UUID) -> list[Analyser | ServedAnalyser]:
        """The models to ask, in order: the offline one alone where the day's budget is spent."""
        chain = self._chains.of(tenant_id)
        found = [self._configured.analysers[name] for name in chain.names]
        if chain.daily_budget is None or not any(map(is_served, found)):
            return found
        if self._usage.spent(tenant_id) < chain.daily_budget:
            return found
        self._tell(tenant_id)
        return [self._configured.analysers[OFFLINE]]

    def _served(self, chain: Chain) -> list[ServedAnalyser]:
        return [one for name in chain.names if is_served(one := self._configured.analysers[name])]

    def _tell(self, tenant_id: UUID) -> None:
        """Once a day and tenant."""
        day = today()
        with self._lock:
            if self._told[0] != day:
                self._told = (day, set())
            if tenant_id in self._told[1]:
                return
            self._told[1].add(tenant_id)
        _log.warning("a tenant's daily budget is spent: the offline analyser answers", tenant=str(tenant_id))

    # ------------------------------------------------------------------------------------------------ one model

    async def _computed(self, analyser: Analyser, question: Question) -> Answer:
        started = time.perf_counter()
        analyses = await analyser.analyse([question.text])
        latency_ms = round(1000 * (time.perf_counter() - started))
        used = Used(calls=1)
        try:
            (analysis,) = analyses
            analysis = checked(analysis)
        except (DomainError, ValueError) as error:
            self._usage.count(question.tenant_id, analyser.model_name, used, "refused")
            why = str(error) if isinstance(error, DomainError) else f"it gave {len(analyses)} analyses of one text"
            raise AnswerRefused(why, used) from None
        self._usage.count(question.tenant_id, analyser.model_name, used)
        return Answer(
            analysis=analysis,
            model_name=analyser.model_name,
            prompt_version=analyser.prompt_version,
            template_hash=analyser.template_hash,
            latency_ms=latency_ms,
            usage=used,
        )

    async def _answered(self, one: ServedAnalyser, question: Question, prompt: Prompt) -> Answer:
        """From the cache, or of somebody who asks the very same just now, or asked."""
        if not cacheable(question):
            return await self._ask(one, question, prompt)
        key = await asyncio.to_thread(
            self._cache.key, question, one.name, one.model_name, one.template_hash(prompt), prompt
        )
        place = _Place(question.tenant_id, one.model_name, key)
        flight = self._flights.get(place)
        if flight is not None:
            return await self._joined(flight, question, one)
        # A task of its own: who waits for it may be cancelled, and the others still want the answer.
        flight = asyncio.create_task(self._asked_or_known(one, question, prompt, place))
        self._flights[place] = flight
        flight.add_done_callback(lambda _: self._landed(place))
        return await asyncio.shield(flight)

    async def _joined(self, flight: asyncio.Task[Answer], question: Question, one: ServedAnalyser) -> Answer:
        try:
            answer = await asyncio.shield(flight)
        except AnswerRefused as error:
            raise AnswerRefused(str(error)) from None  # it was paid for by who asked
        except ModelUnavailable as error:
            raise ModelUnavailable(str(error), error.retry_after) from None
        self._usage.count(question.tenant_id, one.model_name, Used(), "cached")
        return replace(answer, latency_ms=0, usage=Used())

    def _landed(self, place: _Place) -> None:
        flight = self._flights.pop(place)
        with suppress(asyncio.CancelledError):
            flight.exception()  # perhaps nobody waits for it any more

    async def _asked_or_known(self, one: ServedAnalyser, question: Question, prompt: Prompt, place: _Place) -> Answer:
        known = await asyncio.to_thread(self._cache.find, place.tenant_id, place.key)
        if known is not None:
            self._usage.count(question.tenant_id, one.model_name, Used(), "cached")
            return known
        answer = await self._ask(one, question, prompt)
        await asyncio.to_thread(self._cache.keep, place.tenant_id, place.key, answer)
        return answer

    async def _ask(self, one: ServedAnalyser, question: Question, prompt: Prompt) -> Answer:
        tenant_id, model = question.tenant_id, one.model_name
        if (seconds := one.wait()) > 0:
            raise ModelUnavailable(f"{one.name} is out", seconds)
        try:
            answer = await one.ask(question, prompt)
        except AnswerRefused as error:
            self._usage.count(tenant_id, model, error.usage, "refused")
            raise
        except ModelUnavailable as error:
            # An answer may have come, and been wrong, before it was asked again.
            self._usage.count(tenant_id, model, error.usage, "failed")
            raise
        self._usage.count(tenant_id, model, answer.usage)
        return answer
