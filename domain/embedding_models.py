"""Embedding models of a tenant: which one answers its searches by meaning, and which one it is moving to."""

from typing import Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id
from domain.errors import Invalid, NotAllowed
from domain.event import Event, event_type
from domain.limits import fitting
from domain.messages import MAX_MODEL_NAME


@event_type("embedding_models.EmbeddingMoveBegun")
class EmbeddingMoveBegun(Event, frozen=True, kw_only=True):
    """The tenant's messages are being embedded by `model_name`; until it is adopted `from_model` answers."""

    model_name: str
    from_model: str


@event_type("embedding_models.EmbeddingModelAdopted")
class EmbeddingModelAdopted(Event, frozen=True, kw_only=True):
    """From here on `model_name` answers. Vectors of other models that were recorded before are read no more."""

    model_name: str


class BeginMove(Command, frozen=True, kw_only=True):
    """Begin to move to a model. `from_model`: the one that answers so far, for a tenant that never adopted any."""

    tenant_id: UUID
    model_name: str
    from_model: str


class AdoptModel(Command, frozen=True, kw_only=True):
    """End the move: every message has a vector of the model."""

    model_name: str


class EmbeddingModels(Aggregate, frozen=True, kw_only=True):
    """State of a tenant's models. `answering` is None for a tenant that never moved, `moving_to` for one that isn't.

    `adopted`: a move has ended, so that `answering` was adopted and is not merely the model of before the first move.
    """

    tenant_id: UUID | None = None
    answering: str | None = None
    moving_to: str | None = None
    adopted: bool = False

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case EmbeddingMoveBegun():
                return replace(after, tenant_id=event.tenant_id, answering=event.from_model, moving_to=event.model_name)
            case EmbeddingModelAdopted():
                return replace(after, answering=event.model_name, moving_to=None, adopted=True)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. A move that is begun while another is under way takes its place."""
        match command:
            case BeginMove():
                return self._begin(command)
            case AdoptModel():
                return self._adopt(command)
        raise Invalid(f"a tenant's embedding models do not understand {type(command).__name__}")

    def _begin(self, command: BeginMove) -> tuple[Event, ...]:
        fitting("model_name", command.model_name, MAX_MODEL_NAME, least=1)
        fitting("from_model", command.from_model, MAX_MODEL_NAME, least=1)
        if command.model_name == self.moving_to:
            return ()
        if self.moving_to is None and self.adopted and command.model_name == self.answering:
            return ()
        return (
            self._event(
                EmbeddingMoveBegun,
                command,
                command.tenant_id,
                model_name=command.model_name,
                from_model=self.answering or command.from_model,
            ),
        )

    def _adopt(self, command: AdoptModel) -> tuple[Event, ...]:
        if self.moving_to is None and self.adopted and command.model_name == self.answering:
            return ()
        if self.tenant_id is None or self.moving_to is None:
            raise NotAllowed(f"no move to {command.model_name} is under way: begin one")
        if command.model_name != self.moving_to:
            raise NotAllowed(f"the tenant is moving to {self.moving_to} meanwhile, not to {command.model_name}")
        return (self._event(EmbeddingModelAdopted, command, self.tenant_id, model_name=command.model_name),)


def embedding_models(tenant_id: UUID) -> EmbeddingModels:
    """A tenant's models before anything has happened."""
    return EmbeddingModels(id=derived_id("embedding models", tenant_id))
