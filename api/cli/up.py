"""`evosense up`: the whole system on embedded servers, until Ctrl-C."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.error import URLError

from rich.panel import Panel
from rich.table import Table

from adapters.migrations import migrate
from adapters.settings import Settings
from api.accounts import ADMIN, ensure_first_admin
from api.cli.direct import directly
from api.cli.installation import Installation
from api.cli.screen import CommandError, console, errors
from api.model_catalogue import Catalogue, probe_at_start
from api.wiring import write_side

ROLES: Final = ("api", "projector", "relay", "worker", "listener")
#: What runs besides, by name: the command.
_KEEPERS: Final = {"vector index": ("vector", "maintain"), "sweeper": ("sweep",)}
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0


def up() -> None:
    """Run the whole system on embedded servers until Ctrl-C.

    PostgreSQL, NATS and all roles; everything below [bold]EVOSENSE_HOME[/] (default .evosense). Prints where it is
    reached and the first admin's log-in.
    """
    settings = Settings.load()
    if settings.database_url is not None:
        raise CommandError(
            "EVOSENSE_DATABASE_URL is set, and `up` brings a database of its own: unset it, or run the roles "
            "(evosense api, projector, relay, worker, listener) against the one that it names"
        )
    labels = Catalogue.of(settings).labels()
    installation = Installation.of(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with installation.only_one(), console.status("starting") as line:
        port = _port(settings)
        # The roles do so, too; here it is said where it is read.
        asyncio.run(probe_at_start(settings))
        postgres, nats = installation.start_servers()
        with postgres, nats:
            ready = installation.settings_for(settings, postgres, nats)
            ready = ready.model_copy(update={"api_port": port})
            migrate(ready.admin_dsn, runtime_dsn=ready.runtime_dsn, on_step=line.update)
            write = write_side(ready)
            ensure_first_admin(write, installation.admin_password())
            write.close()
            line.update("starting the roles")
            with _children(ready, installation) as dead:
                address = f"http://{ready.api_host}:{ready.api_port}"
                _until_ready(address, dead, stop, installation)
                installation.write_state(
                    {"pid": os.getpid(), "api": address, "home": str(installation.home), "models": labels}
                )
                line.stop()
                if not stop.is_set():
                    _welcome(address, installation)
                _watch(dead, stop)
                errors.print("stopping")


def _port(settings: Settings) -> int:
    """The port that was asked for; where nobody asked and the default is taken, a free one."""
    asked = settings.api_port if "api_port" in settings.model_fields_set else 0
    for port in (asked,) if asked else (settings.api_port, 0):
        with socket.socket() as probe:
            # As uvicorn binds: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.api_host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    if asked:
        # Found out before anything is started: whoever listens there would be taken for our own API.
        raise CommandError(
            f"{settings.api_host}:{asked} can't be listened on: set EVOSENSE_API_PORT to a port that nothing uses"
        )
    raise CommandError(
        f"no port can be opened on {settings.api_host}: set EVOSENSE_API_HOST to an address of this machine"
    )


@contextmanager
def _children(settings: Settings, installation: Installation) -> Iterator[Callable[[], list[str]]]:
    """The roles as processes of their own; gives a function that restarts those that died and names them."""
    environment = settings.environment()

    with installation.log_file.open("ab") as log:

        def start(role: str) -> subprocess.Popen[bytes]:
            # The child watches its standard input: when this process is gone, however it went, the child goes too.
            command = [sys.executable, "-m", "api.cli", *_KEEPERS.get(role, (role,)), "--supervised"]
            return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)

        processes = {role: start(role) for role in (*ROLES, *_KEEPERS)}

        def restart_dead() -> list[str]:
            dead = [role for role, process in processes.items() if process.poll() is not None]
            for role in dead:
                processes[role] = start(role)
            return dead

        try:
            yield restart_dead
        finally:
            for process in processes.values():
                process.terminate()
            deadline = time.monotonic() + _STOP_SECONDS
            for process in processes.values():
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()


def _until_ready(
    address: str, restart_dead: Callable[[], list[str]], stop: threading.Event, installation: Installation
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not stop.is_set():
        try:
            with directly(f"{address}/health/ready", timeout=2):
                return
        except (URLError, OSError):
            pass
        dead = restart_dead()
        if dead and time.monotonic() > deadline - _START_SECONDS / 2:
            raise CommandError(f"{', '.join(dead)} can't start: {installation.log_file} says why")
        if time.monotonic() > deadline:
            raise CommandError(f"the API did not answer within {_START_SECONDS:g} s: {installation.log_file} says why")
        stop.wait(0.2)


def _watch(restart_dead: Callable[[], list[str]], stop: threading.Event) -> None:
    """Start again what dies, with growing pauses, until told to stop."""
    pause = 1.0
    while not stop.wait(pause):
        dead = restart_dead()
        for role in dead:
            errors.print(f"[yellow]{role} ended and was started again[/]")
        pause = min(pause * 2, 30.0) if dead else 1.0


def _welcome(address: str, installation: Installation) -> None:
    console.print(Panel(addresses(address, installation), title="EvoSense is up", border_style="green", expand=False))


def addresses(address: str, installation: Installation, *, more: dict[str, str] | None = None) -> Table:
    """Where everything is, as a table."""
    rows: dict[str, Any] = {
        "API": f"{address}/api/v1",
        "documentation": f"{address}/docs",
        "health": f"{address}/health/ready",
        "first admin": f"{ADMIN} / {installation.admin_password()}",
        **(more or {}),
        "logs": str(installation.log_file),
        "to stop": "Ctrl-C here, or `evosense down`" if not more else "`make down`, or `evosense down`",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", str(value))
    return table
