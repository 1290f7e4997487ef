"""How an event stands in the log: its topic, its open fields, and its personal fields in one sealed piece.

The state is a msgpack array of two byte strings: the open fields, a msgpack map by name; and the personal fields, a map
as well, encrypted with the tenant's key. The seal is bound to tenant, stream, version, topic and to the open bytes: a
piece that is copied to another place does not open there, and neither does one whose open fields were changed. An event
without personal fields is sealed all the same, around an empty map, so that no event can be changed unnoticed. Topic is
`context.Name:version`, without a module path (DESIGN rule 4).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    Mapper,
    MapperDeserialisationError,
    PersistenceError,
    StoredEvent,
    Transcoder,
)

from adapters.vault import MasterKeyError, SealBroken, Vault, VaultError
from domain import catalog  # noqa: F401 - enters all event types in the register
from domain.event import Event, event_types
from domain.upcasting import upcast

_PLACE: Final = ("originator_id", "originator_version")


class UnknownEventType(MapperDeserialisationError):
    """The log holds an event of a type or version that this program does not know."""


class UndecodableEvent(MapperDeserialisationError):
    """The bytes of an event are not what its type promises."""


class BrokenSeal(MapperDeserialisationError):
    """The sealed part of an event was changed or moved, or its tenant's key is another one."""


class KeyUnavailable(PersistenceError):
    """The master key does not open a tenant's key: a fault of the configuration, not of the event."""


class MsgpackTranscoder(Transcoder):
    """Bytes of msgpack. UUIDs become text, times become msgpack's own timestamps."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder()

    def encode(self, obj: Any) -> bytes:
        """See `Transcoder.encode`."""
        return self._encoder.encode(obj)

    def decode(self, data: bytes) -> Any:
        """See `Transcoder.decode`. Raises `msgspec.DecodeError`."""
        return self._decoder.decode(data)


class StructMapper(Mapper[UUID]):
    """Turns our struct events into the library's stored events and back, sealing on the way."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(MsgpackTranscoder())
        self._vault = vault
        self._encoder = msgspec.msgpack.Encoder()
        self._shapes: dict[str, _Shape] = {}
        self._tenants: dict[str, _Tenant] = {}

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> "TenantStoredEvent":
        """Seal and encode. Raises `VaultError` where the tenant has no key."""
        if not isinstance(domain_event, Event):
            raise TypeError(f"{type(domain_event).__name__} is not one of our events")
        cls = type(domain_event)
        open_names, personal_names = _split(cls)
        topic = cls.topic()
        encode = self._encoder.encode
        readable = encode({name: getattr(domain_event, name) for name in open_names})
        place = _place(domain_event.tenant_id, domain_event.originator_id, domain_event.originator_version, topic)
        personal = encode({name: getattr(domain_event, name) for name in personal_names})
        sealed = self._vault.key(domain_event.tenant_id).seal(personal, place + readable)
        return TenantStoredEvent(
            originator_id=domain_event.originator_id,
            originator_version=domain_event.originator_version,
            topic=topic,
            state=encode((readable, sealed)),
            tenant_id=domain_event.tenant_id,
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Event:
        """Decode, open, upcast. Raises `UnknownEventType`, `UndecodableEvent` or `BrokenSeal`, none with content.

        Raises `KeyUnavailable` where no event of that tenant could be opened now.
        """
        shape = self._shapes.get(stored_event.topic) or self._learn(stored_event)
        stream = _uuid(stored_event.originator_id).bytes
        try:
            readable, sealed = _STATE.decode(stored_event.state)
            tenant = self._tenant(_OWNER.decode(readable).tenant_id)
            personal = self._opened(stored_event, shape, tenant, stream, readable, sealed)
            # One map of both and the place: it becomes the event in one go, without a dict in between.
            whole = _joined(readable, personal, stream, self._encoder.encode(stored_event.originator_version))
        except BrokenSeal:
            raise  # a ValueError, too
        except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
            raise UndecodableEvent(f"{_where(stored_event)}: {type(error).__name__}") from None
        try:
            if shape.version == shape.cls.type_version:
                event: Event = shape.decoder.decode(whole)
                return event
            fields = upcast(shape.cls.type_name, shape.version, self.transcoder.decode(whole))
            return msgspec.convert(fields, shape.cls)
        except msgspec.MsgspecError:
            # The library's message quotes no values, but names the field of a personal value: keep it out as well.
            raise UndecodableEvent(f"{_where(stored_event)}: a field is missing or of another type") from None

    def emptied(self, stored_event: StoredEvent) -> bytes:
        """The state that the event has when nothing is in its personal fields: the open part as it is, a seal anew.

        Raises the errors of `to_domain_event`: of an event that does not open, nobody could say what was in it.
        """
        shape = self._shapes.get(stored_event.topic) or self._learn(stored_event)
        event = self.to_domain_event(stored_event)
        readable, _ = _STATE.decode(stored_event.state)
        names = _split(shape.cls)[1]
        nothing = self._encoder.encode({name: type(getattr(event, name))() for name in names})
        place = _place(event.tenant_id, event.originator_id, event.originator_version, stored_event.topic)
        return self._encoder.encode((readable, self._vault.key(event.tenant_id).seal(nothing, place + readable)))

    def _learn(self, stored_event: StoredEvent) -> "_Shape":
        name, _, version = stored_event.topic.rpartition(":")
        cls = event_types().get(name)
        if cls is None or not version.isdecimal() or not 1 <= int(version) <= cls.type_version:
            raise UnknownEventType(f"{_where(stored_event)}: this program does not know that type and version")
        shape = _Shape(cls, int(version), stored_event.topic.encode(), msgspec.msgpack.Decoder(cls))
        self._shapes[stored_event.topic] = shape
        return shape

    def _tenant(self, text: str) -> "_Tenant":
        """A tenant by its id as events write it: to read a UUID takes longer than to open an event."""
        tenant = self._tenants.get(text)
        if tenant is None:
            if len(self._tenants) >= _REMEMBER_TENANTS:
                self._tenants.clear()
            identifier = UUID(text)
            tenant = self._tenants[text] = _Tenant(identifier, identifier.bytes)
        return tenant

    def _opened(
        self,
        stored_event: StoredEvent,
        shape: "_Shape",
        tenant: "_Tenant",
        stream: bytes,
        readable: bytes,
        sealed: bytes,
    ) -> bytes:
        bound_to = b"".join(
            (
                tenant.bytes,
                stream,
                stored_event.originator_version.to_bytes(8, "big"),
                shape.topic,
                readable,
            )
        )
        try:
            return self._vault.key(tenant.id).open(sealed, bound_to)
        except MasterKeyError as error:
            raise KeyUnavailable(str(error)) from None
        except SealBroken:
            raise BrokenSeal(
                f"{_where(stored_event)}: its sealed part does not fit its key, its place or its open part"
            ) from None
        except VaultError as error:
            raise BrokenSeal(f"{_where(stored_event)}: {error}") from None


class _Shape(NamedTuple):
    """What a topic says of an event."""

    cls: type[Event]
    version: int
    topic: bytes
    decoder: "msgspec.msgpack.Decoder[Any]"


class _Tenant(NamedTuple):
    id: UUID
    bytes: bytes


class _Owner(msgspec.Struct):
    """The one open field that is needed to open the others."""

    tenant_id: str


_STATE: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes])
_OWNER: Final = msgspec.msgpack.Decoder(_Owner)
_REMEMBER_TENANTS: Final = 10_000
# msgpack: a short map's first byte holds its length, a longer one's is followed by it; 16 bytes of binary.
_FIXMAP, _MAP16, _BIN_16 = 0x80, 0xDE, b"\xc4\x10"
_SHORT: Final = 16
_ID: Final = msgspec.msgpack.encode("originator_id") + _BIN_16
_VERSION: Final = msgspec.msgpack.encode("originator_version")


