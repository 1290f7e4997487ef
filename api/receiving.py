"""From what Evolution sends to the commands that record it: masked and hashed, whichever door it came by."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
import structlog

from adapters.evolution import Envelope, Ignored, InboundMessage, InboundState, fitted
from adapters.telemetry import RECEIVED, count_ignored
from adapters.vault import TenantKey
from api import amending
from api.activity import Outcome as Became
from api.commands import Done, Outcome
from api.people import Named, Reception
from api.wiring import WriteSide
from domain.connections import Connection, ReportState, connection
from domain.errors import AlreadyExists, DomainError, Invalid, NotAllowed, NotFound
from domain.identity import lid_alone
from domain.masking import mask
from domain.messages import ReceiveMessage

#: Bytes of one document, such as a delivery or a file of history: with `webhook_base64` a message brings its media
#: along, and a history its ten thousand rows.
MAX_DOCUMENT: Final = 64 * 2**20

#: How a refusal is counted; what is none of these is `other`.
_REFUSALS: Final[dict[type[DomainError], str]] = {
    Invalid: "invalid",
    NotAllowed: "not allowed",
    NotFound: "not found",
    AlreadyExists: "exists already",
}

#: Transports that read the same over and over: what is not new is no news, and not counted again each time.
_READS_AGAIN: Final = frozenset({"sweep"})

_log = structlog.stdlib.get_logger(__name__)


class Received(msgspec.Struct, frozen=True):
    """What became of a delivery's messages: newly stored, stored before, of no interest, refused; and the position.

    `announced`: edits and deletions that were not known yet; known and refused ones count like messages.
    """

    received: int
    duplicates: int
    ignored: int
    refused: int
    position: int
    announced: int = 0


class Origin(msgspec.Struct, frozen=True):
    """The connection that messages come from: whose it is, and the hash that stands for the company on it."""

    connection_id: UUID
    tenant_id: UUID
    company_sender: str

    @property
    def id(self) -> UUID:
        """The connection's id, as the connection itself calls it."""
        return self.connection_id


def record(
    write: WriteSide, source: Connection, envelope: Envelope, moment: datetime, transport: str = "webhook"
) -> Received:
    """Mask, hash and record all that is in a delivery of this connection; blocks on the database.

    Every transport ends here; `transport` is a name of `api/vocabulary.py`, for the counters. `source` is the
    connection as it is now: who holds one for longer loads it again for each delivery (`AggregateCache`), or a
    deactivation is noticed late. What is recorded already is a duplicate and does no harm, so whatever goes wrong may
    be tried again with the same envelope. Raises `NotFound` where the connection does not exist, `NotAllowed` where it
    is deactivated, and what the log raises.
    """
    if source.tenant_id is None:
        raise NotFound("there is no such connection")
    if not source.is_active:
        write.activity.note(source, transport, "refused", kind="delivery", reason="deactivated")
        raise NotAllowed("the connection is deactivated")
    key, origin = write.vault.key(source.tenant_id), Origin(source.id, source.tenant_id, source.company_sender)
    receptions = [reception(origin, key, inbound, moment) for inbound in envelope.messages]
    outcomes = write.people.receive(receptions)
    # At once: where something fails from here on and all of it is tried again, they are duplicates.
    _count(write, source, [(one.kind, one.sent_at) for one in envelope.messages], outcomes, moment, transport)
    intents = [amending.edit(source.tenant_id, source.id, key, one, moment) for one in envelope.edits]
    intents += (amending.deletion(source.tenant_id, source.id, key, one, moment) for one in envelope.deletions)
    changes = write.commands.handle_many(intents) if intents else []
    kinds = ["edit"] * len(envelope.edits) + ["deletion"] * len(envelope.deletions)
    _count(write, source, [(kind, None) for kind in kinds], changes, moment, transport)
    done = [outcome for outcome in (*outcomes, *changes) if isinstance(outcome, Done)]
    duplicates = sum(outcome.duplicate for outcome in done)
    announced = sum(isinstance(change, Done) and not change.duplicate for change in changes)
    result = Received(
        received=len(done) - duplicates - announced,
        duplicates=duplicates,
        ignored=len(envelope.ignored),
        refused=len(outcomes) + len(changes) - len(done),
        position=max((outcome.position for outcome in done), default=0),
        announced=announced,
    )
    if envelope.state is not None:
        _report(write, source, envelope.state, moment, transport)
    if transport not in _READS_AGAIN:
        _count_ignored(write, source, envelope.ignored, transport)
    return result


