"""Edits, deletions and states of the connection, in all the ways they are told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.evolution import Ignored, InboundState
from tests.support.evolution import GROUP, GROUP_JID, JULIANA, OWN, RAFAEL, deletion, edit, holding, message, read, row

JULIANAS, RAFAELS = "5511987650001@s.whatsapp.net", "5521998760002@s.whatsapp.net"
LID = "118273645546372@lid"
MILLISECONDS, SECONDS = 1761135240530, 1761135240.53


def protocol(**changes: Any) -> dict[str, Any]:
    """A customer's protocol message that edits; `key__x=...` changes its key, anything else it. `...` removes."""
    made: dict[str, Any] = {
        "key": {"remoteJid": OWN, "fromMe": True, "id": "3A77"},
        "type": "MESSAGE_EDIT",
        "editedMessage": {"conversation": "corrigido"},
        "timestampMs": MILLISECONDS,
    }
    for name, value in changes.items():
        target, field = (made["key"], name.removeprefix("key__")) if name.startswith("key__") else (made, name)
        if value is ...:
            del target[field]
        else:
            target[field] = value
    return made


# --------------------------------------------------------------------------------------------- messages.edited


@pytest.mark.parametrize("kind", ["MESSAGE_EDIT", 14, "14", ..., None])
def test_an_edit(kind: Any) -> None:
    found = read(protocol(type=kind), event="messages.edited", sender=OWN)
    assert found == holding("messages.edited", edit("3A77", None, "corrigido", SECONDS), instance="loja")


@pytest.mark.parametrize("kind", ["REVOKE", 0, "0"])
@pytest.mark.parametrize("content", [None, {}, {"conversation": "oi"}])
def test_a_deletion_comes_as_an_edit(kind: Any, content: Any) -> None:
    found = read(protocol(type=kind, editedMessage=content), event="messages.edited", sender=OWN)
    assert found == holding("messages.edited", deletion("3A77", None, seconds=SECONDS), instance="loja")


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        ({"type": "EPHEMERAL_SETTING", "editedMessage": ...}, Ignored("protocol", "system message")),
        ({"type": ..., "editedMessage": ...}, Ignored("protocol", "system message")),
        ({"type": False, "editedMessage": ...}, Ignored("protocol", "system message")),
        ({"type": [], "editedMessage": None}, Ignored("protocol", "system message")),
        ({"key": ...}, Ignored("edited", "no key")),
        ({"key": "3A77"}, Ignored("edited", "no key")),
        ({"key__id": ...}, Ignored("edited", "no key.id")),
        ({"key__id": "a b"}, Ignored("edited", "bad key.id")),
        ({"key__remoteJid": "status@broadcast"}, Ignored("edited", "status or broadcast list")),
        ({"key__remoteJid": "1203@newsletter"}, Ignored("edited", "channel")),
        ({"editedMessage": "oi"}, Ignored("edited", "no message")),
        ({"editedMessage": {}}, Ignored("empty", "system message")),
        ({"editedMessage": {"imageMessage": {}}}, Ignored("image", "no text")),
        ({"editedMessage": {"conversation": {"0": 1}}}, Ignored("conversation", "text is not a string")),
        ({"editedMessage": {"protocolMessage": {"type": 14}}}, Ignored("protocol", "system message")),
        ({"type": 0, "key": ...}, Ignored("deleted", "no key")),
    ],
)
def test_an_edit_of_nothing_is_ignored(changes: dict[str, Any], ignored: Ignored) -> None:
    found = read(protocol(**changes), event="messages.edited", sender=OWN)
    assert found == holding("messages.edited", ignored, instance="loja")


