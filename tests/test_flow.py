"""The whole thing, as a user runs it: `evosense up` on a home of its own, through HTTP, PostgreSQL and real NATS.

One story in several tests, in the order in which they stand.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from adapters.embedded import running
from adapters.nats import CONSUMER, STREAM
from api.demo_data import envelopes
from tests.support.http import PASSWORD, TOKEN, envelope
from tests.support.systems import contents, wait_for
from tests.support.transport import jetstream

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "tests" / "samples" / "evolution"
#: Of the demo's envelopes so many are sent.
SENT = 320
#: Personal data that goes in and is looked for where it must not be.
NEEDLES = {
    "a customer's number": "5511987650001",
    "a LID": "118273645546372",
    "a name": "Juliana Prado",
    "a text": "Pessoal, o cimento chegou faltando",
    "a text of the demo": "Comprei uma cafeteira",
    "a CPF": "529.982.247-25",
    "an e-mail": "joana.lima@exemplo",
    "the connection's token": TOKEN,
    "Evolution's own key": "9C0B2F7E-61D4-4A58-8E33-5D0A7C1E42FA",
    "a password": PASSWORD,
    "a user name": "gerente@fluxo",
}


class House:
    """An installation with its own home and port."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.process: subprocess.Popen[bytes] | None = None
        self.token: dict[str, str] = {}
        self.hook = ""

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVOSENSE_")}
        ours = {"EVOSENSE_HOME": str(self.home), "EVOSENSE_API_PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        return {**clean, **ours, "NO_COLOR": "1", "COLUMNS": "140"}

    def up(self) -> None:
        """Start everything, and wait until it says so."""
        self.home.parent.joinpath("up.out").touch()
        with self.home.parent.joinpath("up.out").open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.cli", "up"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        state = self.home / "up.json"

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.home.parent.joinpath("up.out").read_text()
            return state.exists() and json.loads(state.read_text())["pid"] == self.process.pid

        wait_for(ready, "evosense up to be ready", seconds=60)

    def run(self, *arguments: str, rc: int = 0) -> str:
        """Another command at the same home."""
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """A request as whoever is logged in."""
        answer = self.client.request(method, f"/api/v1{path}", json=body, params=query, headers=self.token)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json()

    def log_in(self, username: str, password: str) -> None:
        """Be somebody from now on."""
        pair = self.ask("POST", "/login", {"username": username, "password": password})
        self.token = {"authorization": f"Bearer {pair['access_token']}"}

    def deliver(self, body: bytes | dict[str, Any]) -> dict[str, int]:
        """Post what Evolution posts."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.client.post(self.hook, content=content, headers={"X-EvoSense-Token": TOKEN})
        assert answer.status_code == 200, answer.text
        result: dict[str, int] = answer.json()
        return result

    def database(self) -> psycopg.Connection[Any]:
        """The embedded database, as its administrator."""
        servers = running(self.home)
        assert servers is not None
        return psycopg.connect(servers.postgres.dsn, autocommit=True)

    def tables(self) -> dict[str, list[str]]:
        """Every row of every read model."""
        with self.database() as conn:
            return contents(conn)

    def settle(self) -> None:
        """Wait until every message is analysed and embedded, and everything is projected and relayed."""

        def quiet() -> bool:
            with self.database() as conn:
                waiting = conn.execute(
                    "SELECT count(*) FROM evosense.messages_message WHERE sentiment IS NULL OR embedding IS NULL"
                ).fetchone()
            ready = self.client.get("/health/ready").json()
            return waiting == (0,) and ready["lag"] == 0

        wait_for(quiet, "all messages to be analysed and embedded", seconds=90)

    def pulls(self) -> int:
        """How many requests for messages are waiting at NATS."""
        servers = running(self.home)
        assert servers is not None
        return asyncio.run(_pulls(servers.nats.url))

    def members(self, role: str = "") -> list[int]:
        """Every process of the installation (or a role's): those whose environment or command line names its home."""
        found = []
        for place in Path("/proc").iterdir():
            if not place.name.isdigit() or int(place.name) == os.getpid():
                continue
            try:
                command = place.joinpath("cmdline").read_bytes()
                said = command + place.joinpath("environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.home) in said and (not role or role.encode() in command.split(b"\0")):
                found.append(int(place.name))
        return found


async def _pulls(url: str) -> int:
    async with jetstream(url) as js:
        return (await js.consumer_info(STREAM, CONSUMER)).num_waiting or 0


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """An installation that is up."""
    parent = Path(tempfile.mkdtemp(prefix="evosense-flow-"))
    parent.chmod(0o755)
    house = House(parent / "home")
    try:
        house.up()
        yield house
    finally:
        for process in house.members():
            os.kill(process, signal.SIGKILL)
        house.client.close()
        shutil.rmtree(parent, ignore_errors=True)


def test_from_the_first_log_in_to_the_last_vector(house: House) -> None:
    house.log_in("admin", house.home.joinpath("secrets", "first-admin").read_text().strip())
    tenant = house.ask("POST", "/tenants", {"name": "Loja do Fluxo", "plan": "pro"})
    manager = {"username": "gerente@fluxo", "password": PASSWORD, "role": "admin", "tenant_id": tenant["id"]}
    house.ask("POST", "/users", manager)
    house.log_in(manager["username"], PASSWORD)
    connection = {"name": "loja-centro", "evo_ws_url": "https://evo.example.com", "evo_token": TOKEN}
    house.hook = httpx.URL(house.ask("POST", "/connections", connection)["webhook_url"]).path

    bodies: list[bytes | dict[str, Any]] = [path.read_bytes() for path in sorted(SAMPLES.glob("*.json"))]
    bodies += list(envelopes(datetime.now(UTC)))[:SENT]
    bodies.append(envelope("Meu CPF é 529.982.247-25 e o e-mail joana.lima@exemplo.com.br", "P1", 1761134400))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(house.deliver, bodies))
    received = sum(result["received"] for result in results)
    assert sum(result["duplicates"] for result in results) >= 2
    assert not sum(result["refused"] for result in results)
    last = max(result["position"] for result in results)
    assert house.ask("GET", "/metrics", wait_for=last)["total_messages"] == received > SENT // 2
    house.settle()

    found = house.ask("GET", "/search", q="minha encomenda não chegou", limit=5)
    assert found
    assert any("cheg" in hit["text"] or "entreg" in hit["text"] or "pedido" in hit["text"].lower() for hit in found)
    metrics = house.ask("GET", "/metrics")
    assert metrics["total_messages"] == received == sum(row["messages"] for row in metrics["emotions"])
    assert -1 < metrics["avg_sentiment"] < 1
    assert metrics["avg_latency_ms"] > 0
    assert {row["author"] for row in metrics["by_author"]} == {"customer", "company"}
    masked = [hit["text"] for hit in house.ask("GET", "/search", q="Meu CPF é 529.982.247-25", limit=1)]
    assert masked == ["Meu CPF é [CPF] e o e-mail [EMAIL]"]
    one = house.ask("GET", "/messages", limit=1)["items"][0]
    assert {entry["type"] for entry in house.ask("GET", f"/messages/{one['id']}/history")} == {
        "messages.MessageReceived",
        "messages.MessageAnalyzed",
        "messages.MessageEmbedded",
    }


def test_status_shows_a_system_without_lag(house: House) -> None:
    def told() -> bool:
        shown = house.run("status")
        assert house.url in shown
        assert "nothing is parked" in shown
        lags = dict(re.findall(r"│ (\w+) +│ +[\d,]+ │ +([\d,]+) │", shown))
        assert {"messages", "metrics", "relay"} <= set(lags)
        return set(lags.values()) == {"0"}

    wait_for(told, "no reader to lag behind", seconds=30)


def test_a_rebuild_gives_every_row_again(house: House) -> None:
    before = house.tables()
    shown = house.run("rebuild")
    after = house.tables()
    assert after == before
    for table in ("messages_message", "messages_embedding", "experiments_inference", "metrics_rollup", "authn_user"):
        assert before[table], table
    assert re.search(rf"messages_message +[│|] +{len(before['messages_message']):,}", shown), shown


def test_a_second_up_on_the_same_home_is_refused(house: House) -> None:
    refused = house.run("up", rc=1)
    assert f"EvoSense is up already at {house.url}: `evosense down` stops it" in refused


def test_nothing_personal_is_in_logs_and_in_nats(house: House) -> None:
    searched = [house.home / "evosense.log", house.home.parent / "up.out"]
    searched += [path for path in house.home.rglob("*") if path.is_file() and _may_be_read_by_others(path, house.home)]
    stores = [path for path in searched if "nats" in path.relative_to(house.home.parent).parts]
    logs = [path for path in searched if path.suffix == ".log"]
    assert any(path.stat().st_size > 10_000 for path in stores), "JetStream keeps its messages somewhere"
    assert {"evosense.log"} < {path.name for path in logs}, "the servers have logs of their own"
    for path in set(searched):
        content = path.read_bytes()
        for what, needle in NEEDLES.items():
            assert needle.encode() not in content, f"{what} is in {path.relative_to(house.home.parent)}"
    # The log of events is sealed as well: in the clear is only what the read models hold.
    with house.database() as conn:
        states = b"".join(bytes(state) for (state,) in conn.execute("SELECT state FROM evosense_log.stored_events"))
    for what, needle in NEEDLES.items():
        assert needle.encode() not in states, what


def _may_be_read_by_others(path: Path, home: Path) -> bool:
    """Everything but the database's own files, which hold the (masked) read models, and the secrets."""
    first = path.relative_to(home).parts[0]
    return first != "secrets" and not (first.startswith("postgres") and path.suffix != ".log")


def test_after_kill_9_of_everything_all_is_there_and_goes_on(house: House) -> None:
    # What was answered with 200 must be there afterwards. The worker goes first, so that it has not taken what comes:
    # a message that it took and never answered is delivered again, but only after a minute (tests/api/test_worker.py).
    received = house.ask("GET", "/metrics")["total_messages"]
    assert house.process is not None
    house.process.send_signal(signal.SIGSTOP)  # or it would start another worker
    for process in house.members("worker"):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: not house.pulls(), "NATS to know that the worker is gone")
    fresh = [envelope(f"No meio da queda número {number}", f"K{number}", 1761134400 + number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(house.deliver, fresh[:30]))
    assert sum(result["received"] for result in done) == 30
    for process in house.members():
        os.kill(process, signal.SIGKILL)
    house.process.wait(20)
    wait_for(lambda: not house.members(), "every process to be gone")

    assert "no system is running" in house.run("status", rc=1)
    assert "nothing is running" in house.run("down")
    house.up()
    # Evolution sends again what it got no answer to, and somebody sends everything twice.
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(house.deliver, fresh))
    assert sum(result["received"] for result in again) == 10
    assert sum(result["duplicates"] for result in again) == 30
    house.settle()
    metrics = house.ask("GET", "/metrics")
    assert metrics["total_messages"] == received + 40
    texts = [row["text"] for row in _all_messages(house)]
    assert len(texts) == received + 40
    assert len([text for text in texts if text.startswith("No meio da queda")]) == 40
    with house.database() as conn:
        doubled = conn.execute(
            "SELECT count(*) FROM (SELECT message_id FROM evosense.experiments_inference WHERE NOT is_shadow "
            "GROUP BY message_id, model_name, prompt_version HAVING count(*) > 1) AS twice"
        ).fetchone()
        missing = conn.execute(
            "SELECT count(*) FROM evosense.messages_message AS m WHERE NOT EXISTS "
            "(SELECT FROM evosense.experiments_inference AS i WHERE i.message_id = m.id)"
        ).fetchone()
    assert (doubled, missing) == ((0,), (0,))
    before = house.tables()
    house.run("rebuild")
    assert house.tables() == before


def _all_messages(house: House) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = house.ask("GET", "/messages", **query)
        rows += page["items"]
        if page["next"] is None:
            return rows
        query["before"] = page["next"]


def test_down_stops_it_all(house: House) -> None:
    assert "stopped" in house.run("down")
    assert house.process is not None
    assert house.process.wait(20) == 0
    wait_for(lambda: not house.members(), "every process to end")
    assert not (house.home / "up.json").exists()
    with pytest.raises(httpx.ConnectError):
        house.client.get("/health/live")
    assert "nothing is running" in house.run("down")
