"""The vector index as it grows: which stretches of a tenant's vectors get an HNSW index of their own, and when.

An index on vectors is slow to insert into and quick to build (DESIGN section 6), so nothing is inserted into one on its
way in: new vectors lie in a tail that is compared one by one, and when the tail is long an index over it is made aside,
`CONCURRENTLY`, without a lock that stops writes. Small indexes are made into bigger ones as their number grows, as in a
log-structured merge tree (O'Neil et al., Acta Informatica 1996). docs/adr/0030 has the figures.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from projections.build import REBUILD_GUARD
from sql import queries

#: A tenant with fewer vectors of a model has no index: comparing with every one takes a few milliseconds, and is exact.
FIRST: Final = 8000
#: So many vectors behind the last index get one of their own, or are made into one with what lies before them.
TAIL: Final = 2000
#: An index is merged with what comes behind it while it is at most so many times as big.
GROWTH: Final = 3
#: Most vectors in one index: building it has to fit in memory (DESIGN section 6).
MOST: Final = 1_500_000
#: An index of which so little is left goes, and the rest of its stretch gets a new one. Deleted vectors hold space, and
#: a VACUUM that takes them out of an HNSW index takes minutes: autovacuum comes at a fifth, so this is sooner.
WORN: Final = 0.85
#: Memory for building one index.
MEMORY: Final = "512MB"
#: Seconds before the database is tried again.
_REST_S: Final = 5.0

_QUERIES: Final = queries("vector_index")
_log = logging.getLogger(__name__)


class Segment(NamedTuple):
    """A stretch of message ids, above `after_id` and up to `upto_id`, with an HNSW index of `vectors` when made.

    A hole between two of them has no name, and `vectors` 0. `live`: how many there are now.
    """

    after_id: int
    upto_id: int
    index_name: str
    vectors: int
    live: int


class Step(NamedTuple):
    """An index of so many `vectors` to be made over a stretch, in the place of those that it replaces.

    `worn`: none is made, those only go, since too little is left of them. A later step covers the hole, which is
    compared one by one until then.
    """

    after_id: int
    upto_id: int
    vectors: int
    replaced: tuple[str, ...]
    worn: bool = False


class Standing(NamedTuple):
    """How the vectors of a tenant and model stand: `tail` of them lie behind the last index.

    `tail_end`: the message at which the next index would end, the last one unless more than `MOST` vectors are behind.
    """

    tenant_id: UUID
    name: str
    model: str
    segments: tuple[Segment, ...]
    tail: int
    tail_end: int
    index_bytes: int

    @property
    def vectors(self) -> int:
        """All vectors of the tenant's model."""
        return sum(segment.live for segment in self.segments) + self.tail


class Busy(Exception):
    """Another process is keeping the vector index, or a rebuild is under way."""


def next_step(
    segments: Sequence[Segment], tail: int, tail_end: int, *, first: int = FIRST, longest: int = TAIL
) -> Step | None:
    """What to do next for a tenant and model; None where all is well. Segments in order, holes among them.

    `tail`, `tail_end`: the vectors that are behind the last index, at most `MOST` of them, and where those end.
    `first`, `longest`: see `FIRST` and `TAIL`.
    """
    indexed = tuple(s.index_name for s in segments if s.index_name)
    if indexed and sum(s.live for s in segments) + tail < first // 2:
        return Step(0, tail_end, 0, indexed, worn=True)
    for segment in segments:
        if not segment.index_name and segment.live >= longest:
            return Step(segment.after_id, segment.upto_id, segment.live, ())
        if segment.live < WORN * segment.vectors:
            return Step(segment.after_id, segment.upto_id, 0, (segment.index_name,), worn=True)
    if tail < (longest if indexed else first):
        return None
    after, size, replaced = (segments[-1].upto_id if segments else 0), tail, list[str]()
    for segment in reversed(segments):
        if segment.live > GROWTH * size or segment.live + size > MOST:
            break
        after, size = segment.after_id, size + segment.live
        if segment.index_name:
            replaced.append(segment.index_name)
    return Step(after, tail_end, size, tuple(replaced))