@pytest.mark.parametrize(
    ("key", "sender", "hints"),
    [
        # The customer edits: seen from there, the chat is our number.
        ({}, OWN, (None, False)),
        ({"remoteJid": "551140028922:3@s.whatsapp.net"}, "551140028922:9@s.whatsapp.net", (None, False)),
        ({"remoteJid": "900100200@lid", "remoteJidAlt": OWN}, OWN, (None, False)),
        # The company edits.
        ({"remoteJid": JULIANAS}, OWN, (JULIANA, True)),
        ({"remoteJid": "551187650001:2@s.whatsapp.net"}, OWN, (JULIANA, True)),
        ({"remoteJid": LID, "remoteJidAlt": JULIANAS}, OWN, (JULIANA, True)),
        ({"remoteJid": GROUP_JID}, OWN, (GROUP, None)),
        ({"remoteJid": GROUP_JID, "fromMe": False}, None, (GROUP, None)),
        # Who knows? A LID may be our own, and so may any number where the envelope doesn't say which is ours.
        ({"remoteJid": LID}, OWN, (None, None)),
        ({"remoteJid": JULIANAS}, None, (None, None)),
        ({"remoteJid": JULIANAS}, "900100200@lid", (None, None)),
        ({"remoteJid": JULIANAS, "remoteJidAlt": RAFAELS}, OWN, (None, None)),
        ({"remoteJid": JULIANAS, "fromMe": False}, OWN, (None, None)),
        ({"fromMe": False}, OWN, (None, None)),
        ({"fromMe": None}, OWN, (None, None)),
        ({"fromMe": "true"}, OWN, (None, None)),
        ({"remoteJid": ""}, OWN, (None, None)),
        ({"remoteJid": 7}, OWN, (None, None)),
        ({"remoteJid": "x@g.us"}, OWN, (None, None)),
    ],
)
def test_the_editors_key_is_seen_from_our_side(
    key: dict[str, Any], sender: str | None, hints: tuple[str | None, bool | None]
) -> None:
    changes = {f"key__{name}": value for name, value in key.items()}
    for event in (protocol(**changes), protocol(type="REVOKE", **changes)):
        found = read(event, event="messages.edited", sender=sender)
        (change,) = (*found.edits, *found.deletions)
        assert (change.chat, change.from_me) == hints


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"extendedTextMessage": {"text": "oi"}}, "oi"),
        ({"imageMessage": {"caption": "oi"}}, "oi"),
        ({"ephemeralMessage": {"message": {"conversation": "oi"}}}, "oi"),
        ({"documentWithCaptionMessage": {"message": {"documentMessage": {"caption": "oi"}}}}, "oi"),
        ({"message": {"conversation": "oi"}}, "oi"),
    ],
)
def test_the_new_text_is_read_like_any_other(content: Any, text: str) -> None:
    found = read(protocol(editedMessage=content), event="messages.edited", sender=OWN)
    assert [change.text for change in found.edits] == [text]


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (str(MILLISECONDS), SECONDS),
        ({"low": 198649570, "high": 410, "unsigned": False}, 1761135240.93),
        (1761135240, 1761135240),
        (None, None),
        ("ontem", None),
        (4102444800000, None),  # in 2100
        (1, None),
    ],
)
def test_when_it_was_edited(stamp: Any, seconds: float | None) -> None:
    (change,) = read(protocol(timestampMs=stamp), event="messages.edited", sender=OWN).edits
    assert change.edited_at == (None if seconds is None else datetime.fromtimestamp(seconds, UTC))


def test_a_row_with_the_new_content_is_an_edit() -> None:
    found = read(row({"conversation": "corrigido"}, key__id="3A77"), event="messages.edited")
    assert [(change.external_id, change.text) for change in found.edits] == [("3A77", "corrigido")]
    wrapped = row({"editedMessage": {"message": {"protocolMessage": protocol()}}})
    found = read(wrapped, event="messages.edited")
    assert found.edits == (edit("3A77", JULIANA, "corrigido", SECONDS),)
    found = read({"protocolMessage": protocol()}, event="messages.edited", sender=OWN)
    assert found.edits == (edit("3A77", None, "corrigido", SECONDS),)


