"""Users, in the documented table `authn_user`."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from psycopg import Connection

from domain.authn import PasswordChanged, RoleChanged, UserDeactivated, UserLoggedIn, UserRegistered
from domain.event import Event
from projections.batch import Batch
from sql import LIVE, queries


class AuthnProjection:
    """See `Projection`. A batch becomes at most two statements. Users are few: no COPY into bare tables."""

    name = "authn"
    tables = ("authn_user",)
    events: tuple[type[Event], ...] = (UserRegistered, PasswordChanged, RoleChanged, UserDeactivated, UserLoggedIn)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("authn", schema=schema)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        registered = batch.of(UserRegistered)
        changes: defaultdict[UUID, dict[str, Any]] = defaultdict(dict)
        for _, event in batch.of_any(self.events):
            changes[event.originator_id] |= _change(event)
        if registered:
            born = [changes.pop(event.originator_id) for _, event in registered]
            self._queries.put_users(
                conn,
                ids=[position for position, _ in registered],
                tenant_ids=[event.tenant_id for _, event in registered],
                usernames=[event.username for _, event in registered],
                emails=[event.email for _, event in registered],
                first_names=[event.first_name for _, event in registered],
                last_names=[event.last_name for _, event in registered],
                superusers=[event.is_superuser for _, event in registered],
                joined_ats=[event.at for _, event in registered],
                **_columns(born),
            )
        if changes:
            ids = batch.row_ids(conn, list(changes))
            self._queries.change_users(conn, ids=ids, **_columns(list(changes.values())))


def _change(event: Event) -> dict[str, Any]:
    """What an event sets of what may change, by column."""
    match event:
        case UserRegistered():
            return {"password": event.password_hash, "role": event.role, "is_active": True}
        case PasswordChanged():
            return {"password": event.password_hash}
        case RoleChanged():
            return {"role": event.role}
        case UserDeactivated():
            return {"is_active": False}
        case UserLoggedIn():
            return {"last_login": event.at}
    return {}


def _columns(changes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The rows as arrays, with None in what was not set."""
    return {
        "passwords": [change.get("password") for change in changes],
        "roles": [change.get("role") for change in changes],
        "actives": [change.get("is_active") for change in changes],
        "last_logins": [change.get("last_login") for change in changes],
    }
