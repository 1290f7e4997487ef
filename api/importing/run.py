"""Imports a source: pieces are prepared, appended in their order, and then remembered as done."""

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from adapters.event_store import Appended, Conflict, StructMapper
from adapters.settings import Settings
from api.activity import Outcome
from api.commands import Done
from api.importing.checkpoints import Checkpoints
from api.importing.pool import prepared
from api.importing.prepare import Change, Prepared, Refused, Tally
from api.importing.source import Piece, Position, Source
from api.people import Reception, reception_of
from api.receiving import Origin
from api.wiring import WriteSide
from domain.messages import MessageReceived

#: Events of one append, and how many may wait for theirs.
_APPEND: Final = 2500
_WAITING: Final = 4 * _APPEND
#: Seconds between two checkpoints: what a kill makes the next start read again.
_CHECKPOINT: Final = 0.5
#: Processes that prepare, and from how many bytes on it pays to start them.
PROCESSES: Final = 2
_WORTH_PROCESSES: Final = 4 * 2**20


@dataclass(frozen=True)
class Progress:
    """So much is done: bytes of the source, and what became of them in this run."""

    size: int
    tally: Tally


@dataclass(frozen=True)
class Report:
    """What a run did, what all runs over this source did, and where this one began."""

    run: Tally
    total: Tally
    began: Position
    began_size: int


