"""Which way the socket.io of Evolution goes: by the environment's proxy, and never past it."""

import asyncio
from contextlib import suppress

import pytest

from adapters.evolution_socket import EvolutionSocket
from tests.support.gate import Gate
from tests.support.socketio_server import EvolutionServer
from tests.support.transport import until

_TOKEN = "um-token-0123456789"


async def _take(namespace: str, data: object) -> None:
    pass


class _Proxy(Gate):
    """Takes whole addresses, as a client says them to a proxy, and asks the server for the path alone."""

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self._server_port)

        async def back() -> None:
            while data := await there.read(65536):
                writer.write(data)
            writer.close()

        answers = asyncio.create_task(back())
        with suppress(OSError):
            while data := await reader.read(65536):
                for scheme in (b"http", b"ws"):
                    data = data.replace(b" " + scheme + b"://evolution.invalid/", b" /")
                onward.write(data)
        onward.close()
        await answers


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("ws://evo.example.com", {}, None),
        ("ws://evo.example.com", {"HTTP_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("wss://evo.example.com", {"HTTP_PROXY": "http://proxy:3128"}, None),
        ("wss://evo.example.com", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("ws://evo.example.com", {"HTTPS_PROXY": "http://proxy:3128"}, None),
        ("ws://evo.example.com", {"HTTP_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ("wss://evo.example.com", {"ALL_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("ws://evo.example.com", {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": ".example.com"}, None),
    ],
)
async def test_the_proxy_is_that_of_the_environment(
    address: str, environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    socket = EvolutionSocket(address, "loja", _TOKEN, _take)
    try:
        found = socket._http._default_proxy
        assert (None if found is None else str(found).rstrip("/")) == expected
    finally:
        await socket.close()
    assert socket._http.closed


async def test_the_websocket_goes_through_the_proxy_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    server = EvolutionServer(_TOKEN)
    server.start()
    gate = _Proxy(int(server.url.rpartition(":")[2]))
    await gate.open()
    try:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{gate.port}")
        # A name that only the proxy can do anything with.
        socket = EvolutionSocket("ws://evolution.invalid", "loja", _TOKEN, _take)
        try:
            await socket.open()
            await until(lambda: server.present("") == 1, "it is in /")
            assert socket._client.transport() == "websocket"
        finally:
            await socket.close()
    finally:
        await gate.shut()
        server.stop()
