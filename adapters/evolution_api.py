"""A small client of Evolution API's REST (2.3.x), for one instance: it asks, and never changes anything.

What a server answers is never quoted, in results or in errors: an admin may enter any address, and must not read
through us what only we can reach. Proxies and certificates are those of the environment (`HTTP_PROXY` for http
addresses, `HTTPS_PROXY` for https ones, `NO_PROXY`, `SSL_CERT_FILE`).
"""

import asyncio
import json
import re
import ssl
from collections.abc import Mapping
from socket import gaierror
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import msgspec

from adapters.causes import causes

#: Seconds until the connection stands, of silence within an answer, and for a whole answer.
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 10.0
TOTAL_TIMEOUT_S: Final = 20.0
#: Bytes of an answer that says how things are. Other questions name their own limit.
MAX_ANSWER: Final = 256 * 1024

_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}", re.ASCII)
_STATES: Final = frozenset({"open", "connecting", "close"})
_SCHEMES: Final = {"ws": "http", "wss": "https"}

Problem = Literal[
    "address", "dns", "refused", "timeout", "tls", "unreachable", "busy",
    "token", "instance", "redirect", "no evolution", "too large",
]  # fmt: skip


class EvolutionError(Exception):
    """The server did not give what it was asked for. `problem` names the cause; the message says what to do."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem: Problem = problem
        #: Seconds that the server asked to be left alone for; None where it did not say.
        self.retry_after: float | None = None


class EvolutionUnavailable(EvolutionError):
    """The server could not be reached, or can't answer now: another try may succeed."""


class EvolutionRefused(EvolutionError):
    """The server answered, and asking again won't help until somebody changes something."""


