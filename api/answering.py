"""Which embedding model answers for tenants that never chose one.

The log does not say: it has choices alone. Such a tenant is searched by the model that most of its vectors are of
(`sql/functions/embedding_model.sql`), so what is new of it has to get vectors of that model, too, whatever the
installation's default is by now: vectors of another would not be found. A new default begins with tenants that have no
vectors; the others move to it by `evosense reembed` (docs/adr/0042).
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from eventsourcing.postgres import PostgresDatastore
from msgspec.structs import replace

from domain.embedding_models import EmbeddingModels
from sql import queries

_ANSWERING: Final = queries("answering")
#: Seconds for which an answer is believed. It changes where a tenant moves, and then the log says so.
_FRESH_S: Final = 60.0
_MOST: Final = 10_000


class Answering:
    """Asks the read models, and remembers for a while. Its calls block on the database; any thread may make them."""

    def __init__(self, datastore: PostgresDatastore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._datastore = datastore
        self._clock = clock
        self._known: dict[UUID, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def filled(self, states: Iterable[tuple[UUID, EmbeddingModels]]) -> dict[UUID, EmbeddingModels]:
        """The states by tenant; `answering` is the model that answers where the tenant has vectors, chosen or not."""
        return {
            tenant_id: state if state.answering is not None else replace(state, answering=self._model_of(tenant_id))
            for tenant_id, state in states
        }

    def _model_of(self, tenant_id: UUID) -> str | None:
        with self._lock:
            model, until = self._known.get(tenant_id, ("", 0.0))
        if until > self._clock():
            return model
        with self._datastore.get_connection() as conn, conn.transaction():
            _ANSWERING.see_tenant(conn, tenant_id=tenant_id)
            found: str | None = _ANSWERING.model_of(conn, tenant_id=tenant_id)
        if found is not None:
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[tenant_id] = found, self._clock() + _FRESH_S
        return found
