"""The messages that Evolution API itself keeps of an instance: `POST /chat/findMessages`, page after page.

Since 2.3 it answers `{messages: {total, pages, currentPage, records}}`, newest first, and takes a window of time in
whole seconds, both ends included and both needed. Older servers pass over the window without a word, and some answer a
bare array. Pages shift while messages arrive, and rows of one second have no order of their own; so the next page is
asked for by the time of the oldest row of the last one, and by number only within one second, or where the window is
ignored.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlencode

from adapters.evolution.timestamps import read_timestamp
from adapters.evolution_api import EvolutionClient, EvolutionError, EvolutionRefused, EvolutionUnavailable

#: Rows asked for at once. A row with a thumbnail and keys of media takes some 20 KB.
PAGE: Final = 100
#: Bytes of one answer: what is larger is asked for again in smaller pages.
MAX_PAGE_BYTES: Final = 32 * 2**20
#: Pages of one window. More is a server that turns in circles, or a window that has to be smaller.
MAX_PAGES: Final = 5_000
#: Seconds before another try, doubled each time; and the longest that a server may ask for.
_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
#: Another try at once does not help against these.
_LASTING: Final = frozenset({"address", "dns", "tls"})

Row = Any


class EvolutionMessages:
    """The messages of one client's instance. `tries` of a question, with pauses between them that `sleep` makes."""

    def __init__(
        self,
        client: EvolutionClient,
        *,
        page_size: int = PAGE,
        tries: int = 3,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._size = page_size
        self._tries = tries
        self._sleep = sleep
        self._path = f"/chat/findMessages/{client.instance}"
        #: Whether the server keeps to the window that it is asked for, as far as is known.
        self.filters = True

    async def owner(self) -> str | None:
        """The instance's own address (`…@s.whatsapp.net`), by which a row's sender is told from its receiver; None
        where the server does not say. Raises `EvolutionUnavailable`."""
        try:
            said = await self._ask("GET", f"/instance/fetchInstances?{urlencode({'instanceName': self._client.name})}")
        except EvolutionRefused:
            return None  # a server may forbid the question to an instance's token
        entries = said if isinstance(said, list) else [said]
        if len(entries) != 1 or not isinstance(entries[0], Mapping):
            return None
        entry = entries[0]
        held = entry.get("instance")  # where it stood until 2.0
        found = entry.get("ownerJid") or (held.get("owner") if isinstance(held, Mapping) else None)
        return found if isinstance(found, str) else None

    async def pages(self, since: datetime, until: datetime) -> AsyncGenerator[list[Row], None]:
        """The rows from `since` to `until`, newest first, page by page; some of them twice, none of them checked.

        Where the server turns out to ignore the window, this ends without having yielded all of it and `filters` is
        False from then on: ask again, for the whole time that is wanted at once, as every page is read for it anyway.

        Raises `EvolutionUnavailable` and `EvolutionRefused`.
        """
        lower, upper = int(since.timestamp()), int(until.timestamp())
        if not self.filters:
            async for rows in self._all_pages(lower, upper):
                yield rows
            return
        first, last, page, before = lower, upper, 1, None
        for _ in range(MAX_PAGES):
            rows, pages = await self._page(first, last, page)
            times = _times(rows)
            if times and (max(times) > last or min(times) < first):
                self.filters = False
                return
            if rows:
                yield rows
            if _is_last(rows, page, pages, self._size) or (page > 1 and rows == before):
                return
            before = rows
            oldest = min(times, default=last)
            if oldest < last:
                last, page = oldest, 1
            else:  # a page full of one second
                page += 1
        raise _too_many()

    async def _all_pages(self, lower: int, upper: int) -> AsyncGenerator[list[Row], None]:
        """The rows of the window from a server that answers with all that it has."""
        before = None
        for page in range(1, MAX_PAGES + 1):
            rows, pages = await self._page(lower, upper, page)
            if rows == before:  # it does not turn pages either
                return
            before = rows
            wanted = [row for row in rows if (at := _time(row)) is None or lower <= at <= upper]
            if wanted:
                yield wanted
            times = _times(rows)
            newest_first = all(one >= other for one, other in pairwise(times))
            if _is_last(rows, page, pages, self._size) or (newest_first and times and times[-1] < lower):
                return
        raise _too_many()

    async def _page(self, lower: int, upper: int, page: int) -> tuple[list[Row], int | None]:
        """The rows of a page, and how many pages there are where the server says so."""
        while True:
            body = {
                "where": {"messageTimestamp": {"gte": _iso(lower), "lte": _iso(upper)}},
                "page": page,
                "offset": self._size,
            }
            try:
                return _rows(await self._ask("POST", self._path, body))
            except EvolutionRefused as error:
                if error.problem != "too large" or self._size == 1:
                    raise
                smaller = max(1, self._size // 4)
                page = (page - 1) * self._size // smaller + 1  # begins with the same row
                self._size = smaller

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        for attempt in range(self._tries):
            try:
                return await self._client.ask(method, path, body=body, most=MAX_PAGE_BYTES)
            except EvolutionUnavailable as error:
                pause = error.retry_after if error.retry_after is not None else _PAUSE_S * 2**attempt
                if attempt + 1 >= self._tries or error.problem in _LASTING or pause > _LONGEST_PAUSE_S:
                    raise
            await self._sleep(pause)
        raise AssertionError("unreachable")


def _rows(answer: Any) -> tuple[list[Row], int | None]:
    """See `_page`. Raises `EvolutionRefused` for what are no messages."""
    held = answer.get("messages") if isinstance(answer, Mapping) else answer
    pages = held.get("pages") if isinstance(held, Mapping) else None
    rows = held.get("records") if isinstance(held, Mapping) else held
    if not isinstance(rows, list):
        raise EvolutionRefused(
            "no evolution", "the server answers, but with no messages as Evolution API 2 has them: check the address"
        )
    return rows, pages if isinstance(pages, int) and not isinstance(pages, bool) else None


def _is_last(rows: list[Row], page: int, pages: int | None, size: int) -> bool:
    return not rows or (len(rows) < size if pages is None else page >= pages)


def _time(row: Row) -> int | None:
    """The second in which the message was sent, as the server has it; None where it can't be told."""
    try:
        return int(read_timestamp(row.get("messageTimestamp"), now=datetime.now(UTC)).timestamp())
    except (AttributeError, ValueError):
        return None


def _times(rows: list[Row]) -> list[int]:
    return [at for row in rows if (at := _time(row)) is not None]


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _too_many() -> EvolutionError:
    return EvolutionRefused(
        "too large", f"the server has more than {MAX_PAGES:,} pages for that time, or turns in circles"
    )
