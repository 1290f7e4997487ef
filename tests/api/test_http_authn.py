"""Logging in, tokens and users, over real HTTP."""

from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from adapters.tokens import ACCESS_LIFETIME, Tokens
from domain.authn import user_id
from tests.support.http import PASSWORD, Account, System, utc_now


def login(system: System, username: str, password: str = PASSWORD) -> httpx.Response:
    return system.client.post("/api/v1/login", json={"username": username, "password": password})


def bearer(pair: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {pair['access_token']}"}


def me(system: System, headers: dict[str, str]) -> httpx.Response:
    return system.client.get("/api/v1/me", headers=headers)


def test_log_in_tell_who_i_am_and_refresh(system: System, admin: Account) -> None:
    answer = login(system, admin.username.upper())
    pair = system.checked(answer, 200)
    assert pair["token_type"] == "Bearer"
    assert pair["expires_in"] == ACCESS_LIFETIME.total_seconds()
    who = system.checked(me(system, bearer(pair)), 200)
    assert who == {
        "username": admin.username,
        "tenant_id": str(admin.tenant_id),
        "role": "admin",
        "is_superuser": False,
    }
    again = system.client.post("/api/v1/refresh", json={"refresh_token": pair["refresh_token"]})
    assert me(system, bearer(system.checked(again, 200))).status_code == 200
    # The log-in is in the read model at the position that the answer named.
    position = int(answer.headers["EvoSense-Position"])
    users = system.get(admin, "/users", wait_for=position)["items"]
    assert [row["last_login"] is not None for row in users if row["username"] == admin.username] == [True]


def test_wrong_password_and_unknown_user_look_alike(system: System, admin: Account) -> None:
    wrong, unknown, impossible = (
        login(system, admin.username, "not-the-password"),
        login(system, "nobody@nowhere"),
        login(system, "\u0000 not a user name"),
    )
    assert {wrong.status_code, unknown.status_code, impossible.status_code} == {401}
    assert wrong.json() == unknown.json() == impossible.json()


def test_tokens_are_of_one_kind_each_and_end(system: System, admin: Account) -> None:
    identifier = user_id(admin.username)
    pair = {
        kind: jwt.decode(token, options={"verify_signature": False})
        for kind, token in (
            ("access", admin.headers["authorization"].split()[1]),
            ("refresh", system.services.tokens.issue("refresh", identifier, "stamp", utc_now())),
        )
    }
    assert {claims["use"] for claims in pair.values()} == {"access", "refresh"}
    assert str(admin.tenant_id) not in str(pair), "the tenant is looked up as it is, not believed"
    tokens = system.services.tokens
    access = admin.headers["authorization"].split()[1]
    stamp = pair["access"]["stamp"]
    refused = {
        "a refresh token as access token": tokens.issue("refresh", identifier, stamp, utc_now()),
        "expired": tokens.issue("access", identifier, stamp, utc_now() - ACCESS_LIFETIME - timedelta(seconds=1)),
        "of another installation": Tokens(b"k" * 32).issue("access", identifier, stamp, utc_now()),
        "unsigned": jwt.encode(pair["access"], None, algorithm="none"),
        "another's": tokens.issue("access", user_id("nobody@nowhere"), stamp, utc_now()),
        "no token": "abc",
        "torn": access[:-4],
    }
    for what, token in refused.items():
        answer = me(system, {"authorization": f"Bearer {token}"})
        problem = system.checked(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer", what
        assert token not in str(problem)
    for header in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer"}, {"authorization": access}):
        assert me(system, header).status_code == 401
    as_refresh = system.client.post("/api/v1/refresh", json={"refresh_token": access})
    assert "kind refresh" in system.checked(as_refresh, 401)["detail"]


def test_another_password_ends_every_session(system: System, admin: Account) -> None:
    someone = system.new_user(admin.tenant_id, role="operator")
    pair = system.checked(login(system, someone.username), 200)
    new = "uma-frase-bem-comprida"

    def change(current: str, wanted: str) -> httpx.Response:
        body = {"current": current, "new": wanted}
        return system.client.put("/api/v1/me/password", json=body, headers=bearer(pair))

    system.checked(change("wrong-password", new), 403)
    assert "10 to 128" in system.checked(change(PASSWORD, "short"), 422)["detail"]
    assert me(system, bearer(pair)).status_code == 200
    system.checked(change(PASSWORD, new), 200)
    # At once, whatever the read models know by now.
    assert "changed" in system.checked(me(system, bearer(pair)), 401)["detail"]
    refreshed = system.client.post("/api/v1/refresh", json={"refresh_token": pair["refresh_token"]})
    assert refreshed.status_code == 401
    assert login(system, someone.username).status_code == 401
    assert login(system, someone.username, new).status_code == 200


def test_register_list_promote_and_deactivate(system: System, admin: Account) -> None:
    body = {
        "username": "Nova.Pessoa@teste",
        "password": PASSWORD,
        "email": "nova@teste.example",
        "first_name": "Nova",
        "last_name": "Pessoa",
    }
    made = system.send(admin, "POST", "/users", body, expect=201)
    row = system.get(admin, f"/users/{made['id']}", wait_for=made["position"])
    assert {name: row[name] for name in ("username", "role", "is_active", "is_superuser", "email")} == {
        "username": "nova.pessoa@teste",
        "role": "operator",
        "is_active": True,
        "is_superuser": False,
        "email": "nova@teste.example",
    }
    assert not {"password", "password_hash"} & set(row)
    assert "taken" in system.send(admin, "POST", "/users", body, expect=409)["detail"]

    headers = system.bearer(user_id("nova.pessoa@teste"))
    person = Account("nova.pessoa@teste", admin.tenant_id, headers)
    assert "operator" in system.get(person, "/users", expect=403)["detail"]
    promoted = system.send(admin, "PUT", f"/users/{made['id']}/role", {"role": "admin"})
    assert promoted["duplicate"] is False
    again = system.send(admin, "PUT", f"/users/{made['id']}/role", {"role": "admin"})
    assert again == {"position": promoted["position"], "duplicate": True}
    assert system.get(person, "/users")["items"], "the role counts as it is now, with the same token"
    unknown = system.send(admin, "PUT", f"/users/{made['id']}/role", {"role": "king"}, expect=422)
    assert "admin, operator" in unknown["detail"]

    ended = system.send(admin, "POST", f"/users/{made['id']}/deactivate")
    assert "deactivated" in system.get(person, "/me", expect=401)["detail"]
    assert login(system, person.username).status_code == 401
    assert system.get(admin, f"/users/{made['id']}", wait_for=ended["position"])["is_active"] is False
    assert system.send(admin, "POST", f"/users/{made['id']}/deactivate")["duplicate"] is True
    assert (
        "deactivated" in system.send(admin, "PUT", f"/users/{made['id']}/role", {"role": "admin"}, expect=409)["detail"]
    )


def test_an_admin_can_lock_nobody_out_by_accident(system: System, admin: Account) -> None:
    mine = [row["id"] for row in system.get(admin, "/users")["items"] if row["username"] == admin.username]
    assert "yourself" in system.send(admin, "POST", f"/users/{mine[0]}/deactivate", expect=409)["detail"]


def test_roles(system: System, admin: Account, operator: Account, root: Account) -> None:
    new = {"username": "x@teste", "password": PASSWORD}
    for path, body in (("/users", new), ("/connections", {}), ("/tenants", {"name": "Outra"})):
        system.send(operator, "POST", path, body, expect=403)
    for path in ("/messages", "/metrics", "/connections", "/me"):
        system.get(operator, path)
    for path in ("/tenants", f"/tenants/{admin.tenant_id}"):
        assert "superuser" in system.get(admin, path, expect=403)["detail"]
        system.get(root, path)
    elsewhere = {**new, "tenant_id": str(root.tenant_id)}
    assert "superuser" in system.send(admin, "POST", "/users", elsewhere, expect=403)["detail"]
    nowhere = {**new, "tenant_id": "00000000-0000-4000-8000-000000000000"}
    assert "no tenant" in system.send(root, "POST", "/users", nowhere, expect=404)["detail"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"username": "a"}, "3 to 150"),
        ({"username": "com espaço"}, "3 to 150"),
        ({"password": "short"}, "10 to 128"),
        ({"password": "x" * 129}, "10 to 128"),
        ({"role": "root"}, "admin, operator"),
        ({"email": "x" * 255}, "at most 254"),
        ({"first_name": "a\0b"}, "NUL"),
    ],
)
def test_a_user_that_can_not_be(system: System, admin: Account, change: dict[str, str], says: str) -> None:
    body = {"username": "quase@teste", "password": PASSWORD, **change}
    assert says in system.send(admin, "POST", "/users", body, expect=422)["detail"]
