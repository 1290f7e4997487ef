"""What the domain asks of the outside world: analysers and embedders, in this process or behind a server.

The implementations live in `adapters/`; everything else knows only these shapes. All are called with masked text
alone (DESIGN rule 6). What computes here takes batches (`Analyser`, `Embedder`); what is served elsewhere is asked a
message at a time (`ServedAnalyser`), counts what it costs, and may be unavailable.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import msgspec

from domain.errors import DomainError

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


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One message for a served analyser. `text` is masked; `earlier` are the conversation's texts of before it.

    `earlier`: masked, oldest first, as many as the server's configuration asks for.
    """

    tenant_id: UUID
    message_id: UUID
    text: str
    from_me: bool = False
    sent_at: datetime | None = None
    earlier: tuple[str, ...] = ()
    run_id: str = "live"


class Prompt(msgspec.Struct, frozen=True):
    """A version of the prompt and its template, unrendered."""

    version: str
    body: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What answers took: calls, tokens as the server counted them, and `cost` in millionths of a US dollar."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost=self.cost + other.cost,
        )


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A valid analysis (`domain.answers.checked`), who gave it, under which prompt, how long it took and what it cost.

    `template_hash`: SHA-256, in hex, of what was sent minus the message; `latency_ms`: of all calls that it took.
    """

    analysis: Analysis
    model_name: str
    prompt_version: str
    template_hash: str
    latency_ms: int
    usage: Usage = Usage()


class ModelUnavailable(Exception):
    """The model can't answer now: down, overloaded, too slow, or held back. Asked later, it may.

    `retry_after`: seconds for which it need not be asked, where that is known. `usage`: what was paid for all the same,
    such as a wrong answer after which the model could not be asked again. The text is fit for an operator and holds no
    content of a message or an answer.
    """

    def __init__(self, reason: str, retry_after: float | None = None, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.usage = usage or Usage()


class AnswerRefused(DomainError):
    """The model answered wrongly, and again when it was told so: asking once more is of no use.

    The text says which rule was broken, and quotes neither message nor answer. `usage`: what the answers cost.
    """

    def __init__(self, reason: str, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.usage = usage or Usage()


class VectorsDoNotFit(AnswerRefused):
    """An embedder's vectors have a size that can't be stored. The text names the model and what can be done."""


class ServedAnalyser(Protocol):
    """An analyser behind a server, with its own limits on how it may be asked."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    @property
    def model_name(self) -> str:
        """Name of the model, at most 64 characters; it is recorded with every inference."""

    @property
    def earlier(self) -> int:
        """How many earlier texts of the conversation it is to be given."""

    def template_hash(self, prompt: Prompt) -> str:
        """SHA-256, in hex, of what would be sent under that prompt minus the message. Asks nobody."""

    def wait(self) -> float:
        """Seconds for which it should not be asked; 0 where it may be now."""

    def room(self) -> int:
        """How many more messages may be asked about at this moment: 0 while it should not be asked."""

    async def ask(self, question: Question, prompt: Prompt) -> Answer:
        """Answer. Raises `ModelUnavailable` and `AnswerRefused`."""

    async def close(self) -> None:
        """Let go of its connections."""


class Embedded(msgspec.Struct, frozen=True):
    """Vectors in the order of the texts, as `Embedder.embed` gives them, and what they cost."""

    vectors: list[bytes]
    usage: Usage


class ServedEmbedder(Embedder, Protocol):
    """An embedder behind a server. `embed` raises `ModelUnavailable`, and `AnswerRefused` for vectors of no use."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    def wait(self) -> float:
        """Seconds for which it should not be asked; 0 where it may be now."""

    async def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """As `embed`, with what it cost."""

    async def close(self) -> None:
        """Let go of its connections."""
