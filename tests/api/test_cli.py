"""The command line as a person meets it: as a process, with an environment."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from adapters.embedded import PostgresServer
from adapters.migrations import schema_state
from adapters.settings import Settings
from adapters.vault import MasterKey
from api.cli.main import app
from api.wiring import write_side
from tests.support.systems import at_port, contents, fresh_system
from tests.support.world import World, record

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("up", "down", "demo", "status", "migrate", "admin", "rebuild", "history"),
    *("rollback", "audit", "replay", "shards", "vector", "reembed", "backfill", "connections", "models"),
    *("api", "projector", "relay", "worker", "listener", "sweep", "healthcheck"),
)


def evosense(*arguments: str, env: dict[str, str] | None = None, rc: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVOSENSE_")}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == rc, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    """The one sentence on standard error with which a command fails."""
    done = evosense(*arguments, env=env, rc=1)
    assert not done.stdout
    # A role may have logged what it did until then.
    lines = [line for line in done.stderr.splitlines() if not line.startswith('{"')]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def environment(settings: Settings) -> dict[str, str]:
    """The settings' own variables."""
    return {name: value for name, value in settings.environment().items() if name.startswith("EVOSENSE_")}


@pytest.fixture(scope="module")
def env(settings: Settings, nowhere: Path) -> dict[str, str]:
    """The environment of a role over the module's database."""
    return {**environment(settings), "EVOSENSE_HOME": str(nowhere)}


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Path]:
    """A home in which nothing was ever started, below a directory that the servers' user could reach."""
    parent = Path(tempfile.mkdtemp(prefix="evosense-cli-"))
    parent.chmod(0o755)
    yield parent / "home"
    shutil.rmtree(parent, ignore_errors=True)


def test_every_command_can_be_followed() -> None:
    overview = evosense("--help").stdout
    assert evosense("--version").stdout.startswith("evosense 0.")
    # The others within this process: each start of Python takes a second.
    wide = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"})
    helps = {name: wide.invoke(app, [name, "--help"], prog_name="evosense").stdout for name in COMMANDS}
    for name, text in helps.items():
        assert re.search(rf"^│ {name} +\S", overview, re.MULTILINE), f"{name} is not in the overview"
        assert re.search(rf"Usage: evosense {name} \[OPTIONS\]", text), name
        assert "--supervised" not in text
    listed = set(re.findall(r"^│ ([a-z][a-z-]*) +[A-Z]", overview, re.MULTILINE))
    assert listed >= set(COMMANDS)
    assert "EVOSENSE_HOME" in helps["up"]


@pytest.mark.parametrize("home", ["/dev/null/home", "/nowhere/at/all"])
def test_where_nothing_can_be_nothing_runs(home: str) -> None:
    assert evosense("down", env={"EVOSENSE_HOME": home}).stdout == "nothing is running\n"


def test_an_unknown_command_is_explained() -> None:
    assert "No such command 'start'" in evosense("start", rc=2).stderr


