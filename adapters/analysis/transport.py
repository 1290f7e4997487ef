"""What `Served` asks of a way to a server: one call, and what would be sent."""

from typing import Protocol

import msgspec

from adapters.analysis.rendering import Rendered
from domain.ports import Question


class Completion(msgspec.Struct, frozen=True):
    """What a server answered, unread, and the tokens that it counted (0 where it counts none).

    `sent`: the envelope of this very call, where the transport's may have changed meanwhile; None where it can't.
    """

    text: str
    input_tokens: int
    output_tokens: int
    sent: bytes | None = None


class Wrong(msgspec.Struct, frozen=True):
    """What the model answered, and what was wrong with it."""

    answer: str
    complaint: str


class Transport(Protocol):
    """One server."""

    def envelope(self, prompt: Rendered) -> bytes:
        """Canonical JSON of what would be sent, without the message, ids and everything of one message: is hashed."""

    async def complete(self, question: Question, prompt: Rendered, wrong: Wrong | None) -> Completion:
        """Call once. `wrong`: its earlier answer, where this is the second attempt. Raises `ModelUnavailable`."""

    def wait(self) -> float:
        """Seconds for which it should not be called; 0 where it may be now."""

    def room(self) -> int:
        """How many calls more it takes at this moment: 0 while it should not be called."""

    async def close(self) -> None:
        """Let go of its connections."""
