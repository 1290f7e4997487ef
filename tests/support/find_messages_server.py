"""A stand-in for Evolution API's `findMessages` behind a real socket: pages as Evolution makes them, and its faults."""

import json
import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

TOKEN: Final = "evo-token-0123456789-abcdef"
OWNER: Final = "5511940028922@s.whatsapp.net"

Style = Literal["2.3", "2.3 array", "unfiltered", "array", "everything"]
#: What may befall one request: a status, a status with Retry-After, or what a broken server does.
Fault = int | tuple[int, str] | Literal["cut", "bad json", "no messages", "hang"]


def row(key: str, at: int, text: str | None = None, *, phone: str = "5511987650001", **more: Any) -> dict[str, Any]:
    """A row as Prisma gives it; `at` in seconds since 1970."""
    return {
        "id": f"clx{key}",
        "key": {"remoteJid": f"{phone}@s.whatsapp.net", "fromMe": False, "id": key, **more},
        "pushName": "Marina",
        "messageType": "conversation",
        "message": {"conversation": text or f"mensagem {key}"},
        "messageTimestamp": at,
        "instanceId": "0d8a2a2e-8b1f-4c49-9d2f-1f0c8a3e1b11",
        "source": "android",
        "contextInfo": None,
        "MessageUpdate": [],
    }


class FindMessagesServer:
    """Serves the messages of instances by name. All fields may be changed while it runs."""

    def __init__(self, style: Style = "2.3") -> None:
        self.style = style
        self.instances: dict[str, list[dict[str, Any]]] = {}
        self.tokens: dict[str, str] = {}
        #: What befalls the next requests for messages, one after the other.
        self.faults: deque[Fault] = deque()
        #: Called with each request's body, which is in `requests` by then, before it is answered.
        self.on_request: Callable[[dict[str, Any]], None] = lambda _: None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.owner: str | None = OWNER
        #: Set to let those go on that hang.
        self.released = threading.Event()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "FindMessagesServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, on the same port as before."""
        ours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                ours.answer(self, {})

            def do_POST(self) -> None:
                ours.answer(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self.released.clear()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Go away; what hangs is let go of."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def asked(self, instance: str) -> list[dict[str, Any]]:
        """The bodies of the questions for an instance's messages."""
        return [body for name, body in self.requests if name == instance]

    # --------------------------------------------------------------------------------------------------------- answers

    def answer(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer one request."""
        path = urlsplit(request.path)
        *_, name = path.path.split("/")
        if path.path == "/instance/fetchInstances":
            name = unquote(path.query.partition("=")[2])
            _send(request, 200, [{"name": name, "ownerJid": self.owner}])
            return
        name = unquote(name)
        self.requests.append((name, body))
        self.on_request(body)
        fault = self.faults.popleft() if self.faults else None
        if name not in self.instances:
            _send(request, 404, {"status": 404, "error": "Not Found"})
        elif request.headers["apikey"] != self.tokens.get(name, TOKEN):
            _send(request, 401, {"status": 401, "error": "Unauthorized"})
        elif fault is None:
            _send(request, 200, self._messages(name, body))
        else:
            self._break(request, fault)

    def _break(self, request: BaseHTTPRequestHandler, fault: Fault) -> None:
        match fault:
            case int():
                _send(request, fault, {"segredo": "não citar"})
            case (status, retry_after):
                _send(request, status, {}, {"retry-after": retry_after})
            case "cut":
                request.send_response(200)
                request.send_header("content-length", "1000")
                request.end_headers()
                request.wfile.write(b'{"messages": {')
                request.close_connection = True
            case "bad json":
                _send(request, 200, b'{"messages": segredo')
            case "no messages":
                _send(request, 200, {"segredo": "não citar"})
            case "hang":
                self.released.wait(30)
                request.close_connection = True

    def _messages(self, name: str, body: dict[str, Any]) -> Any:
        rows = sorted(self.instances[name], key=lambda one: -int(one["messageTimestamp"]))
        window = body["where"]["messageTimestamp"]
        size, page = body["offset"], body["page"]
        if self.style in ("2.3", "2.3 array"):
            low, high = (datetime.fromisoformat(window[end]).timestamp() for end in ("gte", "lte"))
            rows = [one for one in rows if low <= one["messageTimestamp"] <= high]
        if self.style == "everything":
            return rows
        shown = rows[size * (page - 1) : size * page]
        if self.style.endswith("array"):
            return shown
        held = {"total": len(rows), "pages": math.ceil(len(rows) / size), "currentPage": page, "records": shown}
        return {"messages": held}


def _send(request: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(content)))
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.end_headers()
    with suppress(ConnectionError):  # whoever asked may be gone
        request.wfile.write(content)
