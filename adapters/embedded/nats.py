"""The embedded NATS server with JetStream: one store below the home, on loopback, with a password."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import ClassVar
from urllib.parse import urlsplit

from adapters.embedded import process
from adapters.embedded.binaries import nats_binary
from adapters.embedded.errors import EmbeddedError
from adapters.embedded.home import (
    Account,
    explained,
    give_tree,
    make_directory,
    prepare_home,
    read_text,
    write_private,
)
from adapters.embedded.process import LOOPBACK, FileLock
from adapters.embedded.program import Instance, Program
from adapters.embedded.supervisor import Held, Server, obtain

USER = "evosense"


class NatsServer(Server):
    """The running server. `url` contains the password: never log it."""

    def __init__(self, program: NatsProgram, held: Held) -> None:
        super().__init__(program, held.instance, held.lock, held.child)
        self._password = program.password()

    @property
    def url(self) -> str:
        """nats://user:password@127.0.0.1:port"""
        return f"nats://{USER}:{self._password}@{LOOPBACK}:{self.port}"


def start_nats(home: Path, *, timeout: float = 30) -> NatsServer:
    """Start the server with its store below `home`, or attach to it, or adopt it. `timeout` is in seconds.

    Raises EmbeddedError.
    """
    home, account = prepare_home(home)
    program = NatsProgram(home, account)
    return NatsServer(program, obtain(program, timeout))


class NatsProgram(Program):
    """How the NATS server is configured, started, recognised and asked."""

    title = "NATS"
    executables = ("nats-server",)
    stop_signals: ClassVar = ((SIGTERM, 20.0), (SIGKILL, 5.0))

    def __init__(self, home: Path, account: Account | None) -> None:
        super().__init__(home / "nats", account)
        self.home = home
        self.store = self.directory / "store"
        self.run = self.directory / "run"
        self.config = self.run / "nats.conf"
        self.pid_file = self.run / "nats.pid"
        self.password_file = self.directory / "password"

    def find(self) -> Instance | None:
        """Read the pid file, believe it only if that process runs on our configuration, and look up its port."""
        try:
            pid = int(read_text(self.pid_file) or "")
        except ValueError:
            return None
        if not process.runs(pid, "nats-server", "-c", str(self.config)):
            return None
        for file in self.run.glob(f"*_{pid}.ports"):
            try:
                (address,) = json.loads(read_text(file) or "")["nats"]
            except (ValueError, KeyError):
                break  # being written
            return Instance(pid, urlsplit(address).port or 0, "ready")
        return Instance(pid, 0, "starting")

    def answers(self, port: int) -> bool:
        """Whether our password is accepted and JetStream is on."""
        try:
            with (
                socket.create_connection((LOOPBACK, port), timeout=5) as link,
                link.makefile("rwb") as stream,
            ):
                greeting = stream.readline()
                if not greeting.startswith(b"INFO ") or not json.loads(greeting[5:]).get("jetstream"):
                    return False
                login = {"user": USER, "pass": self.password(), "verbose": False, "lang": "python", "version": "0"}
                stream.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
                stream.flush()
                reply = stream.readline()
        except (OSError, ValueError):
            return False
        if reply.startswith(b"-ERR 'Authorization"):
            raise EmbeddedError(
                f"NATS in {self.directory} does not accept the password in {self.password_file}: "
                "stop the server (its process is in run/nats.pid), then start it again."
            )
        return reply.startswith(b"PONG")

    def password(self) -> str:
        """The client's password. Raises EmbeddedError when it is not ours to read."""
        with explained(self.password_file):
            text = read_text(self.password_file)
        if not text:
            raise EmbeddedError(f"{self.password_file} is missing: stop the server, then start it again.")
        return text

    def launch(self, liveness: FileLock, port: int | None) -> subprocess.Popen[bytes]:
        """Write the configuration and start the server; without `port` it picks one itself."""
        program = nats_binary(self.home, self.account)
        if not read_text(self.password_file):
            write_private(self.password_file, secrets.token_hex(24))
        for directory in (self.run, self.store):
            make_directory(directory, account=self.account)
            give_tree(directory, self.account)
        for stale in (self.pid_file, *self.run.glob("*.ports")):
            stale.unlink(missing_ok=True)
        write_private(self.config, self._configuration(), account=self.account)
        # On the command line what must hold whatever a configuration says.
        argv = [str(program), "-c", str(self.config), "-a", LOOPBACK, "-p", str(port or -1)]
        argv += ["--ports_file_dir", str(self.run), "-P", str(self.pid_file)]
        return process.spawn(argv, account=self.account, log=self.log, inherit=liveness.descriptor)

    def finish(self, port: int) -> None:
        """Nothing: streams belong to those who use them."""

    def _configuration(self) -> str:
        # The configuration language is a superset of JSON.
        return json.dumps(
            {
                "server_name": "evosense-embedded",
                "logtime_utc": True,
                "authorization": {"user": USER, "password": self.password()},
                "jetstream": {
                    "store_dir": str(self.store),
                    # An acknowledged message survives a power cut.
                    "sync_interval": "always",
                    "max_memory_store": 256 * 1024 * 1024,
                },
            },
            indent=2,
            ensure_ascii=False,
        )
