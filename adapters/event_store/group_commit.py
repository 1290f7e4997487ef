"""Group commit: appends that arrive together share one transaction, and with it one wait for the disk.

One thread takes whatever waits and appends it at once. While it is at the database the next callers queue up, so the
batches form by themselves: one caller alone waits for nobody, and many pay for one commit between them. The idea is
old (DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from eventsourcing.persistence import InterfaceError, OperationalError

from adapters.event_store.recorder import Appended, Conflict, Unit
from adapters.event_store.wire import Standing

Outcomes = list[Appended | Conflict]


class Overloaded(OperationalError):
    """More waits to be appended than may wait; nothing of this call was accepted."""


class Closed(OperationalError):
    """The event store is shutting down; nothing of this call was accepted."""


class _Request:
    __slots__ = ("events", "future", "units")

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = units
        #: Conditions are no events: they are looked at and not written.
        self.events = sum(not isinstance(one, Standing) for unit in units for one in unit)
        self.future: Future[Outcomes] = Future()


class GroupCommit:
    """Gathers appends. `submit` may be called from any thread."""

    def __init__(
        self,
        append: Callable[[Sequence[Unit]], Outcomes],
        *,
        batch_events: int = 2000,
        waiting_events: int = 50_000,
    ) -> None:
        """`append` does the work, in one transaction. A transaction takes requests up to `batch_events` events, and a
        larger request alone; beyond `waiting_events` events in the queue `submit` refuses."""
        self._append = append
        self._batch_events = batch_events
        #: How many events may wait; may be changed at any time.
        self.waiting_events = waiting_events
        self._queue: deque[_Request] = deque()
        self._queued = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="group commit", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events in the queue, those that are being appended not counted."""
        return self._queued

    @property
    def closed(self) -> bool:
        """Whether nothing more is accepted."""
        return self._closed

    def submit(self, units: Sequence[Unit]) -> "Future[Outcomes]":
        """Queue some units; the future gives their outcomes, or the error of their append.

        Raises `Overloaded` and `Closed`; what was accepted is carried out, whatever comes after.
        """
        request = _Request(units)
        with self._changed:
            if self._closed:
                raise Closed("the event store is shutting down")
            # An empty queue takes a request of any size: one that is larger than the queue must not wait for ever.
            if self._queued and self._queued + request.events > self.waiting_events:
                raise Overloaded(f"{self._queued:,} events are waiting to be appended: try again in a moment")
            self._queue.append(request)
            self._queued += request.events
            self._changed.notify()
        return request.future

    def close(self) -> None:
        """Accept nothing more, append what waits, and return when that is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while requests := self._take():
            # From here on a caller can't take its request back; who did so before is left out.
            self._carry_out([request for request in requests if request.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Request]:
        """The next requests, waiting for one; none once it is closed and empty."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return []
                self._changed.wait()
            requests = [self._queue.popleft()]
            events = requests[0].events
            while self._queue and events + self._queue[0].events <= self._batch_events:
                requests.append(self._queue.popleft())
                events += requests[-1].events
            self._queued -= events
        return requests

    def _carry_out(self, requests: list[_Request]) -> None:
        if not requests:
            return
        try:
            outcomes = iter(self._append([unit for request in requests for unit in request.units]))
        except Exception as error:
            if len(requests) == 1 or isinstance(error, (OperationalError, InterfaceError)):
                # The database is out of reach for all of them alike.
                for request in requests:
                    request.future.set_exception(error)
                return
            # One of them may be at fault (a value that the database refuses): each stands for itself then.
            for request in requests:
                self._carry_out([request])
            return
        for request in requests:
            request.future.set_result([next(outcomes) for _ in request.units])
