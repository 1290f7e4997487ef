"""What the tests of Evolution's payloads share: the samples, and rows built by hand."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.evolution import (
    Envelope,
    Ignored,
    InboundDeletion,
    InboundEdit,
    InboundMessage,
    InboundState,
    parse,
)

SAMPLES = Path(__file__).parent.parent / "samples" / "evolution"
#: The time at which the samples are read.
NOW = datetime(2025, 10, 22, 13, 0, tzinfo=UTC)
SECRET = "9C0B2F7E-61D4-4A58-8E33-5D0A7C1E42FA"
OWN = "5511940028922@s.whatsapp.net"

JULIANA, RAFAEL, ANTONIO = "5511987650001", "5521998760002", "5585999661004"
GROUP = "group:120363298765432109"
GROUP_JID = "120363298765432109@g.us"


def message(
    external_id: str,
    chat: str,
    kind: str,
    text: str,
    seconds: float,
    *,
    author: str | None = None,
    from_me: bool = False,
    lid: str | None = None,
) -> InboundMessage:
    """A message; in a 1:1 chat of the other side unless it is `from_me`. `lid`: the author's, and there the chat's."""
    is_group = chat.startswith("group:")
    return InboundMessage(
        external_id=external_id,
        chat=chat,
        author=None if from_me else author or chat,
        from_me=from_me,
        is_group=is_group,
        kind=kind,
        text=text,
        sent_at=datetime.fromtimestamp(seconds, UTC),
        chat_lid=None if is_group else lid,
        author_lid=None if from_me else lid,
    )


def edit(
    external_id: str, chat: str | None, text: str, seconds: float | None, *, from_me: bool | None = False
) -> InboundEdit:
    """An edit, as a rule of the customer's."""
    at = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return InboundEdit(external_id=external_id, chat=chat, from_me=from_me, text=text, edited_at=at)


def deletion(
    external_id: str, chat: str | None, *, from_me: bool | None = False, seconds: float | None = None
) -> InboundDeletion:
    """A deletion, as a rule of what the customer wrote."""
    at = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return InboundDeletion(external_id=external_id, chat=chat, from_me=from_me, deleted_at=at)


def holding(
    event: str,
    *parts: InboundMessage | InboundEdit | InboundDeletion | InboundState | Ignored,
    instance: str = "loja-centro",
) -> Envelope:
    """The envelope that consists of these parts."""
    states = [part for part in parts if isinstance(part, InboundState)]
    return Envelope(
        event,
        instance,
        tuple(part for part in parts if isinstance(part, InboundMessage)),
        tuple(part for part in parts if isinstance(part, Ignored)),
        tuple(part for part in parts if isinstance(part, InboundEdit)),
        tuple(part for part in parts if isinstance(part, InboundDeletion)),
        states[-1] if states else None,
    )


def row(content: Any = None, /, **changes: Any) -> dict[str, Any]:
    """Return a row of `messages.upsert`; `key__x=...` changes the key, anything else the row. `...` removes."""
    made: dict[str, Any] = {
        "key": {"remoteJid": "5511987650001@s.whatsapp.net", "fromMe": False, "id": "3A00", "participant": ""},
        "message": {"conversation": "oi"} if content is None else content,
        "messageTimestamp": 1761134400,
    }
    for name, value in changes.items():
        target, field = (made["key"], name.removeprefix("key__")) if name.startswith("key__") else (made, name)
        if value is ...:
            del target[field]
        else:
            target[field] = value
    return made


def read(data: Any, event: str = "messages.upsert", **envelope: Any) -> Envelope:
    body = {"event": event, "instance": "loja", "data": data, "apikey": SECRET, **envelope}
    return parse(json.dumps(body).encode(), now=NOW)


def one(data: Any, **envelope: Any) -> InboundMessage:
    parsed = read(data, **envelope)
    assert parsed.ignored == ()
    (only,) = parsed.messages
    return only


def refused(data: Any) -> Ignored:
    parsed = read(data)
    assert parsed.messages == ()
    (only,) = parsed.ignored
    return only