class VectorIndex:
    """Looks at the vector index and keeps it. `connect` gives autocommit connections as the schema's owner."""

    def __init__(self, connect: Callable[[], Connection[Any]], *, first: int = FIRST, longest: int = TAIL) -> None:
        """`first`, `longest`: see `FIRST` and `TAIL`."""
        self._connect = connect
        self._first = first
        self._longest = longest

    def standings(self, tenant_id: UUID | None = None) -> list[Standing]:
        """How each tenant and model stands, or one tenant's."""
        with self._session() as conn:
            return list(_standings(conn, tenant_id))

    def maintain(self, on_step: Callable[[Standing, Step], None] = lambda _standing, _step: None) -> int:
        """Make what is due, one index after another; returns how many were made.

        Raises `Busy`, and `psycopg.Error` where the database fails; what was interrupted is cleared away by the next
        call.
        """
        with self._locked() as conn:
            _clear(conn)
            made = 0
            for standing in self._relieve(conn, on_step):
                for here, step in self._due(conn, standing):
                    on_step(here, step)
                    if step.worn:  # deleted since the look before
                        _take_away(conn, step.replaced)
                    else:
                        _make(conn, here, step)
                        made += 1
            return made

    def relieve(self) -> None:
        """What `maintain` does first, and quickly: take worn indexes away, give the space of deleted vectors back."""
        with self._locked() as conn:
            self._relieve(conn, lambda _standing, _step: None)

    def reindex(
        self, tenant_id: UUID | None = None, on_step: Callable[[Standing, Step], None] = lambda _standing, _step: None
    ) -> int:
        """Make every index anew, of all tenants or of one, then what is due; returns how many. Raises as `maintain`.

        The old one answers until the new one is there.
        """
        with self._locked() as conn:
            _clear(conn)
            made = 0
            for standing in list(_standings(conn, tenant_id)):
                for segment in standing.segments:
                    if not segment.index_name:
                        continue
                    step = Step(segment.after_id, segment.upto_id, segment.live, (segment.index_name,))
                    on_step(standing, step)
                    _make(conn, standing, step)
                    made += 1
        return made + self.maintain(on_step)

    def recall(self, standing: Standing, number: int) -> float | None:
        """Mean recall@20 against exact search, asked with `number` of the tenant's own vectors; None without any."""
        with self._session() as conn:
            found = []
            for row in list(_QUERIES.sample(conn, tenant_id=standing.tenant_id, model=standing.model, number=number)):
                question = {
                    "tenant_id": standing.tenant_id,
                    "model": standing.model,
                    "embedding": row["embedding"],
                }
                best = {hit["message_id"] for hit in _QUERIES.nearest_exactly(conn, **question)}
                near = {hit["message_id"] for hit in _QUERIES.nearest(conn, **question)}
                found.append(len(best & near) / len(best) if best else 1.0)
            return sum(found) / len(found) if found else None

    def keep(self, stop: threading.Event, every: float) -> None:
        """Maintain every so many seconds until `stop` is set. Faults of the database are waited out."""
        while not stop.is_set():
            try:
                with self._session() as presence:
                    _QUERIES.be_present(presence)
                    while not stop.is_set():
                        with suppress(Busy):  # the next look may find it free
                            self.maintain()
                        stop.wait(every)
                        presence.execute("SELECT 1")
            except psycopg.Error as error:
                _log.error("the vector index can't be worked on (%s); trying again", type(error).__name__)
                stop.wait(_REST_S)

    def _relieve(self, conn: Connection[Any], on_step: Callable[[Standing, Step], None]) -> list[Standing]:
        """See `relieve`. Returns those for which an index is due, so that nothing is counted a second time."""
        waiting = []
        statements = dict[str, None]()  # of each partition once
        for standing in list(_standings(conn, None)):
            for here, step in self._due(conn, standing):
                if not step.worn:
                    waiting.append(here)
                    break
                on_step(here, step)
                _take_away(conn, step.replaced)
                statements[_QUERIES.vacuum(conn, tenant_id=here.tenant_id)] = None
        for statement in statements:
            conn.execute(statement.encode())
        return waiting

    def _due(self, conn: Connection[Any], here: Standing) -> Iterator[tuple[Standing, Step]]:
        """Step after step of one tenant and model, for as long as one is due; the caller carries each out."""
        while (step := self._next(here)) is not None:
            yield here, step
            found = [s for s in _standings(conn, here.tenant_id) if s.model == here.model]
            if not found:  # its vectors were deleted meanwhile
                return
            (here,) = found

    def _next(self, here: Standing) -> Step | None:
        return next_step(here.segments, min(here.tail, MOST), here.tail_end, first=self._first, longest=self._longest)

    @contextmanager
    def _session(self) -> Iterator[Connection[Any]]:
        with self._connect() as conn:
            conn.row_factory = dict_row  # whoever made it
            yield conn

    @contextmanager
    def _locked(self) -> Iterator[Connection[Any]]:
        """One process at a time; the lock ends with the session, however that ends."""
        with self._session() as conn:
            if not _QUERIES.try_lock(conn):
                raise Busy("another process is keeping the vector index: wait until it is done")
            if _QUERIES.rebuild_under_way(conn, guard=REBUILD_GUARD):
                raise Busy("a rebuild is under way, which makes the indexes anew by itself: wait until it is done")
            conn.execute(SQL("SET maintenance_work_mem = {}").format(MEMORY))
            # Waits for running transactions, and holds nobody up.
            conn.execute("SET lock_timeout = 0")
            conn.execute("SET statement_timeout = 0")
            yield conn


