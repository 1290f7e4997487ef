"""The roles, one process each. `evosense up` starts them all; compose runs each in a container of its own."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Literal
from urllib.error import URLError

import typer
import uvicorn

from adapters.migrations import require_current_schema
from adapters.settings import Settings
from adapters.telemetry import configure_logging
from api.cli.direct import directly
from api.cli.installation import configured
from api.cli.links import show_links
from api.cli.screen import CommandError
from api.liveness import NotWorking, check_role
from api.memory import collect_less
from api.model_catalogue import Catalogue, probe_at_start
from api.relay import run_relay
from api.services import build_services
from api.wiring import read_side
from api.worker import run_worker

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True, help="Stop when standard input ends.")]


def api(supervised: Supervised = False) -> None:
    """Serve the HTTP API and the Evolution webhook."""
    settings = _begin(supervised)
    asyncio.run(probe_at_start(settings))
    catalogue = Catalogue.of(settings)
    from api.app import create_app  # noqa: PLC0415 - with the template engine, for this role alone

    app = create_app(build_services(settings, *catalogue.embedders, close=catalogue.close))
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
        # Behind compose or a proxy the address that a client used is in its headers.
        proxy_headers=True,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn hands a signal on when it has shut down: to be told is no failure, as with the other roles.
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    with suppress(SystemExit):  # with which uvicorn ends where it can't listen, and says so in its log alone
        server.run()
    if not server.started:
        raise CommandError(f"the API can't listen on {settings.api_host}:{settings.api_port}: is the port taken?")


def projector(supervised: Supervised = False) -> None:
    """Fold the log into the read models."""
    settings = _begin(supervised)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    side = read_side(settings)
    collect_less()
    try:
        side.engine.run(stop, poll=settings.projector_poll)
    finally:
        side.close()


def relay(supervised: Supervised = False) -> None:
    """Publish the log to NATS JetStream."""
    _run(run_relay, supervised)


def worker(supervised: Supervised = False) -> None:
    """Analyse and embed messages."""
    _run(run_worker, supervised)


def listener(
    status: Annotated[bool, typer.Option("--status", help="Show how the links stand, and end.")] = False,
    supervised: Supervised = False,
) -> None:
    """Listen to Evolution by socket.io and NATS."""
    if status:
        with configured(start=False) as settings:
            show_links(settings)
        return
    # Here: socket.io's client would cost every command and health check a quarter of a second.
    from api.listener import run_listener  # noqa: PLC0415

    _run(run_listener, supervised)


def healthcheck(
    role: Annotated[
        Literal["api", "projector", "relay", "worker", "vector", "listener", "sweep"],
        typer.Option("--role", help="The role to look at."),
    ] = "api",
) -> None:
    """Exit with 0 where a role does its work, with 1 and the reason where it does not.

    The API is asked whether it is ready. Of the others it is checked that what waits for them moves.
    """
    settings = Settings.load()
    if role != "api":
        try:
            check_role(settings, role)
        except NotWorking as error:
            raise CommandError(str(error)) from None
        return
    host = "127.0.0.1" if settings.api_host in ("0.0.0.0", "::") else settings.api_host  # noqa: S104 - compared, not bound
    try:
        with directly(f"http://{host}:{settings.api_port}/health/ready", timeout=3):
            return
    except (URLError, OSError) as error:
        raise CommandError(f"the API is not ready: {error}") from None


def _begin(supervised: bool) -> Settings:
    settings = Settings.load()
    configure_logging(settings.log_level, settings.log_format)
    require_current_schema(settings.runtime_dsn)
    if supervised:
        end_with_parent()
    return settings


def end_with_parent() -> None:
    """From now on end when standard input does, with the process that holds its other end."""
    threading.Thread(target=_end_with_parent, daemon=True, name="parent watch").start()


def _end_with_parent() -> None:
    # Not sys.stdin: its lock would be held when the interpreter ends, which Python takes for a fatal error.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(role: Callable[[Settings, asyncio.Event], Awaitable[None]], supervised: bool) -> None:
    settings = _begin(supervised)

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await role(settings, stop)

    asyncio.run(until_told())
