"""What is known of a model server before it is asked anything."""

from typing import Literal

import msgspec
from pydantic import SecretStr


class AnalyserServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that analyses: OpenAI's protocol (Ollama, vLLM, OpenAI and others), or a webhook such as one of n8n.

    `url`: the base address, such as `http://127.0.0.1:11434/v1`, or the webhook's own; `model`: as the server calls
    it, and as it is recorded (at most 64 characters). `timeout`: seconds for one call; `concurrency`: calls at once at
    most; `earlier`: earlier texts of the conversation that go with a message. Prices in US dollars: per million tokens,
    and `call_price` for each call. `answers`: how the server is asked for JSON.
    """

    name: str
    url: str
    model: str
    kind: Literal["openai", "webhook"] = "openai"
    api_key: SecretStr | None = None
    timeout: float = 30.0
    concurrency: int = 8
    earlier: int = 0
    answers: Literal["json_schema", "json_object", "text"] = "json_schema"
    max_output_tokens: int = 400
    input_price: float = 0.0
    output_price: float = 0.0
    call_price: float = 0.0


class EmbedderServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that embeds by OpenAI's protocol.

    `batch`: texts in one call; `dimensions`: asked of the server where it can shorten its vectors, None otherwise. The
    rest as in `AnalyserServer`.
    """

    name: str
    url: str
    model: str
    api_key: SecretStr | None = None
    timeout: float = 30.0
    concurrency: int = 4
    batch: int = 64
    dimensions: int | None = None
    input_price: float = 0.0
    call_price: float = 0.0
