"""A burst: 2,000 webhooks a second for 30 s, a tenth of them duplicates, and PostgreSQL restarted in the middle."""

import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from adapters.embedded import start_postgres
from adapters.settings import Settings
from adapters.vault import MasterKey
from api.connections import TOKEN_PURPOSE
from api.wiring import WriteSide, write_side
from domain.connections import RegisterConnection, connection, connection_id
from domain.messages import message_id
from domain.tenancy import RegisterTenant, tenant
from tests.conftest import RUNTIME
from tests.support.burst import Offered, offer, post
from tests.support.http import TOKEN, envelope, utc_now
from tests.support.systems import create_migrated, wait_for

RATE = 2_000
SECONDS = 30
DUPLICATES = 0.1
CHATS = 500
#: Rounds of retries: Evolution makes ten.
ROUNDS = 10
AT_ONCE = 64
HOST = "127.0.0.1"


def test_a_burst_over_a_restart_of_postgresql_loses_and_doubles_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with tempfile.TemporaryDirectory(prefix="evosense-burst-") as directory:
        home = Path(directory)
        home.chmod(0o755)
        server = start_postgres(home)
        try:
            create_migrated(server, "burst")
            settings = Settings(
                database_url=SecretStr(server.dsn_for("burst", *RUNTIME)),
                admin_database_url=SecretStr(server.dsn_for("burst")),
                master_key=SecretStr(MasterKey.generate_text()),
                api_port=_free_port(),
            )
            write = write_side(settings)
            tenant_id, source = _connection(write)
            numbers, requests = _load(f"/webhooks/evolution/{source}", settings.api_port)
            with _api(settings):
                restarted = threading.Event()

                def restart() -> None:
                    # In a thread, as the load must not wait. The supervisor's own signal handlers are set already.
                    time.sleep(SECONDS / 2)
                    nonlocal server
                    server.stop()
                    time.sleep(1)
                    server = start_postgres(home)
                    restarted.set()

                breaker = threading.Thread(target=restart)
                breaker.start()
                burst = asyncio.run(offer(HOST, settings.api_port, requests, rate=RATE))
                breaker.join()
                assert restarted.is_set()

                known = _streams(write, tenant_id, source, numbers)
                accepted = {number for number, status in zip(numbers, burst.statuses, strict=True) if status == 200}
                found = write.log.births(list(known.values()))
                lost = [number for number in accepted if known[number] not in found]
                assert not lost, f"{len(lost)} messages were answered 2xx and are not in the log"
                # Nothing was cut, and no 500: what was not taken was asked to come again.
                assert set(burst.by_status) <= {200, 429, 503}, burst.by_status
                assert accepted

                rest = [r for r, status in zip(requests, burst.statuses, strict=True) if status != 200]
                rounds = 0
                while rest and rounds < ROUNDS:
                    # As fast as they are taken, and so few at once that all are let in: Evolution waits between tries.
                    again = asyncio.run(offer(HOST, settings.api_port, rest, rate=1e6, connections=AT_ONCE))
                    rest = [r for r, status in zip(rest, again.statuses, strict=True) if status != 200]
                    rounds += 1
                assert not rest, f"{len(rest)} webhooks did not succeed in {ROUNDS} rounds"
            recorded = Counter(_recorded(write, tenant_id))
            assert set(recorded) == set(known.values())
            assert set(recorded.values()) == {1}
            write.close()
        finally:
            server.stop()
    with capsys.disabled():
        _tell(burst, len(known), rounds)


def _load(path: str, port: int) -> tuple[list[int], list[bytes]]:
    """The numbers of the messages in the order in which they are offered, and the calls that offer them."""
    chance = random.Random(20261127)  # noqa: S311 - a load, not a secret
    total = RATE * SECONDS
    numbers: list[int] = []
    fresh = 0
    for _ in range(total):
        if numbers and chance.random() < DUPLICATES:
            # Mostly of what is still under way: that is when doubling is easiest.
            numbers.append(numbers[-min(len(numbers), 1 + int(chance.expovariate(1 / 200)))])
        else:
            numbers.append(fresh)
            fresh += 1
    at = int(time.time())
    calls: dict[int, bytes] = {}
    for number in range(fresh):
        body = envelope(f"mensagem {number}", f"3EB0{number:08X}", at, phone=_phone(number))
        calls[number] = post(path, f"{HOST}:{port}", TOKEN, json.dumps(body).encode())
    return numbers, [calls[number] for number in numbers]


def _phone(number: int) -> str:
    return f"55119{80000000 + number % CHATS}"


def _streams(write: WriteSide, tenant_id: UUID, source: UUID, numbers: list[int]) -> dict[int, UUID]:
    """The stream that each message has to be in."""
    key = write.vault.key(tenant_id)
    chats = [key.pseudonym(_phone(number)) for number in range(CHATS)]
    return {n: message_id(source, chats[n % CHATS], False, f"3EB0{n:08X}") for n in set(numbers)}


def _recorded(write: WriteSide, tenant_id: UUID) -> Iterator[UUID]:
    with write.datastore.get_connection() as conn:
        for row in conn.execute(
            "SELECT originator_id FROM evosense_log.stored_events "
            "WHERE tenant_id = %s AND topic LIKE 'messages.MessageReceived:%%'",
            (tenant_id,),
        ):
            yield row["originator_id"]


def _connection(write: WriteSide) -> tuple[UUID, UUID]:
    tenant_id = UUID(int=20261127)
    write.vault.create(tenant_id)
    write.commands.handle(tenant(tenant_id), RegisterTenant(at=utc_now(), name="Loja Burst"), new=True)
    identifier = connection_id(tenant_id, "loja-centro")
    command = RegisterConnection(
        at=utc_now(),
        tenant_id=tenant_id,
        name="loja-centro",
        evo_ws_url="https://evo.example.com",
        sealed_token=write.vault.seal_text(tenant_id, TOKEN, TOKEN_PURPOSE),
        company_sender=write.vault.key(tenant_id).pseudonym(f"company:{identifier}"),
    )
    write.commands.handle(connection(identifier), command, new=True)
    return tenant_id, identifier


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _api(settings: Settings) -> Iterator[None]:
    environment = {**settings.environment(), "EVOSENSE_LOG_LEVEL": "error"}
    process = subprocess.Popen([sys.executable, "-m", "api.cli", "api"], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: process.poll() is not None or _ready(settings), "the API answers", seconds=60)
        assert process.poll() is None
        yield
        assert process.poll() is None, "the API has ended"
    finally:
        process.terminate()
        process.wait(30)


def _ready(settings: Settings) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{settings.api_port}/health/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _tell(burst: Offered, messages: int, rounds: int) -> None:
    answers = ", ".join(f"{number:,} × {status or 'cut'}" for status, number in sorted(burst.by_status.items()))
    sys.stdout.write(
        f"\nburst: {len(burst.statuses):,} webhooks at {burst.rate:,.0f}/s, {messages:,} messages; {answers}; "
        f"median answer {median(burst.latencies) * 1000:,.0f} ms; all in the log after {rounds} rounds of retries\n"
    )
