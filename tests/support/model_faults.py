"""What a model server may do wrong (`openai_server`): each function makes one fault, to be scripted."""

import base64
import gzip
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Fault:
    """What is done in place of answering properly, or to the proper answer; parts can be combined.

    `delay`: seconds before anything is said; `status`, `headers`, `body`: said as they are; `cut`: where the connection
    is cut; `drip`: seconds between two bytes of the body; `chunked`: the body's length is not announced; `change`:
    makes another analysis (a text, or what becomes JSON) out of the proper one; `reply`: makes another body out of
    the proper one.
    """

    delay: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: Literal["before", "middle"] | None = None
    drip: float = 0.0
    chunked: bool = False
    change: Callable[[dict[str, Any]], Any] | None = None
    reply: Callable[[dict[str, Any]], Any] | None = None


def good() -> Fault:
    """The proper answer, where a script needs one between two faults."""
    return Fault()


def slow(seconds: float) -> Fault:
    """The proper answer, late."""
    return Fault(delay=seconds)


def dripping(seconds: float = 0.05) -> Fault:
    """A proper answer of which every byte comes in time and the last one never does."""
    return Fault(drip=seconds)


def status(number: int, retry_after: str | float | None = None, message: str = "no", **error: Any) -> Fault:
    """An error as OpenAI words it; `retry_after`: seconds, or an HTTP date."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {"error": {"message": message, "type": "error", "param": None, "code": None, **error}}
    return Fault(status=number, headers=headers, body=json.dumps(body).encode())


def no_key() -> Fault:
    """401, quoting the key as OpenAI does."""
    return status(401, message="Incorrect API key provided: sk-qu***oted.", code="invalid_api_key")


def no_model() -> Fault:
    """404 as Ollama and vLLM say it."""
    return status(404, message="The model `gone` does not exist.", code="model_not_found")


def too_long() -> Fault:
    """400: this message is longer than the model can read."""
    return status(400, message="maximum context length is 8 tokens: «texto»", code="context_length_exceeded")


def filtered() -> Fault:
    """400: the provider's filter will have nothing to do with this message."""
    return status(400, message="The response was filtered: «texto»", code="content_filter")


def cut(where: Literal["before", "middle"] = "before") -> Fault:
    """The connection is reset before the answer's head, or ends in the middle of its body."""
    return Fault(cut=where)


def raw(body: bytes, code: int = 200, **headers: str) -> Fault:
    """A body as it stands."""
    return Fault(status=code, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def invalid_json() -> Fault:
    """A body that stops in the middle of JSON."""
    return raw(b'{"id": "x", "choices": [{"mess')


def no_completion() -> Fault:
    """JSON that has nothing of an answer."""
    return raw(b'{"status": "ok"}')


def page() -> Fault:
    """The page of a proxy that is not the model's."""
    return raw(b"<html><body>Bem-vindo</body></html>", Content_Type="text/html")


def redirect(to: str) -> Fault:
    """Sends the caller, and its key, elsewhere."""
    return raw(b"", 307, Location=to)


def huge(megabytes: int = 64, *, announced: bool = False) -> Fault:
    """An answer of that many megabytes; without `announced` there is no Content-Length."""
    return Fault(change=lambda _: "a" * (megabytes << 20), chunked=not announced)


def bomb(megabytes: int = 64) -> Fault:
    """That many megabytes in a few kilobytes of gzip."""
    return raw(gzip.compress(b" " * (megabytes << 20)), Content_Encoding="gzip")


def answers_with(text: str) -> Fault:
    """The model's answer is this text."""
    return Fault(change=lambda _: text)


def says(**fields: Any) -> Fault:
    """The proper analysis, with these fields instead."""
    return Fault(change=lambda analysis: {**analysis, **fields})


def out_of_range() -> Fault:
    """Numbers that no scale has."""
    return says(sentiment=7.5, satisfaction=-40)


def unknown_labels() -> Fault:
    """An emotion and a tone of the model's own invention."""
    return says(emotion="euforia cósmica", tone="barroco")


def wrong_language() -> Fault:
    """A summary in another language than the message's."""
    return says(summary="The customer is asking when the order that they have placed will be delivered to them.")


def _choice(**changes: Any) -> Fault:
    def changed(body: dict[str, Any]) -> dict[str, Any]:
        choice = body["choices"][0]
        message = {**choice["message"], **changes.get("message", {})}
        return {**body, "choices": [{**choice, **changes, "message": message}]}

    return Fault(reply=changed)


def no_choices() -> Fault:
    """A completion without any."""
    return Fault(reply=lambda body: {**body, "choices": []})


def cut_short() -> Fault:
    """The model ran into the limit of its output."""
    return _choice(finish_reason="length", message={"content": '{"sentiment": 0.5, "emo'})


def refusal() -> Fault:
    """The model will not."""
    return _choice(message={"content": None, "refusal": "I can't help with that."})


def filtered_answer() -> Fault:
    """The provider's filter took the answer away."""
    return _choice(finish_reason="content_filter", message={"content": None})


def tool_calls() -> Fault:
    """The model would rather call a function."""
    call = {"id": "call_1", "type": "function", "function": {"name": "apagar_tudo", "arguments": "{}"}}
    return _choice(finish_reason="tool_calls", message={"content": None, "tool_calls": [call]})


def vectors(change: Callable[[list[dict[str, Any]]], Any]) -> Fault:
    """Other data in the place of the proper embeddings."""
    return Fault(reply=lambda body: {**body, "data": change(body["data"])})


def one_vector_less() -> Fault:
    """A vector is missing."""
    return vectors(lambda data: data[:-1])


def shuffled() -> Fault:
    """The vectors come in another order than the texts; their index says which is whose."""
    return vectors(lambda data: data[::-1])


def nan_vectors() -> Fault:
    """Vectors of what is no number."""
    return vectors(lambda data: [{**one, "embedding": _as_like(one["embedding"], math.nan)} for one in data])


def zero_vectors() -> Fault:
    """Vectors that point nowhere."""
    return vectors(lambda data: [{**one, "embedding": _as_like(one["embedding"], 0.0)} for one in data])


def _as_like(embedding: str | list[float], value: float) -> str | list[float]:
    if isinstance(embedding, list):
        return [value] * len(embedding)
    size = len(base64.b64decode(embedding)) // 4
    return base64.b64encode(struct.pack(f"<{size}f", *[value] * size)).decode()
