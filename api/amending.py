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
        chat_id=_hint(key, inbound),
        from_me=inbound.from_me,
        edited_at=inbound.edited_at,
        external_id=inbound.external_id,
        text=fitted(mask(inbound.text)),
    )
    return _intent(command)


def deletion(
    tenant_id: UUID, connection_id: UUID, key: TenantKey, inbound: InboundDeletion, moment: datetime
) -> Intent:
    """What records a deletion as learned at `moment`."""
    command = AnnounceDeletion(
        at=moment,
        tenant_id=tenant_id,
        connection_id=connection_id,
        chat_id=_hint(key, inbound),
        from_me=inbound.from_me,
        deleted_at=inbound.deleted_at,
        external_id=inbound.external_id,
    )
    return _intent(command)


def _hint(key: TenantKey, inbound: InboundEdit | InboundDeletion) -> str:
    """The chat, hashed; empty where it can't be told."""
    return "" if inbound.chat is None else key.pseudonym(inbound.chat)


def _intent(command: AnnounceEdit | AnnounceDeletion) -> Intent:
    """To the stream of the key that the announcement names."""
    return Intent((Step(message_key(message_key_id(command.connection_id, command.external_id)), (command,)),))
