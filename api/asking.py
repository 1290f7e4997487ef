"""How a message gets its answer from the models that its tenant has chosen."""

from typing import Protocol
from uuid import UUID

from domain.ports import Answer, Question


class Asks(Protocol):
    """What the backlog needs of a tenant's chain of models."""

    def served(self, tenant_id: UUID) -> bool:
        """Whether a server is the first to be asked about the tenant's messages; blocks on the log."""

    def room(self, tenant_id: UUID) -> int:
        """How many of the tenant's messages may be asked about at this moment; 0 while all its models are out."""

    def wait(self, tenant_id: UUID) -> float:
        """Seconds until one of the tenant's models may be asked again; 0 where one may be now."""

    def earlier(self, tenant_id: UUID) -> int:
        """How many earlier texts of the conversation the tenant's first model is to be given."""

    async def answer(self, question: Question) -> Answer:
        """The answer of the first model that gives one. Raises `ModelUnavailable` and `AnswerRefused`."""
