"""Processes, locks and ports: what both supervisors need from the operating system."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import subprocess
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adapters.embedded.home import Account, open_private

LOOPBACK = "127.0.0.1"
# Below the ports that Linux and macOS hand out to outgoing connections, so that a remembered port tends to be free.
_PORTS = range(20_000, 32_000)
_LOG_LIMIT = 5_000_000  # bytes; an older log is kept once


class FileLock:
    """An exclusive `flock` on a file, freed by the kernel when the last process that holds it is gone.

    The file stays when the lock goes: removing it would let two processes lock two files of one name.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        _locks.add(self)

    @classmethod
    def acquire(cls, path: Path) -> FileLock | None:
        """The lock, or None while somebody holds it."""
        descriptor = open_private(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return cls(descriptor)

    def sign(self) -> None:
        """Write down who holds the lock, for the one who waits; nothing is ever decided by it."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    @property
    def descriptor(self) -> int:
        """For a child to inherit: the lock then lasts as long as the child does, whatever becomes of us."""
        if self._descriptor is None:
            raise ValueError("the lock was released")
        return self._descriptor

    def release(self) -> None:
        """Let go of our share of the lock."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_locks() -> None:
    # A forked worker shares the open file and would keep the lock alive after its parent's death.
    for lock in list(_locks):
        lock.release()


os.register_at_fork(after_in_child=_forget_locks)


def runs(pid: int, executable: str, *arguments: str) -> bool:
    """Whether `pid` is a living process of this executable name with these consecutive arguments."""
    if pid <= 0:
        return False
    if Path("/proc/self/cmdline").exists():
        try:
            words = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        except OSError:
            return False
        width = len(arguments)
        windows = (tuple(words[at : at + width]) for at in range(1, len(words) - width + 1))
        return Path(words[0]).name == executable and arguments in windows
    # Elsewhere ps joins the words with blanks; what precedes our arguments has to end in the executable's name.
    shown = subprocess.run(
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    before, found, _ = f"{shown} ".partition(f" {' '.join(arguments)} ")
    return bool(found) and Path(before).name.split(" ")[0] == executable


def holders(path: Path, *executables: str) -> list[int]:
    """Processes of these executables that have the file open. Empty where there is no /proc to ask."""
    found = []
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):  # ended meanwhile, or somebody else's
            if (directory.parent / "exe").readlink().name not in executables:
                continue
            if any(os.path.realpath(link) == str(path) for link in directory.iterdir()):
                found.append(int(directory.parent.name))
    return found


def spawn(argv: Sequence[str], *, account: Account | None, log: Path, inherit: int) -> subprocess.Popen[bytes]:
    """Start a server away from our terminal, environment and rights; its output goes to `log`."""
    rotate(log)
    output = open_private(log, os.O_WRONLY | os.O_APPEND)
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(inherit,),
            # Its own session: Ctrl-C in a terminal is for us, and we stop the servers in our own time.
            start_new_session=True,
            cwd="/",
            umask=0o077,
            env=clean_environment(),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    finally:
        os.close(output)


def clean_environment() -> dict[str, str]:
    """The environment of a server: nothing of the caller's PG* or NATS* variables, secrets or locale."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"):
        if value := os.environ.get(name):
            environment[name] = value
    return environment


def rotate(log: Path) -> None:
    """Put a log that has grown large aside, once."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))


def log_size(log: Path) -> int:
    """Bytes in the log now; 0 when there is none."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def log_tail(log: Path, since: int, lines: int = 12) -> str:
    """The last lines written after the offset `since`."""
    try:
        with log.open("rb") as file:
            file.seek(since if since <= log_size(log) else 0)
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port that nobody listens on right now; another process may still be quicker."""
    for _ in range(50):
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if port_is_free(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def remembered_port(path: Path) -> int | None:
    """The port in a file written on an earlier start, or None when there is none that makes sense."""
    try:
        port = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    return port if 1024 <= port <= 65535 else None
