"""A model server behind a real socket: as much of OpenAI's protocol as is spoken to here, and misbehaviour on demand.

    with openai_server() as server:
        server.script(status(503), answers_with("{"))  # the next two requests, in this order
        server.always(slow(5.0))                       # everything after that, until `server.always(None)`

It answers POST /v1/chat/completions, POST /v1/embeddings and GET /v1/models, and POST /webhook as a flow of n8n would.
What it says by itself is valid, and the same for the same message; the faults are in `model_faults`. By hand:

    python -m tests.support.openai_server --port 11434
"""

import argparse
import base64
import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.support.model_faults import Fault, slow, status

#: What a message says by its words; the first that has one decides.
MOODS: Final = (
    (("pessim", "absurd", "raiva", "palhaçada", "vergonha"), (-0.9, "raiva", 5, "agressivo", "reclamação forte")),
    (("cade", "demora", "atras", "quebrad", "reclam"), (-0.6, "frustração", 25, "urgente", "reclamação")),
    (("obrigad", "agradec", "valeu"), (0.7, "gratidão", 85, "cordial", "agradecimento")),
    (("adorei", "amei", "otim", "perfeit", "excelente", "lind"), (0.9, "alegria", 95, "informal", "elogio")),
    (("?", "quanto", "quando", "qual"), (0.0, "neutro", 55, "cordial", "pergunta")),
)
#: What it says of any other.
CALM: Final = (0.0, "neutro", 60, "neutro", "mensagem")


