"""Inferences and prompts, in the documented tables `experiments_inference` and `experiments_prompttemplate`.

The context's third documented table exists and is owned here; its events come with the experiments.
"""

from typing import Any, Final

from psycopg import Connection

from domain.event import Event
from domain.experiments import InferenceRecorded
from domain.prompts import PromptTemplateActivated, PromptTemplateCreated
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
    """See `Projection`. A batch becomes at most three statements. Prompts are few: no COPY into bare tables.

    That a prompt was retired has no column, and is asked of the log.
    """

    name = "experiments"
    tables = ("experiments_inference", "experiments_experimentrun", "experiments_prompttemplate")
    events: tuple[type[Event], ...] = (InferenceRecorded, PromptTemplateCreated, PromptTemplateActivated)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = context = queries("experiments", schema=schema)
        self._inferences = Inserts(context.put_inferences, context.load_inferences, _INFERENCE_TYPES, bare=bare)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        self._infer(conn, batch)
        self._prompt(conn, batch)

    def _infer(self, conn: Connection[Any], batch: Batch) -> None:
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

    def _prompt(self, conn: Connection[Any], batch: Batch) -> None:
        activated = batch.of(PromptTemplateActivated)
        active = activated[-1][1].version if activated else None
        if active is not None:
            # First: what is new is written once, as it is in the end.
            self._queries.activate_prompt(conn, version=active)
        created = batch.of(PromptTemplateCreated)
        if created:
            self._queries.put_prompts(
                conn,
                ids=[position for position, _ in created],
                versions=[event.version for _, event in created],
                bodies=[event.body for _, event in created],
                descriptions=[event.description for _, event in created],
                actives=[event.version == active for _, event in created],
                created_ats=[event.at for _, event in created],
                created_bys=[event.created_by for _, event in created],
            )
