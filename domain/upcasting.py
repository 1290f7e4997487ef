"""How old versions of an event become the current one: a chain of small steps, one for each version (rule 4)."""

from collections.abc import Callable
from typing import Any

#: A step takes the fields of version n, by name, and gives those of version n + 1.
Step = Callable[[dict[str, Any]], dict[str, Any]]

_STEPS: dict[tuple[str, int], Step] = {}


def upcaster(type_name: str, from_version: int) -> Callable[[Step], Step]:
    """Decorator: enter the step from `from_version` to the next. Raises `ValueError` if there is one already."""

    def enter(step: Step) -> Step:
        if (type_name, from_version) in _STEPS:
            raise ValueError(f"{type_name} has two upcasters from version {from_version}")
        _STEPS[type_name, from_version] = step
        return step

    return enter


def upcast(type_name: str, version: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Apply every step from `version` on, in turn; without one the fields are current already."""
    while (step := _STEPS.get((type_name, version))) is not None:
        fields = step(fields)
        version += 1
    return fields
