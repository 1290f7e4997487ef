"""How a connection is listened to, for those who see it through the API."""

from uuid import UUID

from tests.support.http import Account, System
from tests.support.systems import administrator


def test_what_was_never_listened_to_says_so(system: System, admin: Account) -> None:
    row_id, _ = system.new_connection(admin, "quieta")
    head = system.write.log.head()
    shown = system.get(admin, f"/connections/{row_id}/listening", wait_for=head)
    assert shown["link"] is None
    assert shown["troubles"] == []


def test_a_link_that_is_down_is_trouble_until_it_is_up_or_not_wanted(system: System, admin: Account) -> None:
    row_id, hook = system.new_connection(admin, "ligada")
    stream = UUID(hook.rsplit("/", 1)[1])
    with administrator(system.settings) as conn:
        conn.execute(
            "INSERT INTO evosense_ops.connection_links "
            "(connection_id, tenant_id, holder, held_until, transport, state, heartbeat_at, attempts, error) VALUES "
            "(%s, %s, 'here', now() + interval '1 hour', 'socket.io', 'waiting', now(), 3, 'unreachable')",
            (stream, admin.tenant_id),
        )
    path = f"/connections/{row_id}/listening"
    shown = system.get(admin, path, wait_for=system.write.log.head())
    assert (shown["link"]["state"], shown["link"]["attempts"]) == ("waiting", 3)
    assert shown["link"]["heartbeat_at"] is not None
    assert shown["troubles"] == ["not linked by socket.io: unreachable"]
    assert "here" not in str(shown), "which process holds it is the operator's business"
    stranger = system.new_user(system.new_tenant())
    system.get(stranger, path, expect=404)
    system.send(admin, "POST", f"/connections/{row_id}/deactivate")
    assert system.get(admin, path, wait_for=system.write.log.head())["troubles"] == []