def import_source(
    write: WriteSide,
    settings: Settings,
    source: Source,
    origin: Origin,
    *,
    restart: bool = False,
    processes: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Append every message, edit and deletion of the source that is not in the log yet.

    Goes on where an earlier run over the same content came to; with `restart` it reads everything again. Raises
    `SourceError`, `HelperLost`, `VaultError`, `SettingsError`, `Contended`, and the persistence errors of an append;
    what was appended before stays, and the next run goes on behind it.
    """
    checkpoints = Checkpoints(write.datastore, origin.connection_id, source.identity())
    began, total = (Position(), Tally()) if restart else checkpoints.load()
    size = source.done(began)
    if size is None:
        began, total = Position(), Tally()
        size = source.done(began) or 0
    if processes is None:
        processes = PROCESSES if source.size - size >= _WORTH_PROCESSES else 0
    run = _Run(write, origin, checkpoints, Report(Tally(), total, began, size), on_progress)
    on_progress(Progress(size, run.report.run))
    pieces = prepared(source.pieces(began), origin, write.vault, settings, processes)
    try:
        for piece, done in pieces:
            run.append(piece, done)
        run.finish()
    finally:
        pieces.close()
        # Also after Ctrl-C: what is appended by now need not be read again.
        run.keep()
    return run.report


class _Run:
    """Appends on their way, oldest first, and what is known of those that are done."""

    def __init__(
        self,
        write: WriteSide,
        origin: Origin,
        checkpoints: Checkpoints,
        report: Report,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.report = report
        self._group = write.group
        self._people, self._commands = write.people, write.commands
        self._mapper = StructMapper(write.vault)
        self._activity, self._origin = write.activity, origin
        self._checkpoints = checkpoints
        self._on_progress = on_progress
        self._waiting: deque[tuple[Piece, Prepared, list[Future[list[Appended | Conflict]]]]] = deque()
        self._events = 0
        self._size = report.began_size
        self._reached: Position | None = None
        self._kept = time.monotonic()

    def append(self, piece: Piece, prepared: Prepared) -> None:
        """Hand the events over, waiting while too many wait already."""
        futures: list[Future[list[Appended | Conflict]]] = []
        while self._waiting and self._events + len(prepared.changes) > _WAITING:
            self._settle()
        for start in range(0, len(prepared.units), _APPEND):
            units = prepared.units[start : start + _APPEND]
            while self._waiting and self._events + len(units) > _WAITING:
                self._settle()
            if len(futures) * _APPEND >= _WAITING:
                futures[-_WAITING // _APPEND].result()  # a file of a hundred thousand messages waits for itself
            futures.append(self._group.submit(units))
        self._events += len(prepared.units) + len(prepared.changes)
        self._record(prepared.named, prepared.tally)
        prepared.named.clear()
        self._waiting.append((piece, prepared, futures))
        while self._waiting and all(future.done() for future in self._waiting[0][2]):
            self._settle()

    def finish(self) -> None:
        """Wait for everything."""
        while self._waiting:
            self._settle()

    def keep(self) -> None:
        """Remember what is done, if anything is."""
        if self._reached is not None:
            self._checkpoints.keep(self._reached, self.report.total)
            self._reached = None
            self._kept = time.monotonic()

    def _record(self, receptions: list[Reception], tally: Tally) -> None:
        """Record messages of which it takes a look at the log to say under whose name."""
        for start in range(0, len(receptions), _APPEND):
            for outcome in self._people.receive(receptions[start : start + _APPEND]):
                # None is refused: they were decided once when they were prepared.
                tally.duplicates += isinstance(outcome, Done) and outcome.duplicate
                tally.stored += isinstance(outcome, Done) and not outcome.duplicate

    def _announce(self, file: int, changes: list[Change], tally: Tally) -> None:
        """Record edits and deletions, and count them."""
        for start in range(0, len(changes), _APPEND):
            some = changes[start : start + _APPEND]
            counts: Counter[tuple[Outcome, str, str]] = Counter()
            for change, outcome in zip(some, self._commands.handle_many([one.intent for one in some]), strict=True):
                if not isinstance(outcome, Done):
                    tally.refuse(Refused(file, change.line, 0, str(outcome)))
                    counts["refused", change.kind, "invalid"] += 1
                elif outcome.duplicate:
                    tally.duplicates += 1
                    counts["duplicate", change.kind, ""] += 1
                else:
                    tally.announced += 1
                    counts["accepted", change.kind, ""] += 1
            for (became, kind, reason), count in counts.items():
                self._activity.note(self._origin, "import", became, kind=kind, reason=reason, count=count)

    def _settle(self) -> None:
        piece, prepared, futures = self._waiting[0]
        tally = prepared.tally
        outcomes = [outcome for future in futures for outcome in future.result()]
        moved: list[Reception] = []
        for unit, outcome in zip(prepared.units, outcomes, strict=True):
            if isinstance(outcome, Appended):
                tally.stored += 1
            elif outcome.stream_id == unit[-1].originator_id:
                # A message's stream begins with its receipt: where there is something already, it was received before.
                tally.duplicates += 1
            else:
                # Its sender turned out to have a LID as well, under which it may have been received.
                event = self._mapper.to_domain_event(unit[-1])
                assert isinstance(event, MessageReceived)  # noqa: S101 - a unit is a condition and its receipt
                moved.append(reception_of(event))
        self._record(moved, tally)
        self._count(tally)
        # Behind the messages of their piece, and before it counts as done.
        self._announce(piece.file, prepared.changes, tally)
        self._waiting.popleft()
        self._events -= len(prepared.units) + len(prepared.changes)
        self.report.run.add(tally)
        self.report.total.add(tally)
        self._size += piece.size
        self._reached = piece.after
        self._on_progress(Progress(self._size, self.report.run))
        if time.monotonic() - self._kept > _CHECKPOINT:
            self.keep()

    def _count(self, tally: Tally) -> None:
        """Count what became of the messages: the tally has no edits and deletions yet."""
        note = self._activity.note
        note(self._origin, "import", "accepted", kind="message", count=tally.stored)
        note(self._origin, "import", "duplicate", kind="message", count=tally.duplicates)
        note(self._origin, "import", "refused", kind="message", reason="invalid", count=tally.refused)
        for what, number in tally.ignored.items():
            kind, _, reason = what.partition(": ")
            note(self._origin, "import", "ignored", kind=kind, reason=reason, count=number)
