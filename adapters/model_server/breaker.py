"""Leaves a server alone that does not answer, and lets one call find out whether it does again."""

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

State = Literal["closed", "open", "half-open"]

#: Failures in a row that open it...
IN_A_ROW: Final = 5
#: ...or more than this share of so many calls.
SHARE: Final = 0.5
WINDOW: Final = 20
#: Seconds that it stays open the first time; they double with each call that failed to close it, up to...
OPEN_S: Final = 2.0
LONGEST_S: Final = 60.0
#: The same where the server refuses what only an operator can change.
DENIED_S: Final = 60.0
LONGEST_DENIED_S: Final = 300.0


class Breaker:
    """Closed: calls pass. Open: none does. Half-open: one does, the probe, and what becomes of it decides for all.

    A verdict names the `era` in which its call began. What began before the last change says nothing of now, and is
    passed over.
    """

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        """Take a clock in seconds, and a source of numbers from 0 to 1."""
        self._clock = clock
        self._jitter = jitter
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._opened = 0
        self._until: float | None = None
        self._probing = False
        self.era = 0

    @property
    def state(self) -> State:
        """How it stands at this moment."""
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half-open"

    def wait(self) -> float:
        """Seconds until a call may pass, where only time is missing."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    @property
    def probing(self) -> bool:
        """Whether the one call is under way."""
        return self._probing

    def take_probe(self) -> None:
        """The call that begins now is the probe."""
        self._probing = True

    def give_back_probe(self) -> None:
        """The probe ended without a verdict: its caller went away."""
        self._probing = False

    def succeeded(self, era: int) -> bool:
        """The server answered. Return whether that closed it."""
        if era != self.era:
            return False
        self._recent.append(True)
        self._in_a_row = 0
        if self._until is None:
            return False
        self._until = None
        self._opened = 0
        self._recent.clear()
        self._change()
        return True

    def failed(self, era: int) -> bool:
        """The server failed. Return whether that opened it."""
        if era != self.era:
            return False
        self._recent.append(False)
        self._in_a_row += 1
        often = len(self._recent) == WINDOW and self._recent.count(False) > SHARE * WINDOW
        if self._until is None and self._in_a_row < IN_A_ROW and not often:
            return False
        self._open(OPEN_S, LONGEST_S)
        return True

    def denied(self, era: int) -> bool:
        """The server refuses us. Return whether that opened it."""
        if era != self.era:
            return False
        self._open(DENIED_S, LONGEST_DENIED_S)
        return True

    def _open(self, seconds: float, longest: float) -> None:
        seconds = min(longest, seconds * 2.0 ** min(self._opened, 16))
        self._opened += 1
        # Processes that lost a server together should not come back together.
        self._until = self._clock() + seconds * (0.5 + 0.5 * self._jitter())
        self._in_a_row = 0
        self._recent.clear()
        self._change()

    def _change(self) -> None:
        self.era += 1
        self._probing = False
