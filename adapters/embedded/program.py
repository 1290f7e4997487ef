"""What a server has to say about itself to be supervised."""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from adapters.embedded.home import Account
from adapters.embedded.process import FileLock


@dataclass(frozen=True)
class Instance:
    """A server process that was verified to be the one that runs on our directory."""

    pid: int
    port: int
    state: Literal["starting", "ready", "stopping"]


class Program(ABC):
    """What the supervisor has to know about one kind of server with its data in `directory`."""

    title: ClassVar[str]
    executables: ClassVar[tuple[str, ...]]  # names of the files that its processes execute
    # Signals that stop it, mildest first, each with the seconds it is given.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, directory: Path, account: Account | None) -> None:
        self.directory = directory
        self.account = account
        self.log = directory / "server.log"
        self.port_file = directory / "port"

    @abstractmethod
    def find(self) -> Instance | None:
        """The server that runs on our directory, its identity checked; None when there is none to be seen."""

    @abstractmethod
    def answers(self, port: int) -> bool:
        """Whether the server lets us in and is ready for work. Raises EmbeddedError when it never will."""

    @abstractmethod
    def launch(self, liveness: FileLock, port: int | None) -> subprocess.Popen[bytes]:
        """Prepare the data, remove stale files (nothing else runs here) and start; on `port` if one is given."""

    @abstractmethod
    def finish(self, port: int) -> None:
        """What the owner has left to do in the running server before others may attach to it."""
