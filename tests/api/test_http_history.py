"""Histories over real HTTP: for the admins of the tenant, opened, and without a secret."""

import logging
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest

from tests.support.http import PASSWORD, TOKEN, Account, System, analysis, envelope
from tests.support.systems import administrator
from tests.support.world import repeatable, tampered, vector

TEXT = "cadê a encomenda da Rosângela?"
USERNAME = "rosangela@historia.example"


@dataclass(frozen=True)
class Made:
    """Row ids of one of each, to which something has happened since."""

    message: int
    connection: int
    user: int

    @property
    def paths(self) -> tuple[str, ...]:
        return (
            f"/messages/{self.message}/history",
            f"/connections/{self.connection}/history",
            f"/users/{self.user}/history",
        )


def make(system: System, who: Account, username: str) -> Made:
    connection, hook = system.new_connection(who, "entregas")
    message = system.deliver(hook, envelope(TEXT, "H-1", 1761134400))["position"]
    system.analyse(message, analysis(-0.4), vector=vector(repeatable(2)))
    system.send(who, "PUT", f"/connections/{connection}/token", {"evo_token": TOKEN[::-1]})
    body = {"username": username, "password": PASSWORD, "email": username}
    user = system.send(who, "POST", "/users", body, expect=201)["id"]
    system.send(who, "PUT", f"/users/{user}/role", {"role": "admin"})
    return Made(message, connection, user)


@pytest.fixture(scope="module")
def made(system: System, admin: Account) -> Made:
    """What the module's tenant has."""
    return make(system, admin, USERNAME)


def test_an_admin_sees_what_happened_opened(system: System, admin: Account, made: Made) -> None:
    entries = system.get(admin, f"/messages/{made.message}/history")
    assert [(entry["version"], entry["type"], entry["type_version"]) for entry in entries] == [
        (1, "messages.MessageReceived", 1),
        (2, "messages.MessageAnalyzed", 1),
        (3, "messages.MessageEmbedded", 1),
    ]
    received, analyzed, embedded = entries
    assert received["position"] == made.message
    assert received["data"]["text"] == TEXT
    assert received["links"] == {"connection": made.connection}
    assert analyzed["data"]["summary"] == "resumo"
    assert embedded["data"]["vector"] == f"768 numbers of {system.services.embedder.model_name}"
    stored = system.rows(
        "SELECT notification_id, recorded_at FROM evosense_log.stored_events WHERE notification_id = %s", made.message
    )
    assert received["recorded_at"].startswith(f"{stored[0]['recorded_at']:%Y-%m-%dT%H:%M:%S}")


def test_no_secret_comes_out(system: System, admin: Account, made: Made) -> None:
    connection = system.get(admin, f"/connections/{made.connection}/history")
    assert [entry["type"] for entry in connection] == ["connections.ConnectionRegistered", "connections.TokenRotated"]
    assert [entry["data"]["sealed_token"] for entry in connection] == ["(secret)", "(secret)"]
    assert connection[0]["data"]["name"] == "entregas"
    user = system.get(admin, f"/users/{made.user}/history")
    assert user[0]["data"]["password_hash"] == "(secret)"
    assert (user[0]["data"]["username"], user[0]["data"]["email"]) == (USERNAME, USERNAME)
    assert user[1]["data"] == {"role": "admin"}
    for row in system.rows("SELECT evo_token FROM evosense.connections_evolutionconnection"):
        assert row["evo_token"] not in str(connection)
    assert "argon2" not in str(user)


def test_an_operator_is_told_why_not(system: System, operator: Account, made: Made) -> None:
    for path in made.paths:
        assert "only an admin" in system.get(operator, path, expect=403)["detail"]
        system.checked(system.client.get(f"/api/v1{path}"), 401)


def test_what_is_anothers_is_as_if_it_were_not(system: System, root: Account, made: Made) -> None:
    stranger = system.new_user(system.new_tenant("Outra"))
    for path in made.paths:
        identifier = path.split("/")[2]
        nobodys = system.get(stranger, path.replace(identifier, "888888888"), expect=404)["detail"]
        for who in (stranger, root):
            told = system.get(who, path, expect=404)["detail"]
            assert told.replace(identifier, "888888888") == nobodys


def test_an_id_of_something_else(system: System, admin: Account, made: Made) -> None:
    for kind, other in (("messages", made.connection), ("connections", made.user), ("users", made.message)):
        assert f"no {kind[:-1]} {other}" in system.get(admin, f"/{kind}/{other}/history", expect=404)["detail"]
    for number in (made.message + 1, 0, 10**15, 10**30):
        system.get(admin, f"/messages/{number}/history", expect=404)


def test_pages(system: System, admin: Account, made: Made) -> None:
    path = f"/messages/{made.message}/history"
    whole = system.get(admin, path)
    assert system.get(admin, path, limit=2) == whole[:2]
    assert system.get(admin, path, after=2, limit=2) == whole[2:]
    assert system.get(admin, path, after=3) == []
    for query in ({"limit": 0}, {"limit": 1001}, {"after": -1}, {"after": 2**63}):
        system.get(admin, path, expect=400, **query)


def test_who_was_shown_what_is_logged(
    system: System, admin: Account, operator: Account, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="api.history")
    stream = system.write.log.stream_at(made.message)
    assert stream is not None
    system.get(admin, made.paths[0])
    system.get(operator, made.paths[0], expect=403)
    traces = [record.getMessage() for record in caplog.records if record.name == "api.history"]
    assert len(traces) == 1
    assert f"the history of message {stream.stream_id} of tenant {admin.tenant_id} was opened by user " in traces[0]
    assert UUID(traces[0].rsplit(" ", 1)[1]), "by id: names may be e-mail addresses"
    assert TEXT not in caplog.text


def test_a_tampered_event_is_told_and_the_rest_goes_on(system: System) -> None:
    who = system.new_user(system.new_tenant("Adulterada"))
    made = make(system, who, "adulterada@historia.example")
    system.projected()
    with administrator(system.settings) as conn:
        tampered(conn, made.message)
    try:
        received, analyzed, _ = system.get(who, made.paths[0])
    finally:
        with administrator(system.settings) as conn:  # the same again, for the modules that come after
            tampered(conn, made.message)
    assert "its sealed part does not fit" in received["problem"]
    assert received["data"]["text"] == "(sealed)"
    assert "problem" not in analyzed
    assert system.get(who, made.paths[0])[0]["data"]["text"] == TEXT


def test_connections_that_the_server_drops_are_made_again(own_system: System) -> None:
    """As after a restart of the server."""
    who = own_system.new_user(own_system.new_tenant())
    made = make(own_system, who, "derrubada@historia.example")
    assert own_system.get(who, made.paths[0])
    with psycopg.connect(own_system.settings.admin_dsn, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert len(own_system.get(who, made.paths[0])) == 3