class EvolutionClient:
    """Asks one instance's server. `base_url` is the server's address (http, https, ws or wss), `token` its apikey.

    A context manager; for one event loop.
    """

    def __init__(self, base_url: str, instance: str, token: str) -> None:
        self._base = rest_address(base_url)
        #: The instance's name, and as it stands in a path.
        self.name = instance
        self.instance = quote(instance, safe="")
        # As bytes: any token may be stored, and httpx would take text for ASCII and fail with the token in the error.
        # Nothing compressed, for the limit on an answer's size to mean something.
        headers = {b"apikey": token.encode(), b"accept": b"application/json", b"accept-encoding": b"identity"}
        self._http = httpx.AsyncClient(
            headers=headers, timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S), follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def version(self) -> str | None:
        """The server's version; None where it is an Evolution API that does not say. Raises `EvolutionError`."""
        said = await self.ask("GET", "/")
        if (
            not isinstance(said, Mapping)
            or "version" not in said
            or "evolution" not in str(said.get("message")).lower()
        ):
            raise self._no_evolution()
        version = said.get("version")
        return version if isinstance(version, str) and _VERSION.fullmatch(version) else None

    async def state(self) -> str:
        """The instance's state: `open`, `connecting` or `close`. Raises `EvolutionError`."""
        said = await self.ask("GET", f"/instance/connectionState/{self.instance}")
        instance = said.get("instance") if isinstance(said, Mapping) else None
        state = instance.get("state") if isinstance(instance, Mapping) else None
        if not isinstance(state, str) or state not in _STATES:
            raise self._no_evolution()
        return state

    async def webhook(self) -> Mapping[str, Any] | None:
        """The instance's webhook, as the server keeps it; None where there is none. Raises `EvolutionError`."""
        said = await self.ask("GET", f"/webhook/find/{self.instance}")
        return said if isinstance(said, Mapping) and said else None

    async def ask(self, method: str, path: str, *, body: Any = None, most: int = MAX_ANSWER) -> Any:
        """Ask `path` (below the server's address, quoted) and return the decoded JSON of at most `most` bytes.

        Raises `EvolutionUnavailable` and `EvolutionRefused`.
        """
        try:
            request = self._http.build_request(method, self._base + path, json=body)
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                answer = await self._http.send(request, stream=True)
                try:
                    self._check(answer.status_code, path)
                    content = await _read(answer, most)
                except EvolutionUnavailable as error:
                    error.retry_after = _pause(answer.headers.get("retry-after"))
                    raise
                finally:
                    await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError) as error:
            raise self._unreachable(error) from None
        try:
            return _decoded(content)
        except (ValueError, RecursionError):
            raise self._no_evolution() from None

    def _check(self, status: int, path: str) -> None:
        match status:
            case 200 | 201:
                return
            case 401 | 403:
                raise EvolutionRefused(
                    "token",
                    "the server does not accept the token: set the connection's token to the instance's apikey "
                    "(Evolution's manager shows it)",
                )
            case 404 if path != "/":
                raise EvolutionRefused(
                    "instance",
                    "the server knows no such instance: the connection's name must be the instance's, letter for "
                    f"letter{self._path_hint()}",
                )
            case 300 | 301 | 302 | 303 | 307 | 308:
                raise EvolutionRefused(
                    "redirect",
                    "the server answers with a redirect, which is not followed: enter the address that it leads to "
                    "(https instead of http?)",
                )
            case 408 | 429:
                raise EvolutionUnavailable("busy", "the server is busy: try again in a moment")
            case _ if status >= 500:
                raise EvolutionUnavailable(
                    "busy", f"the server, or a proxy before it, answers with {status}: is Evolution running?"
                )
        raise self._no_evolution()

    def _no_evolution(self) -> EvolutionRefused:
        return EvolutionRefused(
            "no evolution",
            f"something answers there, but not as Evolution API 2 does: check the address{self._path_hint()}",
        )

    def _path_hint(self) -> str:
        # Evolution may be served below a path, so it is kept; an address of its websocket would have one by mistake.
        return "; its path belongs there only if Evolution is served below it" if urlsplit(self._base).path else ""

    def _unreachable(self, error: Exception) -> EvolutionError:
        found = list(causes(error))
        if any(isinstance(cause, gaierror) for cause in found):
            return EvolutionUnavailable("dns", "the host's name is not known here: check the address, or the DNS")
        for cause in found:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return EvolutionUnavailable("tls", f"the server's certificate is not accepted: {cause.verify_message}")
        if any(isinstance(cause, ssl.SSLError) for cause in found):
            return EvolutionUnavailable(
                "tls", "no encrypted connection can be made there: is it http instead of https, or the wrong port?"
            )
        if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in found):
            return EvolutionUnavailable(
                "timeout", "the server does not answer in time: is it running, and does a firewall let us through?"
            )
        if any(isinstance(cause, ConnectionRefusedError) for cause in found):
            return EvolutionUnavailable("refused", "nothing listens there: check host and port, and that it is running")
        if isinstance(error, httpx.LocalProtocolError):
            return EvolutionRefused("token", "the token holds characters that no header can carry: set another one")
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
            return EvolutionUnavailable("address", "the address can't be used: it looks like https://evo.example.com")
        if isinstance(error, httpx.ProtocolError):
            return EvolutionUnavailable(
                "unreachable", "the server ends the connection or speaks no HTTP: is it https instead of http?"
            )
        return EvolutionUnavailable(
            "unreachable", "the server can't be reached from here: check host, port and network"
        )


def rest_address(address: str) -> str:
    """The address of the REST interface: http for ws, without a slash at its end, query or fragment."""
    url = urlsplit(address.strip())
    return urlunsplit((_SCHEMES.get(url.scheme, url.scheme), url.netloc, url.path.rstrip("/"), "", ""))


async def _read(answer: httpx.Response, most: int) -> bytes:
    content = bytearray()
    async for piece in answer.aiter_raw():
        content += piece
        if len(content) > most:
            raise EvolutionRefused("too large", f"the server's answer is larger than {most:,} bytes")
    return bytes(content)


def _pause(retry_after: str | None) -> float | None:
    """The seconds of a Retry-After header; a date in it is rare, and not understood."""
    return float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,6}", retry_after.strip(), re.ASCII) else None


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # JavaScript writes half a surrogate pair where a text was cut; only the tolerant decoder takes it.
        return json.loads(content.decode())
