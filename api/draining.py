"""How the backlog is drained: models behind servers are asked about what waits, beside the stream (docs/adr/0040).

Tenants are served in turn, and of each as much as its models have room for at that moment; while they have none, no row
is touched. What is asked about is decided on the message as the log has it then: of a deleted one nothing, of an edited
one the text that it has. An answer is recorded before its row goes, and recorded once: a process that dies in between
leaves the row, and the next one finds the message answered.
"""

import asyncio
import logging
from typing import Final
from uuid import UUID

from api.asking import Asks
from api.backlog import Backlog, Claim, Order
from api.lanes import Analyses, Counts, Lane, Vectors
from api.models import Models
from api.owing import Owing
from api.parking import PASSING, reason_of
from api.relay import wait_any
from api.wiring import WriteSide

_POLL_S: Final = 1.0
#: Between two looks: what was taken has reached its model by then, and its room is known.
_BREATH_S: Final = 0.02
_PAUSE_S: Final = 1.0
#: Seconds for which what is in hand is waited for at the end. Longer than most calls, shorter than a role is given.
_GRACE_S: Final = 10.0
#: Rows in hand at once, at the most.
_MOST: Final = 256

_log = logging.getLogger(__name__)


class Drainer:
    """Asks about what waits, until it is told to stop. Several may run side by side.

    `order`: which of a tenant's messages come first; `max_deliver`, `retry_delay`: see `Owing`; `count`: who counts
    what embedding costs; `grace`: seconds for which it finishes what it has in hand.
    """

    def __init__(
        self,
        write: WriteSide,
        backlog: Backlog,
        asks: Asks,
        models: Models,
        order: Order,
        *,
        max_deliver: int,
        retry_delay: float,
        count: Counts | None = None,
        grace: float = _GRACE_S,
    ) -> None:
        self._backlog = backlog
        self._order: Order = order
        self._owing = Owing(backlog, max_deliver=max_deliver, retry_delay=retry_delay)
        self._lanes: tuple[Lane, ...] = (
            Analyses(write, backlog, self._owing, asks),
            Vectors(write, self._owing, models, count),
        )
        self._grace = grace
        self._last: dict[Lane, UUID] = {}
        self._asking: set[asyncio.Future[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Drain until `stop` is set; then finish what is in hand, or let others have it. Faults are waited out."""
        keeping = asyncio.ensure_future(self._keep())
        try:
            while not stop.is_set():
                self._backlog.grown.clear()
                self._owing.freed.clear()
                try:
                    seconds = await self._look()
                except PASSING as error:
                    _log.error("the backlog can't be looked at (%s); trying again", type(error).__name__)
                    await wait_any(stop.wait(), seconds=_PAUSE_S)
                    continue
                except Exception:
                    _log.exception("the backlog can't be drained; trying again")
                    await wait_any(stop.wait(), seconds=_PAUSE_S)
                    continue
                await wait_any(stop.wait(), seconds=_BREATH_S)
                await wait_any(stop.wait(), self._backlog.grown.wait(), self._owing.freed.wait(), seconds=seconds)
        finally:
            await self._finish()
            keeping.cancel()

    async def _look(self) -> float:
        """Take in hand what there is room for; returns the seconds until another look is worth while."""
        seconds = _POLL_S
        for lane in self._lanes:
            tenants = await asyncio.to_thread(self._backlog.tenants, lane.wants)
            # In turn: whoever comes after the one that was served last is first.
            last = self._last.get(lane, UUID(int=0))
            tenants = [t for t in tenants if t > last] + [t for t in tenants if t <= last]
            for place, tenant_id in enumerate(tenants):
                try:
                    room, wait = await asyncio.to_thread(lane.room, tenant_id)
                except PASSING:
                    raise
                except Exception as error:  # such as choices that can't be opened: they must not stop other tenants
                    _log.error("messages of the tenant %s can't be asked about: %s", tenant_id, reason_of(error))
                    continue
                room = min(room, _MOST - len(self._owing.claims))
                if wait > 0:
                    seconds = min(seconds, max(wait, _BREATH_S))
                elif room > 0:
                    # What several share is shared out.
                    share = max(1, room // (len(tenants) - place))
                    if await self._take(lane, tenant_id, share):
                        self._last[lane] = tenant_id
                        seconds = _BREATH_S if share < room else seconds
        return seconds

    async def _take(self, lane: Lane, tenant_id: UUID, most: int) -> bool:
        claims = await asyncio.to_thread(self._backlog.claim, tenant_id, lane.wants, most, self._order)
        if claims:
            self._owing.take(claims)
            task = asyncio.ensure_future(self._work(lane, tenant_id, claims))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return bool(claims)

    async def _work(self, lane: Lane, tenant_id: UUID, claims: list[Claim]) -> None:
        try:
            await lane.work(tenant_id, claims)
        except Exception as error:
            left = [claim for claim in claims if claim in self._owing.claims]
            if len(claims) > 1:
                # So that no message fails its neighbours, each time that the lease has run out. What is in the log by
                # now is not asked about again.
                for claim in left:
                    await self._work(lane, tenant_id, [claim])
            elif left:
                await self._owing.unsettled(left[0], error)

    async def _keep(self) -> None:
        """Renew the leases of what is in hand, for as long as this runs."""
        while True:
            await asyncio.sleep(self._backlog.lease / 3)
            if claims := list(self._owing.claims):
                try:
                    await asyncio.to_thread(self._backlog.renew, claims)
                except PASSING as error:
                    _log.warning("leases can't be renewed (%s); trying again", type(error).__name__)

    async def _finish(self) -> None:
        if self._asking:
            await asyncio.wait(self._asking, timeout=self._grace)
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking, timeout=_PAUSE_S)
        if claims := list(self._owing.claims):
            _log.info("%d messages of the backlog are left to others", len(claims))
            try:
                await asyncio.to_thread(self._backlog.release, claims)
            except PASSING as error:
                _log.warning("leases can't be given back (%s); they run out", type(error).__name__)
