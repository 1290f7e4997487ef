"""Starting, attaching to, adopting and stopping one server, whatever server it is.

Two locks decide, never a pid file: the *owner* lock is held by the process that will stop the server, the *liveness*
lock is inherited by the server itself and by every process it forks. A free owner lock with a held liveness lock is
a server whose owner was killed: it is adopted. A free liveness lock proves that nothing of an earlier server is
left, so that its stale files may be removed.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from adapters.embedded import process
from adapters.embedded.errors import EmbeddedError
from adapters.embedded.home import explained, make_directory, read_text, require_reachable, write_private
from adapters.embedded.process import FileLock
from adapters.embedded.program import Instance, Program

_POLL = 0.03  # seconds between two looks at a server that is starting or stopping
_PORT_ATTEMPTS = 5
_ORPHAN_GRACE = 1.0  # seconds for a server's processes to notice that the first of them was killed
_RECOVERY_FACTOR = 10  # a server that says it is starting (recovery) gets this many times the time-out


class Server:
    """A running server: use it as a context manager, or call `stop()`. Only its owner stops it."""

    def __init__(self, program: Program, instance: Instance, lock: FileLock | None, child: _Child | None) -> None:
        self._program = program
        self._lock = lock
        self._child = child
        self._owner = os.getpid()
        self.pid = instance.pid
        self.port = instance.port
        if lock:
            _owned[program.directory] = self
            atexit.register(self.stop)
            _stop_on_signals()

    @property
    def owned(self) -> bool:
        """Whether this process, and this object in it, is the one that stops the server."""
        return self._lock is not None and self._owner == os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the server process still runs."""
        if self._child and self._child.poll() is not None:
            return False
        instance = self._program.find()
        return instance is not None and instance.pid == self.pid

    def stop(self) -> None:
        """Stop the server if it is ours, wait until all of it is gone, and give up the ownership. Idempotent.

        Raises EmbeddedError when the server survives every signal.
        """
        if not self.owned:
            return
        assert self._lock is not None  # noqa: S101 -- what `owned` means; tells mypy
        stop_running(self._program, self.pid, self._child)
        self._lock.release()
        self._lock = None
        if _owned.get(self._program.directory) is self:
            del _owned[self._program.directory]
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


_Child = subprocess.Popen[bytes]
_owned: dict[Path, Server] = {}


@dataclass(frozen=True)
class Held:
    """What `obtain` got: the instance, and lock and child process where they are ours."""

    instance: Instance
    lock: FileLock | None
    child: _Child | None


def obtain(program: Program, timeout: float) -> Held:
    """Start the program's server, or attach to it, or adopt it when its owner is gone.

    Raises EmbeddedError when it is not ready after `timeout` seconds.
    """
    with explained(program.directory):
        make_directory(program.directory)
    require_reachable(program.directory, program.account)
    deadline = time.monotonic() + timeout
    path = program.directory / "owner.lock"
    while True:
        earlier = _owned.get(program.directory)
        if earlier and not earlier.alive:
            earlier.stop()  # it died under us: let go, so that it can be started again
        with explained(program.directory):
            lock = FileLock.acquire(path)
        if lock:
            try:
                lock.sign()
                with explained(program.directory):
                    return _own(program, lock, timeout)
            except BaseException:
                lock.release()
                raise
        if instance := attachable(program):
            return Held(instance, None, None)
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"{program.title} in {program.directory} does not answer, and process {read_text(path) or '?'} "
                f"is in charge of it. Stop that process, then try again.{_log_hint(program, 0)}"
            )
        time.sleep(_POLL)


def attachable(program: Program) -> Instance | None:
    """The running server that its owner has finished (it writes the port last) and that lets us in, or None."""
    with explained(program.directory):
        instance = _answering(program)
        finished = instance and process.remembered_port(program.port_file) == instance.port
    return instance if finished else None


def _answering(program: Program) -> Instance | None:
    instance = program.find()
    return instance if instance and instance.state == "ready" and program.answers(instance.port) else None


