"""Lets calls through to a model server: as many as it bears, while somebody waits for them, none while it is out."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

import msgspec

from adapters.model_server.breaker import Breaker, State
from adapters.model_server.faults import Fault
from adapters.model_server.limit import Limit
from domain.ports import AnswerRefused, ModelUnavailable

T = TypeVar("T")

#: Tries more after the first.
RETRIES: Final = 2
#: Seconds of the longest pause before the first retry; it doubles. Pauses are drawn between 0 and this (full jitter).
PAUSE_S: Final = 0.5
#: Seconds for which a server may ask to be left alone; a longer Retry-After is taken for this.
MAX_RETRY_AFTER_S: Final = 3600.0
#: Requests in a row that a server which has accepted one may reject for reasons unknown: each is put down to its text.
TRUST: Final = 3
#: What `wait` says while one call is finding out whether the server is back.
PROBING_S: Final = 1.0

_PASSING: Final = frozenset({"connect", "failed", "overload", "timeout"})

_log = logging.getLogger(__name__)


class GateState(msgspec.Struct, frozen=True, kw_only=True):
    """For showing. `limit`: calls at once at this moment; `waiting`: callers in the queue; `wait`: as `Gate.wait`."""

    name: str
    limit: int
    in_flight: int
    waiting: int
    breaker: State
    wait: float
    last_error: str | None


class _Pass(msgspec.Struct):
    """One call that was let through: when it began, in which era of the breaker, and whether it is the probe."""

    began: float
    era: int
    probe: bool
    judged: bool = False


class Gate:
    """One server's. For one event loop at a time.

    A run has `deadline` seconds for everything: waiting for its turn, its tries and the pauses between them; each try
    has `timeout`. What may pass by itself is tried again twice, a timeout once.
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: int,
        timeout: float,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take the most calls at once. `deadline` is at least the `timeout`, and twice that where none is given."""
        self.name = name
        self._timeout = timeout
        self._deadline = max(timeout, 2 * timeout if deadline is None else deadline)
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._limit = Limit(concurrency, clock)
        self._breaker = Breaker(clock, jitter)
        self._in_flight = 0
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._shut_until = float("-inf")
        self._last_error: str | None = None
        #: How many requests it may still reject before we believe that it rejects all.
        self._accepted = 0

    async def run(self, call: Callable[[float], Awaitable[T]]) -> T:
        """Return what `call` does, which is given the seconds it has and raises `Fault`; it may be called three times.

        Raises `ModelUnavailable`; and `AnswerRefused` where the server accepts no request about this message.
        """
        until = self._clock() + self._deadline
        tries = timeouts = 0
        while True:
            one = await self._enter(until)
            seconds = max(0.0, min(self._timeout, until - one.began))
            try:
                async with asyncio.timeout(seconds):
                    result = await call(seconds)
            except AnswerRefused:
                # The server is there, whatever is thought of what it says.
                self._succeeded(one)
                raise
            except Fault as error:
                fault = error
                self._judge(one, fault)
            except TimeoutError:
                fault = Fault("timeout", f"{self.name} does not answer within {seconds:.3g} s")
                self._judge(one, fault)
            else:
                self._accepted = TRUST
                self._succeeded(one)
                return result
            finally:
                self._leave(one)
            tries += 1
            timeouts += fault.kind == "timeout"
            if fault.kind not in _PASSING or tries > RETRIES or timeouts > 1:
                self._give_up(fault)
            await self._pause(fault, tries, until)

    def wait(self) -> float:
        """Seconds for which it should not be asked; 0 where it may be now."""
        if self._breaker.probing:
            return PROBING_S
        return max(0.0, self._breaker.wait(), self._shut_until - self._clock())

    def room(self) -> int:
        """How many calls more would begin at this moment without waiting: 0 while it should not be asked."""
        if self.wait() > 0:
            return 0
        if self._breaker.state == "half-open":
            return 1
        return max(0, self._limit.value - self._in_flight - len(self._queue))

    def state(self) -> GateState:
        """How it stands."""
        return GateState(
            name=self.name,
            limit=self._limit.value,
            in_flight=self._in_flight,
            waiting=len(self._queue),
            breaker=self._breaker.state,
            wait=self.wait(),
            last_error=self._last_error,
        )

    # Who goes in.

    async def _enter(self, until: float) -> _Pass:
        # Enough has to be left for an answer: half a timeout.
        latest = until - self._timeout / 2
        while True:
            if self._breaker.state == "open" or self._breaker.probing:
                self._refuse(self.wait())
            shut = self._shut_until - self._clock()
            if shut > 0:
                if self._clock() + shut > latest:
                    self._refuse(shut)
                await self._sleep(shut)
            elif self._breaker.state == "half-open":
                self._breaker.take_probe()
                self._take_place()
                return _Pass(self._clock(), self._breaker.era, True)
            elif self._in_flight < self._limit.value and not self._queue:
                self._take_place()
                return _Pass(self._clock(), self._breaker.era, False)
            elif await self._turn(latest):
                if self._breaker.state == "closed" and self._shut_until <= self._clock():
                    return _Pass(self._clock(), self._breaker.era, False)
                self._free()

    async def _turn(self, latest: float) -> bool:
        """Queue. Return whether a place was handed over; if not, things have changed, and are to be looked at anew."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(max(0.0, latest - self._clock())):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.result():
                self._free()
            if isinstance(error, TimeoutError):
                raise ModelUnavailable(f"{self.name} has more to do than it gets done in time") from None
            raise
        finally:
            if turn in self._queue:
                self._queue.remove(turn)

    def _refuse(self, seconds: float) -> NoReturn:
        why = f": {self._last_error}" if self._last_error else ""
        raise ModelUnavailable(f"{self.name} is left alone for {seconds:.1f} s{why}", seconds)

    def _leave(self, one: _Pass) -> None:
        if one.probe and not one.judged and one.era == self._breaker.era:
            self._breaker.give_back_probe()
        self._free()

    def _take_place(self) -> None:
        self._in_flight += 1
        self._limit.entered(self._in_flight)

    def _free(self) -> None:
        self._in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        """Hand free places to those who have waited longest; where nobody may go in, all look for themselves."""
        closed = self._breaker.state == "closed" and self._shut_until <= self._clock()
        while self._queue and (not closed or self._in_flight < self._limit.value):
            turn = self._queue.popleft()
            if not turn.done():
                if closed:
                    self._take_place()
                turn.set_result(closed)

    # What became of it.

    def _succeeded(self, one: _Pass) -> None:
        one.judged = True
        if self._breaker.succeeded(one.era):
            self._limit.restart()
            _log.info("the model server %s answers again", self.name)
        elif one.era == self._breaker.era:
            self._limit.succeeded()

    def _judge(self, one: _Pass, fault: Fault) -> None:
        """Draw the consequences for everybody."""
        if fault.kind == "rejected" and (fault.about in ("length", "content") or self._accepted):
            # It has accepted other messages, so it is this one: a single message must not shut out all others.
            self._accepted -= fault.about not in ("length", "content")
            self._succeeded(one)
            raise AnswerRefused(fault.reason) from None
        one.judged = True
        self._last_error = fault.reason
        at_least = self._limit.value == 1
        if fault.kind in ("overload", "timeout"):
            self._limit.overloaded(one.began)
        if fault.retry_after is not None:
            self._shut_until = max(self._shut_until, self._clock() + min(fault.retry_after, MAX_RETRY_AFTER_S))
        if fault.kind in ("denied", "rejected"):
            self._accepted = 0
            opened = self._breaker.denied(one.era)
        elif fault.kind == "overload" and not (at_least or one.probe):
            opened = False  # as long as there is a smaller limit, that is the cure
        else:
            opened = self._breaker.failed(one.era)
        if opened:
            self._limit.restart()
            _log.warning("the model server %s is left alone for %.1f s: %s", self.name, self._breaker.wait(), fault)
        self._wake()

    def _give_up(self, fault: Fault) -> NoReturn:
        raise ModelUnavailable(fault.reason, self.wait() or None) from None

    async def _pause(self, fault: Fault, tries: int, until: float) -> None:
        """Wait before the next try; where there is no time for one, or nobody may go in, give up."""
        if self._breaker.state != "closed":
            self._give_up(fault)
        pause = max(0.0, self._shut_until - self._clock()) + self._jitter() * PAUSE_S * 2 ** (tries - 1)
        if self._clock() + pause > until - self._timeout / 2:
            self._give_up(fault)
        await self._sleep(pause)
