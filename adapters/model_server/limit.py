"""How many calls a server takes at once: found out as TCP finds out how much a line carries (AIMD)."""

from collections.abc import Callable
from typing import Final

#: Calls at once to begin with, and after a server was away.
START: Final = 2


class Limit:
    """Grows by one for each window of successes in which all of it was used; halves when the server has too much.

    A window is as many successes as the limit is wide. It is halved once for all calls that were under way together:
    they all met the same crowd.
    """

    def __init__(self, maximum: int, clock: Callable[[], float]) -> None:
        """Take the most that is ever allowed, at least 1, and a clock in seconds."""
        self._maximum = max(1, maximum)
        self._clock = clock
        self._successes = 0
        self._full = False
        self._lowered_at = float("-inf")
        self.value = min(START, self._maximum)

    def entered(self, in_flight: int) -> None:
        """So many are under way now."""
        self._full = self._full or in_flight >= self.value

    def succeeded(self) -> None:
        """A call came back. It counts where the limit has been reached since it last changed."""
        if not self._full:
            return
        self._successes += 1
        if self._successes >= self.value:
            self._to(self.value + 1)

    def overloaded(self, began: float) -> None:
        """A call that began then was one too many."""
        if began < self._lowered_at:
            return
        self._lowered_at = self._clock()
        self._to(self.value // 2)

    def restart(self) -> None:
        """Begin anew: what was found out is no longer so."""
        self._to(START)

    def _to(self, value: int) -> None:
        self._successes = 0
        self._full = False
        self.value = max(1, min(value, self._maximum))
