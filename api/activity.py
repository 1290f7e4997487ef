"""What the doors do with what connections send, in counts: operational figures, no facts of the log (ADR 0034).

Each process adds up in memory and writes the differences every second. A process that is killed loses what it has not
written, which is one second's worth; while the database is away, counts wait.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Protocol
from uuid import UUID

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from adapters.event_store import RoleDatastore
from api.vocabulary import known_kind, known_reason, known_transport
from sql import queries

_ACTIVITY: Final = queries("activity")
_log = structlog.stdlib.get_logger(__name__)

#: Seconds between two writes.
PAUSE_S: Final = 1.0
#: Hours are forgotten after so long; the totals stay.
KEPT: Final = timedelta(days=90)

#: What may become of it. `state` is a told state of the instance; the others are of messages, except that what is
#: refused at the door (no token, no envelope) counts as one, whatever was in it.
Outcome = Literal["accepted", "duplicate", "ignored", "refused", "state"]


class Source(Protocol):
    """What something came from: a connection, or an `Origin`."""

    @property
    def id(self) -> UUID:
        """The connection's stream."""

    @property
    def tenant_id(self) -> UUID | None:
        """Whose it is; of what is nobody's, nothing is counted."""


class _Key(NamedTuple):
    connection_id: UUID
    tenant_id: UUID
    hour: datetime
    transport: str
    outcome: str
    kind: str
    reason: str


class Last(NamedTuple):
    """What is known of a connection's last sign of life; None where this process saw none."""

    message_at: datetime | None = None
    sent_at: datetime | None = None
    state: str | None = None
    state_at: datetime | None = None


class Activity:
    """Adds up and writes; safe to share among threads. The thread that writes starts with the first count."""

    def __init__(self, datastore: RoleDatastore, *, pause: float = PAUSE_S) -> None:
        self._datastore = datastore
        self._pause = pause
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._counts: defaultdict[_Key, int] = defaultdict(int)
        self._last: dict[tuple[UUID, UUID], Last] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._cleared: datetime | None = None

    def note(
        self,
        source: Source,
        transport: str,
        outcome: Outcome,
        *,
        kind: str = "",
        reason: str = "",
        count: int = 1,
    ) -> None:
        """Count something that came from this connection. What has no known name is counted as `other`."""
        if source.tenant_id is None or count == 0:
            return
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        kind, reason = known_kind(kind), known_reason(reason)
        key = _Key(source.id, source.tenant_id, hour, known_transport(transport), outcome, kind, reason)
        with self._lock:
            self._counts[key] += count
            self._awake()

    def saw(
        self,
        source: Source,
        moment: datetime,
        *,
        sent_at: datetime | None = None,
        state: str | None = None,
    ) -> None:
        """A new message was taken at `moment`, sent at `sent_at`; or a state was told then."""
        if source.tenant_id is None:
            return
        seen = Last(moment if sent_at else None, sent_at, state, moment if state else None)
        with self._lock:
            place = (source.id, source.tenant_id)
            self._last[place] = _later(self._last.get(place, Last()), seen)
            self._awake()

    def flush(self) -> None:
        """Write what was counted. Raises what the database raises; the counts are kept then, for the next time."""
        with self._writing:
            with self._lock:
                counts, self._counts = self._counts, defaultdict(int)
                last, self._last = self._last, {}
            if not counts and not last:
                return
            try:
                self._write(counts, last)
            except BaseException:
                with self._lock:
                    for key, count in counts.items():
                        self._counts[key] += count
                    for place, seen in last.items():
                        self._last[place] = _later(seen, self._last.get(place, Last()))
                raise

    def forget(self, tenant_id: UUID) -> None:
        """Delete everything that was counted of a tenant, for when it is erased. Raises what the database raises."""
        with self._writing:
            with self._lock:
                for key in [key for key in self._counts if key.tenant_id == tenant_id]:
                    del self._counts[key]
                for place in [place for place in self._last if place[1] == tenant_id]:
                    del self._last[place]
            with self._datastore.get_connection() as conn, conn.transaction():
                _ACTIVITY.forget_tenant_counts(conn, tenant_id=tenant_id)
                _ACTIVITY.forget_tenant_last(conn, tenant_id=tenant_id)

    def close(self) -> None:
        """Write what is left and stop. What can't be written now is lost, with a word in the log."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._try()

    def _awake(self) -> None:
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="activity", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._try()

    def _try(self) -> None:
        try:
            self.flush()
        except (psycopg.Error, PersistenceError) as error:
            _log.warning("counts of connections wait for the database", error=type(error).__name__)

    def _write(self, counts: Mapping[_Key, int], last: Mapping[tuple[UUID, UUID], Last]) -> None:
        keys, seen = list(counts), list(last.items())
        now = datetime.now(UTC)
        with self._datastore.get_connection() as conn, conn.transaction():
            # Of no use once it is lost: the append that others wait for shall not wait for it on the disk.
            conn.execute("SET LOCAL synchronous_commit = off")
            _ACTIVITY.add_counts(
                conn,
                connection_ids=[key.connection_id for key in keys],
                tenant_ids=[key.tenant_id for key in keys],
                hours=[key.hour for key in keys],
                transports=[key.transport for key in keys],
                outcomes=[key.outcome for key in keys],
                kinds=[key.kind for key in keys],
                reasons=[key.reason for key in keys],
                counts=[counts[key] for key in keys],
            )
            _ACTIVITY.put_last(
                conn,
                connection_ids=[connection_id for (connection_id, _), _ in seen],
                tenant_ids=[tenant_id for (_, tenant_id), _ in seen],
                message_ats=[one.message_at for _, one in seen],
                sent_ats=[one.sent_at for _, one in seen],
                states=[one.state for _, one in seen],
                state_ats=[one.state_at for _, one in seen],
            )
            if self._cleared is None or now - self._cleared > timedelta(hours=1):
                _ACTIVITY.forget_hours(conn, before=now - KEPT)
                self._cleared = now


def _later(one: Last, other: Last) -> Last:
    """The later of each."""
    state = other if other.state_at and (one.state_at is None or other.state_at >= one.state_at) else one
    return Last(
        _latest(one.message_at, other.message_at), _latest(one.sent_at, other.sent_at), state.state, state.state_at
    )


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def totals(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Counts by outcome, zeros included, from rows with `outcome` and `count`."""
    found = dict.fromkeys(("accepted", "duplicate", "ignored", "refused"), 0)
    for row in rows:
        if row["outcome"] in found:
            found[row["outcome"]] += row["count"]
    return found