def _report(write: WriteSide, source: Connection, told: InboundState, moment: datetime, transport: str) -> None:
    """Record the state that an instance told, if it is another one, and remember it in any case."""
    command = ReportState(at=moment, state=told.state, reason=told.reason, told_at=told.told_at)
    write.commands.handle(connection(source.id), command)
    write.activity.saw(source, moment, state=told.state)
    write.activity.note(source, transport, "state", kind=told.state)


def _count(
    write: WriteSide,
    source: Connection,
    kinds: Sequence[tuple[str, datetime | None]],
    outcomes: Sequence[Outcome],
    moment: datetime,
    transport: str,
) -> None:
    """Count what became of messages, by kind and time of sending; or of edits and deletions, which have no time."""
    counts: Counter[tuple[Became, str, str]] = Counter()
    received: Counter[str] = Counter()
    newest: datetime | None = None
    for (kind, sent_at), outcome in zip(kinds, outcomes, strict=True):
        if isinstance(outcome, Done) and not outcome.duplicate:
            counts["accepted", kind, ""] += 1
            received["announced" if sent_at is None else "received"] += 1
            newest = max(filter(None, (newest, sent_at)), default=None)
        elif transport in _READS_AGAIN:
            continue
        elif isinstance(outcome, Done):
            counts["duplicate", kind, ""] += 1
            received["duplicate"] += 1
        else:
            counts["refused", kind, _REFUSALS.get(type(outcome), "other")] += 1
            received["refused"] += 1
    for (became, kind, reason), count in counts.items():
        write.activity.note(source, transport, became, kind=kind, reason=reason, count=count)
    for label, count in received.items():
        RECEIVED.labels(label).inc(count)
    # A history that is brought in later is no sign of life.
    if newest is not None and transport != "backfill":
        write.activity.saw(source, moment, sent_at=newest)


def _count_ignored(write: WriteSide, source: Connection, ignored: Sequence[Ignored], transport: str) -> None:
    for one in ignored:
        write.activity.note(source, transport, "ignored", kind=one.kind, reason=one.reason)
        count_ignored(one.kind, one.reason)
        if one.reason == "unknown":
            _log.info("an unknown kind arrived", kind=one.kind, connection=str(source.id))


def reception(origin: Origin, key: TenantKey, inbound: InboundMessage, moment: datetime) -> Reception:
    """What is to be recorded of a message that was learned at `moment`, and under which names it came.

    Masks the text and hashes the addresses: what comes out may be stored (DESIGN rule 6).
    """
    chat_lid, author_lid = _lid(inbound.chat, inbound.chat_lid), _lid(inbound.author, inbound.author_lid)
    if inbound.author is not None and not inbound.is_group:
        chat_lid = chat_lid or author_lid
    chat = _named(key, inbound.chat, chat_lid)
    author = None if inbound.author is None else _named(key, inbound.author, author_lid) if inbound.is_group else chat
    command = ReceiveMessage(
        at=moment,
        tenant_id=origin.tenant_id,
        connection_id=origin.connection_id,
        chat_id=_hash(chat),
        sender=origin.company_sender if author is None else _hash(author),
        from_me=inbound.from_me,
        is_group=inbound.is_group,
        kind=inbound.kind,
        sent_at=inbound.sent_at,
        external_id=inbound.external_id,
        text=fitted(mask(inbound.text)),
    )
    return Reception(command, None if inbound.is_group else chat, author)


def _lid(canonical: str | None, named: str | None) -> str | None:
    """The LID that a delivery gave: also where it is all that is known."""
    return named or (canonical if canonical is not None and lid_alone(canonical) else None)


def _named(key: TenantKey, canonical: str, lid: str | None) -> Named:
    return Named(
        None if lid is None else key.pseudonym(lid), None if lid_alone(canonical) else key.pseudonym(canonical)
    )


def _hash(named: Named) -> str:
    return named.person or named.alias or ""
