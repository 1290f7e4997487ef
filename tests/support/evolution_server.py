"""A small Evolution API behind a real socket: as much of its REST as is asked of it here, and misbehaviour on demand.

What it answers follows version 2.3: an unknown instance is 404 before the token is looked at; the token is the
instance's own or the server's global key.
"""

import datetime
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.systems import wait_for

GLOBAL_KEY: Final = "429683C4C977415CAAFCCE10F7D57E11"

Send = Callable[[dict[str, Any]], Awaitable[None]]
#: Answers a request in the server's stead: status, headers, body.
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Instance:
    """One instance of the server; `webhook` is what `/webhook/find` answers."""

    token: str
    state: str = "open"
    webhook: Any = None


@dataclass
class EvolutionServer:
    """The running server. `answers` has what it says instead, by path."""

    url: str = ""
    instances: dict[str, Instance] = field(default_factory=dict)
    version: Any = "2.3.7"
    answers: dict[str, Answer] = field(default_factory=dict)
    #: Method, path and headers of everything that was asked.
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add(self, name: str, token: str, **more: Any) -> Instance:
        """Another instance."""
        self.instances[name] = Instance(token, **more)
        return self.instances[name]

    def everywhere(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer everything like this from now on."""
        self.answers["*"] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        headers = {name.decode(): value.decode("utf-8", "replace") for name, value in scope["headers"]}
        path = scope["raw_path"].decode()
        self.asked.append((scope["method"], path, headers))
        status, more, body = self.answers.get("*") or self.answers.get(path) or self._answer(path, headers)
        sent = [(b"content-type", b"application/json")]
        sent += [(name.encode(), value.encode()) for name, value in more.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, path: str, headers: dict[str, str]) -> Answer:
        match path.strip("/").split("/"):
            case [""]:
                told = {"status": 200, "message": "Welcome to the Evolution API, it is working!"}
                return _json(200, {**told, "version": self.version, "clientName": "evolution"})
            case ["instance", "connectionState", quoted]:
                name = unquote(quoted)
                return self._of(name, headers, lambda one: {"instance": {"instanceName": name, "state": one.state}})
            case ["webhook", "find", quoted]:
                return self._of(unquote(quoted), headers, lambda one: one.webhook)
        return _json(404, {"status": 404, "error": "Not Found", "response": {"message": ["Cannot GET"]}})

    def _of(self, name: str, headers: dict[str, str], tell: Callable[[Instance], Any]) -> Answer:
        if name not in self.instances:
            message = f'The "{name}" instance does not exist'
            return _json(404, {"status": 404, "error": "Not Found", "response": {"message": [message]}})
        if headers.get("apikey") not in (self.instances[name].token, GLOBAL_KEY):
            return _json(401, {"status": 401, "error": "Unauthorized", "response": {"message": "Unauthorized"}})
        return _json(200, tell(self.instances[name]))


def _json(status: int, body: Any) -> Answer:
    return status, {}, json.dumps(body).encode()


@contextmanager
def evolution_server(certificate: Path | None = None) -> Iterator[EvolutionServer]:
    """A server on a free port of this machine until the end of the block; with a `certificate` it speaks TLS."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "http" if certificate is None else "https"
    made = EvolutionServer(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
    server = uvicorn.Server(
        uvicorn.Config(
            made,
            log_config=None,
            access_log=False,
            ssl_certfile=certificate,
            ssl_cert_reqs=ssl.CERT_NONE,
            lifespan="off",
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="evolution", daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, "Evolution to start")
        yield made
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "Evolution does not stop"


@contextmanager
def rude_server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does with each connection what it is told, and knows no HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            held.append(accepted)
            behave(accepted)

    thread = threading.Thread(target=serve, name="rude", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for one in held:
            one.close()
        thread.join(20)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def self_signed(path: Path) -> Path:
    """A key and a certificate that nobody has signed, for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evolution.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
