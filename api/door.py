"""How many webhook calls may be under way in one process: the rest are asked to come again, not left to pile up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from api.problems import ProblemError

#: Each holds its body in memory and waits for a thread or for its append.
CALLS: Final = 512


class Door:
    """Counts who is inside. For one event loop: it takes no lock."""

    def __init__(self, calls: int = CALLS) -> None:
        self.calls = calls
        self.inside = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside for a while. Raises `ProblemError` 503 with Retry-After where it is full."""
        if self.inside >= self.calls:
            raise ProblemError(503, f"{self.inside} calls are under way: try again in a moment", retry_after=1)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