def test_wrong_settings(env: dict[str, str], nowhere: Path) -> None:
    home = {"EVOSENSE_HOME": str(nowhere)}
    dsn = {name: env[name] for name in ("EVOSENSE_DATABASE_URL", "EVOSENSE_HOME")}
    gone = {**env, "EVOSENSE_DATABASE_URL": at_port(env["EVOSENSE_DATABASE_URL"], _free_port())}
    wrong = MasterKey.generate_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases: list[tuple[str, dict[str, str], str]] = [
            ("status", home, "start it with `evosense up`"),
            ("monitor", home, "there is no installation below"),
            ("projector", home, "EVOSENSE_DATABASE_URL is not set"),
            ("admin", dsn, "EVOSENSE_ADMIN_PASSWORD"),
            ("admin", {**dsn, "EVOSENSE_ADMIN_PASSWORD": "uma-senha-comprida"}, "no master key"),
            ("projector", {**dsn, "EVOSENSE_MASTER_KEY": "abc"}, "32"),
            ("projector", {**env, "EVOSENSE_MASTER_KEY": wrong}, "master key"),
            ("rebuild", {**env, "EVOSENSE_MASTER_KEY": wrong}, "master key"),
            ("rebuild", gone, "Connection refused"),
            ("relay", env, "EVOSENSE_NATS_URL"),
            ("status", {**env, "EVOSENSE_API_PORT": "many"}, "EVOSENSE_API_PORT"),
            ("up", env, "EVOSENSE_DATABASE_URL is set"),
            ("up", {**home, "EVOSENSE_API_PORT": port}, port),
            ("api", {**env, "EVOSENSE_API_PORT": port}, "is the port taken?"),
            ("healthcheck", {**env, "EVOSENSE_API_PORT": str(_free_port())}, "not ready"),
            ("up", {"EVOSENSE_HOME": "/dev/null/home"}, "EVOSENSE_HOME"),
        ]
        # A log of another master key: with none in it, any key would do.
        side = write_side(Settings(**{name.removeprefix("EVOSENSE_").lower(): value for name, value in env.items()}))
        record(side, World(1, tenants=1).births())
        side.close()
        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(lambda case: refused(case[0], env=case[1]), cases))
    for (command, given, expected), sentence in zip(cases, told, strict=True):
        assert expected in sentence, (command, sentence)
        secrets = [given.get("EVOSENSE_MASTER_KEY"), wrong, "evosense-test", "uma-senha-comprida"]
        assert not any(secret in sentence for secret in secrets if secret), sentence
    assert not (nowhere / "postgres").exists(), "what fails for its settings has started nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_migrate_twice_and_the_first_admin(postgres: PostgresServer) -> None:
    with fresh_system(postgres) as settings:
        env = {**environment(settings), "EVOSENSE_HOME": "/nowhere"}
        assert "nothing to do" in evosense("migrate", env=env).stdout
        password = {**env, "EVOSENSE_ADMIN_PASSWORD": "uma-senha-comprida"}
        assert "10 to 128" in refused("admin", env={**env, "EVOSENSE_ADMIN_PASSWORD": "curta"})
        assert "was registered" in evosense("admin", env=password).stdout
        assert "already" in evosense("admin", env=password).stdout
        shown = evosense("status", env=env).stdout
        head = write_head(settings)
        assert f"the log stands at position {head}" in shown
        assert re.search(rf"│ tenancy +│ +0 │ +{head} │", shown), shown
        rebuilt = evosense("rebuild", env=env).stdout
        assert f"{head} events in" in rebuilt
        assert re.search(r"authn_user\W+1\W", rebuilt)
        assert re.search(rf"│ tenancy +│ +{head} │ +0 │", evosense("status", env=env).stdout)


def write_head(settings: Settings) -> int:
    side = write_side(settings)
    try:
        return side.log.head()
    finally:
        side.close()


def test_rebuild_gives_the_same_rows_again(postgres: PostgresServer) -> None:
    with fresh_system(postgres) as settings:
        side = write_side(settings)
        world = World(3)
        record(side, world.births())
        record(side, world.happen(200))
        side.close()
        evosense("rebuild", env=environment(settings))
        with psycopg.connect(settings.admin_dsn) as conn:
            before = contents(conn)
        evosense("rebuild", env=environment(settings))
        with psycopg.connect(settings.admin_dsn) as conn:
            assert contents(conn) == before
        assert before["messages_message"]


def test_a_newer_schema_is_refused_by_every_command(postgres: PostgresServer) -> None:
    with fresh_system(postgres) as settings:
        _, latest = schema_state(settings.runtime_dsn)
        with psycopg.connect(settings.admin_dsn, autocommit=True) as conn:
            columns = conn.execute("SELECT * FROM evosense_ops.schema_migrations ORDER BY version DESC LIMIT 1")
            assert columns.description is not None
            names = ", ".join(column.name for column in columns.description if column.name != "version")
            newer = (
                f"INSERT INTO evosense_ops.schema_migrations (version, {names}) SELECT {latest + 7}, {names} "  # noqa: S608
                "FROM evosense_ops.schema_migrations ORDER BY version DESC LIMIT 1"
            )
            conn.execute(newer.encode())
        env = {**environment(settings), "EVOSENSE_NATS_URL": "nats://127.0.0.1:1", "EVOSENSE_ADMIN_PASSWORD": "x" * 12}
        commands = ("migrate", "rebuild", "admin", "api", "projector", "relay", "worker")
        with ThreadPoolExecutor(2) as pool:
            for sentence in pool.map(lambda name: refused(name, env=env), commands):
                assert str(latest + 7) in sentence
                assert "newer" in sentence
        assert str(latest + 7) in evosense("status", env=env).stdout
