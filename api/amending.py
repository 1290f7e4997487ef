"""Edits and deletions at the edge: recorded as they are announced, without a look at the message that they speak of."""

from datetime import datetime
from uuid import UUID

from adapters.evolution import InboundDeletion, InboundEdit, fitted
from adapters.vault import TenantKey
from api.commands import Intent, Step
from domain.amendments import AnnounceDeletion, AnnounceEdit, message_key
from domain.masking import mask
from domain.message_keys import message_key_id


def edit(tenant_id: UUID, connection_id: UUID, key: TenantKey, inbound: InboundEdit, moment: datetime) -> Intent:
    """What records an edit as learned at `moment`: its text masked, its address hashed."""
    command = AnnounceEdit(
        at=moment,
        tenant_id=tenant_id,
        connection_id=connection_id,
        chat_id="" if inbound.chat is None else key.pseudonym(inbound.chat),
        from_me=inbound.from_me,
        edited_at=inbound.edited_at,
        external_id=inbound.external_id,
        text=fitted(mask(inbound.text)),
    )
    return Intent((Step(message_key(message_key_id(connection_id, inbound.external_id)), (command,)),))


def deletion(
    tenant_id: UUID, connection_id: UUID, key: TenantKey, inbound: InboundDeletion, moment: datetime
) -> Intent:
    """What records a deletion as learned at `moment`."""
    command = AnnounceDeletion(
        at=moment,
        tenant_id=tenant_id,
        connection_id=connection_id,
        chat_id="" if inbound.chat is None else key.pseudonym(inbound.chat),
        from_me=inbound.from_me,
        deleted_at=inbound.deleted_at,
        external_id=inbound.external_id,
    )
    return Intent((Step(message_key(message_key_id(connection_id, inbound.external_id)), (command,)),))
