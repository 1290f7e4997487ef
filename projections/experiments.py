"""Inferences, in the documented table `experiments_inference`.

The context's other two documented tables exist and are owned here; their events come with the experiments.
"""

from typing import Any, Final

from psycopg import Connection

from domain.experiments import InferenceRecorded
from projections.batch import Batch
from sql import queries

_EXPERIMENTS: Final = queries("experiments")


class ExperimentsProjection:
    """See `Projection`."""

    name = "experiments"
    tables = ("experiments_inference", "experiments_experimentrun", "experiments_prompttemplate")

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        recorded = dict(batch.of(InferenceRecorded))
        if not recorded:
            return
        events = list(recorded.values())
        messages = batch.row_ids(conn, (event.message_id for event in events))
        _EXPERIMENTS.put_inferences(
            conn,
            ids=list(recorded),
            tenant_ids=[event.tenant_id for event in events],
            message_ids=[messages[event.message_id] for event in events],
            model_names=[event.model_name for event in events],
            prompt_versions=[event.prompt_version for event in events],
            template_hashes=[event.template_hash for event in events],
            latencies=[event.latency_ms for event in events],
            sentiments=[event.sentiment for event in events],
            emotions=[event.emotion for event in events],
            satisfactions=[event.satisfaction for event in events],
            shadows=[event.is_shadow for event in events],
            run_ids=[event.run_id for event in events],
            created_ats=[event.at for event in events],
        )