def test_what_the_company_edits_through_the_api() -> None:
    data = protocol(key__remoteJid=LID)
    found = read(data, event="send.message.update", sender=OWN)
    assert found.edits == (edit("3A77", "lid:118273645546372", "corrigido", SECONDS, from_me=True),)
    data = protocol(key__remoteJid=OWN)
    assert read(data, event="send.message.update", sender=OWN).edits == (
        edit("3A77", None, "corrigido", SECONDS, from_me=True),
    )


# ------------------------------------------------------------------------------------------- in rows of messages


WRAPPERS = {
    "bare": lambda inner: inner,
    "editedMessage": lambda inner: {"editedMessage": {"message": inner}},
    "ephemeralMessage": lambda inner: {"ephemeralMessage": {"message": {"editedMessage": {"message": inner}}}},
    "deviceSentMessage": lambda inner: {"deviceSentMessage": {"message": inner}, "messageContextInfo": {}},
    "unheard of": lambda inner: {"quantumMessage": {"message": inner}},
}


@pytest.mark.parametrize("event", ["messages.upsert", "messages.set", "send.message"])
@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("from_me", [False, True, None])
def test_a_change_inside_a_row(event: str, wrapper: str, from_me: bool | None) -> None:
    by = bool(from_me)
    data = row(WRAPPERS[wrapper]({"protocolMessage": protocol(key__remoteJid="x")}), key__fromMe=from_me)
    found = read(data, event=event, sender=OWN)
    assert found == holding(event, edit("3A77", JULIANA, "corrigido", SECONDS, from_me=by), instance="loja")
    revoked = protocol(type="REVOKE", editedMessage=..., timestampMs=...)
    data = row(WRAPPERS[wrapper]({"protocolMessage": revoked}), key__fromMe=from_me)
    found = read(data, event=event, sender=OWN)
    assert found == holding(event, deletion("3A77", JULIANA, from_me=by, seconds=1761134400), instance="loja")


@pytest.mark.parametrize(("own", "from_me"), [(True, False), (False, None), (None, None)])
def test_an_administrator_deletes_what_others_wrote(own: bool | None, from_me: bool | None) -> None:
    revoked = protocol(type=0, key__remoteJid=GROUP_JID, key__fromMe=own, editedMessage=...)
    data = row({"protocolMessage": revoked}, key__remoteJid=GROUP_JID, key__participant=JULIANAS)
    assert read(data).deletions == (deletion("3A77", GROUP, from_me=from_me, seconds=SECONDS),)


def test_what_the_edit_lacks_is_not_invented() -> None:
    assert read(row({"protocolMessage": protocol(key__id=...)})).ignored == (Ignored("edited", "no key.id"),)
    data = row({"protocolMessage": protocol()}, key__remoteJid="x@s.whatsapp.net", key__fromMe="ja")
    assert read(data).edits == (edit("3A77", None, "corrigido", SECONDS, from_me=None),)
    data = row({"protocolMessage": protocol()}, key__remoteJid="status@broadcast")
    assert read(data).ignored == (Ignored("other", "status or broadcast list"),)


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        ({"editedMessage": {"message": {"conversation": "corrigido"}}}, 1761134400),
        ({"editedMessage": {"message": {"protocolMessage": protocol(key__id="3A00")}}}, SECONDS),
    ],
)
def test_a_history_has_the_message_in_its_edited_form(content: Any, seconds: float) -> None:
    # Whether or not we have the message already, we then have its text of today.
    found = read(row(content), event="messages.set")
    said = message("3A00", JULIANA, "conversation", "corrigido", 1761134400)
    assert found == holding("messages.set", said, edit("3A00", JULIANA, "corrigido", seconds), instance="loja")


