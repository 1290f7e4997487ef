"""From what Evolution keeps of a connection's messages to the log: window after window, oldest first."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from adapters.evolution import parse_object
from adapters.evolution_api import EvolutionClient
from adapters.evolution_messages import EvolutionMessages, Row
from api.connections import TOKEN_PURPOSE
from api.receiving import record
from api.wiring import WriteSide
from domain.connections import Connection
from domain.errors import NotFound

#: More kinds of what is ignored are counted as "other": whoever sent it chose the names.
_MAX_KINDS: Final = 100
_SECOND: Final = timedelta(seconds=1)


class Caught(msgspec.Struct):
    """What became of rows: how many were `seen`; messages newly stored, and those among them that were sent too
    recently to be missed (`young`); those that were stored before; what was ignored, by kind and reason; and what was
    refused.
    """

    seen: int = 0
    new: int = 0
    young: int = 0
    duplicates: int = 0
    ignored: dict[str, int] = {}
    refused: int = 0

    def add(self, other: "Caught") -> None:
        """Take in the counts of what came after."""
        self.seen += other.seen
        self.new += other.new
        self.young += other.young
        self.duplicates += other.duplicates
        self.refused += other.refused
        for what, number in other.ignored.items():
            name = what if what in self.ignored or len(self.ignored) < _MAX_KINDS else "other"
            self.ignored[name] = self.ignored.get(name, 0) + number


def client_of(write: WriteSide, source: Connection) -> EvolutionClient:
    """A client of a connection's Evolution server; blocks on the vault. Raises `NotFound` and `VaultError`."""
    if source.tenant_id is None:
        raise NotFound("there is no such connection")
    token = write.vault.open_text(source.tenant_id, source.sealed_token, TOKEN_PURPOSE)
    return EvolutionClient(source.evo_ws_url, source.name, token)


class Catcher:
    """Fetches one connection's messages and records them.

    `grace`: what was sent so shortly before `clock` may be on its way by the webhook, and counts as `young`.
    `transport`: under which name it is counted on the connection.
    """

    def __init__(
        self,
        write: WriteSide,
        source: Connection,
        messages: EvolutionMessages,
        *,
        clock: Callable[[], datetime],
        grace: timedelta = timedelta(0),
        transport: str = "backfill",
    ) -> None:
        self._write = write
        self._source = source
        self._messages = messages
        self._clock = clock
        self._grace = grace
        self._transport = transport
        self._owner: str | None = None
        self._asked = False

    async def windows(
        self,
        since: datetime,
        until: datetime,
        step: timedelta,
        on_page: Callable[[Caught], None] = lambda _: None,
    ) -> AsyncGenerator[tuple[datetime, Caught], None]:
        """Up to when everything is recorded, and what became of it since the last time: after each `step`.

        All at once where the server does not keep to windows. Raises `EvolutionUnavailable`, `EvolutionRefused`, and
        what `record` raises; what was yielded stays recorded, and the rest may be recorded in part.
        """
        begin, until = since.replace(microsecond=0), until.replace(microsecond=0)
        caught = Caught()
        while begin <= until:
            kept = self._messages.filters
            end = min(begin + step, until) if kept else until
            await self._window(begin, end, caught, on_page)
            if kept and not self._messages.filters:
                continue  # that the server passes over windows was found out within this one: to the end at once
            yield end, caught
            caught = Caught()
            begin = end + _SECOND  # both ends of a window are part of it

    async def _window(
        self, since: datetime, until: datetime, caught: Caught, on_page: Callable[[Caught], None]
    ) -> None:
        if not self._asked:
            # Without it the company may be taken for its customer, and a message be recorded under another id.
            self._owner, self._asked = await self._messages.owner(), True
        async for rows in self._messages.pages(since, until):
            found = await asyncio.to_thread(self._record, rows)
            caught.add(found)
            on_page(found)

    def _record(self, rows: list[Row]) -> Caught:
        """Record rows as if they had come as a history; blocks."""
        moment = self._clock()
        data: dict[str, Any] = {"event": "messages.set", "instance": self._source.name, "data": rows}
        if self._owner is not None:
            data["sender"] = self._owner
        envelope = parse_object(data, now=moment)
        caught = Caught(seen=len(rows))
        for ignored in envelope.ignored:
            caught.add(Caught(ignored={f"{ignored.kind}: {ignored.reason}": 1}))
        # Those that were sent just now by themselves, so that it is known how many of them are new.
        recent = moment - self._grace
        young = tuple(one for one in envelope.messages if one.sent_at > recent)
        old = tuple(one for one in envelope.messages if one.sent_at <= recent)
        first = record(
            self._write, self._source, msgspec.structs.replace(envelope, messages=old), moment, self._transport
        )
        caught.add(Caught(new=first.received, duplicates=first.duplicates, refused=first.refused))
        if young:
            rest = msgspec.structs.replace(envelope, messages=young, ignored=(), edits=(), deletions=(), state=None)
            last = record(self._write, self._source, rest, moment, self._transport)
            caught.add(Caught(new=last.received, young=last.received, duplicates=last.duplicates, refused=last.refused))
        return caught


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)
