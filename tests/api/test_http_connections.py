"""Connections over real HTTP: a token goes in and never comes out."""

from typing import Any

import pytest

from tests.support.http import Account, System, envelope, utc_now

SECRET = "segredo-que-nao-sai-5f1d"
OTHER = "segredo-que-entra-depois-77"


def test_a_token_goes_in_and_never_comes_out(system: System, admin: Account, operator: Account) -> None:
    body = {"name": "Balcão", "evo_ws_url": "wss://evo.example.com/ws", "evo_token": SECRET}
    answers = [system.client.post("/api/v1/connections", json=body, headers=admin.headers)]
    made = system.checked(answers[0], 201)
    path, hook = f"/api/v1/connections/{made['id']}", made["webhook_url"]
    assert hook.startswith(f"{system.url}/webhooks/evolution/")
    assert answers[0].headers["EvoSense-Position"] == str(made["position"])
    wait = {"wait_for": made["position"]}

    def ask(method: str, below: str = "", body: object = None, *, expect: int = 200) -> Any:
        answers.append(system.client.request(method, path + below, json=body, headers=admin.headers, params=wait))
        return system.checked(answers[-1], expect)

    row = ask("GET")
    assert row == {
        "id": made["id"],
        "name": "Balcão",
        "evo_ws_url": "wss://evo.example.com/ws",
        "is_active": True,
        "webhook_url": hook,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "state": None,
        "state_reason": None,
        "state_changed_at": None,
        "last_message_at": None,
        "totals": {"accepted": 0, "duplicate": 0, "ignored": 0, "refused": 0},
    }
    answers.append(system.client.get("/api/v1/connections", headers=operator.headers, params=wait))
    assert row in system.checked(answers[-1], 200)["items"]
    ask("PUT", "/token", {"evo_token": OTHER})
    ask("PUT", "/token", {"evo_token": SECRET[:10]}, expect=400)
    ask("PUT", "/token", {"evo_token": SECRET * 9}, expect=400)
    ask("POST", "/deactivate")
    ask("POST", "/activate")
    # Refused once more, with the token in a body that is refused as a whole.
    answers.append(system.client.post("/api/v1/connections", json=body, headers=admin.headers))
    system.checked(answers[-1], 409)
    answers.append(system.client.post("/api/v1/connections", json={**body, "extra": SECRET}, headers=admin.headers))
    system.checked(answers[-1], 400)
    answers.append(system.client.post(httpx_path(hook), json={}, headers={"X-EvoSense-Token": OTHER + "x"}))
    system.checked(answers[-1], 401)
    answers.append(system.client.get("/docs/openapi.json"))
    for answer in answers:
        shown = answer.text + str(answer.headers)
        assert SECRET not in shown
        assert OTHER not in shown
        assert SECRET[:10] not in shown
        if "openapi" not in str(answer.url):
            assert "evo_token" not in answer.text or answer.status_code == 400
    # Nor in the database, anywhere, in the clear.
    stored = [bytes(row["state"]) for row in system.rows("SELECT state FROM evosense_log.stored_events")]
    assert not any(SECRET.encode() in state or OTHER.encode() in state for state in stored)
    system.projected()
    columns = system.rows("SELECT evo_token FROM evosense.connections_evolutionconnection")
    assert columns
    assert not any(secret in row["evo_token"] for row in columns for secret in (SECRET, OTHER))


def httpx_path(url: str) -> str:
    return url[url.index("/webhooks") :]


def test_rotation_and_deactivation_work_at_once(system: System, admin: Account) -> None:
    identifier, hook = system.new_connection(admin, "Entrega", token=SECRET)
    path, body = f"/connections/{identifier}", envelope("oi", "C1", int(utc_now().timestamp()))
    # The projector is asleep: what counts is the log.
    with system.projector.paused():
        assert system.deliver(hook, body, token=SECRET)["received"] == 1
        system.send(admin, "PUT", f"{path}/token", {"evo_token": OTHER})
        system.deliver(hook, body, token=SECRET, expect=401)
        assert system.deliver(hook, body, token=OTHER)["duplicates"] == 1
        system.send(admin, "POST", f"{path}/deactivate")
        assert "deactivated" in system.deliver(hook, body, token=OTHER, expect=403)["detail"]
        # Somebody without the token learns nothing of it.
        system.deliver(hook, body, token=SECRET, expect=401)
        assert system.send(admin, "POST", f"{path}/deactivate")["duplicate"] is True
        system.send(admin, "POST", f"{path}/activate")
        assert system.deliver(hook, body, token=OTHER)["duplicates"] == 1
    system.projected()
    assert system.get(admin, path)["is_active"] is True


def test_pages(system: System) -> None:
    who = system.new_user(system.new_tenant())
    made = [system.new_connection(who, f"loja {number}")[0] for number in range(5)]
    system.projected()
    seen: list[int] = []
    after = "0"
    while after is not None:
        page = system.get(who, "/connections", limit=2, after=after)
        seen += [row["id"] for row in page["items"]]
        after = page["next"]
    assert seen == made


def test_only_admins_change_connections(system: System, admin: Account, operator: Account) -> None:
    identifier, _ = system.new_connection(admin, "Loja do Operador")
    for method, below, body in (
        ("PUT", "/token", {"evo_token": OTHER}),
        ("POST", "/activate", None),
        ("POST", "/deactivate", None),
    ):
        system.send(operator, method, f"/connections/{identifier}{below}", body, expect=403)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"evo_token": "short"}, 400, "evo_token"),
        ({"evo_token": 7}, 400, "evo_token"),
        ({"evo_ws_url": "file:///etc/passwd"}, 422, "https://evo.example.com"),
        ({"evo_ws_url": "https://ana:senha@evo.example.com"}, 422, "user name or password"),
        ({"name": " "}, 422, "name"),
        ({"name": "x" * 81}, 422, "name"),
        ({"name": "a\0"}, 422, "NUL"),
        # At most 160 characters, each of up to four bytes, encrypted, in a column of 255: refused, not cut.
        ({"evo_token": "é" * 160}, 422, "too long"),
    ],
)
def test_a_connection_that_can_not_be(
    system: System, admin: Account, change: dict[str, object], status: int, says: str
) -> None:
    body = {"name": "Quase", "evo_ws_url": "https://evo.example.com", "evo_token": SECRET, **change}
    problem = system.send(admin, "POST", "/connections", body, expect=status)
    assert says in problem["detail"]
    assert "senha" not in str(problem)


def test_a_connection_that_is_not(system: System, admin: Account) -> None:
    # 1 is the position of an event that registered something else.
    for identifier in (1, 10**12, 10**30):
        assert "no connection" in system.get(admin, f"/connections/{identifier}", expect=404)["detail"]
        system.send(admin, "POST", f"/connections/{identifier}/deactivate", expect=404)