def _standings(conn: Connection[Any], tenant_id: UUID | None) -> Iterator[Standing]:
    for row in list(_QUERIES.tenants(conn, tenant=tenant_id)):
        key = {"tenant_id": row["tenant_id"], "model": row["model"]}
        rows = [one for one in _QUERIES.segments(conn, **key) if one["usable"]]
        segments = tuple(
            Segment(
                one["after_id"],
                one["upto_id"],
                one["index_name"],
                one["vectors"],
                _QUERIES.vectors_between(conn, **key, after_id=one["after_id"], upto_id=one["upto_id"]),
            )
            for one in _in_order(rows)
        )
        end = segments[-1].upto_id if segments else 0
        yield Standing(
            **key,
            name=row["name"],
            segments=segments,
            tail=_QUERIES.vectors_between(conn, **key, after_id=end, upto_id=None),
            tail_end=_QUERIES.end_of_stretch(conn, **key, after_id=end, most=MOST),
            index_bytes=sum(one["bytes"] or 0 for one in rows),
        )


def _in_order(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """From the first message on; holes as rows without a name."""
    covered = 0
    for row in rows:
        if row["after_id"] > covered:
            yield {"after_id": covered, "upto_id": row["after_id"], "index_name": "", "vectors": 0}
        covered = row["upto_id"]
        yield row


def _make(conn: Connection[Any], standing: Standing, step: Step) -> None:
    """Make one index, let the search take it for those that it replaces, then drop those.

    Killed in between it leaves indexes that nobody knows of: they are cleared away later.
    """
    name = _QUERIES.next_index_name(conn)
    segment = {
        "index_name": name,
        "tenant_id": standing.tenant_id,
        "model": standing.model,
        "after_id": step.after_id,
        "upto_id": step.upto_id,
    }
    definition = _QUERIES.segment_definition(conn, **segment)
    if definition is None:  # its vectors were deleted meanwhile
        return
    conn.execute(definition.encode())
    with conn.transaction():  # no two segments ever overlap
        _QUERIES.forget_segments(conn, index_names=list(step.replaced))
        _QUERIES.add_segment(conn, **segment, vectors=step.vectors)
    for old in step.replaced:
        _drop(conn, old)
    _log.info("a vector index of %d vectors was made, in the place of %d", step.vectors, len(step.replaced))


def _take_away(conn: Connection[Any], index_names: Sequence[str]) -> None:
    _QUERIES.forget_segments(conn, index_names=list(index_names))
    for name in index_names:
        _drop(conn, name)
    _log.info("%d worn vector indexes were taken away", len(index_names))


def _clear(conn: Connection[Any]) -> None:
    lost = [row["index_name"] for row in _QUERIES.lost_segments(conn)]
    _QUERIES.forget_segments(conn, index_names=lost)
    for row in list(_QUERIES.stray_indexes(conn)):
        _drop(conn, row["index_name"])


def _drop(conn: Connection[Any], index_name: str) -> None:
    try:
        conn.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier("evosense", index_name)))
    except psycopg.errors.LockNotAvailable:  # the next round clears it away
        _log.warning("index %s could not be dropped yet", index_name)
