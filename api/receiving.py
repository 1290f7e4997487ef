"""From a message as Evolution sends it to the command that records it: masked and hashed, whichever door it came by."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from adapters.evolution import InboundMessage
from adapters.vault import TenantKey
from domain.masking import mask
from domain.messages import Message, ReceiveMessage, message, message_id

#: Bytes of one document, such as a delivery or a file of history: with `webhook_base64` a message brings its media
#: along, and a history its ten thousand rows.
MAX_DOCUMENT: Final = 64 * 2**20


class Origin(msgspec.Struct, frozen=True):
    """The connection that messages come from: whose it is, and the hash that stands for the company on it."""

    connection_id: UUID
    tenant_id: UUID
    company_sender: str


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
