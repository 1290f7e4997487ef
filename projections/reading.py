"""How the log is read: page by page, the whole of it or a part."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from eventsourcing.persistence import Notification


class Part(NamedTuple):
    """Which events to read: those of one tenant shard of several, of one tenant, of some types (all where empty)."""

    shard: int = 0
    shards: int = 1
    tenant_id: UUID | None = None
    topics: tuple[str, ...] = ()


#: The whole log.
EVERYTHING = Part()


class Page(NamedTuple):
    """Events in the order of their positions, and the position up to which the log was looked through for them.

    Where a part is read, `reached` lies behind the last event: nothing of that part stands in between.
    """

    notifications: Sequence[Notification]
    reached: int


class LogReader(Protocol):
    """The log as projecting sees it: the library's `ApplicationRecorder` with a way to read parts."""

    def page(
        self,
        after: int,
        limit: int,
        stop: int | None = None,
        *,
        shard: int = 0,
        shards: int = 1,
        tenant_id: UUID | None = None,
        topics: Sequence[str] = (),
    ) -> tuple[Sequence[Notification], int]:
        """At most `limit` events of a part behind `after`, up to `stop` including it; see `Part` and `Page`."""

    def max_notification_id(self) -> int | None:
        """The last position of the log, or None where it is empty."""


def read(reader: LogReader, after: int, limit: int, stop: int | None = None, part: Part = EVERYTHING) -> Page:
    """The next page of a part of the log. Raises the errors in `FAULTS`."""
    shard, shards, tenant_id, topics = part
    found, reached = reader.page(after, limit, stop, shard=shard, shards=shards, tenant_id=tenant_id, topics=topics)
    # What was appended while the reader looked may stand behind the end that it saw before.
    return Page(found, max(reached, found[-1].id) if found else reached)