@pytest.mark.parametrize(
    "changes",
    [
        {"message": None, "messageStubType": 1},
        {"message": ..., "messageStubType": "REVOKE"},
        {"message": {}, "messageStubType": "REVOKE"},
        {"status": "DELETED"},
        {"key__deleted": True},
    ],
)
def test_a_history_has_the_place_of_a_deleted_message(changes: dict[str, Any]) -> None:
    assert read(row(**changes), event="messages.set") == holding(
        "messages.set", deletion("3A00", JULIANA), instance="loja"
    )


def test_a_stub_beside_content_deletes_nothing() -> None:
    found = read(row(messageStubType=1))
    assert [said.text for said in found.messages] == ["oi"]
    assert found.deletions == ()


# ------------------------------------------------------------------------------ messages.delete, messages.update


@pytest.mark.parametrize(
    "shape",
    [
        lambda key: key,
        lambda key: {
            "key": key,
            "message": {"conversation": "segredo"},
            "id": "cm0row",
            "messageTimestamp": 1761134400,
        },
        lambda key: [key],
        lambda key: {"keys": [key]},
        lambda key: {
            **{name: value for name, value in key.items() if name != "id"},
            "keyId": key["id"],
            "id": "cm0row",
        },
    ],
)
@pytest.mark.parametrize("from_me", [True, False])
def test_a_deletion(shape: Any, from_me: bool) -> None:
    data = shape({"remoteJid": RAFAELS, "fromMe": from_me, "id": "3A77", "participant": ""})
    found = read(data, event="MESSAGES_DELETE", sender=OWN)
    assert found == holding("messages.delete", deletion("3A77", RAFAEL, from_me=from_me), instance="loja")


@pytest.mark.parametrize(
    ("key", "hints"),
    [
        ({"id": "3A77"}, (None, None)),
        ({"id": "3A77", "remoteJid": "5521998760002", "fromMe": True}, (None, True)),
        ({"id": "3A77", "remoteJid": GROUP_JID, "fromMe": False}, (GROUP, False)),
        ({"id": "3A77", "remoteJid": LID, "remoteJidAlt": JULIANAS, "fromMe": False}, (JULIANA, False)),
        ({"id": "3A77", "remoteJid": LID, "remoteJidAlt": OWN, "fromMe": True}, ("lid:118273645546372", True)),
        ({"id": "3A77", "remoteJid": LID, "senderPn": JULIANAS, "fromMe": False}, (JULIANA, False)),
    ],
)
def test_which_one_is_deleted(key: dict[str, Any], hints: tuple[str | None, bool | None]) -> None:
    (found,) = read(key, event="messages.delete", sender=OWN).deletions
    assert (found.chat, found.from_me) == hints


@pytest.mark.parametrize(
    ("data", "ignored"),
    [
        (7, [Ignored("other", "not an object")]),
        (None, [Ignored("other", "not an object")]),
        ([], []),
        ({}, [Ignored("deleted", "no key.id")]),
        ({"jid": RAFAELS, "all": True}, [Ignored("deleted", "no key.id")]),
        ({"id": "x y"}, [Ignored("deleted", "bad key.id")]),
        ({"id": "3A77", "remoteJid": "status@broadcast"}, [Ignored("deleted", "status or broadcast list")]),
    ],
)
def test_a_deletion_of_nothing_is_ignored(data: Any, ignored: list[Ignored]) -> None:
    assert read(data, event="messages.delete") == holding("messages.delete", *ignored, instance="loja")


STATUS = {
    "keyId": "3A77",
    "remoteJid": RAFAELS,
    "fromMe": True,
    "participant": None,
    "instanceId": "i",
    "messageId": "m",
}


@pytest.mark.parametrize(
    "status", ["ERROR", "PENDING", "SERVER_ACK", "DELIVERY_ACK", "READ", "PLAYED", "EDITED", 4, None]
)
@pytest.mark.parametrize("more", [{}, {"message": {"conversation": "oi"}}, {"message": None}, {"pollUpdates": [{}]}])
def test_a_delivery_status_is_dropped(status: Any, more: dict[str, Any]) -> None:
    found = read({**STATUS, "status": status, **more}, event="messages.update")
    assert found == holding("messages.update", Ignored("status", "delivery status"), instance="loja")


