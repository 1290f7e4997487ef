"""Where the tenants' wrapped keys are kept: a table beside the log."""

from typing import Final
from uuid import UUID

from adapters.event_store.datastore import RoleDatastore
from sql import queries

_LOG: Final = queries("log")


class PostgresKeyStore:
    """`adapters.vault.KeyStore` over `evosense_log.tenant_keys`."""

    def __init__(self, datastore: RoleDatastore) -> None:
        self._datastore = datastore

    def get(self, tenant_id: UUID) -> tuple[bytes, str] | None:
        """See `KeyStore.get`."""
        with self._datastore.get_connection() as conn:
            row = _LOG.tenant_key(conn, tenant_id=tenant_id)
        return None if row is None else (bytes(row["wrapped_key"]), row["master_key_id"])

    def add(self, tenant_id: UUID, wrapped: bytes, master_key_id: str) -> None:
        """See `KeyStore.add`."""
        with self._datastore.get_connection() as conn:
            _LOG.add_tenant_key(conn, tenant_id=tenant_id, wrapped_key=wrapped, master_key_id=master_key_id)

    def any(self) -> tuple[UUID, bytes, str] | None:
        """See `KeyStore.any`."""
        with self._datastore.get_connection() as conn:
            row = _LOG.any_tenant_key(conn)
        return None if row is None else (row["tenant_id"], bytes(row["wrapped_key"]), row["master_key_id"])
