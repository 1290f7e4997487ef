"""How announced edits and deletions reach the messages that they speak of, and what was deleted is sealed away.

Nothing is lost, whichever comes first. Let an announcement stand at position q of the log, and its message at p:

* p < q: the announcement's envelope is not answered before the messages' read model has reached q, which is behind p.
  The message is found there.
* q < p: the message's envelope comes when p is in the log, and so is q: the key's stream is found in the log.

Each envelope is delivered until it is answered, and answered when the outcome is in the log; a worker that dies in
between leaves the work to the next delivery. Done twice, or by two workers at once, it comes to the same: the message
decides, and a command to a stream that has moved is decided anew.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from api.commands import Intent, Step
from api.wiring import WriteSide
from domain.amendments import DeletionAnnounced, EditAnnounced, MessageKey, addressed, amend, message_key
from domain.errors import DomainError
from domain.messages import (
    Message,
    MessageAnalyzed,
    MessageEdited,
    MessageEmbedded,
    MessageReceived,
    message,
    message_id,
)
from sql import queries

_AMENDING: Final = queries("amending")
_PROJECTION: Final = "messages"
#: What says what a message said.
_TELLING: Final = (MessageReceived, MessageEdited, MessageAnalyzed, MessageEmbedded)


class NotYet(Exception):
    """The messages' read model has not come so far; tried again, it will have."""


class NotInThisLog(DomainError):
    """The event is of another log: the database was replaced, and the stream was not."""


class Announced(NamedTuple):
    """Something to look through a key's announcements for: one of them, or a message with that key.

    `position` of its event, and `message`, where it is one.
    """

    tenant_id: UUID
    key_id: UUID
    position: int
    message_id: UUID | None = None


class Deleted(NamedTuple):
    """A message that was deleted at that position."""

    tenant_id: UUID
    message_id: UUID
    position: int


Task = Announced | Deleted


class Amender:
    """Applies what was announced. Its calls block on the database, and raise what the event store raises."""

    def __init__(self, write: WriteSide) -> None:
        self._write = write

    def keys_of(self, states: Iterable[Message]) -> dict[UUID, UUID]:
        """The keys of those messages of which something was announced, by message; asks the log once."""
        keys = {state.id: key for state in states if (key := state.key_id) is not None}
        known = self._write.log.births(set(keys.values())) if keys else {}
        return {stream: key for stream, key in keys.items() if key in known}

    def carry_out(self, tasks: Sequence[Task]) -> dict[Task, Exception]:
        """Edit, delete and seal away; of the tasks that could not be carried out, why: `NotYet` or a `DomainError`."""
        # First: a position of another log may never be reached here.
        known = self._write.log.births({_stream(task) for task in tasks})
        failed: dict[Task, Exception] = {
            task: NotInThisLog("it is not in this log") for task in tasks if _stream(task) not in known
        }
        reached = self.reached({task.tenant_id for task in tasks})
        for task in tasks:
            if task not in failed and task.position > reached.get(task.tenant_id, 0):
                failed[task] = NotYet("the read model of messages is behind")
        due = [task for task in tasks if task not in failed]
        refused = self._amend([task for task in due if isinstance(task, Announced)])
        for task in due:
            if isinstance(task, Deleted):
                # Not before the read model has passed the deletion: what it then reads of the message is its own.
                self._write.log.seal_away(task.message_id, _TELLING)
            elif task.key_id in refused:
                failed[task] = refused[task.key_id]
        return failed

    def reached(self, tenants: set[UUID]) -> dict[UUID, int]:
        """How far the read model of messages is, by tenant."""
        with self._write.datastore.get_connection() as conn:
            rows = _AMENDING.projected(conn, projection=_PROJECTION, tenant_ids=list(tenants))
            return {row["tenant_id"]: row["position"] for row in rows}

    def _amend(self, tasks: Sequence[Announced]) -> dict[UUID, DomainError]:
        """Do what the announcements of these keys ask for; what was refused, by key."""
        if not tasks:
            return {}
        keys = self._write.log.load_many([message_key(key_id) for key_id in {task.key_id for task in tasks}])
        found = self._found(keys, tasks)
        streams = {stream for of_key in found.values() for stream in of_key}
        loaded = {state.id: state for state in self._write.log.load_many([message(stream) for stream in streams])}
        intents: list[tuple[UUID, Intent]] = []
        for key in keys:
            states = [loaded[stream] for stream in sorted(found[key.id])]
            of_tenant = [state for state in states if state.exists and state.tenant_id == key.tenant_id]
            commands = amend(key, of_tenant, datetime.now(UTC))
            intents += ((key.id, Intent((Step(message(stream), (command,)),))) for stream, command in commands.items())
        outcomes = self._write.commands.handle_many([intent for _, intent in intents])
        for key in keys:
            if key.deletions and any(edit.text for edit in key.edits):
                # Nobody reads these but who applies them, and a deleted message is not edited.
                self._write.log.seal_away(key.id, (EditAnnounced,))
        return {
            key_id: outcome
            for (key_id, _), outcome in zip(intents, outcomes, strict=True)
            if isinstance(outcome, DomainError)
        }

    def _found(self, keys: Sequence[MessageKey], tasks: Sequence[Announced]) -> Mapping[UUID, set[UUID]]:
        """The streams of the messages with each key."""
        with self._write.datastore.get_connection() as conn:
            rows = list(_AMENDING.messages_of_keys(conn, keys=[key.id for key in keys]))
        streams = self._write.log.streams_at({row["message_id"] for row in rows})
        found: defaultdict[UUID, set[UUID]] = defaultdict(set)
        for row in rows:
            if row["message_id"] in streams:
                found[row["key"]].add(streams[row["message_id"]])
        for task in tasks:
            if task.message_id is not None:
                found[task.key_id].add(task.message_id)
        for key in keys:
            if not found[key.id]:
                # Projected before there was a table of keys, or parked: found where it is addressed in full.
                found[key.id].update(_addressed(key))
        return found


def _stream(task: Task) -> UUID:
    return task.key_id if isinstance(task, Announced) else task.message_id


def _addressed(key: MessageKey) -> Iterable[UUID]:
    announced: tuple[EditAnnounced | DeletionAnnounced, ...] = (*key.edits, *key.deletions)
    for chat_id, from_me, external_id in addressed(key):
        yield message_id(announced[0].connection_id, chat_id, from_me, external_id)
