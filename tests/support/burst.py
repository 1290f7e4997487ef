"""An open load of webhooks: each is sent when its time has come, whether or not earlier ones have been answered.

Raw HTTP/1.1 on kept connections: a client library would spend more on a call than the server does.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

#: Connections at once; when all of them wait for an answer, the next call is late, and its lateness is told.
CONNECTIONS: Final = 800
#: Seconds after which a call counts as unanswered, as with Evolution (EVOLUTION.md).
PATIENCE_S: Final = 30.0


@dataclass
class Offered:
    """What became of a load. `statuses[i]` is the answer to call i, 0 where the link was cut or nothing came."""

    statuses: list[int]
    seconds: float
    latencies: list[float] = field(default_factory=list)

    @property
    def by_status(self) -> Counter[int]:
        """How many calls were answered how."""
        return Counter(self.statuses)

    @property
    def rate(self) -> float:
        """Calls offered a second."""
        return len(self.statuses) / self.seconds


class _Link(asyncio.Protocol):
    """One kept connection, one call at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[int] | None = None
        self._seen = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._settle(0)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head = self._seen.find(b"\r\n\r\n")
        if head < 0:
            return
        headers = bytes(self._seen[:head]).lower()
        at = headers.index(b"content-length:") + len(b"content-length:")
        length = int(headers[at:].split(b"\r\n", 1)[0])
        if len(self._seen) < head + 4 + length:
            return
        status = int(self._seen[9:12])
        closing = b"\r\nconnection: close" in headers
        del self._seen[: head + 4 + length]
        self._settle(status)
        if closing and self.transport is not None:
            self.transport.close()

    def _settle(self, status: int) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(status)

    async def call(self, request: bytes) -> int:
        """Send one request; its status, 0 where the link was cut or nothing came."""
        if self.transport is None:
            return 0
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await asyncio.wait_for(self.answer, PATIENCE_S)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return 0


async def offer(
    host: str, port: int, requests: Sequence[bytes], *, rate: float, connections: int = CONNECTIONS
) -> Offered:
    """Send every request once, `rate` a second as long as no more than `connections` of them wait for an answer."""
    loop = asyncio.get_running_loop()
    statuses = [0] * len(requests)
    latencies: list[float] = []
    free: deque[_Link] = deque()
    room = asyncio.Semaphore(connections)
    under_way: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        try:
            link = free.popleft() if free else None
            if link is None or link.transport is None:
                try:
                    _, link = await loop.create_connection(_Link, host, port)
                except OSError:
                    return
            sent = time.perf_counter()
            statuses[number] = await link.call(requests[number])
            latencies.append(time.perf_counter() - sent)
            free.append(link)
        finally:
            room.release()

    began = time.perf_counter()
    for number in range(len(requests)):
        ahead = began + number / rate - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        await room.acquire()
        task = asyncio.create_task(one(number))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    seconds = time.perf_counter() - began
    if under_way:
        await asyncio.wait(under_way)
    for link in free:
        if link.transport is not None:
            link.transport.close()
    return Offered(statuses, seconds, latencies)


def post(path: str, host: str, token: str, body: bytes) -> bytes:
    """The bytes of a webhook call."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nX-EvoSense-Token: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
