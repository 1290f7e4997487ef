"""Which connections the doors of the whole installation find."""

from uuid import uuid4

import psycopg
import pytest

from api.known_connections import known_connections
from api.wiring import write_side
from domain.connections import DeactivateConnection, connection
from tests.support.http import System, utc_now
from tests.support.systems import administrator


def test_connections_of_one_name_are_found_in_all_tenants(system: System) -> None:
    name = f"filial-{uuid4().hex[:8]}"
    owners = [system.new_user(system.new_tenant()) for _ in range(2)]
    for who in owners:
        system.new_connection(who, name)
    system.new_connection(owners[0], f"{name}-2")
    system.projected()
    found = known_connections(system.write, name)
    assert [(one.tenant_id, one.name, one.is_active) for one in found] == [(o.tenant_id, name, True) for o in owners]
    system.write.commands.handle(connection(found[0].id), DeactivateConnection(at=utc_now()))
    assert [one.is_active for one in known_connections(system.write, name)] == [False, True]
    assert {one.name for one in known_connections(system.write)} >= {name, f"{name}-2"}


def test_the_writer_sees_no_table_of_the_read_models(system: System) -> None:
    with (
        system.write.datastore.get_connection() as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        conn.transaction(),
    ):
        conn.execute("SELECT name FROM evosense.connections_evolutionconnection")


def test_a_tenant_whose_key_is_gone_takes_nobody_along(system: System) -> None:
    name = f"erased-{uuid4().hex[:8]}"
    gone, here = (system.new_user(system.new_tenant()) for _ in range(2))
    for who in (gone, here):
        system.new_connection(who, name)
    system.projected()
    other = write_side(system.settings)  # with no key in its memory
    try:
        with administrator(system.settings) as conn:
            key = "SELECT * FROM evosense_log.tenant_keys WHERE tenant_id = %s"
            kept = conn.execute(key, (gone.tenant_id,)).fetchone()
            conn.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (gone.tenant_id,))
            try:
                assert [one.tenant_id for one in known_connections(other, name)] == [here.tenant_id]
            finally:
                conn.execute("INSERT INTO evosense_log.tenant_keys VALUES (%s, %s, %s, %s)", kept)
    finally:
        other.close()
