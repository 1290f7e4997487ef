"""Which messages get another text in a batch, and which of the batch's events still speak of the text they end with."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID

from domain.event import Event
from domain.messages import MessageAnalyzed, MessageDeleted, MessageEdited, MessageReceived
from projections.batch import Batch

_E = TypeVar("_E", bound=Event)
Rewriting = tuple[int, MessageEdited | MessageDeleted]
#: By the number of the stream's UUID, whose own hash is slow: the last edit or the deletion, with its position.
Rewritten = dict[int, Rewriting]
_NEVER: Final[tuple[int, Any]] = (0, None)


class Unread(NamedTuple):
    """What a message counts as that waits for its analysis again, in the form of one."""

    originator_id: UUID
    sentiment: float | None = None
    satisfaction: int | None = None
    emotion: str = ""
    tone: str = ""


def rewritten(batch: Batch) -> Rewritten:
    """The messages that the batch edits or deletes."""
    events = cast(Sequence[Rewriting], batch.of_any((MessageEdited, MessageDeleted)))
    return {event.originator_id.int: (position, event) for position, event in events}


def text_of(rewriting: Rewriting) -> str:
    """The text that a message has from then on: none where it was deleted."""
    return rewriting[1].text if isinstance(rewriting[1], MessageEdited) else ""


def current(events: Sequence[tuple[int, _E]], changes: Rewritten) -> Sequence[tuple[int, _E]]:
    """Those of the events that speak of the text that their message has at the end of the batch."""
    if not changes:
        return events
    return [one for one in events if one[0] > changes.get(one[1].originator_id.int, _NEVER)[0]]


def opinions(batch: Batch) -> dict[int, MessageAnalyzed | Unread]:
    """What the batch makes of messages: their analysis, or none any more where they were there before the batch."""
    changes = rewritten(batch)
    analyzed: dict[int, MessageAnalyzed | Unread] = {
        event.originator_id.int: event for _, event in current(batch.of(MessageAnalyzed), changes)
    }
    if changes:
        new = {event.originator_id.int for _, event in batch.of(MessageReceived)}
        for stream, (_, event) in changes.items():
            if stream not in new:
                analyzed.setdefault(stream, Unread(event.originator_id))
    return analyzed
