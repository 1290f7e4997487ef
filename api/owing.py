"""What becomes of rows of the backlog that are in hand, once it is known how the model took them.

Faults of the database are waited out: an answer is paid for, and kept until it is recorded.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeVar

from api.backlog import Backlog, Claim
from api.parking import PASSING, reason_of
from domain.ports import AnswerRefused, ModelUnavailable

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_S: Final = 1.0
#: Times in a row that a message may find no model without being passed over by others. From then on its pauses grow: it
#: may be the very one that the model can't take, and must not be all that the model is tried with.
_PATIENCE: Final = 5
_LONGEST_GROWN_S: Final = 64.0
#: The longest that a server may ask for: it can't put a message off for ever.
_LONGEST_ASKED_S: Final = 300.0

_log = logging.getLogger(__name__)


class Owing:
    """Settles claims; forgets those of which the outcome stands in the database.

    `max_deliver`: attempts before an event is parked; `retry_delay`: seconds before the next one.
    """

    def __init__(self, backlog: Backlog, *, max_deliver: int, retry_delay: float) -> None:
        self._backlog = backlog
        self._max_deliver = max_deliver
        self._retry_delay = retry_delay
        #: In this process's hand.
        self.claims: set[Claim] = set()
        #: Set whenever the hand has become emptier.
        self.freed = asyncio.Event()

    def take(self, claims: Sequence[Claim]) -> None:
        """These are in hand from now on."""
        self.claims.update(claims)

    def drop(self, claims: Sequence[Claim]) -> None:
        """These are no longer in hand, whatever became of them."""
        self.claims.difference_update(claims)
        self.freed.set()

    async def done(self, claims: Sequence[Claim]) -> None:
        """All that they wanted is in the log."""
        if claims:
            await patiently(self._backlog.done, claims)
            self.drop(claims)

    async def unavailable(self, claims: Sequence[Claim], error: ModelUnavailable, wait: float) -> None:
        """No model could be asked, and none may be for `wait` seconds: they stay, and it is no attempt."""
        pauses = {claim: _pause(claim.unavailable, wait, error.retry_after) for claim in claims}
        await patiently(self._backlog.postpone, pauses, str(error) or type(error).__name__, failed=False)
        self.drop(claims)

    async def unasked(self, claims: Sequence[Claim], error: Exception) -> None:
        """Something else was away that asking needs, such as the database."""
        _log.error("messages can't be asked about (%s); trying again", type(error).__name__)
        pauses = dict.fromkeys(claims, _RETRY_S)
        await patiently(self._backlog.postpone, pauses, type(error).__name__, failed=False)
        self.drop(claims)

    async def failed(self, claim: Claim, error: Exception) -> None:
        """It counts as an attempt; the last one, and a refused answer, park it."""
        attempts = claim.attempts + 1
        if isinstance(error, AnswerRefused) or attempts >= self._max_deliver:
            _log.error("parked the event at position %d: %s", claim.position, reason_of(error))
            await patiently(self._backlog.park, claim, reason_of(error), attempts)
        else:
            _log.warning("the event at position %d failed: %s", claim.position, reason_of(error))
            await patiently(self._backlog.postpone, {claim: self._retry_delay}, reason_of(error), failed=True)
        self.drop([claim])

    async def unsettled(self, claim: Claim, error: Exception) -> None:
        """Something broke on the way. An attempt, too: one that nobody counts would come back, and be paid, for ever.

        Raises nothing.
        """
        try:
            await self.failed(claim, error)
        except Exception as why:
            _log.error("the event at position %d can't be settled: %s", claim.position, reason_of(why))
            # Not renewed any more: it comes back when its lease has run out.
            self.drop([claim])


async def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a thread, as often as it takes the database to be there again."""
    while True:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except PASSING as error:
            _log.error("the database can't be worked with (%s); trying again", type(error).__name__)
        await asyncio.sleep(_RETRY_S)


def _pause(times: int, wait: float, retry_after: float | None) -> float:
    """Seconds for which a message is not asked about; `times`: how often it found no model before.

    None while nothing is asked at all: so it keeps its place in the order.
    """
    least = 0.0 if wait > 0 else min(max(retry_after or 0.0, 1.0), _LONGEST_ASKED_S)
    grown = min(2.0 ** (times - _PATIENCE), _LONGEST_GROWN_S) if times >= _PATIENCE else 0.0
    return max(least, grown) * random.uniform(1.0, 1.5)  # noqa: S311 - spreads, and guards nothing
