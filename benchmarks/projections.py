"""Projections: how fast they rebuild and follow, how late they are, and how long a rebuild makes readers wait.

`make bench-projections`. A message is three events: it is received, analysed, and the inference is recorded. Beside the
rebuild, in the same run and server and in turns: the limit, which is COPY of the very same rows into bare tables and
then keys, indexes and statistics; and the library's ProjectionRunner. Beside the live projection: COPY into the indexed
tables. The rebuild is `evosense rebuild` as a person runs it, less the time that the interpreter takes to start; no
projector runs beside it, except where readers are measured.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median, quantiles
from typing import Any, Final

import msgspec
from rich.table import Table

from adapters.settings import Settings
from api.wiring import write_side
from benchmarks.common import console, installation, machine
from benchmarks.projection_baselines import Rows, check_same, copy_into_bare, copy_into_indexed, exported
from benchmarks.projection_history import History, Order, Recorded, recorded
from benchmarks.projection_live import catch_up, checkpoint, lags, projector, rebuild, reset, start_up
from benchmarks.projection_readers import Calm, reading
from benchmarks.projection_runner import run_library

SEED: Final = 3
#: Messages (and as many inferences) that COPY writes into the indexed tables in one transaction.
IN_ONE_COPY: Final = 1000
#: Light load.
LAG_PER_SECOND: Final = 50
#: Readers are measured without a rebuild for as long as with one, but no longer than this.
_QUIET_AT_MOST_S: Final = 30


class Size(msgspec.Struct, frozen=True):
    """How much is measured: messages, and messages with vectors; rounds; events for the library; seconds of lag."""

    messages: int = 200_000
    vector_messages: int = 10_000
    rounds: int = 3
    library_events: int = 3600
    lag_s: float = 60
    order: Order = "live"
    vectors: bool = False


QUICK: Final = Size(messages=15_000, vector_messages=1000, rounds=1, library_events=1800, lag_s=5)
#: Messages that make more than a million events.
MILLION: Final = 334_000

_WHOLE: Final = "rebuild, start of the command included"
_LIMIT: Final = "limit: COPY into bare tables, keys, indexes"
_LIBRARY: Final = "library's ProjectionRunner"
_INDEXED: Final = "COPY into indexed tables"
_WITH_VECTORS: Final = " (with vectors)"

Runs = dict[str, list[float]]


def main() -> None:
    """Run all and print."""
    size = _size()
    with installation() as settings, closing(Bench(settings, size)) as bench:
        whole = bench.run()
    vectors: Runs = {}
    if size.vector_messages:
        with installation() as settings, closing(Bench(settings, size, with_vectors=True)) as bench:
            vectors = bench.run_with_vectors()
    _show(size, whole, vectors)


def _size() -> Size:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of about a minute, whose figures say little")
    parser.add_argument("--messages", type=int, help=f"messages of the history (default {Size().messages:,})")
    parser.add_argument("--million", action="store_true", help=f"{MILLION:,} messages, a million events")
    parser.add_argument("--order", choices=["live", "import"], help="`import`: all received, then all analysed")
    parser.add_argument("--vectors", action="store_true", help="vectors for every message, not in a part of its own")
    parser.add_argument("--vector-messages", type=int, help="messages of the part with vectors; 0 leaves it out")
    given = parser.parse_args()
    size = QUICK if given.quick else Size()
    changes: dict[str, Any] = {
        name: value
        for name, value in {
            "messages": MILLION if given.million else given.messages,
            "order": given.order,
            "vector_messages": 0 if given.vectors else given.vector_messages,
            "vectors": given.vectors or None,
        }.items()
        if value is not None
    }
    return msgspec.structs.replace(size, **changes)


class Measured(msgspec.Struct):
    """All figures of the main part; rates in `runs` are messages a second, other figures say what they are."""

    events: int
    start_up_s: float = 0
    runs: Runs = msgspec.field(default_factory=dict)
    limit_s: dict[str, list[float]] = msgspec.field(default_factory=dict)
    projector_mb: list[tuple[float, float]] = msgspec.field(default_factory=list)
    rebuild_mb: list[float] = msgspec.field(default_factory=list)
    lag_ms: dict[str, float] = msgspec.field(default_factory=dict)
    quiet: Calm | None = None
    beside_rebuild: Calm | None = None

    def note(self, name: str, rate: float) -> None:
        """Add one run."""
        console.print(f"  {name}: {rate:,.0f} messages/s")
        self.runs.setdefault(name, []).append(rate)


class Bench:
    """All contenders over one server. `with_vectors`: rebuild and limit alone, of the part with vectors."""

    def __init__(self, settings: Settings, size: Size, *, with_vectors: bool = False) -> None:
        self._settings = settings
        self._size = size
        self._dsn = settings.admin_dsn
        self._write = write_side(settings)
        messages = size.vector_messages if with_vectors else size.messages
        vectors = with_vectors or size.vectors
        self._history = History(messages, seed=SEED, order=size.order, vectors=vectors)
        self._log = self._append()
        self._rows: Rows = {}
        self.measured = Measured(self._log.events)
        self.measured.start_up_s = round(median(start_up(settings) for _ in range(3)), 2)

    def close(self) -> None:
        """Let go of the database."""
        self._write.close()

    def run(self) -> Measured:
        """Everything, in rounds. Raises `RuntimeError` where a rebuild gives other rows than the live projection."""
        contenders = {
            "live projection, the whole log waiting": self._live,
            _INDEXED: self._indexed,
            "rebuild": self._rebuild,
            "limit": self._limit,
        }
        if not self._size.vectors:  # of which that projection knows nothing
            contenders[_LIBRARY] = self._library
        self._rounds(contenders)
        self._readers()
        check_same(exported(self._dsn), self._rows)
        self._lag()
        return self.measured

    def run_with_vectors(self) -> Runs:
        """Rebuild and limit."""
        rebuild(self._settings)
        self._rows = exported(self._dsn)
        self._rounds({"rebuild with vectors": self._rebuild, "limit with vectors": self._limit})
        return self.measured.runs

    def _rounds(self, contenders: dict[str, Callable[[], None]]) -> None:
        for turn in range(self._size.rounds):
            for name, measure in contenders.items():
                console.print(f"round {turn + 1} of {self._size.rounds}: {name}")
                checkpoint(self._dsn)
                measure()

    def _append(self) -> Recorded:
        console.print(f"appending {self._history.messages:,} messages and what was said of them")
        started = time.perf_counter()
        log = recorded(self._write, self._history)
        console.print(f"{log.events:,} events in {time.perf_counter() - started:.0f} s")
        return log

    def _live(self) -> None:
        reset(self._dsn)
        caught = catch_up(self._settings, self._log.last)
        self.measured.note("live", caught.events_per_second * self._messages_an_event)
        self.measured.projector_mb.append((caught.early_mb, caught.late_mb))
        self._rows = self._rows or exported(self._dsn)

    def _indexed(self) -> None:
        self.measured.note(_INDEXED, self._log.messages / copy_into_indexed(self._dsn, self._rows, IN_ONE_COPY))

    def _rebuild(self) -> None:
        rebuilt = rebuild(self._settings)
        self.measured.note("rebuild", self._log.messages / (rebuilt.seconds - self.measured.start_up_s))
        self.measured.note(_WHOLE, self._log.messages / rebuilt.seconds)
        self.measured.rebuild_mb.append(rebuilt.memory_mb)

    def _limit(self) -> None:
        took = copy_into_bare(self._dsn, self._rows)
        self.measured.note(_LIMIT, self._log.messages / took["sum"])
        for piece, seconds in took.items():
            self.measured.limit_s.setdefault(piece, []).append(seconds)

    def _library(self) -> None:
        rate = run_library(self._dsn, self._write, self._rows, self._log, self._size.library_events)
        self.measured.note(_LIBRARY, rate * self._messages_an_event)

    def _readers(self) -> None:
        """Beside a rebuild, with a projector that runs, and for as long without one."""
        who = (self._dsn, self._settings.runtime_dsn, self._history.tenants[0])
        with projector(self._settings):
            console.print("readers beside a rebuild")
            started = time.monotonic()
            with reading(*who) as readers:
                rebuild(self._settings)
            self.measured.beside_rebuild = readers.result
            console.print("readers without a rebuild")
            with reading(*who) as readers:
                time.sleep(min(time.monotonic() - started, _QUIET_AT_MOST_S))
            self.measured.quiet = readers.result

    def _lag(self) -> None:
        seconds = self._size.lag_s
        console.print(f"lag at {LAG_PER_SECOND} messages a second for {seconds:g} s")
        late = lags(self._settings, self._write, self._history, seconds=seconds, per_second=LAG_PER_SECOND)
        cuts = quantiles(late, n=100)
        self.measured.lag_ms = {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1), "most": round(max(late), 1)}

    @property
    def _messages_an_event(self) -> float:
        return self._log.messages / self._log.events


def _show(size: Size, whole: Measured, vectors: Runs) -> None:
    runs = {**whole.runs, **{f"{name}{_WITH_VECTORS}": some for name, some in vectors.items()}}
    medians = {name: median(some) for name, some in runs.items()}
    table = Table("", "messages/s (median)", "runs", title=f"{whole.events:,} events, order {size.order}")
    table.columns[1].justify = "right"
    for name, some in runs.items():
        table.add_row(name, f"{medians[name]:,.0f}", " ".join(f"{run:,.0f}" for run in some))
    console.print(table)
    if whole.beside_rebuild and whole.quiet:
        _show_readers(whole.beside_rebuild, whole.quiet)
    limit = {piece: round(median(seconds), 2) for piece, seconds in whole.limit_s.items()}
    console.print(f"limit, s: {limit}; lag, ms: {whole.lag_ms}; start of a command: {whole.start_up_s} s")
    console.print(f"greatest memory, MB: projector early and late {whole.projector_mb}, rebuild {whole.rebuild_mb}")
    line = {
        "benchmark": "projections",
        "rebuild_vs_limit": _ratio(medians, "rebuild", _LIMIT),
        "rebuild_vs_runner": _ratio(medians, "rebuild", _LIBRARY),
        "live_vs_indexed_copy": _ratio(medians, "live", _INDEXED),
        "live_per_second": round(medians["live"]),
        "lag_p99_ms": whole.lag_ms["p99"],
        "swap_stall_ms": _stall(whole.beside_rebuild),
        "failed_queries": _failed(whole.beside_rebuild),
        "rebuild_vs_limit_with_vectors": _ratio(medians, f"rebuild{_WITH_VECTORS}", f"{_LIMIT}{_WITH_VECTORS}"),
        "rebuild_vs_limit_whole_command": _ratio(medians, _WHOLE, _LIMIT),
        "medians": {name: round(value) for name, value in medians.items()},
        "limit_s": limit,
        "readers": {"beside": whole.beside_rebuild, "quiet": whole.quiet},
        "lag_ms": whole.lag_ms,
        "projector_mb": whole.projector_mb,
        "rebuild_mb": whole.rebuild_mb,
        "events": whole.events,
        "size": size,
        "seed": SEED,
        "machine": machine(),
    }
    print(json.dumps(msgspec.to_builtins(line), ensure_ascii=False))


def _show_readers(beside: Calm, quiet: Calm) -> None:
    table = Table("ms", "beside a rebuild: p50", "p99.9", "max", "around the swap: max", "without: p99.9", "max")
    for kind, one in beside.kinds.items():
        other, near = quiet.kinds[kind], beside.swap_ms.get(kind)
        figures = (one.p50, one.p999, one.most, near, other.p999, other.most)
        table.add_row(kind, *("–" if figure is None else f"{figure:.1f}" for figure in figures))
    console.print(table)
    for name, calm in (("beside a rebuild", beside), ("without", quiet)):
        for error in calm.errors:
            console.print(f"[bold red]queries failed {name}: {error}[/]")


def _ratio(medians: dict[str, float], ours: str, theirs: str) -> float | None:
    if ours not in medians or theirs not in medians:
        return None
    return round(medians[ours] / medians[theirs], 4)


def _stall(beside: Calm | None) -> float | None:
    """Milliseconds of the slowest query that met the swap; of any query during the rebuild where there was no swap."""
    if beside is None:
        return None
    return max(beside.swap_ms.values() or [one.most for one in beside.kinds.values()])


def _failed(beside: Calm | None) -> int | None:
    return None if beside is None else sum(one.failed for one in beside.kinds.values())


if __name__ == "__main__":
    main()
