"""Inferences, in the documented table `experiments_inference`.

The context's other two documented tables exist and are owned here; their events come with the experiments.
"""

from typing import Any, Final

from psycopg import Connection

from domain.event import Event
from domain.experiments import InferenceRecorded
from projections.batch import Batch
from projections.copying import Inserts
from sql import LIVE, queries

_INFERENCE_TYPES: Final = (
    "int8",
    "uuid",
    "int8",
    "varchar",
    "varchar",
    "varchar",
    "int4",
    "float8",
    "varchar",
    "int4",
    "bool",
    "varchar",
    "timestamptz",
)


class ExperimentsProjection:
    """See `Projection`. A batch becomes one statement."""

    name = "experiments"
    tables = ("experiments_inference", "experiments_experimentrun", "experiments_prompttemplate")
    events: tuple[type[Event], ...] = (InferenceRecorded,)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        context = queries("experiments", schema=schema)
        self._inferences = Inserts(context.put_inferences, context.load_inferences, _INFERENCE_TYPES, bare=bare)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        recorded = batch.of(InferenceRecorded)
        if not recorded:
            return
        events = [event for _, event in recorded]
        messages = batch.row_ids(conn, [event.message_id for event in events])
        self._inferences.insert(
            conn,
            {
                "ids": [position for position, _ in recorded],
                "tenant_ids": [event.tenant_id for event in events],
                "message_ids": messages,
                "model_names": [event.model_name for event in events],
                "prompt_versions": [event.prompt_version for event in events],
                "template_hashes": [event.template_hash for event in events],
                "latencies": [event.latency_ms for event in events],
                "sentiments": [event.sentiment for event in events],
                "emotions": [event.emotion for event in events],
                "satisfactions": [event.satisfaction for event in events],
                "shadows": [event.is_shadow for event in events],
                "run_ids": [event.run_id for event in events],
                "created_ats": [event.at for event in events],
            },
        )
