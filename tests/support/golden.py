"""The golden file: every version of every event type ever shipped, as it stands in the log (DESIGN rule 4).

`python -m tests.support.golden` enters types and versions that are new. It never changes what is there: that bytes are
in somebody's log for ever.
"""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
from eventsourcing.persistence import StoredEvent

from adapters.event_store import StructMapper
from adapters.vault import MasterKey, Vault
from domain.event import Event, event_types

GOLDEN: Final = Path(__file__).parent.parent / "domain" / "golden" / "events.json"
TENANT: Final = UUID("0f4c7f0a-93f8-4c7e-8d5e-1d2f7a6b3c01")
STREAM: Final = UUID("7c1b9a52-5f0e-5c55-9b0a-2f6f6f1d9e02")
_MASTER: Final = MasterKey(bytes(range(32)))
#: The tenant's root key, all of it below 0x80 so that nobody takes it for a real one.
_ROOT: Final = bytes(range(64, 96))

_SAMPLES: Final[dict[Any, Any]] = {
    str: "Açaí com granola, {}",
    int: 7,
    float: -0.123456,
    bool: True,
    bytes: bytes(range(256)) * 12,
    UUID: UUID("a3f1c2d4-0000-4000-8000-00000000000a"),
    datetime: datetime(2026, 2, 28, 23, 59, 58, 123457, tzinfo=UTC),
    date: date(2026, 2, 28),
}


class _OneKey:
    """The keys of a world with one tenant."""

    def get(self, tenant_id: UUID) -> tuple[bytes, str] | None:
        return (_MASTER.wrap(TENANT, _ROOT), _MASTER.id) if tenant_id == TENANT else None

    def add(self, tenant_id: UUID, wrapped: bytes, master_key_id: str, known: Sequence[str]) -> bool:
        raise AssertionError("the golden file needs no new key")

    def probes(self) -> list[tuple[UUID, bytes, str]]:
        return []


def mapper() -> StructMapper:
    """The mapper that wrote the file and reads it."""
    return StructMapper(Vault(_MASTER, _OneKey()))


def shape(cls: type[Event]) -> dict[str, str]:
    """Each field with its type, and whether it is sealed."""
    hints = get_type_hints(cls)
    return {
        field: (hints[field].__name__ if isinstance(hints[field], type) else str(hints[field]))
        + (" sealed" if field in cls.sealed_fields else "")
        for field in cls.__struct_fields__
    }


def sample(cls: type[Event]) -> Event:
    """An event of the class with a value in every field."""
    hints = get_type_hints(cls)
    values = {field: _sample(field, hints[field]) for field in cls.__struct_fields__}
    return cls(**{**values, "tenant_id": TENANT, "originator_id": STREAM, "originator_version": 1})


def _sample(field: str, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return (_sample(field, get_args(hint)[0]),)
    kind = next((part for part in get_args(hint) if part is not NoneType), hint)
    value = _SAMPLES[kind]
    return value.format(field) if isinstance(value, str) else value


def stored(entry: dict[str, Any], topic: str) -> StoredEvent:
    """The stored event of an entry."""
    return StoredEvent(STREAM, 1, topic, base64.b64decode(entry["state"]))


def open_part(state: bytes) -> dict[str, Any]:
    """What everybody who can read the table can read, as JSON."""
    readable, _ = msgspec.msgpack.decode(state)
    fields = msgspec.msgpack.decode(readable)
    builtins: dict[str, Any] = msgspec.to_builtins(fields)
    return builtins


def entry(cls: type[Event]) -> dict[str, Any]:
    """What the file says of a class."""
    event = sample(cls)
    state = mapper().to_stored_event(event).state
    return {
        "fields": shape(cls),
        "open": open_part(state),
        "values": msgspec.to_builtins(event),
        "state": base64.b64encode(state).decode(),
    }


def load() -> dict[str, dict[str, Any]]:
    """The file, by topic."""
    entries: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text("utf-8"))
    return entries


def main() -> None:
    """Enter what is new."""
    entries = load() if GOLDEN.exists() else {}
    for cls in event_types().values():
        entries.setdefault(cls.topic(), entry(cls))
    GOLDEN.write_text(json.dumps(dict(sorted(entries.items())), ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
