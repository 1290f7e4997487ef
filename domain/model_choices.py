"""Which models a tenant's messages are given to, and for how much a day: its own choice, or the installation's."""

from typing import Final, Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id
from domain.errors import Invalid
from domain.event import Event, event_type
from domain.limits import fitting

#: Most models in a chain: more than a few are a mistake.
MAX_ANALYSERS: Final = 8
MAX_NAME: Final = 64
#: A thousand million US dollars a day, in millionths.
MAX_BUDGET: Final = 10**15


@event_type("model_choices.ModelsChosen")
class ModelsChosen(Event, frozen=True, kw_only=True):
    """The tenant's messages are analysed by `analysers`, the configured names in the order in which they are asked.

    None of them: by the installation's. `daily_budget`: in millionths of a US dollar; None for the installation's.
    """

    analysers: tuple[str, ...]
    daily_budget: int | None


@event_type("model_choices.ModelsChoiceCleared")
class ModelsChoiceCleared(Event, frozen=True, kw_only=True):
    """The tenant has the installation's models and budget again."""


class ChooseModels(Command, frozen=True, kw_only=True):
    """Choose. Neither models nor a budget is the same as `ClearChoice`."""

    tenant_id: UUID
    analysers: tuple[str, ...] = ()
    daily_budget: int | None = None


class ClearChoice(Command, frozen=True, kw_only=True):
    """Go back to what the installation has."""


class ModelChoice(Aggregate, frozen=True, kw_only=True):
    """State of a tenant's choice; without `analysers` or `daily_budget` the installation's are meant."""

    tenant_id: UUID | None = None
    analysers: tuple[str, ...] = ()
    daily_budget: int | None = None

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case ModelsChosen():
                return replace(
                    after, tenant_id=event.tenant_id, analysers=event.analysers, daily_budget=event.daily_budget
                )
            case ModelsChoiceCleared():
                return replace(after, analysers=(), daily_budget=None)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. What is chosen already needs no event."""
        match command:
            case ChooseModels():
                return self._choose(command)
            case ClearChoice():
                return self._clear(command)
        raise Invalid(f"a tenant's choice of models does not understand {type(command).__name__}")

    def _choose(self, command: ChooseModels) -> tuple[Event, ...]:
        wanted = (command.analysers, command.daily_budget)
        if len(command.analysers) > MAX_ANALYSERS:
            raise Invalid(f"at most {MAX_ANALYSERS} analysers are asked one after the other")
        for name in command.analysers:
            fitting("the name of an analyser", name, MAX_NAME, least=1)
        if len(set(command.analysers)) < len(command.analysers):
            raise Invalid("an analyser is named twice: it would be asked again when it has just failed")
        if command.daily_budget is not None and not 0 <= command.daily_budget <= MAX_BUDGET:
            raise Invalid(f"a daily budget lies between 0 and {MAX_BUDGET // 1_000_000:,} US dollars")
        if wanted == (self.analysers, self.daily_budget):
            return ()
        if wanted == ((), None):
            return self._clear(command)
        return (
            self._event(
                ModelsChosen,
                command,
                command.tenant_id,
                analysers=command.analysers,
                daily_budget=command.daily_budget,
            ),
        )

    def _clear(self, command: Command) -> tuple[Event, ...]:
        if self.tenant_id is None or (self.analysers, self.daily_budget) == ((), None):
            return ()
        return (self._event(ModelsChoiceCleared, command, self.tenant_id),)


def model_choice(tenant_id: UUID) -> ModelChoice:
    """A tenant's choice before anything was chosen."""
    return ModelChoice(id=derived_id("model choice", tenant_id))