def _joined(readable: bytes, personal: bytes, stream: bytes, version: bytes) -> bytes:
    """One msgpack map of two, and the place of the event. Raises `ValueError` where one of them is no map."""
    one, start = _map_header(readable)
    other, behind = _map_header(personal)
    number = one + other + len(_PLACE)
    header = bytes((_FIXMAP | number,)) if number < _SHORT else bytes((_MAP16,)) + number.to_bytes(2, "big")
    return b"".join((header, readable[start:], personal[behind:], _ID, stream, _VERSION, version))


def _map_header(data: bytes) -> tuple[int, int]:
    """How many entries a msgpack map has, and where they begin."""
    if data[:1] and _FIXMAP <= data[0] < _FIXMAP + _SHORT:
        return data[0] - _FIXMAP, 1
    if data[:1] and data[0] == _MAP16:
        return int.from_bytes(data[1:3], "big"), 3
    raise ValueError("no msgpack map")


def open_fields(stored_event: StoredEvent) -> dict[str, Any]:
    """The fields that need no key, by name, as they were recorded: not upcast, and not proven by the seal.

    Raises `UndecodableEvent`.
    """
    try:
        readable, _ = msgspec.msgpack.decode(stored_event.state)
        return msgspec.msgpack.decode(readable, type=dict[str, Any])
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise UndecodableEvent(f"{_where(stored_event)}: {type(error).__name__}") from None


@dataclass(frozen=True)
class TenantStoredEvent(StoredEvent):
    """A stored event that also says whose it is: the log has a column for it."""

    tenant_id: UUID


@dataclass(frozen=True)
class Standing(TenantStoredEvent):
    """No event, but a condition among the events of a unit: the stream stands at `originator_version`, 0: has none.

    `strict`: looked at under the lock that orders all appends. Otherwise perhaps a moment before, which costs nothing.
    """

    strict: bool


def standing(stream_id: UUID, version: int, tenant_id: UUID, *, strict: bool) -> Standing:
    """See `Standing`."""
    return Standing(stream_id, version, "", b"", tenant_id, strict)


@cache
def _split(cls: type[Event]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of an event's open and of its personal fields, each in the order of the class."""
    names = [name for name in cls.__struct_fields__ if name not in _PLACE]
    personal = cls.sealed_fields
    return tuple(n for n in names if n not in personal), tuple(n for n in names if n in personal)


def _place(tenant_id: UUID, stream_id: UUID, version: int, topic: str) -> bytes:
    return tenant_id.bytes + stream_id.bytes + version.to_bytes(8, "big") + topic.encode()


def _where(stored: StoredEvent) -> str:
    return f"event {stored.originator_version} of stream {stored.originator_id} ({stored.topic})"


def _uuid(value: UUID | str) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
