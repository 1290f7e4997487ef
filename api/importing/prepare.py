"""From a piece of a source to sealed events: decoded, parsed, masked, hashed, decided."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from adapters.event_store import StructMapper, TenantStoredEvent
from adapters.evolution import BROKEN, Envelope, EnvelopeError, parse_object
from adapters.evolution.vocabulary import NOT_ABOUT_MESSAGES
from adapters.vault import Vault
from api import amending
from api.commands import Intent
from api.importing.source import Piece
from api.people import Reception
from api.receiving import Origin, reception
from domain.errors import DomainError
from domain.messages import message

#: How many refusals are told one by one; all of them are counted.
LISTED: Final = 20
#: More kinds than this are counted as "other": whoever wrote the file chose the names.
_MAX_KINDS: Final = 100

_NO_JSON: Final = "not JSON in UTF-8"
_NO_DOCUMENT: Final = "neither a message {key, message, messageTimestamp, …} nor an envelope {event, instance, data}"


class Refused(msgspec.Struct, frozen=True):
    """What was not imported, and why: index of the file, number of the line (0: a JSON file), number of the message in
    the document (0: the document as a whole). The reason never holds content."""

    file: int
    line: int
    message: int
    reason: str


class Tally(msgspec.Struct):
    """What became of what was read. `ignored` counts by kind and reason; `refusals` are the first of `refused`.

    `stored`: messages that are new; `announced`: edits and deletions that are. Those known before are `duplicates`.
    """

    stored: int = 0
    duplicates: int = 0
    ignored: dict[str, int] = {}
    refused: int = 0
    refusals: list[Refused] = []
    announced: int = 0

    @property
    def recorded(self) -> int:
        """Messages, edits and deletions that are in the log, whoever brought them."""
        return self.stored + self.announced + self.duplicates

    def ignore(self, what: str, number: int = 1) -> None:
        """Count what is of no interest."""
        name = what if what in self.ignored or len(self.ignored) < _MAX_KINDS else "other"
        self.ignored[name] = self.ignored.get(name, 0) + number

    def refuse(self, refused: Refused) -> None:
        """Count and perhaps list what is not right."""
        self.refused += 1
        if len(self.refusals) < LISTED:
            self.refusals.append(refused)

    def add(self, other: "Tally") -> None:
        """Take in the counts of what came after."""
        self.stored += other.stored
        self.announced += other.announced
        self.duplicates += other.duplicates
        for what, number in other.ignored.items():
            self.ignore(what, number)
        self.refused += other.refused
        self.refusals += other.refusals[: LISTED - len(self.refusals)]


class Change(msgspec.Struct, frozen=True):
    """An edit or deletion to be announced, masked and hashed, and the number of the line that it stands in."""

    line: int
    kind: Literal["edit", "deletion"]
    intent: Intent


class Prepared(msgspec.Struct, frozen=True):
    """The events of a piece, one unit a message, and the tally of what led to none.

    `named`: messages whose people come with a LID, so that what they are recorded as is decided when their turn comes.
    `changes`: edits and deletions; whether they are news depends on what was announced before, so that waits as well.
    """

    units: list[tuple[TenantStoredEvent, ...]]
    tally: Tally
    named: list[Reception] = []
    changes: list[Change] = []


class Preparer:
    """Prepares the pieces of one source for one connection."""

    def __init__(self, origin: Origin, vault: Vault) -> None:
        self._origin = origin
        self._vault = vault
        self._mapper = StructMapper(vault)

    def prepare(self, piece: Piece) -> Prepared:
        """The events in it. Never raises for what is in it, but `VaultError` where the tenant's key can't be used."""
        tally, units, moment = Tally(), list[tuple[TenantStoredEvent, ...]](), datetime.now(UTC)
        named: list[Reception] = []
        changes: list[Change] = []
        if piece.fault:
            tally.refuse(Refused(piece.file, piece.line, 0, piece.fault))
        for line, body in _documents(piece):
            if not body.strip():
                continue
            try:
                found = _envelope(body, piece.file, line, tally, moment)
            except EnvelopeError as error:
                tally.refuse(Refused(piece.file, line, 0, str(error)))
                continue
            for inbound in found.messages:
                try:
                    received = reception(self._origin, self._vault.key(self._origin.tenant_id), inbound, moment)
                    events = message(received.stream).decide(received.command)
                except DomainError as error:
                    tally.refuse(Refused(piece.file, line, 0, str(error)))
                    continue
                if received.with_lid:
                    named.append(received)
                else:
                    units.append((*received.conditions, *map(self._mapper.to_stored_event, events)))
            if found.edits or found.deletions:
                changes += self._changes(found, line, moment)
        return Prepared(units, tally, named, changes)

    def _changes(self, found: Envelope, line: int, moment: datetime) -> Iterator[Change]:
        """The edits and deletions of a document."""
        tenant_id, connection_id = self._origin.tenant_id, self._origin.connection_id
        key = self._vault.key(tenant_id)
        for edit in found.edits:
            yield Change(line, "edit", amending.edit(tenant_id, connection_id, key, edit, moment))
        for deletion in found.deletions:
            yield Change(line, "deletion", amending.deletion(tenant_id, connection_id, key, deletion, moment))


def _documents(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """The documents with their lines."""
    if piece.line == 0:
        yield 0, piece.data
    else:
        yield from enumerate(piece.data.split(b"\n"), piece.line)


def _envelope(body: bytes, file: int, line: int, tally: Tally, moment: datetime) -> Envelope:
    """What is in one document; what leads to nothing goes into the tally. Raises `EnvelopeError`."""
    document = _decoded(body)
    if not isinstance(document, dict) or not ("event" in document or "key" in document):
        raise EnvelopeError(_NO_DOCUMENT)
    single = "event" not in document
    envelope = parse_object({"event": "messages.set", "data": [document]} if single else document, now=moment)
    if envelope.state is not None:
        # How the instance was connected back then says nothing of now.
        tally.ignore(f"{envelope.event}: {NOT_ABOUT_MESSAGES}")
    broken = False
    for ignored in envelope.ignored:
        if ignored.reason in BROKEN:
            broken = True
        else:
            tally.ignore(f"{ignored.kind}: {ignored.reason}")
    if broken:
        rows = [document] if single else _rows(document.get("data"))
        for number, row in enumerate(rows, 1):
            # Once more and one by one: an envelope does not say which of its rows it left out.
            event = "messages.set" if single else document["event"]
            alone = {"event": event, "sender": document.get("sender"), "data": [row]}
            for ignored in parse_object(alone, now=moment).ignored:
                if ignored.reason in BROKEN:
                    tally.refuse(Refused(file, line, 0 if single else number, ignored.reason))
    return envelope


def _rows(data: Any) -> list[Any]:
    """The rows of an envelope's data, as `parse_object` sees them."""
    held = [data.get("messages"), data.get("keys")] if isinstance(data, dict) else [data]
    return next((rows for rows in held if isinstance(rows, list)), [data])


def _decoded(body: bytes) -> Any:
    """The JSON. Raises `EnvelopeError`, without a cause: a decoder's error may quote it."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # JavaScript may cut an emoji in half; only the tolerant decoder takes it.
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise EnvelopeError(_NO_JSON) from None
