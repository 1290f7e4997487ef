"""The very commands of compose.yaml, as separate processes in the environment that compose gives them.

PostgreSQL is the embedded one, and NATS runs on the configuration that stands in compose.yaml. Of addresses, host,
port, administrator and the database's name are replaced, of files the directory; nothing else.
"""

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from adapters.vault import MasterKey
from api.cli.up import ROLES
from api.liveness import NotWorking, SilentRole, check_role
from api.wiring import write_side
from domain.tenancy import RegisterTenant, tenant
from tests.support.deployment import compose, environment_of, interpolate, services

SILENT: tuple[SilentRole, ...] = ("projector", "relay", "worker")
#: Where the commands of this environment are.
PROGRAMS = Path(sys.executable).parent
ADMIN_PASSWORD = "uma-senha-de-teste"


@dataclass
class Containers:
    """Starts what compose would start. `directory` is every process's working directory, and stays empty."""

    directory: Path
    replacements: dict[str, str]
    given: dict[str, str]

    def environment(self, service: str) -> dict[str, str]:
        """Nothing of this process's own environment, as in a container: no locale and no home either."""
        found = {name: self.here(value) for name, value in environment_of(service, self.given).items()}
        return {**found, "PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": "/nonexistent"}

    def here(self, text: str) -> str:
        for theirs, own in self.replacements.items():
            text = text.replace(theirs, own)
        return text

    def start(self, service: str, command: list[str], **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(PROGRAMS / "evosense"), *command],
            cwd=self.directory,
            env={**self.environment(service), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def role(self, service: str) -> "subprocess.Popen[str]":
        return self.start(service, services()[service]["command"])

    def checks(self, *names: str) -> dict[str, tuple[int, str]]:
        """Run the services' health checks at once: exit code and output of each."""
        running = {name: self.start(name, services()[name]["healthcheck"]["test"][2:]) for name in names}
        outputs = {name: check.communicate(timeout=20)[0] for name, check in running.items()}
        return {name: (check.returncode, outputs[name]) for name, check in running.items()}


@pytest.fixture(scope="module")
def nats_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """NATS on the configuration of compose.yaml; gives its addresses by what they are for."""
    directory = tmp_path_factory.mktemp("nats")
    text = interpolate(compose()["configs"]["nats"]["content"], GIVEN)
    for theirs, own in {
        "0.0.0.0:4222": "127.0.0.1:-1",
        "127.0.0.1:8222": "127.0.0.1:-1",
        "/data": str(directory),
    }.items():
        assert theirs in text
        text = text.replace(theirs, own)
    config = directory / "evosense.conf"
    config.write_text(text, "utf-8")
    flag = services()["nats"]["command"][0]
    log = (directory / "nats.log").open("wb")
    command = [str(PROGRAMS / "nats-server"), flag, str(config), "--ports_file_dir", str(directory)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not (ready := _ports(directory)):
            assert server.poll() is None, (directory / "nats.log").read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield ready
    finally:
        server.terminate()
        server.wait(20)
        log.close()


GIVEN = {name: secrets.token_hex(24) for name in ("POSTGRES_PASSWORD", "RUNTIME_PASSWORD", "NATS_PASSWORD")}


@pytest.fixture(scope="module")
def containers(
    postgres: PostgresServer, database: str, nats_ports: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Containers:
    """Compose's environment over the tests' servers."""
    key = tmp_path_factory.mktemp("secrets") / "master.key"
    key.write_text(MasterKey.generate_text() + "\n", "ascii")
    administrator = conninfo_to_dict(postgres.dsn)
    name = str(conninfo_to_dict(database)["dbname"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    given = {**GIVEN, "POSTGRES_PASSWORD": str(administrator["password"]), "MASTER_KEY_FILE": str(key)}
    replacements = {
        "@postgres:5432/evosense": f"@127.0.0.1:{administrator['port']}/{name}",
        "//postgres:": f"//{administrator['user']}:",
        "@nats:4222": f"@{nats_ports['nats']}",
        "/run/secrets/master_key": str(key),
        "8080": port,
        # Every address of a container is not every address of this machine.
        str(IPv4Address(0)): "127.0.0.1",
    }
    return Containers(tmp_path_factory.mktemp("work"), replacements, given)


def test_nats_answers_its_health_check_and_wants_the_password(nats_ports: dict[str, str]) -> None:
    url = services()["nats"]["healthcheck"]["test"][-1].replace("127.0.0.1:8222", nats_ports["monitoring"])
    assert httpx.get(url).raise_for_status().json() == {"status": "ok"}
    host, port = nats_ports["nats"].split(":")
    with socket.create_connection((host, int(port)), timeout=5) as link, link.makefile("rwb") as stream:
        information = json.loads(stream.readline().removeprefix(b"INFO "))
        assert information["jetstream"]
        assert information["auth_required"]
        stream.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        stream.flush()
        assert stream.readline().startswith(b"-ERR 'Authorization")


def test_the_roles_of_compose_work_together(containers: Containers) -> None:
    assert containers.environment("api")["PYTHONUTF8"] == "1"
    _refused_before_migrate(containers)
    for _ in range(2):  # compose runs it at every start
        migrate = containers.role("migrate")
        assert "schema version" in migrate.communicate(timeout=60)[0]
        assert migrate.returncode == 0
    admin = containers.start("api", ["admin"], EVOSENSE_ADMIN_PASSWORD=ADMIN_PASSWORD)
    assert "was registered" in admin.communicate(timeout=30)[0]

    before = containers.checks(*ROLES)
    assert {name: code for name, (code, _) in before.items()} == dict.fromkeys(ROLES, 1)
    assert "not ready" in before["api"][1]
    assert all("has not begun" in before[name][1] for name in (*SILENT, "listener"))
    assert not any("Traceback" in output for _, output in before.values())

    running = {role: containers.role(role) for role in ROLES}
    try:
        _until_healthy(containers, running)
        _served(containers)
        started = time.monotonic()
        for process in running.values():
            process.terminate()
        outputs = {role: process.communicate(timeout=10)[0] for role, process in running.items()}
        assert time.monotonic() - started < 10
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert {role: process.returncode for role, process in running.items()} == dict.fromkeys(ROLES, 0), outputs
    for output in outputs.values():
        assert "Traceback" not in output
        assert not any(secret in output for secret in containers.given.values())
    assert list(containers.directory.iterdir()) == [], "a container's file system is read-only"
    _noticed_when_gone(containers)


def _refused_before_migrate(containers: Containers) -> None:
    relay = containers.role("relay")
    output = relay.communicate(timeout=30)[0]
    assert relay.returncode == 1
    # One sentence: the log-in is made by migrate.
    assert output.startswith("error: the database can't be asked for its schema version")
    assert "Traceback" not in output


def _until_healthy(containers: Containers, running: dict[str, "subprocess.Popen[str]"]) -> None:
    waiting = dict.fromkeys(running, "not asked yet")
    deadline = time.monotonic() + 40
    while waiting:
        dead = [role for role, process in running.items() if process.poll() is not None]
        assert not dead, {role: running[role].communicate()[0] for role in dead}
        assert time.monotonic() < deadline, waiting
        waiting = {name: output for name, (code, output) in containers.checks(*waiting).items() if code}


def _served(containers: Containers) -> None:
    """The API answers with what the projector has written."""
    address = f"http://127.0.0.1:{containers.here('8080')}"
    answer = httpx.post(f"{address}/api/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD}, timeout=10)
    assert answer.raise_for_status().json()["access_token"]
    deadline = time.monotonic() + 10
    while True:
        ready = httpx.get(f"{address}/health/ready", timeout=10).raise_for_status().json()
        if ready["head"] and not ready["lag"]:
            return
        assert time.monotonic() < deadline, ready
        time.sleep(0.05)


def _noticed_when_gone(containers: Containers) -> None:
    """Nobody works any more: the checks say so, of projector and relay as soon as there is work."""
    environment = containers.environment("worker")
    settings = Settings(
        database_url=SecretStr(environment["EVOSENSE_DATABASE_URL"]),
        nats_url=SecretStr(environment["EVOSENSE_NATS_URL"]),
        master_key_file=Path(environment["EVOSENSE_MASTER_KEY_FILE"]),
    )
    for idle in ("projector", "relay"):
        check_role(settings, idle, patience=0.5)
    write = write_side(settings)
    new = uuid4()
    write.vault.create(new)
    command = RegisterTenant(at=datetime.now(UTC), name="Padaria Aurora", plan="pro")
    write.commands.handle(tenant(new), command, new=True)
    write.close()
    with pytest.raises(NotWorking, match="the listener has not begun"):
        check_role(settings, "listener", patience=0.5)
    for role in SILENT:
        with pytest.raises(NotWorking, match=f"the {role} stands still: it has been at .* for 0.5 s"):
            check_role(settings, role, patience=0.5)
    nowhere = settings.model_copy(update={"nats_url": SecretStr("nats://127.0.0.1:1")})
    for role in ("relay", "worker"):
        with pytest.raises(NotWorking, match="NATS does not answer"):
            check_role(nowhere, role, patience=0.5)


def _ports(directory: Path) -> dict[str, str]:
    """The addresses that NATS has written down, as host:port; empty while it has not."""
    for file in directory.glob("*.ports"):
        try:
            written = json.loads(file.read_text("utf-8"))
        except ValueError:
            return {}  # being written
        return {kind: urls[0].partition("://")[2] for kind, urls in written.items() if urls}
    return {}
