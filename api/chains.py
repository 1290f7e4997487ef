"""Which models a tenant's messages are given to, one after the other, and for how much a day."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, TypeGuard
from uuid import UUID

import msgspec
import structlog

from adapters.event_store import AggregateCache, EventLog
from domain.model_choices import ModelChoice, model_choice
from domain.ports import Analyser, ServedAnalyser

_log = structlog.stdlib.get_logger(__name__)

#: The analyser that is always there, in this process, whether or not a chain names it.
OFFLINE: Final = "offline"
#: Seconds after which a choice is looked up again.
FRESH_S: Final = 1.0
#: Choices that are remembered.
_REMEMBERED: Final = 4096
#: Names that are no longer configured are told of once; of no more than so many.
_TOLD: Final = 1000


class Configured(Protocol):
    """The installation's models: `api.model_catalogue.Catalogue`, or a test's."""

    @property
    def analysers(self) -> Mapping[str, Analyser | ServedAnalyser]:
        """By name; `offline` is one of them."""

    @property
    def chain(self) -> tuple[str, ...]:
        """The names that are asked for tenants that chose no others."""


class Chain(msgspec.Struct, frozen=True):
    """Names in the order in which they are asked, at least one; `daily_budget` in millionths of a US dollar."""

    names: tuple[str, ...]
    daily_budget: int | None


def is_served(analyser: Analyser | ServedAnalyser) -> TypeGuard[ServedAnalyser]:
    """Whether it stands behind a server."""
    return hasattr(analyser, "ask")


def chain_of(choice: ModelChoice, known: Iterable[str], default: tuple[str, ...], daily_budget: int | None) -> Chain:
    """What a choice comes to with the models that are `known`, over what the installation has."""
    there = {*known, OFFLINE}
    names = tuple(name for name in choice.analysers or default if name in there)
    return Chain(names or (OFFLINE,), daily_budget if choice.daily_budget is None else choice.daily_budget)


class Chains:
    """The tenants' chains, at most a second old. Safe to share among threads."""

    def __init__(
        self,
        log: EventLog,
        configured: Configured,
        daily_budget: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._choices = AggregateCache(log, remember=_REMEMBERED)
        self._configured = configured
        self._daily_budget = daily_budget
        self._clock = clock
        self._lock = threading.Lock()
        self._fresh: dict[UUID, tuple[float, Chain]] = {}
        self._missed: set[tuple[UUID, str]] = set()

    def of(self, tenant_id: UUID) -> Chain:
        """The tenant's; blocks on the log where it is not fresh, and raises what that raises."""
        now = self._clock()
        fresh = self._fresh.get(tenant_id)
        if fresh is not None and now - fresh[0] < FRESH_S:
            return fresh[1]
        choice = self._choices.load(model_choice(tenant_id))
        found = chain_of(choice, self._configured.analysers, self._configured.chain, self._daily_budget)
        with self._lock:
            if len(self._fresh) >= _REMEMBERED:
                self._fresh.clear()
            self._fresh[tenant_id] = (now, found)
        self._tell(tenant_id, [name for name in choice.analysers if name not in found.names])
        return found

    def _tell(self, tenant_id: UUID, missing: list[str]) -> None:
        for name in missing:
            with self._lock:
                if (tenant_id, name) in self._missed or len(self._missed) >= _TOLD:
                    continue
                self._missed.add((tenant_id, name))
            _log.warning("a tenant has chosen an analyser that is not configured", tenant=str(tenant_id), analyser=name)
