"""Aggregates kept in memory and brought up to date on each use: what is asked of the log is only what is new."""

import threading
from collections import OrderedDict
from typing import TypeVar, cast
from uuid import UUID

from adapters.event_store.log import EventLog
from domain.aggregate import Aggregate

_A = TypeVar("_A", bound=Aggregate)


class AggregateCache:
    """Answers like `EventLog.load`, always current, without folding long streams again. Safe to share."""

    def __init__(self, log: EventLog, *, remember: int = 4096) -> None:
        self._log = log
        self._remember = remember
        self._known: OrderedDict[UUID, Aggregate] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, empty: _A) -> _A | None:
        """The aggregate as it was when it was last loaded here; None where it was not, or was forgotten since."""
        with self._lock:
            return cast(_A | None, self._known.get(empty.id))

    def load(self, empty: _A) -> _A:
        """The aggregate as it is now."""
        with self._lock:
            known = self._known.get(empty.id, empty)
        current = self._log.catch_up(cast(_A, known))
        if current.exists:
            with self._lock:
                self._known[empty.id] = current
                self._known.move_to_end(empty.id)
                while len(self._known) > self._remember:
                    self._known.popitem(last=False)
        return current
