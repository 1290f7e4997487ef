"""Where the tenants' wrapped keys are kept: a table beside the log."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from adapters.event_store.datastore import RoleDatastore, once_more
from adapters.key_rotation import Batch, Rewrap
from sql import queries

_LOG: Final = queries("log")


class PostgresKeyStore:
    """`adapters.vault.KeyStore` and `adapters.key_rotation.RotatingKeyStore` over `evosense_log.tenant_keys`."""

    def __init__(self, datastore: RoleDatastore) -> None:
        self._datastore = datastore

    @once_more
    def get(self, tenant_id: UUID) -> tuple[bytes, str] | None:
        """See `KeyStore.get`."""
        with self._datastore.get_connection() as conn:
            row = _LOG.tenant_key(conn, tenant_id=tenant_id)
        return None if row is None else (bytes(row["wrapped_key"]), row["master_key_id"])

    @once_more
    def add(self, tenant_id: UUID, wrapped: bytes, master_key_id: str, known: Sequence[str]) -> bool:
        """See `KeyStore.add`."""
        with self._datastore.get_connection() as conn, conn.transaction():
            # Either this key is there when a rotation looks for the last time, or this sees what the rotation did.
            _LOG.share_tenant_keys(conn)
            added: int = _LOG.add_tenant_key(
                conn, tenant_id=tenant_id, wrapped_key=wrapped, master_key_id=master_key_id, known=list(known)
            )
        return added == 1

    @once_more
    def probes(self) -> list[tuple[UUID, bytes, str]]:
        """See `KeyStore.probes`."""
        with self._datastore.get_connection() as conn:
            rows = list(_LOG.probe_tenant_keys(conn))
        return [_entry(row) for row in rows]

    def page(self, after: UUID | None, limit: int) -> list[tuple[UUID, bytes, str]]:
        """The next keys in the order of their tenants, each with the id of the master key that wraps it."""
        with self._datastore.get_connection() as conn:
            rows = list(_LOG.tenant_keys_after(conn, after=after, limit=limit))
        return [_entry(row) for row in rows]

    def rewrap(self, old: str, new: str, change: Rewrap, *, after: UUID | None, limit: int) -> Batch:
        """See `RotatingKeyStore.rewrap`."""
        with self._datastore.get_connection() as conn, conn.transaction():
            _LOG.own_tenant_keys(conn)
            rows = list(_LOG.tenant_keys_of(conn, master_key_id=old, after=after, limit=limit))
            changed = [(row["tenant_id"], change(row["tenant_id"], bytes(row["wrapped_key"]))) for row in rows]
            fit = [(tenant_id, wrapped) for tenant_id, wrapped in changed if wrapped is not None]
            moved: int = 0
            if fit:
                tenant_ids, wrapped_keys = map(list, zip(*fit, strict=True))
                moved = _LOG.rewrap_tenant_keys(
                    conn, tenant_ids=tenant_ids, wrapped_keys=wrapped_keys, old=old, new=new
                )
        broken = [tenant_id for tenant_id, wrapped in changed if wrapped is None]
        return Batch(moved, broken, rows[-1]["tenant_id"] if rows else None)

    def census(self) -> dict[str, int]:
        """See `RotatingKeyStore.census`."""
        with self._datastore.get_connection() as conn, conn.transaction():
            _LOG.own_tenant_keys(conn)
            return {row["master_key_id"]: row["tenants"] for row in _LOG.tenant_key_census(conn)}


def _entry(row: dict[str, Any]) -> tuple[UUID, bytes, str]:
    return row["tenant_id"], bytes(row["wrapped_key"]), row["master_key_id"]