def stop_running(program: Program, pid: int, child: _Child | None) -> None:
    """Signal the server until it and everything it forked are gone. Raises EmbeddedError when it stays."""
    for number, patience in program.stop_signals:
        instance = program.find()
        # A child that was not reaped keeps its number, so that is sure to be ours even before it can be found.
        if (child and child.poll() is None) or (instance and instance.pid == pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if _gone(program, child, patience):
            return
    raise EmbeddedError(f"{program.title} (process {pid}) could not be stopped, not even by SIGKILL.")


def _own(program: Program, lock: FileLock, timeout: float) -> Held:
    started = time.monotonic()
    taken = 0
    while True:
        liveness = FileLock.acquire(program.directory / "server.lock")
        if liveness:
            port = process.remembered_port(program.port_file)
            if taken or (port and not process.port_is_free(port)):
                port = None
            since = process.log_size(program.log)
            with liveness:
                child = program.launch(liveness, port)
            try:
                instance = _await_ready(program, child, since, timeout)
                if instance:
                    _finish(program, instance)
            except BaseException:
                stop_running(program, child.pid, child)
                raise
            if instance:
                return Held(instance, lock, child)
            taken += 1
            if taken == _PORT_ATTEMPTS:
                raise EmbeddedError(
                    f"{program.title} found every port taken, {taken} times in a row.{_log_hint(program, since)}"
                )
            continue
        # Something of an earlier server runs: adopt it, or wait until it has died.
        if instance := _answering(program):
            _finish(program, instance)
            return Held(instance, lock, None)
        found = program.find()
        if found is None and time.monotonic() > started + _ORPHAN_GRACE:
            _end_orphans(program)
        recovering = found is not None and found.state == "starting"
        if time.monotonic() > started + timeout * (_RECOVERY_FACTOR if recovering else 1):
            who = f"process {found.pid}" if found else "a process"
            raise EmbeddedError(
                f"{program.title} in {program.directory} still runs from an earlier start ({who}) but does not "
                f"answer. Stop it, then try again.{_log_hint(program, 0)}"
            )
        time.sleep(_POLL)


def _await_ready(program: Program, child: _Child, since: int, timeout: float) -> Instance | None:
    """The ready server; None when its port was taken meanwhile."""
    started = time.monotonic()
    while True:
        code = child.poll()
        if code is not None:
            if "address already in use" in process.log_tail(program.log, since).lower():
                _gone(program, child, timeout)
                return None
            raise EmbeddedError(f"{program.title} ended with {code} while starting.{_log_hint(program, since)}")
        if instance := _answering(program):
            return instance
        instance = program.find()
        patience = timeout * (_RECOVERY_FACTOR if instance and instance.state == "starting" else 1)
        if time.monotonic() > started + patience:
            raise EmbeddedError(
                f"{program.title} was not ready after {patience:.0f} seconds.{_log_hint(program, since)}"
            )
        time.sleep(_POLL)


def _gone(program: Program, child: _Child | None, patience: float) -> bool:
    deadline = time.monotonic() + patience
    died = None
    while True:
        # A child has to be reaped as well; the lock is free when the last process the server forked is gone.
        if child is None or child.poll() is not None:
            free = FileLock.acquire(program.directory / "server.lock")
            if free:
                free.release()
                return True
            if program.find() is None:
                died = died or time.monotonic()
                if time.monotonic() > died + _ORPHAN_GRACE:
                    _end_orphans(program)
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)


def _end_orphans(program: Program) -> None:
    # A backend busy with a long query does not notice that the postmaster was killed, and keeps the data locked.
    for pid in process.holders(program.directory / "server.lock", *program.executables):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _finish(program: Program, instance: Instance) -> None:
    program.finish(instance.port)
    if process.remembered_port(program.port_file) != instance.port:
        write_private(program.port_file, str(instance.port))


def _log_hint(program: Program, since: int) -> str:
    tail = process.log_tail(program.log, since)
    return f" The end of {program.log}:\n{tail}" if tail else f" See {program.log}."


def _stop_on_signals() -> None:
    # Without a handler these signals end Python at once, and nothing registered for the exit would run.
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