def test_a_delivery_status_as_baileys_writes_it_is_dropped() -> None:
    found = read([{"key": {"id": "3A77", "remoteJid": RAFAELS}, "update": {"status": 3}}], event="messages.update")
    assert found.ignored == (Ignored("status", "delivery status"),)


@pytest.mark.parametrize(
    "content",
    [
        {"editedMessage": {"message": {"conversation": "corrigido"}}},
        {"editedMessage": {"message": {"protocolMessage": protocol()}}},
        {"protocolMessage": protocol()},
        {"protocolMessage": protocol(key=...)},
        {"ephemeralMessage": {"message": {"editedMessage": {"message": {"conversation": "corrigido"}}}}},
    ],
)
@pytest.mark.parametrize("baileys", [True, False])
def test_an_edit_in_an_update(content: dict[str, Any], baileys: bool) -> None:
    changed = {"message": content, "messageTimestamp": 1761135240}
    key = {"remoteJid": RAFAELS, "fromMe": True, "id": "3A77"}
    data = {"key": key, "update": changed} if baileys else {**STATUS, "status": "SERVER_ACK", **changed}
    (found,) = read(data, event="messages.update").edits
    assert (found.external_id, found.chat, found.from_me, found.text) == ("3A77", RAFAEL, True, "corrigido")
    assert found.edited_at is not None


@pytest.mark.parametrize(
    "update", [{"status": "DELETED"}, {"messageStubType": 1, "message": None}, {"messageStubType": "REVOKE"}]
)
@pytest.mark.parametrize("baileys", [True, False])
def test_a_deletion_in_an_update(update: dict[str, Any], baileys: bool) -> None:
    key = {"remoteJid": RAFAELS, "fromMe": True, "id": "3A77"}
    data = {"key": key, "update": update} if baileys else {**STATUS, **update}
    assert read(data, event="messages.update") == holding(
        "messages.update", deletion("3A77", RAFAEL, from_me=True), instance="loja"
    )


# ------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("event", "data", "state", "reason"),
    [
        ("connection.update", {"state": "open", "statusReason": 200}, "open", 200),
        ("CONNECTION_UPDATE", {"state": "connecting", "statusReason": "200"}, "connecting", 200),
        ("connection.update", {"state": "CLOSE", "statusReason": 428.0}, "close", None),
        ("connection.update", {"state": "close", "statusReason": True}, "close", None),
        ("connection.update", {"state": "close", "statusReason": 10**20}, "close", None),
        ("connection.update", {"state": "close", "statusReason": "٤"}, "close", None),
        ("connection.update", [{"state": "open"}, {"state": "close"}, 7], "close", None),
        ("status.instance", {"instance": "loja", "status": "closed", "disconnectionReasonCode": 401}, "close", 401),
        ("status.instance", {"status": "open"}, "open", None),
        ("logout.instance", None, "close", None),
        ("logout.instance", {"state": "open"}, "close", None),
        ("remove.instance", {"instance": "loja"}, "close", None),
    ],
)
def test_a_state(event: str, data: Any, state: str, reason: int | None) -> None:
    found = read(data, event=event)
    assert found == holding(found.event, InboundState(state=state, reason=reason), instance="loja")


@pytest.mark.parametrize(
    "data", [None, 7, "open", [], {}, {"state": "refused"}, {"state": ["open"]}, {"state": None}, {"status": "created"}]
)
@pytest.mark.parametrize("event", ["connection.update", "status.instance"])
def test_no_state_is_ignored(event: str, data: Any) -> None:
    assert read(data, event=event) == holding(event, Ignored(event, "no known state"), instance="loja")
