"""What is asked of an Evolution server, and what is said where it does not answer as it should."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters import evolution_api
from adapters.evolution_api import EvolutionClient, EvolutionError, EvolutionRefused, EvolutionUnavailable, rest_address
from tests.support.evolution_server import (
    GLOBAL_KEY,
    EvolutionServer,
    evolution_server,
    free_port,
    rude_server,
    self_signed,
)

TOKEN = "instance-token-0123456789"
SECRET = "what only the inside may see"


@pytest.fixture
def evolution() -> Iterator[EvolutionServer]:
    with evolution_server() as server:
        server.add("loja centro", TOKEN)
        yield server


def client(url: str, name: str = "loja centro", token: str = TOKEN) -> EvolutionClient:
    return EvolutionClient(url, name, token)


async def refusal(url: str, name: str = "loja centro", token: str = TOKEN) -> EvolutionError:
    """What is raised where version and state are asked for."""
    async with client(url, name, token) as asking:
        with pytest.raises(EvolutionError) as caught:
            await _asked(asking)
    for personal in (token, SECRET):
        assert personal not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


async def _asked(asking: EvolutionClient) -> None:
    await asking.version()
    await asking.state()


async def test_version_and_state(evolution: EvolutionServer) -> None:
    evolution.add("loja/2?", TOKEN, state="close")
    async with client(evolution.url) as asking:
        assert (await asking.version(), await asking.state()) == ("2.3.7", "open")
    async with client(evolution.url, "loja/2?", GLOBAL_KEY) as asking:
        assert await asking.ask("GET", f"/webhook/find/{asking.instance}") is None
        assert asking.instance == "loja%2F2%3F"
    assert {method for method, _, _ in evolution.asked} == {"GET"}
    assert all(headers["apikey"] in (TOKEN, GLOBAL_KEY) for _, _, headers in evolution.asked)


@pytest.mark.parametrize("version", [None, 2, "2.3 <script>", "x" * 41])
async def test_a_version_that_is_none_is_not_shown(evolution: EvolutionServer, version: Any) -> None:
    evolution.version = version
    async with client(evolution.url) as asking:
        assert await asking.version() is None


async def test_below_a_path_and_by_the_address_of_its_websocket(evolution: EvolutionServer) -> None:
    assert rest_address("wss://evo.example.com/ ") == "https://evo.example.com"
    assert rest_address("ws://evo.example.com:8080?apikey=x#y") == "http://evo.example.com:8080"
    assert rest_address("https://example.com/evolution/") == "https://example.com/evolution"
    async with client(evolution.url.replace("http:", "ws:") + "/") as asking:
        assert await asking.state() == "open"
    assert "its path belongs there only" in str(await refusal(f"{evolution.url}/ws"))


async def test_an_unknown_instance_and_a_wrong_token(evolution: EvolutionServer) -> None:
    unknown = await refusal(evolution.url, "Loja Centro")
    assert (type(unknown), unknown.problem) == (EvolutionRefused, "instance")
    assert "letter for letter" in str(unknown)
    wrong = await refusal(evolution.url, token="wrong-token-0123456789")
    assert (type(wrong), wrong.problem) == (EvolutionRefused, "token")
    # A token that no header can carry, and one that is not ASCII.
    assert (await refusal(evolution.url, token="linha\nquebrada-0123456")).problem == "token"
    assert (await refusal(evolution.url, token="coração-0123456789")).problem == "token"


@pytest.mark.parametrize(
    ("status", "body", "kind", "problem"),
    [
        (200, b"<html>" + SECRET.encode(), EvolutionRefused, "no evolution"),
        (200, b'{"message": "' + SECRET.encode() + b'"}', EvolutionRefused, "no evolution"),
        (200, b"[]", EvolutionRefused, "no evolution"),
        (200, b"[" * 100_000, EvolutionRefused, "no evolution"),
        (200, b"\xff", EvolutionRefused, "no evolution"),
        (200, b"", EvolutionRefused, "no evolution"),
        (200, b'"' + b"x" * 300_000 + b'"', EvolutionRefused, "too large"),
        (404, SECRET.encode(), EvolutionRefused, "no evolution"),
        (418, SECRET.encode(), EvolutionRefused, "no evolution"),
        (403, SECRET.encode(), EvolutionRefused, "token"),
        (429, b"", EvolutionUnavailable, "busy"),
        (502, SECRET.encode(), EvolutionUnavailable, "busy"),
    ],
)
async def test_answers_that_are_none(
    evolution: EvolutionServer, status: int, body: bytes, kind: type[EvolutionError], problem: str
) -> None:
    evolution.everywhere(status, body)
    error = await refusal(evolution.url)
    assert (type(error), error.problem) == (kind, problem)


async def test_a_state_that_is_none(evolution: EvolutionServer) -> None:
    for state in ("refused", None, ["open"], {"open": SECRET}):
        evolution.instances["loja centro"].state = state  # type: ignore[assignment]
        assert (await refusal(evolution.url)).problem == "no evolution"


async def test_a_redirect_is_not_followed(evolution: EvolutionServer) -> None:
    with evolution_server() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            evolution.everywhere(status, location=f"{elsewhere.url}/{SECRET.replace(' ', '-')}")
            error = await refusal(evolution.url)
            assert error.problem == "redirect"
            assert elsewhere.url not in str(error)
        assert elsewhere.asked == []


async def test_text_that_only_javascript_writes_is_read(evolution: EvolutionServer) -> None:
    evolution.everywhere(200, b'{"text": "oi \\ud83d"}')
    async with client(evolution.url) as asking:
        assert await asking.ask("GET", "/") == json.loads(b'{"text": "oi \\ud83d"}')


async def test_nobody_there() -> None:
    refused = await refusal(f"http://127.0.0.1:{free_port()}")
    assert (type(refused), refused.problem) == (EvolutionUnavailable, "refused")
    unknown = await refusal("http://evolution.invalid")
    assert (type(unknown), unknown.problem) == (EvolutionUnavailable, "dns")
    for address in ("http://" + "a" * 64 + ".example", "http://exa mple", "ftp://x"):
        assert (await refusal(address)).problem in ("address", "dns"), address


async def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolution_api, "TOTAL_TIMEOUT_S", 0.2)
    with rude_server(lambda _: None) as url:
        assert (await refusal(url)).problem == "timeout"


async def test_a_server_that_speaks_something_else() -> None:
    with rude_server(lambda one: one.sendall(b"220 smtp.example.com ESMTP\r\n\r\n")) as url:
        assert (await refusal(url)).problem == "unreachable"
    with rude_server(lambda one: one.close()) as url:
        assert (await refusal(url)).problem == "unreachable"


async def test_encryption(evolution: EvolutionServer, tmp_path: Path) -> None:
    with evolution_server(self_signed(tmp_path / "server.pem")) as encrypted:
        untrusted = await refusal(encrypted.url)
        assert (type(untrusted), untrusted.problem) == (EvolutionUnavailable, "tls")
        assert "self-signed" in str(untrusted)
        assert "https instead of http" in str(await refusal(encrypted.url.replace("https", "http")))
        assert encrypted.asked == [], "the token goes to nobody who has not proved who it is"
    plain = await refusal(evolution.url.replace("http", "https"))
    assert (plain.problem, "http instead of https" in str(plain)) == ("tls", True)
