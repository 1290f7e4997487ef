"""The HTTP client for model servers: bounded answers, nothing of the environment but its proxies, faults for errors."""

from typing import Any, Final

import httpx
from pydantic import SecretStr

from adapters.model_server import verdicts
from adapters.model_server.faults import Fault
from domain.ports import AnswerRefused

#: Seconds until a connection stands.
CONNECT_S: Final = 5.0
#: Bytes that are read of an error, to tell one from another.
_MAX_ERROR: Final = 64 * 1024
#: Headers that are sent as the caller made them. All others stay here: the SDK's tell of this machine, and may come out
#: of the environment (OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS).
_PASSED: Final = frozenset({"content-type", "content-length", "accept", "connection"})


class ModelHttp(httpx.AsyncClient):
    """For one server. Proxies and certificates are the environment's (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`).

    `send` returns answers of 2xx alone, read to the end, and raises `Fault`; and `AnswerRefused` where an answer is
    larger than `most` bytes, of which no more are read. Redirects are not followed: they would take the key with them.
    """

    def __init__(
        self, url: str, key: SecretStr | None, *, timeout: float, concurrency: int, most: int, absent: str
    ) -> None:
        """Take the server's address, its key, seconds for a call; `absent`: what to check where it answers 404."""
        super().__init__(
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_S)),
            # As many as the gate lets through; it is not for the pool to make somebody wait.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency),
            follow_redirects=False,
        )
        self.host = verdicts.host_of(url)
        self._key = key
        self._most = most
        self._absent = absent

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See the class. Options of httpx are passed over, but for authentication that stands in the address."""
        seconds = dict(request.extensions.get("timeout", {}))
        if seconds.get("connect") is not None:
            seconds["connect"] = min(seconds["connect"], CONNECT_S)
        # The caller's own stays as it is: the SDK looks at its headers when it reads the answer.
        sent = httpx.Request(
            request.method,
            request.url,
            headers=self._allowed(request),
            stream=request.stream,
            extensions={**request.extensions, "timeout": seconds},
        )
        try:
            answer = await super().send(sent, stream=True, follow_redirects=False)
            try:
                content = await self._read(answer)
            finally:
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise verdicts.of_error(error, host=self.host) from None
        if not answer.is_success:
            raise verdicts.of_answer(
                answer.status_code,
                answer.headers,
                content,
                host=self.host,
                absent=self._absent,
                has_key=self._key is not None,
            )
        kind = answer.headers.get("content-type", "application/json")
        return httpx.Response(answer.status_code, headers={"content-type": kind}, content=content, request=request)

    def _allowed(self, request: httpx.Request) -> httpx.Headers:
        kept = [(name, value) for name, value in request.headers.raw if name.lower().decode("ascii") in _PASSED]
        # The address decides whom the key is shown to, and no header of the caller's.
        kept.append((b"Host", request.url.netloc))
        # Nothing compressed: a few kilobytes could become gigabytes.
        kept += [(b"User-Agent", b"evosense"), (b"Accept-Encoding", b"identity")]
        if self._key is not None:
            # As bytes: httpx takes text for ASCII, and would fail with the key in the error.
            kept.append((b"Authorization", b"Bearer " + self._key.get_secret_value().encode()))
        return httpx.Headers(kept)

    async def _read(self, answer: httpx.Response) -> bytes:
        """The body; of an error its beginning, of what can't be read nothing."""
        compressed = answer.headers.get("content-encoding", "identity").lower() != "identity"
        if compressed and answer.is_success:
            raise Fault("broken", f"the server at {self.host} compresses its answers though it is asked not to")
        most = self._most if answer.is_success else _MAX_ERROR
        content = bytearray()
        async for piece in answer.aiter_raw(65536):
            content += piece
            if len(content) > most:
                if answer.is_success:
                    raise AnswerRefused(f"the answer of the server at {self.host} is larger than {most:,} bytes")
                break
        return bytes(content[:most])
