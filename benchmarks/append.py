"""Appending: one lone caller's latency, many callers' and large batches' throughput, and memory.

`make bench-append`. Ours is the whole way from a decided event to its position: sealing, encoding, the queue of group
commit, one transaction. Beside it the library's own `save` with its defaults, one autocommit INSERT an event, and
binary COPY of the very same sealed bytes into a bare table. All are synchronous on disk, in one run, in turns; events
and aggregates are made before the clock starts.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Final
from uuid import UUID

from rich.table import Table

from adapters.event_store import Appended, StructMapper, TenantStoredEvent
from adapters.settings import Settings
from api.wiring import WriteSide, write_side
from benchmarks.append_baselines import Hung, Library, Note, copy, in_threads, insert, note
from benchmarks.common import console, installation, machine
from domain.messages import MessageReceived, message_id

SEED: Final = 3
ROUNDS: Final = 3
LONE: Final = 300
#: Appends of one event each by so many callers at once.
CALLERS: Final = {1: 300, 8: 1600, 64: 9600, 512: 15360}
#: Batches of so many events, so many times.
BATCHES: Final = {1000: 8, 5000: 3}
LIBRARY_CALLERS: Final = {1: 200, 8: 400}
LIBRARY_BATCHES: Final = 2
MEMORY: Final = 200_000
MILLION: Final = 1_000_000
_WORDS: Final = (
    "pedido",
    "entrega",
    "ainda",
    "obrigada",
    "quanto",
    "custa",
    "frete",
    "caixa",
    "boleto",
    "trocar",
    "não",
)

Result = dict[str, list[float]]


def main() -> None:
    """Run all and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--million", action="store_true", help=f"memory with {MILLION:,} events, not {MEMORY:,}")
    events = MILLION if arguments.parse_args().million else MEMORY
    rates: Result = {}
    latencies: Result = {}
    hung = ""
    # First and by itself: a process that has once needed much memory keeps it, and would show nothing.
    with installation() as settings:
        bench = Bench(settings)
        try:
            memory = bench.memory(events)
        finally:
            bench.close()
    with installation() as settings:
        bench = Bench(settings)
        try:
            for turn in range(ROUNDS):
                for name, measure in bench.lone().items():
                    console.print(f"round {turn + 1} of {ROUNDS}: {name}")
                    latencies.setdefault(name, []).extend(measure())
                for name, throughput in bench.throughput().items():
                    console.print(f"round {turn + 1} of {ROUNDS}: {name}")
                    try:
                        rates.setdefault(name, []).append(throughput())
                    except Hung as error:
                        hung = str(error)
                        console.print(f"[bold red]{hung}[/]")
        finally:
            bench.close()
    _show(rates, latencies, memory, hung)


