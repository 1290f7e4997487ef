"""How many events a batch takes: all that wait, up to a bound that follows the time and the memory a batch takes."""

from collections.abc import Sequence
from typing import Final

from eventsourcing.persistence import Notification

#: A batch that takes longer is followed by a smaller one: others wait for its end, and a kill loses it.
SLOW_S: Final = 1.0
#: A full batch that is done sooner is followed by a bigger one.
QUICK_S: Final = 0.4
#: Bytes of sealed events that a batch should not exceed, as far as the last one tells.
BYTES: Final = 32 * 1024 * 1024
_LEAST: Final = 50


class Pace:
    """The bound on the next batch. Under light load a batch is whatever is there, without delay."""

    def __init__(self, most: int, first: int) -> None:
        self._most = most
        self.size = min(first, most)

    def took(self, notifications: Sequence[Notification], seconds: float) -> None:
        """Learn from a batch that was projected."""
        number = len(notifications)
        if seconds > SLOW_S:
            self.size = max(min(_LEAST, self._most), min(self.size, number) // 2)
        elif number >= self.size and seconds < QUICK_S:
            self.size = min(self._most, 2 * self.size)
        if number:
            average = sum(len(one.state) for one in notifications) // number
            self.size = max(1, min(self.size, BYTES // max(1, average)))
