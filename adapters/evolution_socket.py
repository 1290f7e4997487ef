"""Evolution's socket.io: one connection to the server, joined to `/` and to the namespace of an instance.

Evolution sends an instance's events to the namespace `/{instance}`, which is there from its first event on, and with
WEBSOCKET_GLOBAL_EVENTS those of all instances to `/`. Both are joined over one connection: an operator need not say
which it is, and asking for the namespace again costs one packet and loses nothing of what comes by `/` (docs/adr/0035).
Proxies and certificates are those of the environment, as for REST (`adapters.evolution_api`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import engineio
import engineio.payload
import socketio
import socketio.exceptions
import socketio.packet

#: Takes the arguments of an event: the namespace it came by, and what it carries.
Take = Callable[[str, object], Awaitable[None]]

#: Bytes of one event: with media in base64 a message brings some megabytes, and a history its thousands of rows.
MAX_EVENT: Final = 64 * 2**20
#: Seconds for an answer of the server.
ANSWER_S: Final = 10.0

# The libraries log addresses, which hold the apikey, and what arrives.
_SILENT: Final = logging.Logger("socket.io", logging.CRITICAL + 1)
_SILENT.addHandler(logging.NullHandler())
# One answer of the polling transport may bring more than the library's 16 packets: it would drop the connection.
engineio.payload.Payload.max_decode_packets = 10_000


class SocketFault(Exception):
    """The server can't be connected with; the message is a word of `api.links.Fault`."""


class _InOrder(engineio.AsyncClient):  # type: ignore[misc]
    """Handles one message after the other, and reads the next one from the network when it is done.

    The library starts a task for each message, as many as arrive: a slow receiver would hold them all in memory. Like
    this the server waits, as it should.
    """

    async def _trigger_event(self, event: str, *args: Any, **kwargs: Any) -> Any:
        return await super()._trigger_event(event, *args, **{**kwargs, "run_async": False})


class _Client(socketio.AsyncClient):  # type: ignore[misc]
    """The library's client, which joins a namespace later as well."""

    def _engineio_client_class(self) -> type[engineio.AsyncClient]:
        return _InOrder

    async def join(self, namespace: str) -> None:
        """Ask for a namespace, as the library does when it connects."""
        await self._send_packet(self.packet_class(socketio.packet.CONNECT, data={}, namespace=namespace))


class EvolutionSocket:
    """One connection, from `open` until `ended`; to be made within an event loop, closed in any case, and used once.

    `joined` is set while the instance's namespace is joined, and `changed` whenever that changes.
    """

    def __init__(self, address: str, instance: str, apikey: str, take: Take) -> None:
        self._url, self._path = _endpoint(address, apikey)
        self._apikey = apikey
        self._take = take
        self.namespace = f"/{instance}"
        self.joined = False
        self.changed = asyncio.Event()
        self._answered = asyncio.Event()
        self._http = aiohttp.ClientSession(proxy=_proxy(self._url))
        self._client = _Client(
            http_session=self._http,
            reconnection=False,
            logger=_SILENT,
            engineio_logger=_SILENT,
            handle_sigint=False,
            request_timeout=ANSWER_S,
            websocket_extra_options={"max_msg_size": MAX_EVENT},
        )
        self._client.on("*", self._event_of("/"), namespace="/")
        self._client.on("*", self._event_of(self.namespace), namespace=self.namespace)
        self._client.on("connect", self._on_joined, namespace=self.namespace)
        self._client.on("connect_error", self._on_refused, namespace=self.namespace)
        self._client.on("disconnect", self._on_left, namespace=self.namespace)

    async def open(self) -> None:
        """Connect. Raises `SocketFault`."""
        headers = {"apikey": self._apikey} if self._apikey.isascii() and self._apikey.isprintable() else {}
        try:
            # Polling first, which says why it is refused, then websocket.
            await asyncio.wait_for(
                self._client.connect(
                    self._url, headers=headers, namespaces=["/"], socketio_path=self._path, wait=False
                ),
                3 * ANSWER_S,
            )
        except (socketio.exceptions.ConnectionError, engineio.exceptions.EngineIOError) as error:
            raise SocketFault(_why(str(error))) from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise SocketFault("unreachable") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            # What the library does with an answer of something else.
            raise SocketFault("not socket.io") from None

    async def join(self) -> bool:
        """Ask for the instance's namespace, and whether it is there."""
        self._answered.clear()
        await self._client.join(self.namespace)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), ANSWER_S)
        return self.joined

    async def ended(self) -> None:
        """Wait until the connection has ended, whoever ended it."""
        # Not awaited itself: who is cancelled here would cancel it.
        if (reading := self._client.eio.read_loop_task) is not None:
            await asyncio.wait([reading])

    async def close(self) -> None:
        """End it, and let go of everything."""
        with suppress(Exception):  # whatever the library says now, it is over
            await asyncio.wait_for(self._client.disconnect(), ANSWER_S)
        await self._http.close()

    def _event_of(self, namespace: str) -> Callable[..., Awaitable[None]]:
        async def on_event(_: str, *arguments: object) -> None:
            await self._take(namespace, arguments[0] if arguments else None)

        return on_event

    async def _on_joined(self) -> None:
        self.joined = True
        self._answered.set()
        self.changed.set()

    async def _on_refused(self, *_: object) -> None:
        self._answered.set()

    async def _on_left(self, *_: object) -> None:
        self.joined = False
        self.changed.set()


def _endpoint(address: str, apikey: str) -> tuple[str, str]:
    """The address with the apikey, and the path of socket.io below it. Raises `SocketFault`."""
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SocketFault("bad address")
    scheme = "https" if parts.scheme in ("wss", "https") else "http"
    # Behind a proxy Evolution may live below a path.
    below = parts.path.strip("/").removesuffix("socket.io").strip("/")
    return f"{scheme}://{parts.netloc}/?apikey={quote(apikey, safe='')}", f"{below}/socket.io".lstrip("/")


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an http or https address; None where it is reached directly.

    The library would look by itself (`trust_env`), but for `ws://` in WS_PROXY, which nobody sets: the websocket would
    go past the proxy.
    """
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _why(said: str) -> str:
    if "Unexpected status code 401" in said or "Unexpected status code 403" in said:
        return "refused"
    # A proxy in front of an Evolution that is being restarted.
    if "Unexpected status code 5" in said or "Unexpected status code 429" in said:
        return "unreachable"
    if "Unexpected" in said or "OPEN packet" in said:
        return "not socket.io"
    return "unreachable"
