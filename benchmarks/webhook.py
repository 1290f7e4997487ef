"""Messages per second through the webhook to the read model, beside a plain INSERT of the same rows.

`make bench`. Ours: HTTP, authentication, parsing, masking, hashing, sealing, one event in the log, and the row in
`messages_message`, waited for by position. Theirs: one autocommit INSERT a row into a table with the documented columns
and indexes, by a client that has the row ready. Both are synchronous on disk, in one run, in turns; the client's own
work is within both figures, on the same cores.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import uuid4

import psycopg

from adapters.settings import Settings
from api.connections import TOKEN_PURPOSE
from api.services import now
from api.wiring import WriteSide, write_side
from benchmarks.common import console, installation, show
from domain.connections import RegisterConnection, connection, connection_id
from domain.tenancy import RegisterTenant, tenant
from sql import queries

ROUNDS: Final = 3
MESSAGES: Final = 3000
HISTORY: Final = 12000
IN_ONE_BODY: Final = 1000
CALLERS: Final = 8
_PORT: Final = 18743
_TOKEN: Final = "benchmark-token-benchmark-token"
_SQL: Final = Path(__file__).parent / "sql"
_ENGINE: Final = queries("engine")
_SENTENCES: Final = (
    "Bom dia! Meu pedido {n} ainda não chegou, podem verificar?",
    "Obrigada pelo atendimento, chegou tudo certinho",
    "Quanto custa o frete para Campinas? Pedido {n}",
    "A caixa veio amassada e o produto {n} não liga",
)

Row = tuple[Any, ...]


def main() -> None:
    """Run all and print."""
    results: dict[str, list[float]] = {}
    with installation() as settings:
        write = write_side(settings)
        hook = _prepare(write)
        processes = [_role(role, settings) for role in ("api", "projector")]
        try:
            _until_up()
            for turn in range(ROUNDS):
                for name, measure in _contenders(settings, hook, turn).items():
                    console.print(f"round {turn + 1} of {ROUNDS}: {name}")
                    results.setdefault(name, []).append(measure())
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)
            write.close()
    one, eight = results["INSERT, 1 connection"], results[f"INSERT, {CALLERS} connections"]
    ours, history = results[f"webhook, {CALLERS} callers"], results[f"history, {IN_ONE_BODY:,} a body"]
    ratios = {
        f"webhook / INSERT with {CALLERS} connections": median(ours) / median(eight),
        "webhook / INSERT with 1 connection": median(ours) / median(one),
        f"history / INSERT with {CALLERS} connections": median(history) / median(eight),
    }
    show("webhook to read model", "messages/s", results, ratios, messages=MESSAGES, history=HISTORY)


def _contenders(settings: Settings, hook: str, turn: int) -> dict[str, Callable[[], float]]:
    return {
        "INSERT, 1 connection": lambda: _insert(settings, 1),
        f"INSERT, {CALLERS} connections": lambda: _insert(settings, CALLERS),
        f"webhook, {CALLERS} callers": lambda: _webhook(settings, hook, _single(turn)),
        f"history, {IN_ONE_BODY:,} a body": lambda: _webhook(settings, hook, _history(turn)),
    }


# ---------------------------------------------------------------------------------------------------- ours


def _prepare(write: WriteSide) -> str:
    tenant_id = uuid4()
    write.vault.create(tenant_id)
    write.commands.handle(tenant(tenant_id), RegisterTenant(at=now(), name="Bench"), new=True)
    identifier = connection_id(tenant_id, "bench")
    command = RegisterConnection(
        at=now(),
        tenant_id=tenant_id,
        name="bench",
        evo_ws_url="https://evolution.example.com",
        sealed_token=write.vault.seal_text(tenant_id, _TOKEN, TOKEN_PURPOSE),
        company_sender=write.vault.key(tenant_id).pseudonym(f"company:{identifier}"),
    )
    write.commands.handle(connection(identifier), command, new=True)
    return f"/webhooks/evolution/{identifier}"


def _message(turn: int, number: int, kind: str) -> dict[str, Any]:
    sent = datetime.now(UTC) - timedelta(hours=1, seconds=number)
    return {
        "key": {
            "remoteJid": f"55119{number % 500:08d}@s.whatsapp.net",
            "fromMe": False,
            "id": f"{kind}{turn}X{number}",
        },
        "message": {"conversation": _SENTENCES[number % len(_SENTENCES)].format(n=40000 + number)},
        "messageType": "conversation",
        "messageTimestamp": int(sent.timestamp()),
    }


def _single(turn: int) -> list[bytes]:
    return [
        json.dumps({"event": "messages.upsert", "instance": "bench", "data": _message(turn, n, "S")}).encode()
        for n in range(MESSAGES)
    ]


def _history(turn: int) -> list[bytes]:
    return [
        json.dumps(
            {
                "event": "messages.set",
                "instance": "bench",
                "data": [_message(turn, n, "H") for n in range(first, first + IN_ONE_BODY)],
            }
        ).encode()
        for first in range(0, HISTORY, IN_ONE_BODY)
    ]


def _webhook(settings: Settings, hook: str, bodies: Sequence[bytes]) -> float:
    reached: list[int] = []
    stored: list[int] = []
    waiting = iter(bodies)
    lock = threading.Lock()

    def caller() -> None:
        client = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=120)
        headers = {"Content-Type": "application/json", "X-EvoSense-Token": _TOKEN}
        for body in _shared(waiting, lock):
            client.request("POST", hook, body, headers)
            answer = client.getresponse()
            result = json.loads(answer.read())
            if answer.status != 200:
                raise RuntimeError(f"the webhook answered {answer.status}: {result}")
            reached.append(result["position"])
            stored.append(result["received"])
        client.close()

    started = time.perf_counter()
    _in_threads(caller, CALLERS)
    _until_projected(settings, max(reached))
    return sum(stored) / (time.perf_counter() - started)


def _until_projected(settings: Settings, position: int) -> None:
    with psycopg.connect(settings.admin_dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn:
        conn.execute("LISTEN evosense_projected")
        while (_ENGINE.projected_position(conn, projections=["messages", "metrics"])["position"] or 0) < position:
            for _ in conn.notifies(timeout=0.5, stop_after=1):
                pass


def _role(role: str, settings: Settings) -> subprocess.Popen[bytes]:
    environment = {**settings.environment(), "EVOSENSE_API_PORT": str(_PORT), "EVOSENSE_LOG_LEVEL": "warning"}
    return subprocess.Popen([sys.executable, "-m", "api.cli", role], env=environment)


def _until_up() -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=2)
            client.request("GET", "/health/ready")
            if client.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the API did not start")


# ---------------------------------------------------------------------------------------------------- theirs


def _insert(settings: Settings, connections: int) -> float:
    """Rows a second into a table like the documented one, its indexes included; it is made anew each time."""
    with psycopg.connect(settings.admin_dsn, autocommit=True) as conn:
        conn.execute((_SQL / "documented_table.sql").read_bytes())
    rows = iter(_rows())
    lock = threading.Lock()
    statement = (_SQL / "insert_message.sql").read_bytes()

    def caller() -> None:
        with psycopg.connect(settings.admin_dsn, autocommit=True) as conn:
            for row in _shared(rows, lock):
                conn.execute(statement, row, prepare=True)

    started = time.perf_counter()
    _in_threads(caller, connections)
    return MESSAGES / (time.perf_counter() - started)


def _rows() -> Iterator[Row]:
    tenant_id = uuid4()
    for number in range(MESSAGES):
        chat = f"{number % 500:064d}"
        sentence = _SENTENCES[number % len(_SENTENCES)].format(n=40000 + number)
        yield (number, tenant_id, chat, chat, sentence, datetime.now(UTC) - timedelta(seconds=number))


# ---------------------------------------------------------------------------------------------------- both


def _shared(items: Iterator[Any], lock: threading.Lock) -> Iterator[Any]:
    while True:
        with lock:
            item = next(items, None)
        if item is None:
            return
        yield item


def _in_threads(target: Callable[[], None], number: int) -> None:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            target()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    main()
