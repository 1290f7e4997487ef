"""Prepares pieces beside the process that appends them, in their order, with a bound on what is on its way."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from adapters.settings import Settings
from adapters.vault import Vault
from api.importing.prepare import Prepared, Preparer
from api.importing.source import Piece
from api.receiving import Origin
from api.wiring import write_side

#: Bytes of pieces that may be on their way at once; a larger piece goes alone.
_BUDGET: Final = 8 * 2**20

_preparer: Preparer | None = None


class HelperLost(Exception):
    """A process that prepared messages was killed, perhaps for want of memory."""


def prepared(
    pieces: Iterable[Piece], origin: Origin, vault: Vault, settings: Settings, processes: int
) -> Generator[tuple[Piece, Prepared], None, None]:
    """Each piece with what became of it, in order; in this process where `processes` is 0. Raises `HelperLost`."""
    if processes == 0:
        preparer = Preparer(origin, vault)
        for piece in pieces:
            yield piece, preparer.prepare(piece)
        return
    # Started anew, not forked: this process has threads. The settings go through a pipe to the child alone.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (origin, settings))
    waiting: deque[tuple[Piece, int, Future[Prepared]]] = deque()
    on_the_way = 0
    try:
        for piece in pieces:
            size = len(piece.data)
            while waiting and (on_the_way + size > _BUDGET or len(waiting) > 2 * processes):
                done, was, future = waiting.popleft()
                on_the_way -= was
                yield done, future.result()
            # What is done needs its place and number, not its text.
            waiting.append((_without_data(piece), size, pool.submit(_prepare, piece)))
            on_the_way += size
        while waiting:
            done, _, future = waiting.popleft()
            yield done, future.result()
    except BrokenProcessPool:
        raise HelperLost("a process that prepares messages was killed; is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _without_data(piece: Piece) -> Piece:
    return Piece(piece.file, piece.line, b"", piece.size, piece.after, piece.fault)


def _begin(origin: Origin, settings: Settings) -> None:
    global _preparer  # noqa: PLW0603 - a process of the pool has no other place to keep it
    # Ctrl-C goes to all processes of the terminal: the one that appends decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # A vault like every role's, so that a change of the master key or an erased key is noticed here as it is there.
    _preparer = Preparer(origin, write_side(settings).vault)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        # Killed with -9 it can't end its pool, which would wait for work for ever.
        parent.join()
        os._exit(1)


def _prepare(piece: Piece) -> Prepared:
    assert _preparer is not None  # noqa: S101 - `_begin` ran first
    return _preparer.prepare(piece)
