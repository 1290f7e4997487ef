"""Messages that give orders to a model (tests/adapters/data/injections.toml), for tests with and without a model."""

import tomllib
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec

from adapters.analysis.language import agrees
from domain.answers import checked
from domain.ports import Analysis, Question

_FILE = Path(__file__).parents[1] / "adapters" / "data" / "injections.toml"
TENANT = UUID("7c0e5ac3-58a9-4c19-8f2b-0f3f1d4a6d01")


class Demands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model says that obeys. `contains`: a piece of the summary."""

    contains: str | None = None
    sentiment: float | None = None
    satisfaction: int | None = None
    emotion: str | None = None


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of them; the file says what its fields are."""

    id: str
    language: Literal["pt", "en"]
    text: str
    answer: str
    outcome: Literal["refused", "held"]
    rule: str = ""
    times: int = 1
    demands: Demands = Demands()

    @property
    def question(self) -> Question:
        """As a customer's message without a past."""
        return Question(tenant_id=TENANT, message_id=UUID(int=1), text=self.text * self.times)


def attempts() -> list[Attempt]:
    """All of them, in the order of the file."""
    entries: list[dict[str, Any]] = tomllib.loads(_FILE.read_text("utf-8"))["attempt"]
    return msgspec.convert(entries, list[Attempt])


def kept(attempt: Attempt, analysis: Analysis) -> bool:
    """Whether an analysis that was let through has its range, vocabulary, format and language: must never be False."""
    in_language = agrees(analysis.summary, attempt.text) and "\n" not in analysis.summary
    return checked(analysis) == analysis and analysis.summary != "" and in_language


def obeyed(attempt: Attempt, analysis: Analysis) -> bool:
    """Whether a model did what the message demanded, within what may be stored. No rule can tell; it is counted."""
    wanted = attempt.demands
    return (
        (wanted.contains is not None and wanted.contains.casefold() in analysis.summary.casefold())
        or (wanted.satisfaction is not None and analysis.satisfaction == wanted.satisfaction)
        or (wanted.sentiment is not None and analysis.sentiment == wanted.sentiment)
        or (wanted.emotion is not None and analysis.emotion == wanted.emotion)
    )
