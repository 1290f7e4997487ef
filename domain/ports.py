"""What the domain asks of the outside world: an analyser and an embedder.

The implementations live in `adapters/`; everything else knows only these two shapes. Both are called with masked
text alone (DESIGN rule 6), and both are asynchronous because the real ones speak to a server.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

#: Number of dimensions of every stored vector (the documented column is `vector(768)`).
DIMENSIONS: Final = 768

#: Emotions that may be stored, in Portuguese, as the dashboards show them. At most 40 characters each.
EMOTIONS: Final = (
    "alegria",
    "gratidão",
    "confiança",
    "neutro",
    "ansiedade",
    "tristeza",
    "frustração",
    "raiva",
)

#: Tones that may be stored. At most 40 characters each.
TONES: Final = ("cordial", "formal", "informal", "neutro", "urgente", "irônico", "agressivo")


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What an analyser says of one message.

    `sentiment` is -1 (bad) to 1 (good); `satisfaction` 0 to 100; `emotion` one of `EMOTIONS`; `tone` one of `TONES`;
    `summary` at most 200 characters, in the language of the message.
    """

    sentiment: float
    emotion: str
    satisfaction: int
    tone: str
    summary: str


class Analyser(Protocol):
    """Tells what a message feels like."""

    @property
    def model_name(self) -> str:
        """Name and version of the model, at most 64 characters; it is recorded with every inference."""

    @property
    def prompt_version(self) -> str:
        """Version of the prompt (or of the rules that stand in its place), at most 64 characters."""

    @property
    def template_hash(self) -> str:
        """SHA-256, in hex, of everything that shapes the answer except the message."""

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        """Return one analysis a text, in the order given."""


class Embedder(Protocol):
    """Turns text into a vector whose cosine distance is a distance of meaning."""

    @property
    def model_name(self) -> str:
        """Name and version of the model, at most 64 characters; vectors of two models are never compared."""

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return one vector a text: `DIMENSIONS` little-endian 32-bit floats, of length 1 (L2)."""
