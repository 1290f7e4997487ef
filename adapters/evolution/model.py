"""The values a parsed envelope consists of."""

import re
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,39}", re.ASCII)


def safe_name(name: object) -> str:
    """Return a name from outside if it can be logged (a letter and up to 39 of `A-Za-z0-9_.`), or `other`."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "other"


class InboundMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that says something in words.

    `external_id` is the sender's client's id (1 to 256 printable ASCII characters; unique only together with the
    connection, `chat` and `from_me`). `chat` and `author` are canonical and **plain** (`domain.identity`): hash them
    before they are stored. `author` is None when the company wrote it. `text` is **unmasked**, not blank, without NUL
    and at most 65,536 bytes of UTF-8, cut and marked if it was longer. `sent_at` is in UTC. `chat_lid` and `author_lid`
    are the LIDs (`lid:...`) that the delivery gave for the other side of a 1:1 chat and for the author, whether or not
    it gave a phone as well: where `chat == chat_lid`, no phone is known. They are never the company's own.
    """

    external_id: str
    chat: str
    author: str | None
    from_me: bool
    is_group: bool
    kind: str
    text: str
    sent_at: datetime
    chat_lid: str | None = None
    author_lid: str | None = None

    def __repr__(self) -> str:
        """Leave everything personal out: reprs end up in logs and tracebacks."""
        return f"InboundMessage(kind={self.kind!r}, from_me={self.from_me}, is_group={self.is_group}, ...)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Say the same to `rich`."""
        return [("kind", self.kind), ("from_me", self.from_me), ("is_group", self.is_group)]


class InboundEdit(msgspec.Struct, frozen=True, kw_only=True):
    """A message says something else from now on.

    It is found by `external_id` within the connection: the rest of Evolution's key is written from the editor's side
    (EVOLUTION.md). `chat` (canonical, plain) and `from_me` say which of several messages with that id is meant, where
    they can be told, seen from ours; else None. `text` as in `InboundMessage`; `edited_at` in UTC, None where unknown.
    """

    external_id: str
    chat: str | None
    from_me: bool | None
    text: str
    edited_at: datetime | None

    def __repr__(self) -> str:
        """Leave everything personal out."""
        return f"InboundEdit(from_me={self.from_me}, ...)"


class InboundDeletion(msgspec.Struct, frozen=True, kw_only=True):
    """A message was deleted for everyone; found as with `InboundEdit`."""

    external_id: str
    chat: str | None
    from_me: bool | None
    deleted_at: datetime | None

    def __repr__(self) -> str:
        """Leave everything personal out."""
        return f"InboundDeletion(from_me={self.from_me}, ...)"


class InboundState(msgspec.Struct, frozen=True, kw_only=True):
    """What `connection.update` says of the instance: `open`, `connecting` or `close`, and WhatsApp's number for why."""

    state: str
    reason: int | None


class Ignored(msgspec.Struct, frozen=True):
    """Something that leads to nothing. Both fields are safe to log: no content, no number, no name of a person.

    They come from a closed list (`vocabulary`), but the `kind` of what is `unknown`, which is the sender's own word.
    """

    kind: str
    reason: str


class Envelope(msgspec.Struct, frozen=True):
    """One delivery: `event` in its dotted spelling, the sending instance's name, and what was in it, in order.

    `state` is the last one of the delivery; None in most.
    """

    event: str
    instance: str
    messages: tuple[InboundMessage, ...]
    ignored: tuple[Ignored, ...]
    edits: tuple[InboundEdit, ...] = ()
    deletions: tuple[InboundDeletion, ...] = ()
    state: InboundState | None = None


class EnvelopeError(ValueError):
    """The body is no envelope. The message says what is wrong and where, and never quotes the body."""


class Refusal(Exception):
    """Why one message leads to nothing; never leaves the package. No error: most of what arrives is of no interest."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.ignored = _ignored(kind, reason)


@lru_cache(1024)
def _ignored(kind: str, reason: str) -> Ignored:
    # One object for all of a kind: a hostile body has millions of them.
    return Ignored(safe_name(kind), reason)
