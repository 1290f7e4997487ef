"""Tenants over real HTTP: a superuser's work."""

from uuid import UUID

import pytest

from tests.support.http import Account, System, envelope, utc_now


def test_register_rename_subscribe(system: System, root: Account) -> None:
    body = {"name": "Padaria Aurora", "plan": "pro", "status": "trial", "next_billing_date": "2026-12-01"}
    made = system.send(root, "POST", "/tenants", body, expect=201)
    path = f"/tenants/{made['id']}"
    row = system.get(root, path, wait_for=made["position"])
    assert {name: row[name] for name in body} == body
    assert row["created_at"] == row["updated_at"]

    renamed = system.send(root, "PATCH", path, {"name": "Padaria Boreal"})
    again = system.send(root, "PATCH", path, {"name": "Padaria Boreal"})
    assert again == {"position": renamed["position"], "duplicate": True}
    subscription = {"plan": "scale", "status": "active", "next_billing_date": None}
    changed = system.send(root, "PUT", f"{path}/subscription", subscription)
    row = system.get(root, path, wait_for=changed["position"])
    assert {name: row[name] for name in ("name", *subscription)} == {"name": "Padaria Boreal", **subscription}
    assert row["updated_at"] > row["created_at"]


def test_all_pages_hold_every_tenant_once(system: System, root: Account) -> None:
    made = [system.new_tenant(f"Loja {number}") for number in range(5)]
    system.projected()
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = system.get(root, "/tenants", limit=2, **after)
        assert len(page["items"]) <= 2
        seen += [row["id"] for row in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert len(seen) == len(set(seen))
    assert {str(identifier) for identifier in made} <= set(seen)
    assert seen == sorted(seen)


def test_a_suspended_tenant_is_shut_out_and_still_heard(system: System, root: Account) -> None:
    tenant_id = system.new_tenant("Loja Atrasada")
    somebody = system.new_user(tenant_id)
    superuser = system.new_user(tenant_id, superuser=True)
    _, hook = system.new_connection(somebody)
    path = f"/tenants/{tenant_id}"
    suspended = system.send(root, "POST", f"{path}/suspend", {"reason": "fatura vencida"})
    assert system.get(root, path, wait_for=suspended["position"])["status"] == "suspended"
    assert "suspended" in system.get(somebody, "/me", expect=403)["detail"]
    login = {"username": somebody.username, "password": "correto-cavalo-bateria"}
    assert system.client.post("/api/v1/login", json=login).status_code == 403
    system.get(superuser, "/me")
    assert system.deliver(hook, envelope("olá", "S1", int(utc_now().timestamp())))["received"] == 1
    refused = system.send(root, "PUT", f"{path}/subscription", {"plan": "pro", "status": "active"}, expect=409)
    assert "reactivate" in refused["detail"]
    assert system.send(root, "POST", f"{path}/suspend", {"reason": "de novo"})["duplicate"] is True
    back = system.send(root, "POST", f"{path}/reactivate")
    assert system.get(root, path, wait_for=back["position"])["status"] == "active"
    assert system.get(somebody, "/messages", wait_for=back["position"])["items"][0]["text"] == "olá"


def test_why_a_tenant_was_suspended_is_sealed(system: System, root: Account) -> None:
    tenant_id = system.new_tenant("Nome Confidencial Ltda")
    system.send(root, "POST", f"/tenants/{tenant_id}/suspend", {"reason": "motivo confidencial"})
    states = [bytes(row["state"]) for row in system.rows("SELECT state FROM evosense_log.stored_events")]
    assert states
    assert not any(b"onfidencial" in state for state in states)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"name": " "}, 422, "name"),
        ({"name": "x" * 300}, 422, "name"),
        ({"name": "Olá\0"}, 422, "NUL"),
        ({"plan": "gold"}, 422, "starter, pro, scale, enterprise"),
        ({"status": "dead"}, 422, "active, suspended, trial"),
        ({"next_billing_date": "soon"}, 400, "next_billing_date"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_a_tenant_that_can_not_be(
    system: System, root: Account, change: dict[str, str], status: int, says: str
) -> None:
    before = system.rows("SELECT count(*) AS keys FROM evosense_log.tenant_keys")
    problem = system.send(root, "POST", "/tenants", {"name": "Loja", **change}, expect=status)
    assert says in problem["detail"]
    assert system.rows("SELECT count(*) AS keys FROM evosense_log.tenant_keys") == before, "no key without a tenant"


def test_a_tenant_that_is_not(system: System, root: Account) -> None:
    nowhere = f"/tenants/{UUID(int=7)}"
    assert "no tenant" in system.get(root, nowhere, expect=404)["detail"]
    assert "no tenant" in system.send(root, "PATCH", nowhere, {"name": "Loja"}, expect=404)["detail"]
    assert "no tenant" in system.send(root, "POST", f"{nowhere}/suspend", {"reason": "x"}, expect=404)["detail"]
    system.get(root, "/tenants/not-a-uuid", expect=404)
