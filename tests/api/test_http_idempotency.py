"""`Idempotency-Key` over real HTTP: a command that comes again is answered as it was the first time."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx

from tests.support.http import PASSWORD, TOKEN, Account, System


def send(system: System, who: Account, method: str, path: str, body: Any, key: str) -> httpx.Response:
    headers = {**who.headers, "Idempotency-Key": key}
    return system.client.request(method, f"/api/v1{path}", json=body, headers=headers)


def user_body(name: str) -> dict[str, str]:
    return {"username": name, "password": PASSWORD, "role": "operator"}


def test_a_user_is_registered_once_and_answered_alike(system: System, admin: Account) -> None:
    body, key = user_body(f"u{uuid4().hex[:8]}"), uuid4().hex
    first = send(system, admin, "POST", "/users", body, key)
    again = send(system, admin, "POST", "/users", body, key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert send(system, admin, "POST", "/users", body, uuid4().hex).status_code == 409, "another key is another command"


def test_a_tenant_keeps_its_id(system: System, root: Account) -> None:
    key = uuid4().hex
    first = send(system, root, "POST", "/tenants", {"name": "Loja Repetida"}, key)
    again = send(system, root, "POST", "/tenants", {"name": "Loja Repetida"}, key)
    assert first.status_code == 201
    assert first.json() == again.json()


def test_the_same_key_with_another_body_or_path_is_refused(system: System, admin: Account) -> None:
    key = uuid4().hex
    body = {"name": f"c{key[:8]}", "evo_ws_url": "https://evo.example.com", "evo_token": TOKEN}
    made = send(system, admin, "POST", "/connections", body, key)
    assert made.status_code == 201
    other = send(system, admin, "POST", "/connections", {**body, "name": "outra"}, key)
    assert other.status_code == 422
    assert "take a new key" in other.json()["detail"]
    elsewhere = send(system, admin, "POST", f"/connections/{made.json()['id']}/deactivate", None, key)
    assert elsewhere.status_code == 422


def test_a_change_is_carried_out_once(system: System, admin: Account) -> None:
    identifier, _ = system.new_connection(admin, f"c{uuid4().hex[:8]}")
    key, path = uuid4().hex, f"/connections/{identifier}/deactivate"
    first = send(system, admin, "POST", path, None, key).json()
    system.send(admin, "POST", f"/connections/{identifier}/activate")
    again = send(system, admin, "POST", path, None, key).json()
    assert again["position"] == first["position"]
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    row = system.get(admin, f"/connections/{identifier}", wait_for=system.write.log.head())
    assert row["is_active"] is True, "the repeated command was not carried out again"


def test_one_users_keys_are_no_concern_of_anothers(system: System, admin: Account) -> None:
    other, key = system.new_user(admin.tenant_id, role="admin"), uuid4().hex
    assert send(system, admin, "POST", "/users", user_body(f"u{uuid4().hex[:8]}"), key).status_code == 201
    assert send(system, other, "POST", "/users", user_body(f"u{uuid4().hex[:8]}"), key).status_code == 201


def test_of_many_at_once_one_is_carried_out(system: System, admin: Account) -> None:
    body, key = user_body(f"u{uuid4().hex[:8]}"), uuid4().hex
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: send(system, admin, "POST", "/users", body, key), range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1


def test_a_key_that_is_too_long_is_refused(system: System, admin: Account) -> None:
    answer = send(system, admin, "POST", "/users", user_body("alguem"), "k" * 256)
    assert answer.status_code == 400
    assert "255" in answer.json()["detail"]
