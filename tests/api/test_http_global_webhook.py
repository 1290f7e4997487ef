"""Evolution's global webhook: one address for all instances, and no doubt whose a message is."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from adapters.settings import Settings
from api.known_connections import known_connections
from domain.connections import connection_id
from tests.support.evolution_server import free_port
from tests.support.http import Account, System, envelope, running_system
from tests.support.systems import wait_for

DOOR = "/webhooks/evolution/global"
KEY = "global-token_0123456789~abcdef.x"


@pytest.fixture(scope="module")
def system(settings: Settings) -> Iterator[System]:
    """An API whose global door is open."""
    with running_system(settings.model_copy(update={"webhook_token": SecretStr(KEY)})) as running:
        yield running


class Shop:
    """A tenant with a connection; `apikey` is its instance's, and so the connection's token."""

    def __init__(self, system: System, name: str, url: str = "https://evo.example.com") -> None:
        self.system, self.name = system, name
        self.apikey = f"apikey-{uuid4()}"
        self.who: Account = system.new_user(system.new_tenant())
        body = {"name": name, "evo_ws_url": url, "evo_token": self.apikey}
        made = system.send(self.who, "POST", "/connections", body, expect=201)
        self.id = made["id"]
        self.hook = httpx.URL(made["webhook_url"]).path

    def texts(self) -> list[str]:
        """The texts that are stored for it."""
        self.system.projected()
        return [row["text"] for row in self.system.messages_of(self.who.tenant_id)]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """By transport, outcome and reason."""
        self.system.write.activity.flush()
        self.system.projected()
        found = self.system.get(self.who, f"/connections/{self.id}/activity")["counts"]
        return {(one["transport"], one["outcome"], one["reason"]): one["count"] for one in found}


def name() -> str:
    return f"loja-{uuid4().hex[:8]}"


def delivery(instance: str, text: str, key: str, **parts: Any) -> dict[str, Any]:
    """As Evolution sends it; `apikey` is null where the server keeps it back."""
    body = {**envelope(text, key, 1761134400), "instance": instance, "server_url": "https://evo.example.com"}
    return {**body, "apikey": None, **parts}


def post(system: System, body: Any, *, door: str = f"{DOOR}?token={KEY}", expect: int = 200, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return system.checked(system.client.post(door, content=content, headers=headers), expect)


# ------------------------------------------------------------------------------------------------------ who may come


@pytest.mark.parametrize(
    ("door", "headers"),
    [
        (f"{DOOR}?token={KEY}", {}),
        (DOOR, {"X-EvoSense-Token": KEY}),
        (DOOR, {"apikey": KEY}),
        (DOOR, {"Authorization": f"Bearer {KEY}"}),
        # "Webhook by events" puts the event behind the address, and behind the query where there is one.
        (f"{DOOR}/messages-upsert", {"X-EvoSense-Token": KEY}),
        (f"{DOOR}/messages-upsert?token={KEY}", {}),
        (f"{DOOR}?token={KEY}/messages-upsert", {}),
    ],
)
def test_who_knows_the_token_comes_in(system: System, door: str, headers: dict[str, str]) -> None:
    shop = Shop(system, name())
    system.projected()
    done = post(system, delivery(shop.name, "oi", "T1"), door=door, **headers)
    assert done["received"] == 1
    assert shop.texts() == ["oi"]
    assert shop.counts() == {("global-webhook", "accepted", ""): 1}


@pytest.mark.parametrize(
    "door",
    [
        DOOR,
        f"{DOOR}?token=",
        f"{DOOR}?token={KEY[:-1]}",
        f"{DOOR}?token={KEY}x",
        f"{DOOR}?token=x/{KEY}",
        f"{DOOR}?apikey={KEY}",
        f"{DOOR}/messages-upsert",
        f"{DOOR}?token=%ff",
    ],
)
def test_nobody_else_does(system: System, door: str) -> None:
    shop = Shop(system, name())
    system.projected()
    problem = post(system, delivery(shop.name, "oi", "T1", apikey=shop.apikey), door=door, expect=401)
    assert KEY not in str(problem)
    # A connection's own token opens the connection's own address alone.
    post(system, delivery(shop.name, "oi", "T1"), door=f"{DOOR}?token={shop.apikey}", expect=401)
    post(system, delivery(shop.name, "oi", "T1"), door=shop.hook, expect=401, **{"X-EvoSense-Token": KEY})
    assert shop.texts() == []


def test_without_a_token_the_door_is_closed(system: System, settings: Settings) -> None:
    closed = System(settings, system.services, system.url, system.client, system.projector)
    token, system.services.settings.webhook_token = system.services.settings.webhook_token, None
    try:
        problem = post(closed, delivery("loja", "oi", "T1"), expect=404)
        assert "EVOSENSE_WEBHOOK_TOKEN" in problem["detail"]
    finally:
        system.services.settings.webhook_token = token


def test_a_connections_own_address_takes_events_behind_it_too(system: System) -> None:
    shop = Shop(system, name())
    done = post(
        system,
        delivery(shop.name, "oi", "T1"),
        door=f"{shop.hook}/messages-upsert",
        **{"X-EvoSense-Token": shop.apikey},
    )
    assert done["received"] == 1
    post(system, delivery(shop.name, "oi", "T2"), door=f"{shop.hook}/messages-upsert", expect=401)


def test_the_token_is_logged_nowhere(
    system: System, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    shop = Shop(system, name())
    system.projected()
    secret = delivery(shop.name, "segredo da cliente", "L1", apikey=shop.apikey)
    post(system, secret)
    post(system, {**secret, "apikey": "another-apikey"}, expect=409)
    post(system, {**secret, "instance": "5511987650001"})
    post(system, b"nonsense", expect=400)
    post(system, secret, door=f"{DOOR}?token={KEY}x", expect=401)
    captured = capfd.readouterr()
    # The test's own client logs what it asks, and pytest listens to a log that the server has switched off.
    others = [one for one in caplog.records if one.name.split(".")[0] not in ("httpx", "httpcore", "uvicorn")]
    logged = "\n".join(f"{one.name} {one.getMessage()}" for one in others)
    shown = logged + captured.out + captured.err + system.client.get("/metrics").text
    for word in (KEY, shop.apikey, "another-apikey", "segredo da cliente", "5511987650001"):
        assert word not in shown
    assert "an instance that nobody has connected sent something" in shown


def test_a_process_as_it_runs_logs_no_address_and_counts_to_the_end(system: System) -> None:
    shop = Shop(system, name())
    system.projected()
    port = free_port()
    settings = system.settings.model_copy(update={"api_port": port, "log_level": "debug", "log_format": "console"})
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "api"],
        env=settings.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_for(lambda: _is_ready(client) or process.poll() is not None, "the API to be ready", seconds=60)
            body = delivery(shop.name, "oi", "P1", apikey=shop.apikey)
            answers = [client.post(f"{DOOR}?token={KEY}", json=body).status_code for _ in range(3)]
            answers.append(client.post(f"{DOOR}?token={KEY}x", json=body).status_code)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert answers == [200, 200, 200, 401], output
    assert process.returncode == 0, output
    for secret in (KEY, "token=", shop.apikey):
        assert secret not in output
    accepted, duplicate = ("global-webhook", "accepted", ""), ("global-webhook", "duplicate", "")
    assert shop.counts() == {accepted: 1, duplicate: 2}


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


# ------------------------------------------------------------------------------------------------------ whose it is


def test_the_apikey_tells_two_tenants_apart(system: System) -> None:
    shared = name()
    first, second = Shop(system, shared), Shop(system, shared)
    system.projected()
    for shop, text in ((first, "para a primeira"), (second, "para a segunda")):
        done = post(system, delivery(shared, text, "SAME-ID", apikey=shop.apikey, server_url="http://localhost:8080"))
        assert done["received"] == 1
    assert (first.texts(), second.texts()) == (["para a primeira"], ["para a segunda"])


def test_the_servers_address_tells_them_apart_where_there_is_no_apikey(system: System) -> None:
    shared = name()
    first, second = Shop(system, shared, "wss://EVO.example.com/ws"), Shop(system, shared, "https://evo.example.org")
    system.projected()
    for number, absent in enumerate((None, "", "Apikey not found", 7)):
        post(system, delivery(shared, "oi", f"S{number}", apikey=absent, server_url="https://evo.example.com:8443"))
    assert (len(first.texts()), second.texts()) == (4, [])
    for unclear in ("http://localhost:8080", "https://evo.example.net", None, "http://["):
        post(system, delivery(shared, "oi", "U1", server_url=unclear), expect=409)
    assert (len(first.texts()), second.texts()) == (4, [])


def test_the_same_name_token_and_server_are_beyond_telling(system: System) -> None:
    shared = name()
    first = Shop(system, shared)
    second = Shop(system, shared)
    system.send(second.who, "PUT", f"/connections/{second.id}/token", {"evo_token": first.apikey})
    system.projected()
    body = delivery(shared, "oi", "B1", apikey=first.apikey)
    answer = system.client.post(f"{DOOR}?token={KEY}", json=body)
    assert "apikey" in system.checked(answer, 409)["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert (first.texts(), second.texts()) == ([], [])


@pytest.mark.parametrize(
    ("parts", "expect"),
    [
        ({}, 200),
        ({"server_url": "http://localhost:8080"}, 200),
        ({"server_url": "http://127.0.0.1:8080"}, 200),
        ({"server_url": ""}, 200),
        # Another server's instance of that name, which nobody has connected, is not this tenant's.
        ({"server_url": "https://evo.example.org"}, 409),
        ({"apikey": "the-apikey-of-another-instance"}, 409),
        ({"apikey": "the-apikey-of-another-instance", "server_url": "http://localhost:8080"}, 409),
        ({"apikey": "\ud83d"}, 409),
    ],
)
def test_one_connection_of_the_name_alone(system: System, parts: dict[str, Any], expect: int) -> None:
    shop = Shop(system, name())
    system.projected()
    post(system, delivery(shop.name, "oi", "O1", **parts), expect=expect)
    assert shop.texts() == (["oi"] if expect == 200 else [])
    refused = {("global-webhook", "refused", "token"): 1}
    assert shop.counts() == ({("global-webhook", "accepted", ""): 1} if expect == 200 else refused)


def test_a_new_token_lets_the_retry_in(system: System) -> None:
    shop = Shop(system, name())
    system.projected()
    body = delivery(shop.name, "oi", "R1", apikey="rotated-on-the-server-0123")
    post(system, body, expect=409)
    with system.projector.paused():
        system.send(shop.who, "PUT", f"/connections/{shop.id}/token", {"evo_token": "rotated-on-the-server-0123"})
        assert post(system, body)["received"] == 1
    assert shop.texts() == ["oi"]


def test_an_instance_that_nobody_connected(system: System) -> None:
    before = _ignored(system)
    done = post(system, delivery(name(), "oi", "N1"))
    assert done == {"received": 0, "duplicates": 0, "ignored": 1, "refused": 0, "position": 0, "announced": 0}
    for unnamed in ("", None, 7, "x" * 300, "a\0"):
        assert post(system, {**delivery("", "oi", "N1"), "instance": unnamed})["received"] == 0
    assert _ignored(system) == before + 6


def _ignored(system: System) -> float:
    series = 'evosense_webhook_ignored_total{kind="delivery",reason="unknown instance"}'
    lines = system.client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(series)), 0.0)


def test_a_connection_that_is_only_just_registered_loses_nothing(system: System) -> None:
    with system.projector.paused():
        shop = Shop(system, name())
        body = delivery(shop.name, "oi", "J1")
        problem = post(system, body, expect=503)
        assert "read models" in problem["detail"]
    # While the projector is catching up, the delivery waits for it.
    assert post(system, body)["received"] == 1
    assert shop.texts() == ["oi"]


def test_deactivated(system: System) -> None:
    shop = Shop(system, name())
    system.send(shop.who, "POST", f"/connections/{shop.id}/deactivate")
    system.projected()
    body = delivery(shop.name, "oi", "D1", apikey=shop.apikey)
    assert "deactivated" in post(system, body, expect=403)["detail"]
    assert shop.counts() == {("global-webhook", "refused", "deactivated"): 1}
    with system.projector.paused():
        system.send(shop.who, "POST", f"/connections/{shop.id}/activate")
        assert post(system, body)["received"] == 1


# ------------------------------------------------------------------------------------------------------ both at once


def test_with_both_webhooks_every_message_is_stored_once(system: System) -> None:
    shop = Shop(system, name())
    system.projected()
    bodies = [delivery(shop.name, f"mensagem {number}", f"D{number}", apikey=shop.apikey) for number in range(40)]
    gate = threading.Barrier(4)
    answers: list[dict[str, Any]] = []

    def send(door: str, headers: dict[str, str], order: list[dict[str, Any]]) -> None:
        with httpx.Client(base_url=system.url, timeout=60) as client:
            gate.wait(20)
            answers.extend(system.checked(client.post(door, json=body, headers=headers), 200) for body in order)

    # Each event comes over both, and each webhook delivers twice.
    ways: list[tuple[str, dict[str, str]]] = [
        (shop.hook, {"X-EvoSense-Token": shop.apikey}),
        (f"{DOOR}?token={KEY}", {}),
    ]
    threads = [
        threading.Thread(target=send, args=(door, headers, order))
        for door, headers in ways
        for order in (bodies, list(reversed(bodies)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(answers) == 160
    assert sum(answer["received"] for answer in answers) == 40
    assert sum(answer["duplicates"] for answer in answers) == 120
    assert sorted(shop.texts()) == sorted(f"mensagem {number}" for number in range(40))
    counts = shop.counts()
    assert sum(count for (_, outcome, _), count in counts.items() if outcome == "accepted") == 40
    assert sum(count for (_, outcome, _), count in counts.items() if outcome == "duplicate") == 120
    assert {transport for transport, _, _ in counts} == {"webhook", "global-webhook"}
    for door, headers in ways:
        system.checked(system.client.post(door, json=bodies[0], headers=headers), 200)
    (found,) = known_connections(system.write, shop.name)
    assert found.id == connection_id(shop.who.tenant_id, shop.name)
