"""What models answered and cost, by tenant, UTC day and model: operational figures, no facts of the log (ADR 0041).

As `api.activity` does, each process adds up in memory and writes every second. What was spent today is asked for
before each answer that may cost something: it is what all processes have written, as of a second ago, and what this one
has not written yet.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from adapters.event_store import RoleDatastore
from adapters.telemetry import MODEL_ANSWERS, MODEL_COST, MODEL_TOKENS
from domain.ports import Usage as Used
from sql import queries

_USAGE: Final = queries("usage")
_log = structlog.stdlib.get_logger(__name__)

#: Seconds between two writes, and between two looks at what others have written.
PAUSE_S: Final = 1.0
#: Days are forgotten after so long.
KEPT: Final = timedelta(days=400)
#: Seconds for which the spending of a tenant is kept up to date after it was asked for.
_WATCHED_S: Final = 300.0

Purpose = Literal["analysis", "embedding"]
#: What became of a question: `failed` is a model that was unavailable.
Outcome = Literal["answered", "cached", "refused", "failed"]


class _Key(NamedTuple):
    tenant_id: UUID
    day: date
    model_name: str
    purpose: str


class _Figures(NamedTuple):
    calls: int = 0
    cached: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0


class Usage:
    """Adds up and writes; safe to share among threads. The thread that writes starts with the first use."""

    def __init__(self, datastore: RoleDatastore, *, pause: float = PAUSE_S) -> None:
        self._datastore = datastore
        self._pause = pause
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._counts: defaultdict[_Key, _Figures] = defaultdict(_Figures)
        # Being written: still of this process alone, until the transaction has ended.
        self._leaving: Mapping[_Key, _Figures] = {}
        # What the table said of a tenant, of which day, and until when that is kept up to date.
        self._spent: dict[UUID, tuple[date, int]] = {}
        self._watched: dict[UUID, float] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._cleared: datetime | None = None

    def count(
        self,
        tenant_id: UUID,
        model_name: str,
        used: Used,
        outcome: Outcome = "answered",
        *,
        purpose: Purpose = "analysis",
    ) -> None:
        """Count what one question (or one batch of texts to embed) took, whatever became of it."""
        MODEL_ANSWERS.labels(model_name, purpose, outcome).inc()
        MODEL_TOKENS.labels(model_name, purpose, "input").inc(used.input_tokens)
        MODEL_TOKENS.labels(model_name, purpose, "output").inc(used.output_tokens)
        MODEL_COST.labels(model_name, purpose).inc(used.cost / 1_000_000)
        figures = _Figures(
            used.calls,
            int(outcome == "cached"),
            int(outcome == "refused"),
            used.input_tokens,
            used.output_tokens,
            used.cost,
        )
        if not any(figures):
            return
        key = _Key(tenant_id, today(), model_name, purpose)
        with self._lock:
            self._counts[key] = _sum(self._counts[key], figures)
            self._awake()

    def spent(self, tenant_id: UUID) -> int:
        """Millionths of a US dollar that the tenant's models have cost since midnight UTC.

        Blocks on the database the first time on a day; raises what that raises.
        """
        day = today()
        with self._lock:
            self._watched[tenant_id] = time.monotonic() + _WATCHED_S
            known = self._known(tenant_id, day)
            self._awake()
        if known is not None:
            return known
        # Not while counts are on their way: they would be seen twice, or not at all.
        with self._writing:
            with self._datastore.get_connection() as conn:
                found = _spent(conn, [tenant_id], day)
            with self._lock:
                self._spent[tenant_id] = (day, found[tenant_id])
                return self._known(tenant_id, day) or 0

    def flush(self) -> None:
        """Write what was counted, and look at what others have spent.

        Raises what the database raises; the counts are kept then, for the next time.
        """
        with self._writing:
            day, now = today(), time.monotonic()
            with self._lock:
                self._leaving, self._counts = self._counts, defaultdict(_Figures)
                self._watched = {one: until for one, until in self._watched.items() if until > now}
                self._spent = {
                    one: told for one, told in self._spent.items() if told[0] == day and one in self._watched
                }
                watched = list(self._watched)
            if not self._leaving and not watched:
                return
            try:
                found = self._write(self._leaving, watched, day)
            except BaseException:
                with self._lock:
                    for key, figures in self._leaving.items():
                        self._counts[key] = _sum(self._counts[key], figures)
                    self._leaving = {}
                raise
            with self._lock:
                # At once: between the two, what was written would count twice, or not at all.
                self._leaving = {}
                self._spent.update((tenant_id, (day, cost)) for tenant_id, cost in found.items())

    def forget(self, tenant_id: UUID) -> None:
        """Delete everything that was counted of a tenant, for when it is erased. Raises what the database raises."""
        with self._writing:
            with self._lock:
                for key in [key for key in self._counts if key.tenant_id == tenant_id]:
                    del self._counts[key]
                self._spent.pop(tenant_id, None)
            with self._datastore.get_connection() as conn, conn.transaction():
                _USAGE.forget_tenant(conn, tenant_id=tenant_id)

    def close(self) -> None:
        """Write what is left and stop. What can't be written now is lost, with a word in the log."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._try()

    def _known(self, tenant_id: UUID, day: date) -> int | None:
        """What was spent, where the table was read on that day; with the lock."""
        told = self._spent.get(tenant_id)
        if told is None or told[0] != day:
            return None
        ours = sum(
            figures.cost
            for counts in (self._counts, self._leaving)
            for key, figures in counts.items()
            if key.tenant_id == tenant_id and key.day == day
        )
        return told[1] + ours

    def _awake(self) -> None:
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._try()

    def _try(self) -> None:
        try:
            self.flush()
        except (psycopg.Error, PersistenceError) as error:
            _log.warning("what models cost waits for the database", error=type(error).__name__)

    def _write(self, counts: Mapping[_Key, _Figures], watched: list[UUID], day: date) -> dict[UUID, int]:
        keys, figures, now = list(counts), list(counts.values()), datetime.now(UTC)
        with self._datastore.get_connection() as conn, conn.transaction():
            if keys:
                # As in `api.activity`: nobody shall wait for it on the disk.
                conn.execute("SET LOCAL synchronous_commit = off")
                _USAGE.add_usage(
                    conn,
                    tenant_ids=[key.tenant_id for key in keys],
                    days=[key.day for key in keys],
                    models=[key.model_name for key in keys],
                    purposes=[key.purpose for key in keys],
                    calls=[one.calls for one in figures],
                    cached=[one.cached for one in figures],
                    refused=[one.refused for one in figures],
                    inputs=[one.input_tokens for one in figures],
                    outputs=[one.output_tokens for one in figures],
                    costs=[one.cost for one in figures],
                )
            found = _spent(conn, watched, day)
            if self._cleared is None or now - self._cleared > timedelta(hours=1):
                _USAGE.forget_days(conn, before=day - KEPT)
                self._cleared = now
        return found


def today() -> date:
    """The day that budgets are for: UTC's, wherever the tenant is."""
    return datetime.now(UTC).date()


def _spent(conn: Any, tenant_ids: list[UUID], day: date) -> dict[UUID, int]:
    if not tenant_ids:
        return {}
    rows = _USAGE.spent(conn, tenant_ids=tenant_ids, day=day)
    return dict.fromkeys(tenant_ids, 0) | {row["tenant_id"]: row["cost"] for row in rows}


def _sum(one: _Figures, other: _Figures) -> _Figures:
    return _Figures(*(a + b for a, b in zip(one, other, strict=True)))
