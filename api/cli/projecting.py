"""What the commands about projections share: the bar that shows how the log is read, and room on the disk."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from psycopg import Connection
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adapters.migrations import require_current_schema
from adapters.settings import Settings
from api.cli.installation import Installation, configured
from api.cli.screen import CommandError, console
from api.memory import collect_less
from api.wiring import ReadSide, read_side
from projections.builds import Build, Missing, chosen
from projections.catalog import all_projections
from sql import queries

#: Old and new stand side by side for a while, and building indexes sorts on the disk.
_ROOM: Final = 1.3
#: Where less than this is left, in bytes, loading stops before the disk is full: live messages need it.
_RESERVE: Final = 256 * 1024 * 1024
#: Seconds between two looks at the disk.
_LOOK_S: Final = 1.0

_BUILDS: Final = queries("builds")


@contextmanager
def projecting() -> Iterator[tuple[Settings, ReadSide]]:
    """The configured database, or this machine's, as the projector sees it. Raises `SchemaTooOld` and the like."""
    with configured(start=True) as settings:
        require_current_schema(settings.runtime_dsn)
        side = read_side(settings)
        collect_less()
        try:
            yield settings, side
        finally:
            side.close()


class Watched:
    """Shows on the screen how a build goes on; a `projections.rebuild.Watcher`."""

    def __init__(self, progress: Progress, disk: "Disk") -> None:
        self._progress = progress
        self._disk = disk
        self._bar = progress.add_task("reading the log", total=None, rate="")
        self._started = time.monotonic()
        self._waiting = ""

    def began(self, build: Build, resumed: bool) -> None:
        """See `Watcher`."""
        self._started = time.monotonic()
        if resumed and build.position:
            self._progress.print(f"going on in schema {build.schema_name} behind position {build.position:,}")

    def loaded(self, events: int, position: int, head: int) -> None:
        """See `Watcher`. Raises `CommandError` where the disk is about to fill."""
        rate = round(events / max(0.001, time.monotonic() - self._started))
        self._progress.update(self._bar, total=head, completed=position, rate=f"{rate:,} events/s")
        self._disk.look()

    def making(self, one: Missing, number: int, of: int) -> None:
        """See `Watcher`."""
        self._progress.update(
            self._bar, description=f"{one.kind} {one.name or one.table_name}", total=of, completed=number, rate=""
        )
        self._disk.look()

    def comparing(self, table: str) -> None:
        """A table is being compared."""
        self._progress.update(self._bar, description=f"comparing {table}", total=None, rate="")

    def waiting(self, what: str) -> None:
        """See `Watcher`."""
        if what != self._waiting:
            self._waiting = what
            self._progress.print(f"[yellow]{what}[/]")


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar with rate and remaining time, on a terminal; it goes away when it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


class Disk:
    """Room on the disk of an embedded server. Of a server elsewhere nothing is known but what will be needed."""

    def __init__(self, settings: Settings) -> None:
        embedded = Settings.load().database_url is None
        self._path: Path | None = Installation.of(settings).home if embedded else None
        self._looked = 0.0

    @property
    def free(self) -> int | None:
        """Free bytes, or None where that can't be seen from here."""
        return shutil.disk_usage(self._path).free if self._path else None

    def require(self, conn: Connection[Any], names: list[str], *, anyway: bool) -> None:
        """Say how much room a build of these projections takes. Raises `CommandError` where there is less."""
        tables = [table for projection in chosen(names) for table in projection.tables]
        # Where the tables are empty, as after a restore, the log tells: its events become rows of about their size.
        whole = len(set(names)) == len(all_projections())
        size = max(_BUILDS.size_of(conn, tables=tables), _BUILDS.log_size(conn) if whole else 0)
        needed = int(_ROOM * size)
        free = self.free
        if free is None:
            console.print(f"[dim]the new tables will take about {decimal(needed)} on the database's disk[/]")
        elif free - needed < _RESERVE and not anyway:
            raise CommandError(
                f"the new tables would take about {decimal(needed)}, and {decimal(free)} are free: make room, or add "
                f"--anyway (it then stops, and can go on, before the last {decimal(_RESERVE)} are taken)"
            )

    def look(self) -> None:
        """Raises `CommandError` where the disk is about to fill."""
        if self._path is None or time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        if (free := shutil.disk_usage(self._path).free) < _RESERVE:
            raise CommandError(
                f"stopped: only {decimal(free)} are free on the disk. Make room and run the command again: it goes on "
                "where it was"
            )
