"""Envelopes shaped like Evolution API's (2.3.x), of invented content."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

OWN_JID: Final = "5511940028922@s.whatsapp.net"
#: Stands where the instance's token stands in reality; it opens nothing.
APIKEY: Final = "DE300000-0000-4000-8000-000000000000"
INSTANCE_ID: Final = "6f1d2c9e-4b7a-4f0e-9a35-0c8e5d7b1a42"
_SERVER: Final = "https://evo.example.com"

_Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A conversation: with a phone (and perhaps its LID), or a group."""

    name: str
    phone: str | None = None
    lid: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who wrote a message."""

    name: str
    phone: str


class Envelopes:
    """Makes envelopes. What would be random is drawn from a hash, so that it is the same every time."""

    def __init__(self, instance: str, seed: str) -> None:
        """Take the instance's name, and a seed that every id is drawn from."""
        self._instance = instance
        self._seed = seed

    def message(self, chat: Chat, author: Author | None, position: str, at: datetime, line: _Object) -> _Object:
        """Return `messages.upsert`. `line` has `text` and perhaps `kind`; `author` None is the shop itself.

        Raises `ValueError` where the kind is unknown.
        """
        kind = line.get("kind", "text")
        if kind not in _CONTENTS:
            raise ValueError(f"message {position} has the kind {kind!r}; known are {', '.join(sorted(_CONTENTS))}")
        key = self._key(chat, author, position)
        content = _CONTENTS[kind](self, position, line["text"], key)
        data: _Object = {
            "key": key,
            "pushName": author.name if author else "Você",
            "status": "SERVER_ACK" if author is None else "DELIVERY_ACK",
            "message": {**content, "messageContextInfo": self._context(position, at)},
            "messageType": next(iter(content)),
            "messageTimestamp": self._timestamp(position, int(at.timestamp())),
            "instanceId": INSTANCE_ID,
            "source": "web" if author is None else self._source(chat, author),
        }
        return self._envelope("messages.upsert", data, at)

    def status(self, message: _Object, at: datetime) -> _Object:
        """Return the `messages.update` that says that a message was read."""
        key = message["data"]["key"]
        data = {
            "keyId": key["id"],
            "remoteJid": key["remoteJid"],
            "fromMe": key["fromMe"],
            "participant": key["participant"],
            "status": "READ",
            "instanceId": INSTANCE_ID,
            "messageId": "cm" + self._hex(f"status {key['id']}", 12).lower(),
        }
        return self._envelope("messages.update", data, at)

    def connection_open(self, at: datetime) -> _Object:
        """Return the `connection.update` of a connection that opens."""
        data = {
            "instance": self._instance,
            "wuid": OWN_JID,
            "profileName": "Loja Centro",
            "state": "open",
            "statusReason": 200,
        }
        return self._envelope("connection.update", data, at)

    # ------------------------------------------------------------------------------------------------ contents

    def _conversation(self, position: str, text: str, _: _Object) -> _Object:
        if self._draw(f"extended {position}", 12) == 0:
            return {"extendedTextMessage": {"text": text, "previewType": 0}}
        return {"conversation": text}

    def _image(self, position: str, text: str, _: _Object) -> _Object:
        return {"imageMessage": {**self._media(position, "image/jpeg"), "caption": text, "height": 1600, "width": 1200}}

    def _document(self, position: str, text: str, _: _Object) -> _Object:
        name = {"title": "documento.pdf", "fileName": "documento.pdf", "pageCount": 1, "caption": text}
        return {"documentMessage": {**self._media(position, "application/pdf"), **name}}

    def _audio(self, position: str, _text: str, _: _Object) -> _Object:
        seconds = 3 + self._draw(f"seconds {position}", 40)
        return {"audioMessage": {**self._media(position, "audio/ogg; codecs=opus"), "seconds": seconds, "ptt": True}}

    def _sticker(self, position: str, _text: str, _: _Object) -> _Object:
        return {"stickerMessage": {**self._media(position, "image/webp"), "isAnimated": False}}

    def _button(self, position: str, text: str, _: _Object) -> _Object:
        quoted = {"stanzaId": "3EB0" + self._hex(f"quoted {position}", 9), "participant": OWN_JID}
        reply = {"selectedButtonId": "opcao_1", "selectedDisplayText": text, "contextInfo": quoted, "type": 1}
        return {"buttonsResponseMessage": reply}

    def _list(self, _position: str, text: str, _: _Object) -> _Object:
        return {
            "listResponseMessage": {
                "title": text,
                "listType": 1,
                "singleSelectReply": {"selectedRowId": "pagamento_pix"},
            }
        }

    def _reaction(self, position: str, text: str, key: _Object) -> _Object:
        target = {"remoteJid": key["remoteJid"], "fromMe": not key["fromMe"], "id": self._hex(f"target {position}", 16)}
        return {
            "reactionMessage": {"key": target, "text": text, "senderTimestampMs": _long(self._draw(position, 2**31))}
        }

    def _ephemeral(self, _position: str, text: str, _: _Object) -> _Object:
        inner = {"extendedTextMessage": {"text": text, "contextInfo": {"expiration": 604800}}}
        return {"ephemeralMessage": {"message": inner}}

    # ------------------------------------------------------------------------------------------------ shapes

    def _key(self, chat: Chat, author: Author | None, position: str) -> _Object:
        key: _Object = {"remoteJid": chat.group or f"{chat.phone}@s.whatsapp.net"}
        mode, participant = "pn", ""
        if chat.lid and self._draw(f"lid {position}", 2):
            # Half of a person's messages come under the LID, as in reality while WhatsApp changes over.
            key = {"remoteJid": f"{chat.lid}@lid", "remoteJidAlt": f"{chat.phone}@s.whatsapp.net"}
            mode = "lid"
        elif chat.lid:
            key["remoteJidAlt"] = f"{chat.lid}@lid"
        if chat.group:
            mode = "lid"
            phone = f"{author.phone}@s.whatsapp.net" if author else OWN_JID
            participant = f"{int(self._hex(f'person {phone}', 6), 16):015d}@lid"
            key["participantAlt"] = phone
        identity = self._message_id(chat, author, position)
        return {**key, "fromMe": author is None, "id": identity, "participant": participant, "addressingMode": mode}

    def _message_id(self, chat: Chat, author: Author | None, position: str) -> str:
        if author is None:
            return "3EB0" + self._hex(f"id {position}", 9)
        if self._source(chat, author) == "ios":
            return "3A" + self._hex(f"id {position}", 9)
        return self._hex(f"id {position}", 16)

    def _source(self, chat: Chat, author: Author) -> str:
        return "ios" if self._draw(f"source {chat.group} {author.phone}", 3) == 0 else "android"

    def _timestamp(self, position: str, seconds: int) -> int | str | _Object:
        shape = self._draw(f"timestamp {position}", 20)
        return str(seconds) if shape == 0 else _long(seconds) if shape == 1 else seconds

    def _media(self, position: str, mimetype: str) -> _Object:
        path = f"/v/t62.7118-24/{self._hex(f'path {position}', 12).lower()}"
        return {
            "url": f"https://mmg.whatsapp.net{path}?ccb=11-4",
            "mimetype": mimetype,
            "fileSha256": self._byte_object(f"sha {position}", 32),
            "fileLength": _long(20_000 + self._draw(f"length {position}", 300_000)),
            "mediaKey": self._byte_object(f"key {position}", 32),
            "fileEncSha256": self._byte_object(f"encrypted {position}", 32),
            "directPath": path,
        }

    def _context(self, position: str, at: datetime) -> _Object:
        return {
            "deviceListMetadata": {
                "senderKeyHash": self._byte_object(f"sender key {position}", 10),
                "senderTimestamp": _long(int(at.timestamp()) - 86_400),
            },
            "deviceListMetadataVersion": 2,
            "messageSecret": self._byte_object(f"secret {position}", 32),
        }

    def _envelope(self, event: str, data: _Object, at: datetime) -> _Object:
        # Evolution writes local time and calls it UTC.
        local = (at - (at.utcoffset() or timedelta()) - timedelta(hours=3)).replace(tzinfo=None)
        return {
            "event": event,
            "instance": self._instance,
            "data": data,
            "destination": "https://evosense.example.com/webhooks/evolution/demo",
            "date_time": local.isoformat(timespec="milliseconds") + "Z",
            "sender": OWN_JID,
            "server_url": _SERVER,
            "apikey": APIKEY,
        }

    # ------------------------------------------------------------------------------------------------ draws

    def _bytes(self, label: str, size: int) -> bytes:
        return hashlib.blake2b(f"{self._seed} {label}".encode(), digest_size=size).digest()

    def _hex(self, label: str, size: int) -> str:
        return self._bytes(label, size).hex().upper()

    def _draw(self, label: str, choices: int) -> int:
        return int.from_bytes(self._bytes(label, 8), "big") % choices

    def _byte_object(self, label: str, size: int) -> dict[str, int]:
        """Return bytes the way Evolution writes them in JSON: an object with a member a byte."""
        return {str(index): byte for index, byte in enumerate(self._bytes(label, size))}


def _long(value: int) -> _Object:
    return {"low": value & 0xFFFFFFFF, "high": value >> 32, "unsigned": True}


_CONTENTS: Final[dict[str, Callable[[Envelopes, str, str, _Object], _Object]]] = {
    "text": Envelopes._conversation,
    "image": Envelopes._image,
    "document": Envelopes._document,
    "audio": Envelopes._audio,
    "sticker": Envelopes._sticker,
    "button": Envelopes._button,
    "list": Envelopes._list,
    "reaction": Envelopes._reaction,
    "ephemeral": Envelopes._ephemeral,
}
