"""A TCP proxy before PostgreSQL that can lose a commit: on its way to the server, or its answer on the way back."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal


class Proxy:
    """Passes bytes on in both directions. `lose` arms it for the next COMMIT that comes by."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lose: Literal["commit", "answer"] | None = None
        self._open: list[socket.socket] = []
        #: How many commits were lost.
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._listener.getsockname()[1])

    def lose(self, what: Literal["commit", "answer"]) -> None:
        """Cut the connection at the next COMMIT: before the server has it, or after the server has carried it out."""
        self._lose = what

    def close(self) -> None:
        """Cut everything."""
        for one in (self._listener, *self._open):
            _cut(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                dropping = threading.Event()
                threading.Thread(target=self._to_server, args=(client, server, dropping), daemon=True).start()
                threading.Thread(target=self._to_client, args=(client, server, dropping), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, dropping: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._lose and b"COMMIT" in data:
                    what, self._lose = self._lose, None
                    self.lost += 1
                    if what == "commit":
                        break
                    dropping.set()
                server.sendall(data)
        if not dropping.is_set():
            _cut(client)
            _cut(server)

    @staticmethod
    def _to_client(client: socket.socket, server: socket.socket, dropping: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if dropping.is_set():
                    break  # the answer to the COMMIT: it was carried out, and nobody will hear of it
                client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxy_before(server_port: int) -> Iterator[Proxy]:
    """A proxy that is closed afterwards."""
    proxy = Proxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
