"""How far an import has come, kept beside the log: whoever goes back to a backup of one goes back with the other."""

from typing import Final
from uuid import UUID

import msgspec

from adapters.event_store import RoleDatastore
from api.importing.prepare import Tally
from api.importing.source import Position
from sql import queries

_IMPORTING: Final = queries("importing")


class Checkpoints:
    """The progress of one connection's import of one source."""

    def __init__(self, datastore: RoleDatastore, connection_id: UUID, source: str) -> None:
        self._datastore = datastore
        self._place = {"connection_id": connection_id, "source": source}

    def load(self) -> tuple[Position, Tally]:
        """Where to go on, and what became of what stands before it; the beginning where there is nothing to go on."""
        with self._datastore.get_connection() as conn:
            row = _IMPORTING.progress(conn, **self._place)
        if row is None:
            return Position(), Tally()
        try:
            return msgspec.convert(row["position"], Position), msgspec.convert(row["report"], Tally)
        except msgspec.ValidationError:
            return Position(), Tally()  # another version's: what is stored is recognised message by message

    def keep(self, position: Position, tally: Tally) -> None:
        """Everything before `position` is in the log or in the tally: call it after the append that it covers."""
        with self._datastore.get_connection() as conn, conn.transaction():
            _IMPORTING.keep_progress(
                conn,
                **self._place,
                position=msgspec.json.encode(position).decode(),
                report=msgspec.json.encode(tally).decode(),
            )
