"""Servers that speak OpenAI's protocol, by way of its SDK."""

import asyncio
import json
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from pydantic import SecretStr

from adapters.model_server.faults import Fault
from adapters.model_server.http import ModelHttp

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

_ABSENT = (
    "check the model's name and the address, which usually ends in /v1 (EVOSENSE_MODEL, EVOSENSE_MODEL_URL or the "
    "models file); has the server loaded or pulled that model?"
)


class OpenAIServer:
    """One server. `most`: bytes of an answer. Calls raise `Fault`, and `AnswerRefused` where an answer is too large."""

    def __init__(self, url: str, key: SecretStr | None, *, timeout: float, concurrency: int, most: int) -> None:
        """Nothing is loaded or asked before the first call."""
        self._url = url
        self._timeout = timeout
        self._http = ModelHttp(url, key, timeout=timeout, concurrency=concurrency, most=most, absent=_ABSENT)
        self._sdk: AsyncOpenAI | None = None

    @property
    def host(self) -> str:
        """Host and port."""
        return self._http.host

    async def completion(self, body: dict[str, Any], seconds: float, kind: type[T]) -> T:
        """POST chat/completions, read as `kind`."""
        chat = (await self._loaded()).chat.completions.with_raw_response
        return await self._read(chat.create(**body, timeout=seconds), kind)

    async def embeddings(self, body: dict[str, Any], seconds: float, kind: type[T]) -> T:
        """POST embeddings, read as `kind`."""
        embeddings = (await self._loaded()).embeddings.with_raw_response
        return await self._read(embeddings.create(**body, timeout=seconds), kind)

    async def close(self) -> None:
        """Let go of its connections."""
        await self._http.aclose()

    async def _read(self, call: Awaitable[Any], kind: type[T]) -> T:
        # The SDK's own types are not read: it builds them out of whatever comes, and fails later and elsewhere.
        from openai import OpenAIError  # noqa: PLC0415

        try:
            answer = await call
            try:
                return msgspec.json.decode(answer.content, type=kind)
            except msgspec.DecodeError:
                # Servers in Python write NaN, which is no JSON; who reads the numbers says what is wrong with it.
                return msgspec.convert(json.loads(answer.content), kind)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            reason = f"something answers at {self.host}, but not as OpenAI's protocol has it: check the address"
        except OpenAIError as error:
            reason = f"the request to {self.host} could not be made ({type(error).__name__})"
        raise Fault("broken", reason)

    async def _loaded(self) -> "AsyncOpenAI":
        if self._sdk is None:
            self._sdk = await asyncio.to_thread(self._load)
        return self._sdk

    def _load(self) -> "AsyncOpenAI":
        # Here, and in a thread: it takes 0.6 s, which those who ask no server need not pay.
        from openai import AsyncOpenAI  # noqa: PLC0415

        # OPENAI_LOG may have set it to debug.
        logging.getLogger("openai").setLevel(logging.WARNING)
        return AsyncOpenAI(
            # The SDK takes nothing of the environment for what is given here. What it takes all the same, it puts into
            # headers, of which `ModelHttp` sends none; the key is there as well, and never comes here.
            api_key="elsewhere",
            admin_api_key="elsewhere",
            base_url=self._url,
            timeout=self._timeout,
            max_retries=0,
            # The SDK takes clients of httpx as well as of httpx2, whatever its types say.
            http_client=cast(Any, self._http),
        )
