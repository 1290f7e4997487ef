"""The shape every domain event has, which of its fields are personal, and the register of all event types."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar, get_args, get_type_hints
from uuid import UUID

import msgspec

#: Mark of a personal field: `text: Annotated[str, SEALED]`. Such a field reaches the log encrypted with the key of
#: its tenant, never in the clear (DESIGN rule 6).
SEALED: Final = msgspec.Meta(extra={"sealed": True})


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact that was decided. Subclasses name their stable type and version in the class line.

    `originator_id` and `originator_version` (from 1, without gaps) say which stream the event belongs to and where.
    `at` is when the fact was learned, in UTC. The position in the log is not part of the event: it is given by the
    log on append.
    """

    originator_id: UUID
    originator_version: int
    tenant_id: UUID
    at: datetime

    #: `context.Name`: a stable name without a module path. It is what the log stores (DESIGN rule 4).
    type_name: ClassVar[str] = ""
    #: Version of the type. A changed field means a new version and an upcaster (`domain/upcasting.py`).
    type_version: ClassVar[int] = 0
    #: Names of the fields marked `SEALED`.
    sealed_fields: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def topic(cls) -> str:
        """Name and version as they stand in the log, e.g. `messages.MessageReceived:1`."""
        return f"{cls.type_name}:{cls.type_version}"


_REGISTER: dict[str, type[Event]] = {}

_E = TypeVar("_E", bound=type[Event])


def event_type(name: str, version: int = 1) -> Callable[[_E], _E]:
    """Class decorator: give an event class its stable `name` and `version`, and enter it in the register.

    Raises `ValueError` if the name is taken by another class.
    """

    def enter(cls: _E) -> _E:
        if name in _REGISTER:
            raise ValueError(f"the event type {name} is registered twice")
        cls.type_name = name
        cls.type_version = version
        cls.sealed_fields = frozenset(
            field for field, hint in get_type_hints(cls, include_extras=True).items() if _is_sealed(hint)
        )
        _REGISTER[name] = cls
        return cls

    return enter


def event_types() -> Mapping[str, type[Event]]:
    """All registered event classes by their stable name."""
    return MappingProxyType(_REGISTER)


def _is_sealed(hint: Any) -> bool:
    # At any depth: in `Annotated[str, SEALED] | None` the mark stands below the union.
    return any(argument is SEALED or _is_sealed(argument) for argument in get_args(hint))