@dataclass
class Request:
    """One request as it came. Names of headers are in lower case; `sent`: bytes of the answer's body that went out."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    sent: int = 0

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class ModelServer:
    """The running server. What may be set at any time: the fields without an underscore.

    `key`: asked for, where it is not None; `models`: those it has, where it is not None; `knows`: the forms of
    `response_format` that it does not refuse with 400; `floats_only`: it ignores `encoding_format`; `dimensions`: of
    its vectors; `can_shorten`: whether it accepts `dimensions`, or refuses it with 400.
    """

    port: int = 0
    key: str | None = None
    models: list[str] | None = None
    knows: frozenset[str] = frozenset({"json_schema", "json_object", "text"})
    floats_only: bool = False
    dimensions: int = 768
    can_shorten: bool = True
    #: Everything that was asked, in the order of its arrival, and the most that was at once.
    requests: list[Request] = field(default_factory=list)
    high_water: int = 0
    in_flight: int = 0
    connections: int = 0
    _script: deque[Fault] = field(default_factory=deque)
    _always: Fault | None = None
    _changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    _held: bool = False
    _server: "_Listener | None" = None

    @property
    def url(self) -> str:
        """What goes into the configuration of an OpenAI-compatible server."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def webhook_url(self) -> str:
        """What goes into the configuration of a webhook."""
        return f"http://127.0.0.1:{self.port}/webhook"

    @property
    def texts(self) -> str:
        """The bodies of all requests, for looking for what must not be in them."""
        with self._changed:
            return "\n".join(
                json.dumps(json.loads(request.body), ensure_ascii=False) for request in self.requests if request.body
            )

    def script(self, *faults: Fault) -> None:
        """Do these to the next requests, one each, in this order."""
        with self._changed:
            self._script.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Do this to every request that the script has nothing for; None: answer properly."""
        with self._changed:
            self._always = fault

    def reset(self) -> None:
        """Forget the script, what is always done, and the requests; let go of those that are held."""
        with self._changed:
            self._script.clear()
            self._always = None
            self.requests.clear()
            self.high_water = self.in_flight
        self.release()

    def hold(self) -> None:
        """Answer nothing until `release`."""
        self._held = True

    def release(self) -> None:
        """Answer what was held."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_for(self, asked: int, seconds: float = 20.0) -> None:
        """Block until so many requests have come. Raises `AssertionError` where they do not."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.requests) >= asked, seconds)
        assert came, f"{len(self.requests)} of {asked} requests came in {seconds} s"

    def up(self) -> None:
        """Listen, on the port of before where there was one."""
        assert self._server is None
        self._server = _Listener(self)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="models", daemon=True).start()

    def down(self) -> None:
        """Cut every connection and stop to listen."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_all()
            self.release()

    # What follows is called by the handler.

    def taken(self, request: Request) -> Fault | None:
        """Record a request; return what is done to it."""
        with self._changed:
            self.requests.append(request)
            self.in_flight += 1
            self.high_water = max(self.high_water, self.in_flight)
            fault = self._script.popleft() if self._script else self._always
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held)
            return fault

    def done(self) -> None:
        with self._changed:
            self.in_flight -= 1
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than the server is up."""
        server = self._server
        with self._changed:
            self._changed.wait_for(lambda: self._server is not server, seconds)

    def answer(self, request: Request, fault: Fault) -> tuple[int, Any]:
        """The proper answer to a request: status and body."""
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, _error("Incorrect API key provided.", "invalid_api_key")
        match request.method, request.path.partition("?")[0]:
            case "GET", "/v1/models":
                models = self.models or ["modelo"]
                return 200, {"object": "list", "data": [{"id": one, "object": "model"} for one in models]}
            case "POST", "/v1/chat/completions" | "/v1/embeddings" | "/webhook":
                try:
                    asked = json.loads(request.body)
                except ValueError:
                    return 400, _error("Not JSON.", None)
                if request.path.startswith("/webhook"):
                    return 200, _changed(_analysis(asked["message"]), fault)
                if self.models is not None and asked.get("model") not in self.models:
                    return 404, _error(f"The model `{asked.get('model')}` does not exist.", "model_not_found")
                return self._completion(asked, fault) if "messages" in asked else self._embeddings(asked)
        return 404, _error("Not found.", None)

    def _completion(self, asked: dict[str, Any], fault: Fault) -> tuple[int, Any]:
        form = asked.get("response_format", {}).get("type", "text")
        if form not in self.knows:
            return 400, _error(f"response_format type '{form}' is not supported.", None, "response_format")
        said = " ".join(str(turn["content"]) for turn in asked["messages"] if turn["role"] == "user")
        content = _changed(_analysis(said), fault)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        message = {"role": "assistant", "content": text, "refusal": None}
        read = sum(len(str(turn["content"]).split()) for turn in asked["messages"])
        written = len(text.split())
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }

    def _embeddings(self, asked: dict[str, Any]) -> tuple[int, Any]:
        size = asked.get("dimensions") or self.dimensions
        if "dimensions" in asked and not self.can_shorten:
            return 400, _error("This model does not support `dimensions`.", None, "dimensions")
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        encoded = asked.get("encoding_format") == "base64" and not self.floats_only
        data = []
        for index, text in enumerate(texts):
            vector = embedding(text, size)
            value = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if encoded else vector
            data.append({"object": "embedding", "index": index, "embedding": value})
        read = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": read, "total_tokens": read}
        return 200, {"object": "list", "data": data, "model": asked["model"], "usage": usage}


def embedding(text: str, size: int = 768) -> list[float]:
    """The vector of a text: a direction for each of its words, added up, so that texts with words in common are near.

    Its length is not 1: not every server's is.
    """
    total = [0.0] * size
    for word in _plain(text).split() or [text]:
        drawn = random.Random(hashlib.sha256(word.encode()).digest())  # noqa: S311
        total = [value + drawn.gauss(0.0, 1.0) for value in total]
    return total


def _analysis(text: str) -> dict[str, Any]:
    plain = _plain(text)
    found = next((mood for words, mood in MOODS if any(word in plain for word in words)), CALM)
    sentiment, emotion, satisfaction, tone, what = found
    return {
        "sentiment": sentiment,
        "emotion": emotion,
        "satisfaction": satisfaction,
        "tone": tone,
        "summary": f"Cliente: {what}.",
    }


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode("ascii")
    return " ".join(re.findall(r"[a-z0-9]+|\?", folded))


def _changed(analysis: dict[str, Any], fault: Fault) -> Any:
    return analysis if fault.change is None else fault.change(analysis)


def _error(message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, model_server: ModelServer) -> None:
        self.model_server = model_server
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", model_server.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.model_server.connections += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut_all(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers go away; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Head and body leave at once, or each answer waits for an acknowledgement.
    wbufsize = 65536
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _serve(self) -> None:
        models = self.server.model_server
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, self.path, headers, body)
        fault = models.taken(request) or Fault()
        try:
            models.pause(fault.delay) if fault.delay else None
            code, value = models.answer(request, fault)
            if fault.status is not None:
                code, said = fault.status, fault.body or b""
            else:
                value = fault.reply(value) if fault.reply and code == 200 else value
                said = value.encode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False).encode()
            self._say(request, fault, code, said)
        finally:
            models.done()

    def _say(self, request: Request, fault: Fault, code: int, body: bytes) -> None:
        if fault.cut == "before":
            # Reset, not merely closed.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **fault.headers}.items():
            self.send_header(name, value)
        if fault.chunked:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault.cut == "middle":
            body = body[: len(body) // 2]
            self.close_connection = True
        step = 1 if fault.drip else 65536
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if fault.drip:
                self.wfile.flush()
                self.server.model_server.pause(fault.drip)
            request.sent += len(body[start : start + step])
        self.wfile.flush()


@contextmanager
def openai_server(**settings: Any) -> Iterator[ModelServer]:
    """A server on a free port of this machine until the end of the block; `settings`: fields of `ModelServer`."""
    server = ModelServer(**settings)
    server.up()
    try:
        yield server
    finally:
        server.down()


def main() -> None:
    """Run by hand until it is interrupted."""
    parser = argparse.ArgumentParser(description="A model server for trying things out; it understands nothing.")
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--status", type=int, help="answer everything with this error")
    given = parser.parse_args()
    with openai_server(port=given.port) as server:
        server.always(status(given.status) if given.status else slow(given.delay))
        print(f"{server.url} and {server.webhook_url}", flush=True)  # noqa: T201
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
