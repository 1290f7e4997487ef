"""The role that the running system logs in as: no privilege of its own, and SET ROLE to what a connection needs."""

from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow


class LoginRoleError(Exception):
    """The runtime DSN names a role that the system must not run as; the message says why."""


def ensure_login_role(conn: psycopg.Connection[DictRow], queries: Any, runtime_dsn: str) -> list[str]:
    """Create the role of `runtime_dsn`, or correct it where it exists; return warnings.

    `conn` is an administrator's, in autocommit. The password travels as a SCRAM verifier, so that no server log can
    hold it. An existing password that works is left alone. Raises `LoginRoleError`.
    """
    wanted = conninfo_to_dict(runtime_dsn)
    name, password = wanted.get("user"), wanted.get("password")
    if not isinstance(name, str):
        raise LoginRoleError(
            "the runtime DSN names no user; it has to be like postgresql://evosense:secret@host:5432/evosense"
        )
    if name == conn.info.user:
        raise LoginRoleError(
            f"the runtime DSN names the administrator {name!r}; the running system needs a role of its own, because "
            "row-level security does not bind administrators"
        )
    warnings = []
    if wanted.get("dbname", name) != conn.info.dbname:
        warnings.append(
            f"the runtime DSN names database {wanted.get('dbname', name)!r}, but {conn.info.dbname!r} was migrated"
        )
    role = sql.Identifier(name)
    if queries.login_role(conn, name=name) is None:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(role))
    state = queries.login_role(conn, name=name)
    if state["powerful"] or state["is_owner"]:
        raise LoginRoleError(
            f"role {name!r} is a superuser, bypasses row-level security, may create roles or databases, replicates, or "
            "is a member of evosense_owner; give the running system a role without any of it"
        )
    if state["inherits"] or not state["can_login"]:
        conn.execute(sql.SQL("ALTER ROLE {} LOGIN NOINHERIT").format(role))
        state = queries.login_role(conn, name=name)
    # Since PostgreSQL 16 inheritance belongs to each membership and not to the role alone.
    options = sql.SQL(" WITH INHERIT FALSE" if conn.info.server_version >= 160000 else "")
    for group in state["to_grant"]:
        conn.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), role) + options)
    if not state["may_connect"]:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    if isinstance(password, str) and not _can_log_in(runtime_dsn):
        verifier = conn.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(verifier)))
    return warnings


def _can_log_in(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