class Bench:
    """All contenders over one server."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.admin_dsn
        self._write: WriteSide = write_side(settings)
        self._mapper = StructMapper(self._write.vault)
        self._random = Random(SEED)  # noqa: S311 - nothing secret comes of it
        self._tenant = UUID(int=self._random.getrandbits(128), version=4)
        self._connection = UUID(int=self._random.getrandbits(128), version=4)
        self._numbers = iter(range(10**9))
        self._write.vault.create(self._tenant)
        self._library = Library(settings.admin_dsn)

    def close(self) -> None:
        """Let go of the database."""
        self._library.close()
        self._write.close()

    def lone(self) -> dict[str, Callable[[], list[float]]]:
        """Latencies in milliseconds of one caller who is alone."""
        return {"EvoSense": self._lone, "library's save": self._library_lone}

    def throughput(self) -> dict[str, Callable[[], float]]:
        """Events a second of each contender."""
        contenders: dict[str, Callable[[], float]] = {}
        for callers, events in CALLERS.items():
            contenders[f"EvoSense, {callers} callers"] = lambda c=callers, n=events: self._callers(c, n)
        for callers, events in LIBRARY_CALLERS.items():
            contenders[f"library's save, {callers} threads"] = lambda c=callers, n=events: self._library_callers(c, n)
        for connections in (1, 8):
            contenders[f"INSERT, {connections} connections"] = lambda c=connections: insert(
                self._dsn, self._stored(1500), c
            )
        for size, times in BATCHES.items():
            contenders[f"EvoSense, batches of {size:,}"] = lambda s=size, t=times: self._batches(s, t)
            contenders[f"COPY, {size:,} a transaction"] = lambda s=size, t=times: copy(
                self._dsn, self._stored(s * t), s
            )
        contenders["library's save of 1,000"] = lambda: self._library_batches(1000)
        contenders["COPY, all at once"] = lambda: copy(self._dsn, self._stored(15_000), 15_000)
        return contenders

    def memory(self, events: int) -> dict[str, float]:
        """Resident memory in MB before, at most, and after so many events were appended, 1,000 at a time."""
        gc.collect()
        before, most = _resident(), 0.0
        started = time.perf_counter()
        for _ in range(events // 1000):
            self._append(list(self._events(1000)))
            most = max(most, _resident())
        rate = events / (time.perf_counter() - started)
        gc.collect()
        return {"events": events, "before": before, "most": most, "after": _resident(), "events/s": round(rate)}

    # ------------------------------------------------------------------------------------------------ ours

    def _lone(self) -> list[float]:
        return [_milliseconds(lambda event=event: self._append([event])) for event in self._events(LONE)]

    def _callers(self, callers: int, events: int) -> float:
        mine = [list(self._events(events // callers)) for _ in range(callers)]

        def caller(number: int) -> None:
            for event in mine[number]:
                self._append([event])

        return events / in_threads(caller, callers)

    def _batches(self, size: int, times: int) -> float:
        batches = [list(self._events(size)) for _ in range(times)]
        started = time.perf_counter()
        for batch in batches:
            self._append(batch)
        return size * times / (time.perf_counter() - started)

    def _append(self, events: list[MessageReceived]) -> None:
        outcomes = self._write.log.append([[event] for event in events])
        if not all(isinstance(outcome, Appended) for outcome in outcomes):
            raise RuntimeError("an event was refused")

    def _stored(self, number: int) -> list[TenantStoredEvent]:
        return [self._mapper.to_stored_event(event) for event in self._events(number)]

    def _events(self, number: int) -> Iterator[MessageReceived]:
        at = datetime(2026, 11, 22, 12, tzinfo=UTC)
        for _ in range(number):
            n = next(self._numbers)
            chat, key = f"{n % 500:064x}", f"3EB0{n:016X}"
            yield MessageReceived(
                originator_id=message_id(self._connection, chat, False, key),
                originator_version=1,
                tenant_id=self._tenant,
                at=at,
                connection_id=self._connection,
                chat_id=chat,
                sender=chat,
                from_me=False,
                is_group=False,
                kind="text",
                sent_at=at - timedelta(seconds=n % 86400),
                external_id=key,
                text=self._text(),
            )

    def _text(self) -> str:
        return " ".join(self._random.choices(_WORDS, k=12))

    # ------------------------------------------------------------------------------------------------ theirs

    def _notes(self, number: int) -> list[Note]:
        return [note(next(self._numbers), self._text()) for _ in range(number)]

    def _library_lone(self) -> list[float]:
        return [_milliseconds(lambda one=one: self._library.save(one)) for one in self._notes(LONE)]

    def _library_callers(self, callers: int, events: int) -> float:
        notes = self._notes(events)

        def caller(number: int) -> None:
            for one in notes[number::callers]:
                self._library.save(one)

        return events / in_threads(caller, callers)

    def _library_batches(self, size: int) -> float:
        batches = [self._notes(size) for _ in range(LIBRARY_BATCHES)]
        started = time.perf_counter()
        for batch in batches:
            self._library.save_or_hang(*batch)
        return size * LIBRARY_BATCHES / (time.perf_counter() - started)


def _show(rates: Result, latencies: Result, memory: dict[str, float], hung: str) -> None:
    table = Table("", "p50", "p95", "p99", title="one lone caller, ms")
    lone: dict[str, dict[str, float]] = {}
    for name, all_of in latencies.items():
        cuts = quantiles(all_of, n=100)
        lone[name] = {"p50": round(cuts[49], 3), "p95": round(cuts[94], 3), "p99": round(cuts[98], 3)}
        table.add_row(name, *(f"{value:.2f}" for value in lone[name].values()))
    console.print(table)
    table = Table("", "events/s (median)", "runs", title="throughput")
    medians = {name: median(runs) for name, runs in rates.items() if runs}
    for name, value in medians.items():
        table.add_row(name, f"{value:,.0f}", " ".join(f"{run:,.0f}" for run in rates[name]))
    console.print(table)
    console.print(f"memory, MB: {memory}")
    ratios = {
        "callers_64_vs_library": medians["EvoSense, 64 callers"] / medians["library's save, 8 threads"],
        "batch_1000_vs_copy": medians["EvoSense, batches of 1,000"] / medians["COPY, 1,000 a transaction"],
        "batch_1000_vs_copy_at_once": medians["EvoSense, batches of 1,000"] / medians["COPY, all at once"],
        "batch_5000_vs_copy": medians["EvoSense, batches of 5,000"] / medians["COPY, 5,000 a transaction"],
        "lone_p50_vs_library": lone["EvoSense"]["p50"] / lone["library's save"]["p50"],
    }
    if "library's save of 1,000" in medians:
        ratios["batch_1000_vs_library"] = medians["EvoSense, batches of 1,000"] / medians["library's save of 1,000"]
    print(
        json.dumps(
            {
                "benchmark": "append",
                **{name: round(value, 4) for name, value in ratios.items()},
                "seed": SEED,
                "rounds": ROUNDS,
                "lone_ms": lone,
                "medians": {name: round(value) for name, value in medians.items()},
                "memory_mb": memory,
                "hung": hung,
                "machine": machine(),
            },
            ensure_ascii=False,
        )
    )


def _milliseconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _resident() -> float:
    """This process's resident memory in MB (`VmRSS` is given in kB, proc(5))."""
    status = Path("/proc/self/status").read_text("ascii")
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


if __name__ == "__main__":
    main()
