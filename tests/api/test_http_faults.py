"""What is answered while the database or the projector is away, and that nothing is lost by it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from adapters.embedded import PostgresServer
from tests.support.http import TOKEN, System, envelope
from tests.support.systems import wait_for

#: Evolution hangs up after 30 s: an answer has to come well before.
EVOLUTION_WAITS_S = 25
TOKEN_HEADER = {"X-EvoSense-Token": TOKEN}


@contextmanager
def database_away(postgres: PostgresServer, system: System) -> Iterator[None]:
    """The database takes no connections and drops those that it has."""
    name = str(conninfo_to_dict(system.settings.admin_dsn)["dbname"])
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        allow = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        conn.execute(allow.format(Identifier(name), SQL("false")))
        try:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            conn.execute(ended, (name,))
            count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            wait_for(lambda: conn.execute(count, (name,)).fetchone() == (0,), "all connections to end")
            yield
        finally:
            conn.execute(allow.format(Identifier(name), SQL("true")))


def test_nothing_is_lost_while_the_database_is_away(
    own_system: System, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    system = own_system
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    before = system.deliver(path, envelope("antes", "F0", 1761134400))
    system.get(who, "/messages", wait_for=before["position"])
    body = envelope("durante a queda, CPF 529.982.247-25", "F1", 1761134401)
    with database_away(postgres, system):
        answers: list[httpx.Response] = []

        def ask(method: str, path: str, **more: Any) -> None:
            with httpx.Client(base_url=system.url, timeout=EVOLUTION_WAITS_S) as client:
                answers.append(client.request(method, path, **more))

        asking = [
            threading.Thread(target=ask, args=("POST", path), kwargs={"json": body, "headers": TOKEN_HEADER}),
            threading.Thread(target=ask, args=("GET", "/api/v1/messages"), kwargs={"headers": who.headers}),
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert len(answers) == len(asking), "no answer before Evolution hangs up"
        for answer in answers:
            problem = system.checked(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
            assert problem["title"] == "Not available at the moment"
            assert "127.0.0.1" not in answer.text, "where the database is, is nobody's business"
        assert system.client.get("/health/live").status_code == 200
        ready = system.client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "unavailable"
    # Evolution tries again: the first answer that comes is a success, and no later one stores it twice.
    wait_for(
        lambda: system.client.post(path, json=body, headers=TOKEN_HEADER).status_code == 200,
        "the first try after the fall to pass",
    )
    done = system.deliver(path, body)
    assert (done["received"], done["duplicates"]) == (0, 1)
    wait_for(lambda: len(system.messages_of(who.tenant_id)) == 2, "the projector to come back")
    texts = [row["text"] for row in system.get(who, "/messages")["items"]]
    assert texts == ["durante a queda, CPF [CPF]", "antes"]
    wait_for(lambda: system.services.waiter.position >= done["position"], "the waiter to come back")
    assert system.client.get("/health/ready").status_code == 200
    for personal in ("529.982", "durante", "antes", TOKEN, who.username):
        assert personal not in caplog.text


def test_a_query_waits_for_the_position_it_is_given(own_system: System) -> None:
    system = own_system
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    with system.projector.paused():
        sent = system.client.post(path, json=envelope("lida na hora", "W1", 1761134400), headers=TOKEN_HEADER)
        position = system.checked(sent, 200)["position"]
        assert sent.headers["EvoSense-Position"] == str(position)
        assert system.get(who, "/messages")["items"] == []
        for path_, more in (
            ("/messages", {}),
            ("/search", {"q": "lida"}),
            ("/metrics", {}),
            ("/metrics/series", {}),
            ("/metrics/chats", {}),
            ("/metrics/latency", {}),
            ("/users", {}),
            ("/connections", {}),
            (f"/messages/{position}", {}),
            (f"/messages/{position}/similar", {}),
        ):
            late = system.client.get(f"/api/v1{path_}", params={"wait_for": position, **more}, headers=who.headers)
            problem = system.checked(late, 503)
            assert late.headers["retry-after"] == "1"
            assert str(position) in problem["detail"]
        # It waits, and is not only asked again: the answer comes when the projector does.
        found: list[httpx.Response] = []

        def ask() -> None:
            with httpx.Client(base_url=system.url, timeout=60) as client:
                answer = client.get("/api/v1/messages", params={"wait_for": position}, headers=who.headers)
                found.append(answer)

        asking = threading.Thread(target=ask)
        asking.start()
    asking.join(20)
    assert [row["text"] for row in system.checked(found[0], 200)["items"]] == ["lida na hora"]


def test_a_position_beyond_the_log_is_refused_at_once(own_system: System) -> None:
    system = own_system
    who = system.new_user(system.new_tenant())
    head = system.write.log.head()
    for position in (head + 1000, 2**80):
        began = time.monotonic()
        problem = system.get(who, "/messages", wait_for=position, expect=400)
        assert str(position) in problem["detail"]
        assert time.monotonic() - began < system.settings.wait_timeout
    for wrong in ("-1", "soon", "1.5"):
        assert "wait_for" in system.get(who, "/messages", wait_for=wrong, expect=400)["detail"]


def test_hundreds_that_wait_hold_no_connection(own_system: System) -> None:
    """Waiting is done by one listener: a crowd of readers must not exhaust the database or the threads."""
    system = own_system
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    statuses: list[int] = []

    def ask(position: int) -> None:
        with httpx.Client(base_url=system.url, timeout=60) as client:
            answer = client.get("/api/v1/messages", params={"wait_for": position}, headers=who.headers)
        statuses.append(answer.status_code)

    with system.projector.paused():
        position = system.deliver(path, envelope("esperada", "Q1", 1761134400))["position"]
        crowd = [threading.Thread(target=ask, args=(position,)) for _ in range(60)]
        for thread in crowd:
            thread.start()
        busy = "SELECT count(*) AS number FROM pg_stat_activity WHERE datname = current_database()"
        assert system.rows(busy)[0]["number"] < 25
        # Others are served meanwhile.
        assert system.deliver(path, envelope("no meio", "Q2", 1761134401))["received"] == 1
    for thread in crowd:
        thread.join(30)
    assert len(statuses) == 60
    assert set(statuses) <= {200, 503}
    assert [row["text"] for row in system.get(who, "/messages", wait_for=position)["items"]][-1] == "esperada"
