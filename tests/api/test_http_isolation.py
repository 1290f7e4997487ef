"""Two tenants over real HTTP, and every door tried with the other's ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from tests.support.http import TOKEN, Account, System, analysis, envelope
from tests.support.systems import tables

#: A text that stands in one tenant alone.
SECRET = "a senha do cofre azul"


@dataclass
class Side:
    """A tenant with something of everything."""

    admin: Account
    user: int
    connection: int
    hook: str
    message: int
    chat: str
    position: int


def settled(system: System, name: str, text: str) -> Side:
    admin = system.new_user(system.new_tenant(name))
    body = {"username": f"{name}@teste", "password": "correto-cavalo-bateria"}
    user = system.send(admin, "POST", "/users", body, expect=201)["id"]
    # Both give their connection the same name, their customer the same number and the message the same id.
    connection, hook = system.new_connection(admin, "loja-centro")
    done = system.deliver(hook, envelope(text, "SAME-ID", 1761134400))
    row = system.get(admin, "/messages", wait_for=done["position"])["items"][0]
    system.analyse_offline(row["id"])
    position = system.analyse(row["id"], analysis(-0.8, emotion="raiva", satisfaction=11))
    system.projected()
    return Side(admin, user, connection, hook, row["id"], row["chat_id"], position)


@pytest.fixture(scope="module")
def mine(system: System) -> Side:
    """The tenant that climbs."""
    return settled(system, "loja-a", "mensagem comum da loja a")


@pytest.fixture(scope="module")
def theirs(system: System) -> Side:
    """The tenant that is climbed at."""
    return settled(system, "loja-b", SECRET)


def traces(side: Side) -> list[str]:
    """What gives a tenant away in an answer."""
    return [SECRET, str(side.admin.tenant_id), side.chat, side.hook, side.admin.username, "loja-b@teste"]


def test_both_have_what_is_theirs(system: System, mine: Side, theirs: Side) -> None:
    for side, text in ((mine, "mensagem comum da loja a"), (theirs, SECRET)):
        assert [row["text"] for row in system.get(side.admin, "/messages")["items"]] == [text]
        assert [hit["text"] for hit in system.get(side.admin, "/search", q=text)] == [text]
        assert system.get(side.admin, "/metrics")["total_messages"] == 1
    assert mine.chat != theirs.chat, "the same number, hashed for each tenant"
    assert mine.message != theirs.message, "the same WhatsApp message id in two connections is two messages"


def test_no_id_opens_anything_of_the_others(system: System, mine: Side, theirs: Side) -> None:
    user, connection, message = theirs.user, theirs.connection, theirs.message
    # The first three positions of the other's log as well, whatever they are.
    doors: list[tuple[str, str, Any]] = [
        ("GET", f"/users/{user}", None),
        ("PUT", f"/users/{user}/role", {"role": "admin"}),
        ("POST", f"/users/{user}/deactivate", None),
        ("GET", f"/connections/{connection}", None),
        ("PUT", f"/connections/{connection}/token", {"evo_token": "captured-by-another-tenant"}),
        ("POST", f"/connections/{connection}/activate", None),
        ("POST", f"/connections/{connection}/deactivate", None),
        ("POST", f"/connections/{connection}/test", None),
        ("GET", f"/connections/{connection}/activity", None),
        ("GET", f"/connections/{connection}/listening", None),
        ("GET", f"/connections/{connection}/listening", None),
        ("GET", f"/messages/{message}", None),
        ("GET", f"/messages/{message}/history", None),
        ("GET", f"/messages/{message}/similar", None),
        ("GET", f"/connections/{connection}/history", None),
        ("GET", f"/users/{user}/history", None),
    ]
    documented = {
        (method.upper(), path)
        for path, told in system.client.get("/docs/openapi.json").json()["paths"].items()
        for method in told
        if "{identifier}" in path and path.startswith("/api/v1")
    }
    tried = {(method, "/".join(["/api/v1", kind, "{identifier}", *rest])) for method, kind, rest in map(_parts, doors)}
    assert tried == documented, "a door was added: try it here"
    head = system.write.log.head()
    for method, path, body in doors:
        problem = system.send(mine.admin, method, path, body, expect=404)
        # The very answer that an id gives which nobody has.
        nobodys = path.replace(path.split("/")[2], "888888888")
        same = system.send(mine.admin, method, nobodys, body, expect=404)
        assert str(problem).replace(path.split("/")[2], "#") == str(same).replace("888888888", "#")
    assert system.write.log.head() == head, "nothing was recorded"
    assert system.get(theirs.admin, f"/connections/{connection}")["is_active"] is True
    assert system.deliver(theirs.hook, envelope(SECRET, "SAME-ID", 1761134400))["duplicates"] == 1


def _parts(door: tuple[str, str, Any]) -> tuple[str, str, list[str]]:
    method, path, _ = door
    _, kind, _, *rest = path.split("/")
    return method, kind, rest


def test_no_list_shows_anything_of_the_others(system: System, mine: Side, theirs: Side) -> None:
    questions: list[tuple[str, dict[str, Any]]] = [
        ("/me", {}),
        ("/users", {"limit": 200}),
        ("/users", {"after": theirs.user - 1}),
        ("/connections", {"limit": 200}),
        ("/connections", {"after": theirs.connection - 1}),
        ("/messages", {"limit": 200}),
        ("/messages", {"chat_id": theirs.chat}),
        ("/messages", {"emotion": "raiva", "sentiment_max": -0.5}),
        *(("/search", {"q": SECRET, "mode": mode, "threshold": -1}) for mode in ("hybrid", "semantic", "text")),
        ("/search", {"q": SECRET, "chat_id": theirs.chat, "threshold": -1}),
        ("/search", {"q": "senha OR mensagem", "connection_id": theirs.connection, "threshold": -1}),
        (f"/messages/{mine.message}/similar", {"threshold": -1, "limit": 100}),
        ("/metrics", {}),
        ("/metrics/series", {"by": "connection", "since": "2025-10-01T00:00:00Z", "until": "2025-11-01T00:00:00Z"}),
        ("/metrics/chats", {"since": "2025-10-01T00:00:00Z", "until": "2025-11-01T00:00:00Z"}),
        ("/metrics/latency", {}),
        ("/usage", {}),
        # Waiting for what the other did shows no more than that something happened somewhere.
        ("/messages", {"wait_for": theirs.position}),
    ]
    for path, query in questions:
        shown = str(system.get(mine.admin, path, **query))
        for trace in traces(theirs):
            assert trace not in shown, (path, query)
    assert system.get(mine.admin, "/messages", chat_id=theirs.chat)["items"] == []
    assert system.get(mine.admin, "/connections", after=theirs.connection - 1)["items"] == []
    assert len(system.get(mine.admin, "/search", q=SECRET, threshold=-1)) == 1
    # A cursor names a place in time, not a tenant.
    before = system.get(theirs.admin, "/messages", limit=1)
    assert before["next"] is None


def test_an_admin_is_no_superuser(system: System, mine: Side, theirs: Side) -> None:
    place = f"/tenants/{theirs.admin.tenant_id}"
    for method, path, body in (
        ("GET", "/tenants", None),
        ("POST", "/tenants", {"name": "x"}),
        ("GET", place, None),
        ("PATCH", place, {"name": "x"}),
        ("PUT", f"{place}/subscription", {"plan": "pro", "status": "active"}),
        ("POST", f"{place}/suspend", {"reason": "x"}),
        ("POST", f"{place}/reactivate", None),
        ("GET", f"{place}/models", None),
        ("PUT", f"{place}/models", {"analysers": ["offline"]}),
        ("DELETE", f"{place}/models", None),
    ):
        system.send(mine.admin, method, path, body, expect=403)
        system.send(
            mine.admin, method, path.replace(str(theirs.admin.tenant_id), str(mine.admin.tenant_id)), body, expect=403
        )
    implanted = {"username": "espiao@teste", "password": "correto-cavalo-bateria"}
    body = {**implanted, "tenant_id": str(theirs.admin.tenant_id)}
    system.send(mine.admin, "POST", "/users", body, expect=403)
    system.send(mine.admin, "POST", "/users", {**implanted, "is_superuser": True}, expect=400)
    taken = system.send(mine.admin, "POST", "/users", {**implanted, "username": "loja-b@teste"}, expect=409)
    assert str(theirs.admin.tenant_id) not in str(taken)


def test_a_superuser_sees_tenants_and_no_message_of_theirs(system: System, root: Account, theirs: Side) -> None:
    assert str(theirs.admin.tenant_id) in str(system.get(root, f"/tenants/{theirs.admin.tenant_id}"))
    for path in (
        f"/messages/{theirs.message}",
        f"/messages/{theirs.message}/history",
        f"/connections/{theirs.connection}",
        f"/connections/{theirs.connection}/history",
        f"/users/{theirs.user}/history",
    ):
        system.get(root, path, expect=404)
    assert SECRET not in str(system.get(root, "/messages"))
    assert SECRET not in str(system.get(root, "/search", q=SECRET, threshold=-1))


def test_a_foreign_token_in_the_foreign_hook_stores_nothing(system: System, mine: Side, theirs: Side) -> None:
    # Both connections have the same secret here: what is delivered goes to the tenant of the address.
    done = system.deliver(mine.hook, envelope("para a loja a", "NEW-1", 1761134400), token=TOKEN)
    shown = system.get(theirs.admin, "/messages", wait_for=done["position"])
    assert "para a loja a" not in str(shown)


@contextmanager
def application_role(system: System, **settings: object) -> Iterator[psycopg.Connection[Any]]:
    """SQL as the API itself speaks it."""
    with psycopg.connect(system.settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        for name, value in settings.items():
            conn.execute("SELECT set_config(%s, %s, false)", (f"evosense.{name}", str(value)))
        yield conn


def test_sql_without_a_tenant_sees_nothing(system: System, mine: Side, theirs: Side) -> None:
    with psycopg.connect(system.settings.admin_dsn) as conn:
        names = tables(conn)
    for settings in ({}, {"tenant_id": ""}):
        with application_role(system, **settings) as conn:
            for name in names:
                if name == "experiments_prompttemplate":  # it has no tenant
                    continue
                query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("evosense", name))
                assert conn.execute(query).fetchone() == (0,), name


def test_sql_with_a_tenant_sees_its_own(system: System, mine: Side, theirs: Side) -> None:
    with psycopg.connect(system.settings.admin_dsn) as conn:
        owned = [name for name in tables(conn) if name != "experiments_prompttemplate"]
    with application_role(system, tenant_id=mine.admin.tenant_id) as conn:
        assert conn.execute("SELECT count(*) > 0 FROM evosense.messages_message").fetchone() == (True,)
        for name in owned:
            column = "id" if name == "tenancy_tenant" else "tenant_id"
            query = sql.SQL("SELECT DISTINCT {}::text FROM {}").format(
                sql.Identifier(column), sql.Identifier("evosense", name)
            )
            assert conn.execute(query).fetchall() in ([], [(str(mine.admin.tenant_id),)]), name
        vector = conn.execute("SELECT embedding FROM evosense.messages_message LIMIT 1").fetchone()
        assert vector is not None
        found = "SELECT count(*) FROM evosense.semantic_search(%s, %s::vector(768), 100, -1)"
        assert conn.execute(found, (theirs.admin.tenant_id, vector[0])).fetchone() == (0,)
        said = "SELECT text FROM evosense.text_search('senha OR mensagem OR cofre')"
        assert conn.execute(said).fetchall() == [("mensagem comum da loja a",)]
        for forbidden in (
            "UPDATE evosense.messages_message SET text = ''",
            "DELETE FROM evosense.messages_message",
            "SELECT * FROM evosense_log.stored_events",
            "SELECT * FROM evosense_log.tenant_keys",
            "SET ROLE evosense_owner",
            "ALTER TABLE evosense.messages_message DISABLE ROW LEVEL SECURITY",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(forbidden.encode())


def test_a_connection_of_the_pool_keeps_no_tenant(system: System, mine: Side, theirs: Side) -> None:
    """Many requests of both tenants through the same few connections: each sees its own."""
    for _ in range(10):
        for side, text in ((mine, "loja a"), (theirs, "cofre")):
            shown = [row["text"] for row in system.get(side.admin, "/messages")["items"]]
            assert shown
            assert all(text in one for one in shown)
