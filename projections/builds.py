"""Builds as they are recorded: read models in a schema of their own, and how far they are."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from projections.batch import Projection
from projections.catalog import all_projections

#: Positions that are to be left out, each with the names of the projections that leave it out.
LeaveOut = Mapping[int, Collection[str]]
Purpose = Literal["rebuild", "audit", "replay", "kept"]
OnProgress = Callable[[int, int], None]


class BuildError(Exception):
    """A build can't be begun or go on; the message says why and what to do."""


class Lacking(msgspec.Struct):
    """An event that was parked for some projections when their tables were set aside: they are without it."""

    position: int
    projections: list[str]


class Build(msgspec.Struct):
    """A build as it is recorded."""

    id: int
    schema_name: str
    purpose: Purpose
    projections: list[str]
    tables: list[str]
    state: Literal["loading", "finishing", "ready"]
    position: int
    until: int | None
    positions: list[int] | None
    parked: list[Lacking]
    fingerprint: str
    schema_version: int


class Missing(NamedTuple):
    """Something that the live tables have and the build's not yet."""

    kind: str
    table_name: str
    name: str


def chosen(names: Iterable[str], schema: str = "evosense", *, bare: bool = False) -> list[Projection]:
    """The projections of these names, in the order in which their tables depend on one another.

    Raises `BuildError` for a name that is none.
    """
    wanted = set(names)
    found = [p for p in all_projections(schema, bare=bare) if p.name in wanted]
    if unknown := wanted - {p.name for p in found}:
        known = ", ".join(p.name for p in all_projections())
        raise BuildError(f"there is no projection {', '.join(sorted(unknown))}: there are {known}")
    return found


def build_of(row: dict[str, Any]) -> Build:
    """A build from its row."""
    return msgspec.convert(row, Build)
