"""From what Evolution sends to the commands that record it: masked and hashed, whichever door it came by."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
import structlog

from adapters.evolution import Envelope, InboundMessage
from adapters.telemetry import RECEIVED, count_ignored
from adapters.vault import TenantKey
from api import amending
from api.commands import Done, Intent, Step
from api.wiring import WriteSide
from domain.connections import Connection
from domain.errors import NotFound
from domain.masking import mask
from domain.messages import Message, ReceiveMessage, message, message_id

#: Bytes of one document, such as a delivery or a file of history: with `webhook_base64` a message brings its media
#: along, and a history its ten thousand rows.
MAX_DOCUMENT: Final = 64 * 2**20


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


def record(write: WriteSide, source: Connection, envelope: Envelope, moment: datetime) -> Received:
    """Mask, hash and record all that is in a delivery of this connection; blocks on the database.

    Every transport ends here. What is recorded already is a duplicate and does no harm, so whatever goes wrong may be
    tried again with the same envelope. Raises `NotFound` where the connection does not exist, and what the log raises.
    """
    if source.tenant_id is None:
        raise NotFound("there is no such connection")
    key, origin = write.vault.key(source.tenant_id), Origin(source.id, source.tenant_id, source.company_sender)
    receptions = [reception(origin, key, inbound, moment) for inbound in envelope.messages]
    intents = [Intent((Step(empty, (command,)),), new=True) for empty, command in receptions]
    intents += (amending.edit(source.tenant_id, source.id, key, one, moment) for one in envelope.edits)
    intents += (amending.deletion(source.tenant_id, source.id, key, one, moment) for one in envelope.deletions)
    outcomes = write.commands.handle_many(intents) if intents else []
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    duplicates = sum(outcome.duplicate for outcome in done)
    announced = sum(isinstance(o, Done) and not o.duplicate for o in outcomes[len(receptions) :])
    result = Received(
        received=len(done) - duplicates - announced,
        duplicates=duplicates,
        ignored=len(envelope.ignored),
        refused=len(outcomes) - len(done),
        position=max((outcome.position for outcome in done), default=0),
        announced=announced,
    )
    for ignored in envelope.ignored:
        count_ignored(ignored.kind, ignored.reason)
        if ignored.reason == "unknown":
            _log.info("an unknown kind arrived", kind=ignored.kind, connection=str(source.id))
    counted = {
        "received": result.received,
        "duplicate": duplicates,
        "refused": result.refused,
        "announced": announced,
    }
    for outcome, number in counted.items():
        RECEIVED.labels(outcome).inc(number)
    return result


def reception(
    origin: Origin, key: TenantKey, inbound: InboundMessage, moment: datetime
) -> tuple[Message, ReceiveMessage]:
    """The message before anything has happened to it, and the command that records it as learned at `moment`.

    Masks the text and hashes the addresses: what comes out may be stored (DESIGN rule 6).
    """
    chat_id = key.pseudonym(inbound.chat)
    sender = origin.company_sender if inbound.author is None else key.pseudonym(inbound.author)
    command = ReceiveMessage(
        at=moment,
        tenant_id=origin.tenant_id,
        connection_id=origin.connection_id,
        chat_id=chat_id,
        sender=sender,
        from_me=inbound.from_me,
        is_group=inbound.is_group,
        kind=inbound.kind,
        sent_at=inbound.sent_at,
        external_id=inbound.external_id,
        text=mask(inbound.text),
    )
    return message(message_id(origin.connection_id, chat_id, inbound.from_me, inbound.external_id)), command
