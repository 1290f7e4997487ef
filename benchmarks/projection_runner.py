"""The library's own way to project, for comparison: its ProjectionRunner, one event a transaction, over our log."""

import threading
import time
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import ApplicationRecorder, InfrastructureFactory, Mapper, Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import Environment
from psycopg.conninfo import conninfo_to_dict

from adapters.event_store import LogRecorder, StructMapper
from api.wiring import WriteSide
from benchmarks.projection_baselines import Rows, fill, give_keys_and_indexes, tables_in
from benchmarks.projection_history import Recorded
from domain.experiments import InferenceRecorded
from domain.messages import MessageAnalyzed, MessageReceived

_SQL: Final = Path(__file__).parent / "sql"
_SCHEMA: Final = "bench_runner"
_NAME: Final = "onebyone"
_TIMEOUT_S: Final = 300


class View(PostgresTrackingRecorder):
    """Writes what an event changes and how far we are, in one transaction."""

    def write(self, statement: bytes, values: dict[str, Any], tracking: Tracking) -> None:
        """One prepared statement, and the tracking."""
        with self.datastore.transaction(commit=True) as curs:
            curs.execute(statement, values, prepare=True)
            self._insert_tracking(curs, tracking)


class OneByOne(Projection[View]):
    """The same rows as ours with as little work as can be: row ids come from memory, and nothing is looked up."""

    name = _NAME

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self.connections: dict[UUID, int] = {}
        self.last = 0
        self.began = self.ended = 0.0
        self.done = threading.Event()
        self._rows: dict[UUID, int] = {}
        self._received, self._analyzed, self._inference = (
            (_SQL / f"runner_{name}.sql").read_bytes() for name in ("received", "analyzed", "inference")
        )

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """See `Projection.process_event`."""
        self.began = self.began or time.perf_counter()
        match domain_event:
            case MessageReceived():
                self._rows[domain_event.originator_id] = tracking.notification_id
                self.view.write(self._received, self._message(domain_event, tracking.notification_id), tracking)
            case MessageAnalyzed():
                self.view.write(self._analyzed, self._analysis(domain_event), tracking)
            case InferenceRecorded():
                self.view.write(self._inference, self._row(domain_event, tracking.notification_id), tracking)
            case _:
                raise TypeError(f"the history has no {type(domain_event).__name__}")
        if tracking.notification_id == self.last:
            self.ended = time.perf_counter()
            self.done.set()

    def _message(self, event: MessageReceived, position: int) -> dict[str, Any]:
        return {
            "id": position,
            "tenant_id": event.tenant_id,
            "connection_id": self.connections[event.connection_id],
            "chat_id": event.chat_id,
            "sender": event.sender,
            "text": event.text,
            "created_at": event.sent_at,
            "author": "company" if event.from_me else "customer",
        }

    def _analysis(self, event: MessageAnalyzed) -> dict[str, Any]:
        return {
            "id": self._rows[event.originator_id],
            "sentiment": event.sentiment,
            "emotion": event.emotion,
            "satisfaction": event.satisfaction,
            "tone": event.tone,
            "summary": event.summary,
        }

    def _row(self, event: InferenceRecorded, position: int) -> dict[str, Any]:
        return {
            "id": position,
            "tenant_id": event.tenant_id,
            "message_id": self._rows[event.message_id],
            "model_name": event.model_name,
            "prompt_version": event.prompt_version,
            "template_hash": event.template_hash,
            "latency_ms": event.latency_ms,
            "sentiment": event.sentiment,
            "emotion": event.emotion,
            "satisfaction": event.satisfaction,
            "is_shadow": event.is_shadow,
            "run_id": event.run_id,
            "created_at": event.at,
        }


def run_library(dsn: str, write: WriteSide, rows: Rows, recorded: Recorded, events: int) -> float:
    """Events a second of the ProjectionRunner over the first `events` events of the history, from the first on.

    Reading, opening and decoding is ours; subscription, threads, transactions and tracking are the library's. The
    tables have all keys and documented indexes: the library projects into the tables that are read. They are empty at
    the start, which flatters it. Raises `TimeoutError` and what the projection raises.
    """
    first, last = recorded.first, min(recorded.first + events - 1, recorded.last)
    environment = _environment(dsn)
    with tables_in(dsn, _SCHEMA) as conn:
        fill(conn, _SCHEMA, rows, "tenancy_tenant", "connections_evolutionconnection")
        give_keys_and_indexes(conn, _SCHEMA)
        _skip_to(first - 1, environment)
        deadline = time.monotonic() + _TIMEOUT_S
        with ProjectionRunner[Any, View](
            application_class=_application(write),
            projection_class=_projection(write, recorded, last),
            view_class=View,
            env=environment,
        ) as runner:
            projection = runner.projection
            assert isinstance(projection, OneByOne)
            while not projection.done.wait(0.5):
                if runner.is_interrupted.is_set():
                    runner.run_forever(timeout=0)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the library did not project {events:,} events in {_TIMEOUT_S} s")
        return (last - first + 1) / (projection.ended - projection.began)


def _environment(dsn: str) -> dict[str, str]:
    parts = conninfo_to_dict(dsn)
    names = ("dbname", "host", "port", "user", "password")
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        **{f"POSTGRES_{name.upper()}": str(parts[name]) for name in names},
        "POSTGRES_SCHEMA": _SCHEMA,
    }


def _application(write: WriteSide) -> type[Application[UUID]]:
    """An application of the library's that is our log."""

    class OurLog(Application[UUID]):
        name = "ourlog"

        def construct_mapper(self) -> Mapper[UUID]:
            return StructMapper(write.vault)

        def construct_recorder(self) -> ApplicationRecorder:
            return LogRecorder(write.datastore)

    return OurLog


def _projection(write: WriteSide, recorded: Recorded, last: int) -> type[OneByOne]:
    """The projection, which knows the row of each connection and where to stop."""

    class Prepared(OneByOne):
        name = _NAME

        def __init__(self, view: View) -> None:
            super().__init__(view)
            self.connections = write.log.births(recorded.connections)
            self.last = last

    return Prepared


def _skip_to(position: int, environment: dict[str, str]) -> None:
    """Have the runner begin behind the tenants and connections, whose rows are there."""
    factory = InfrastructureFactory[View].construct(Environment(_NAME, environment))
    try:
        factory.tracking_recorder(View).insert_tracking(Tracking("ourlog", position))
    finally:
        factory.close()
