"""Messages of Evolution's NATS that are no connection's yet: which of them may wait for one, and for how long."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from api.wiring import WriteSide
from projections.connections import ConnectionsProjection
from sql import queries

#: Seconds for which a message waits whose instance has a connection with another token.
PATIENCE_S: Final = 20 * 60.0
#: Messages that may wait for that at once, in one process, and those of one instance among them: they count for what
#: the consumer may have without an answer, and a name that somebody took must not hold the others up.
MOST: Final = 2000
_MOST_OF_ONE: Final = 500

_ENGINE: Final = queries("engine")
_LOG: Final = queries("log")


class Unclaimed:
    """What one process remembers of them, by a key that tells messages apart. One call at a time."""

    def __init__(
        self, write: WriteSide, *, patience: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._patience = patience
        self._clock = clock
        #: When each was first seen, and its instance; the oldest first.
        self._waiting: dict[object, tuple[float, str]] = {}
        self._of_one: Counter[str] = Counter()
        #: Where the log ended when a message of an unknown instance was first seen.
        self._heads: dict[object, int] = {}

    def __contains__(self, key: object) -> bool:
        """Whether it waits for its token."""
        return key in self._waiting

    def may_wait(self, key: object, instance: str) -> bool:
        """Whether a message may come again, whose instance has a connection with another token."""
        now = self._clock()
        while self._waiting and now - next(iter(self._waiting.values()))[0] > 2 * self._patience:
            self.forget(next(iter(self._waiting)))  # another process has answered it
        if key not in self._waiting:
            if self._patience <= 0 or len(self._waiting) >= MOST or self._of_one[instance] >= _MOST_OF_ONE:
                return False
            self._waiting[key] = (now, instance)
            self._of_one[instance] += 1
        elif now - self._waiting[key][0] >= self._patience:
            self.forget(key)
            return False
        return True

    def is_early(self, key: object) -> bool:
        """Whether the read models have not yet all that the log had when this message of an unknown instance came.

        Blocks on the database. Where it says no, look for the connection once more: it may have come just now.
        """
        with self._write.datastore.get_connection() as conn:
            head = self._heads.get(key)
            if head is None:
                head = int(_LOG.head(conn)["position"])
            if _reached(conn) >= head:
                self._heads.pop(key, None)
                return False
        if len(self._heads) >= MOST and key not in self._heads:
            self._heads.pop(next(iter(self._heads)))
        self._heads[key] = head
        return True

    def forget(self, key: object) -> None:
        """It was answered for good."""
        self._heads.pop(key, None)
        if (waited := self._waiting.pop(key, None)) is not None:
            self._of_one -= Counter([waited[1]])  # names without any are left out


def _reached(conn: Any) -> int:
    """The position up to which registered connections are in the read model; -1 where it was never projected."""
    position = _ENGINE.projected_position(conn, projections=[ConnectionsProjection.name])["position"]
    return -1 if position is None else int(position)
