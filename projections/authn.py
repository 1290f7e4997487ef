"""Users, in the documented table `authn_user`."""

from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from domain.authn import PasswordChanged, RoleChanged, UserDeactivated, UserLoggedIn, UserRegistered
from projections.batch import Batch
from sql import queries

_AUTHN: Final = queries("authn")
_OURS: Final = (UserRegistered, PasswordChanged, RoleChanged, UserDeactivated, UserLoggedIn)


class AuthnProjection:
    """See `Projection`."""

    name = "authn"
    tables = ("authn_user",)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`. Log-ins, the only frequent event here, are folded to the last one of each user."""
        ours = [(position, event) for position, event in batch.recorded if isinstance(event, _OURS)]
        row_ids = batch.row_ids(conn, (event.originator_id for _, event in ours))
        last_logins: dict[int, datetime] = {}
        for position, event in ours:
            row_id = row_ids[event.originator_id]
            match event:
                case UserRegistered():
                    _AUTHN.put_user(
                        conn,
                        id=position,
                        tenant_id=event.tenant_id,
                        username=event.username,
                        password=event.password_hash,
                        email=event.email,
                        first_name=event.first_name,
                        last_name=event.last_name,
                        role=event.role,
                        is_superuser=event.is_superuser,
                        joined=event.at,
                    )
                case PasswordChanged():
                    _AUTHN.set_password(conn, id=row_id, password=event.password_hash)
                case RoleChanged():
                    _AUTHN.set_role(conn, id=row_id, role=event.role)
                case UserDeactivated():
                    _AUTHN.deactivate(conn, id=row_id)
                case UserLoggedIn():
                    last_logins[row_id] = event.at
        if last_logins:
            _AUTHN.set_last_logins(conn, ids=list(last_logins), ats=list(last_logins.values()))
