"""Evolution's socket.io behind a real port: namespaces that are there from its first event on, apikeys."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvicorn

from tests.support.systems import wait_for


class EvolutionServer:
    """Runs in a thread of its own, and can be stopped and started again on its port.

    `apikeys`: who is let in, checked as Evolution does, when a connection is opened. `below`: a path, as behind a
    proxy. With `global_events`, events go to the namespace `/` as well. An instance's namespace is made by its first
    event (`send`), and is forgotten by a restart. `most` remembers how many clients were in a namespace at once.
    """

    def __init__(self, *apikeys: str, global_events: bool = False, below: str = "") -> None:
        self.apikeys = set(apikeys)
        self.global_events = global_events
        self._below = below
        self.most: Counter[str] = Counter()
        #: Connections that were refused.
        self.refused = 0
        self.port = 0
        self._present: Counter[str] = Counter()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self._below}"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._loop = None
        self._present.clear()
        # As Evolution does: pings far apart, so that nothing in the tests hangs on them.
        self._io = socketio.AsyncServer(async_mode="asgi", namespaces=["/"])
        self._watch("/")
        path = f"{self._below}/socket.io".strip("/")
        app = socketio.ASGIApp(self._io, socketio_path=path, on_startup=self._started)
        self._server = uvicorn.Server(
            uvicorn.Config(self._guarded(app), log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        run = self._server.run
        self._thread = threading.Thread(target=run, kwargs={"sockets": [listener]}, name="evolution", daemon=True)
        self._thread.start()
        wait_for(lambda: self._loop is not None and bool(self._server and self._server.started), "Evolution starts")

    def stop(self) -> None:
        """All connections end."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(20)
            assert not self._thread.is_alive(), "Evolution does not stop"
            self._server = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def send(self, instance: str, envelope: dict[str, Any]) -> None:
        """An event of an instance, as its channel sends it. Nobody has to be there to hear it."""
        namespace = f"/{instance}"
        if self.global_events:
            self._do(self._io.emit(envelope["event"], envelope, namespace="/"))
        else:
            self.open_namespace(instance)
            self._do(self._io.emit(envelope["event"], envelope, namespace=namespace))

    def send_raw(self, instance: str, event: str, *data: Any) -> None:
        """Whatever it is."""
        self._do(self._io.emit(event, data, namespace=f"/{instance}"))

    def open_namespace(self, instance: str) -> None:
        """As the first event does."""
        namespace = f"/{instance}"
        if namespace not in self._io.namespaces:
            self._watch(namespace)
            self._io.namespaces.append(namespace)

    def present(self, instance: str) -> int:
        """Clients in an instance's namespace."""
        return self._present[f"/{instance}"]

    def drop(self) -> None:
        """End every connection, and go on."""
        for sid in {sid for room in self._io.manager.rooms.get("/", {}).values() for sid in room}:
            self._do(self._io.eio.disconnect(self._io.manager.eio_sid_from_sid(sid, "/")))

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def _watch(self, namespace: str) -> None:
        async def arrived(*_: Any) -> None:
            self._present[namespace] += 1
            self.most[namespace] = max(self.most[namespace], self._present[namespace])

        async def left(*_: Any) -> None:
            self._present[namespace] -= 1

        self._io.on("connect", arrived, namespace=namespace)
        self._io.on("disconnect", left, namespace=namespace)

    async def _started(self) -> None:
        self._loop = asyncio.get_running_loop()

    def _guarded(self, app: Any) -> Any:
        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] in ("http", "websocket"):
                query = parse_qs(scope["query_string"].decode())
                headers = dict(scope["headers"])
                given = (query.get("apikey") or [headers.get(b"apikey", b"").decode()])[0]
                if "sid" not in query and given not in self.apikeys:
                    self.refused += 1
                    await _forbidden(scope, send)
                    return
            await app(scope, receive, send)

        return guarded


async def _forbidden(scope: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"code":4,"message":"Invalid global token"}'})
