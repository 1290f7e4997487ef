"""Prompts over real HTTP: who may do what with them, and that one is active however many are activated at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from adapters.analysis.rendering import BUILT_IN
from adapters.settings import Settings
from api.commands import Contended
from domain.prompts import (
    INSTALLATION,
    ActivatePrompt,
    CreatePrompt,
    PromptTemplateActivated,
    PromptTemplateCreated,
    prompt_templates,
)
from tests.support.http import Account, System, running_system, utc_now

BODY = "Você avalia mensagens.\nResponda em JSON.\n"


@pytest.fixture(scope="module")
def own(settings: Settings) -> Iterator[System]:
    """An API of the module's own: prompts are the installation's."""
    with running_system(settings) as running:
        yield running


@pytest.fixture(scope="module")
def root(own: System) -> Account:
    """A superuser."""
    return own.new_user(own.new_tenant("Operator"), superuser=True, username="raiz@teste")


@pytest.fixture(scope="module")
def admin(own: System) -> Account:
    """The admin of a tenant."""
    return own.new_user(own.new_tenant())


@pytest.fixture(scope="module")
def operator(own: System, admin: Account) -> Account:
    """An operator of that tenant."""
    return own.new_user(admin.tenant_id, role="operator")


def create(own: System, who: Account, body: str = BODY, **fields: Any) -> str:
    """A new version."""
    version = f"v-{uuid4().hex[:8]}"
    made = own.send(who, "POST", "/prompts", {"version": version, "body": body, **fields}, expect=201)
    assert made["version"] == version
    own.projected()
    return version


def activate(own: System, who: Account, version: str) -> dict[str, Any]:
    done: dict[str, Any] = own.send(who, "POST", f"/prompts/{version}/activate")
    own.projected()
    return done


def states(own: System, who: Account) -> dict[str, str]:
    """The state of each version, in the order of the list."""
    return {row["version"]: row["state"] for row in own.get(who, "/prompts", limit=200)["items"]}


def test_from_the_built_in_prompt_to_the_second_version(own: System, root: Account) -> None:
    # The first test of the module: nothing was ever activated.
    assert states(own, root) == {BUILT_IN.version: "active"}
    built_in = own.get(root, f"/prompts/{BUILT_IN.version}")
    assert built_in["body"] == BUILT_IN.body
    assert built_in["rendered"]
    assert (built_in["id"], built_in["built_in"], built_in["created_at"], built_in["problem"]) == (0, True, None, None)
    refused = own.send(root, "POST", "/prompts", {"version": "evosense-9", "body": BODY}, expect=422)
    assert "take another one" in refused["detail"]
    assert not own.rows("SELECT FROM evosense_log.tenant_keys WHERE tenant_id = %s", INSTALLATION), "no key for nothing"

    body = {"version": "v1", "body": BODY, "description": "mais calorosa"}
    made = own.send(root, "POST", "/prompts", body, expect=201)
    assert made["duplicate"] is False
    row = own.get(root, "/prompts/v1", wait_for=made["position"])
    assert row["id"] == made["position"]
    assert {name: row[name] for name in body} == body
    assert (row["state"], row["created_by"], row["problem"]) == ("ready", "raiz@teste", None)
    assert "Você avalia mensagens." in row["rendered"]
    assert own.get(root, f"/prompts/{BUILT_IN.version}")["state"] == "active"

    first = own.send(root, "POST", "/prompts/v1/activate")
    assert own.get(root, "/prompts/v1", wait_for=first["position"])["state"] == "active"
    assert states(own, root) == {BUILT_IN.version: "retired", "v1": "active"}
    again = own.send(root, "POST", "/prompts/v1/activate")
    assert again == {"position": first["position"], "duplicate": True}

    own.send(root, "POST", "/prompts", {**body, "version": "v2"}, expect=201)
    activate(own, root, "v2")
    assert states(own, root) == {BUILT_IN.version: "retired", "v1": "ready", "v2": "active"}
    retired = own.send(root, "POST", "/prompts/v1/retire")
    assert own.get(root, "/prompts/v1", wait_for=retired["position"])["state"] == "retired"
    assert own.send(root, "POST", "/prompts/v1/retire")["duplicate"] is True
    assert "is retired" in own.send(root, "POST", "/prompts/v1/activate", expect=409)["detail"]
    assert "activate another one" in own.send(root, "POST", "/prompts/v2/retire", expect=409)["detail"]
    for name in ("activate", "retire"):
        refused = own.send(root, "POST", f"/prompts/{BUILT_IN.version}/{name}", expect=409)
        assert "come with the program" in refused["detail"]


def test_a_version_is_made_once_and_never_changes(own: System, root: Account) -> None:
    version = create(own, root)
    again = own.send(root, "POST", "/prompts", {"version": version, "body": BODY}, expect=201)
    assert again["duplicate"] is True
    for change in ({"body": BODY + "Seja breve."}, {"description": "outra"}):
        refused = own.send(root, "POST", "/prompts", {"version": version, "body": BODY, **change}, expect=409)
        assert "versions never change" in refused["detail"]
    assert own.get(root, f"/prompts/{version}")["body"] == BODY


def test_a_command_with_a_key_is_carried_out_once(own: System, root: Account) -> None:
    headers = {**root.headers, "Idempotency-Key": uuid4().hex}
    body = {"version": f"v-{uuid4().hex[:8]}", "body": BODY}
    answers = [own.client.post("/api/v1/prompts", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert len({answer.json()["position"] for answer in answers}) == 1
    assert answers[0].headers["EvoSense-Position"] == str(answers[0].json()["position"])
    headers["Idempotency-Key"] = uuid4().hex
    place = f"/api/v1/prompts/{body['version']}/activate"
    first = own.client.post(place, headers=headers).json()
    activate(own, root, create(own, root))
    assert own.client.post(place, headers=headers).json() == {"position": first["position"], "duplicate": True}
    own.projected()
    assert states(own, root)[body["version"]] == "ready", "the repeated command was not carried out again"


def test_a_template_that_can_not_be_rendered_is_refused(own: System, root: Account) -> None:
    head = own.write.log.head()
    for body in ("Olá\n{% for x in %}", "{{ ''.__class__.__mro__ }}"):
        refused = own.send(root, "POST", "/prompts", {"version": f"v-{uuid4().hex[:8]}", "body": body}, expect=422)
        assert "line" in refused["detail"]
    assert own.write.log.head() == head


def test_the_built_in_prompt_can_be_had_back_under_another_name(own: System, root: Account) -> None:
    shown = own.get(root, f"/prompts/{create(own, root, BUILT_IN.body)}")
    assert shown["rendered"] == own.get(root, f"/prompts/{BUILT_IN.version}")["rendered"]


def test_what_an_earlier_program_took_in_and_this_one_can_not_render(own: System, root: Account) -> None:
    create(own, root)  # or there is no key yet
    version, body = f"v-{uuid4().hex[:8]}", "Olá\n{% include 'outro' %}"
    own.write.commands.handle(prompt_templates(), CreatePrompt(at=utc_now(), version=version, body=body))
    own.projected()
    shown = own.get(root, f"/prompts/{version}")
    assert (shown["body"], shown["rendered"], shown["created_by"]) == (body, None, None)
    assert "line 2" in shown["problem"]
    assert "line 2" in own.send(root, "POST", f"/prompts/{version}/activate", expect=422)["detail"]
    own.send(root, "POST", f"/prompts/{version}/retire")


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"version": "../v1"}, 422, "letters a to z"),
        ({"version": "v" * 65}, 422, "1 to 64"),
        ({"version": 1}, 400, "version"),
        ({"body": ""}, 422, "empty"),
        ({"body": "x" * 20_000}, 422, "16384 bytes"),
        ({"body": "a\0b"}, 422, "NUL"),
        ({"body": None}, 400, "body"),
        ({"description": "x" * 1001}, 422, "at most 1000"),
        ({"created_by": "outra"}, 400, "created_by"),
        ({"is_active": True}, 400, "is_active"),
    ],
)
def test_a_prompt_that_can_not_be(own: System, root: Account, change: dict[str, Any], status: int, says: str) -> None:
    problem = own.send(root, "POST", "/prompts", {"version": "v-x", "body": BODY, **change}, expect=status)
    assert says in problem["detail"]


@pytest.mark.parametrize("version", ["v-none", "evosense-99", "%00", "a%20b", "x" * 300])
def test_a_version_that_is_not(own: System, root: Account, version: str) -> None:
    assert "no prompt" in own.get(root, f"/prompts/{version}", expect=404)["detail"]
    assert "no prompt" in own.get(root, f"/prompts/{version}/diff", expect=404)["detail"]
    against = own.client.get(f"/api/v1/prompts/{BUILT_IN.version}/diff?against={version}", headers=root.headers)
    assert own.checked(against, 404)
    status = 409 if version.startswith("evosense") else 404
    own.send(root, "POST", f"/prompts/{version}/activate", expect=status)
    own.send(root, "POST", f"/prompts/{version}/retire", expect=status)


def test_all_pages_hold_every_version_once(own: System, root: Account) -> None:
    made = [create(own, root) for _ in range(3)]
    for limit in (1, 2, 3):
        seen: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            page = own.get(root, "/prompts", limit=limit, **after)
            assert len(page["items"]) <= limit
            seen += page["items"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        versions = [row["version"] for row in seen]
        assert versions[0] == BUILT_IN.version
        assert versions[-3:] == made
        assert len(versions) == len(set(versions))
        assert versions == list(states(own, root))
        assert [row["id"] for row in seen] == sorted(row["id"] for row in seen)
    assert own.get(root, "/prompts", after=2**63 - 1) == {"items": [], "next": None}
    for nothing in (-1, 2**63, "v1"):
        own.get(root, "/prompts", after=nothing, expect=400)


def test_what_one_has_that_another_has_not(own: System, root: Account) -> None:
    old = create(own, root, "Primeira.\nSegunda.\nTerceira.\n")
    new = create(own, root, "Primeira.\nOutra.\n++ Mais.\n-- Menos.\nTerceira.\n")
    diff = own.get(root, f"/prompts/{new}/diff", against=old)
    assert (diff["version"], diff["against"]) == (new, old)
    assert diff["added"] == ["Outra.", "++ Mais.", "-- Menos."]
    assert diff["removed"] == ["Segunda."]
    lines = diff["diff"].splitlines()
    assert lines[:2] == [f"--- {old}", f"+++ {new}"]
    assert lines[2].startswith("@@ -1,")
    assert lines[3:6] == [" Primeira.", "-Segunda.", "+Outra."]

    activate(own, root, old)
    assert own.get(root, f"/prompts/{new}/diff") == diff, "against the active one"
    same = own.get(root, f"/prompts/{old}/diff")
    assert same == {"version": old, "against": old, "diff": "", "added": [], "removed": []}
    built_in = own.get(root, f"/prompts/{new}/diff", against=BUILT_IN.version)
    assert "Outra." in built_in["added"]
    back = own.get(root, f"/prompts/{BUILT_IN.version}/diff", against=new)
    assert back["removed"] == built_in["added"]


def test_admins_read_superusers_write_and_operators_do_neither(
    own: System, root: Account, admin: Account, operator: Account
) -> None:
    version = create(own, root, description="para todos")
    before = own.write.log.head()
    for path, body in (
        ("/prompts", {"version": "v-intruder", "body": BODY}),
        (f"/prompts/{version}/activate", None),
        (f"/prompts/{version}/retire", None),
    ):
        for who in (admin, operator):
            assert "superuser" in own.send(who, "POST", path, body, expect=403)["detail"]
        assert own.client.post(f"/api/v1{path}", json=body).status_code == 401
    assert own.write.log.head() == before
    for path in ("/prompts", f"/prompts/{version}", f"/prompts/{version}/diff"):
        own.get(operator, path, expect=403)
        assert own.client.get(f"/api/v1{path}").status_code == 401
    shown = own.get(admin, f"/prompts/{version}")
    assert (shown["body"], shown["description"], shown["created_by"]) == (BODY, "para todos", None)
    assert states(own, admin) == states(own, root)
    assert "raiz@teste" not in str(own.get(admin, "/prompts", limit=200)), "a superuser's name is not the tenants'"
    assert own.get(root, f"/prompts/{version}")["created_by"] == "raiz@teste"


def test_a_tenant_reads_the_table_in_sql_and_can_not_write_it(own: System, root: Account, admin: Account) -> None:
    version = create(own, root)
    with psycopg.connect(own.settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(admin.tenant_id),))
        found = "SELECT body FROM evosense.experiments_prompttemplate WHERE version = %s"
        assert conn.execute(found, (version,)).fetchall() == [(BODY,)]
        for forbidden in (
            "UPDATE evosense.experiments_prompttemplate SET body = ''",
            "INSERT INTO evosense.experiments_prompttemplate (id, version, body) VALUES (1, 'v', 'x')",
            "DELETE FROM evosense.experiments_prompttemplate",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(forbidden.encode())


def test_the_installation_is_no_tenant(own: System, root: Account) -> None:
    version = create(own, root, description="descrição confidencial")
    events = own.rows("SELECT state FROM evosense_log.stored_events WHERE tenant_id = %s", INSTALLATION)
    assert events
    assert not any(b"confidencial" in bytes(row["state"]) or b"raiz@" in bytes(row["state"]) for row in events)
    own.get(root, f"/tenants/{INSTALLATION}", expect=404)
    user = {"username": "alguem@teste", "password": "correto-cavalo-bateria", "tenant_id": str(INSTALLATION)}
    own.send(root, "POST", "/users", user, expect=404)
    assert version in states(own, root)


def test_a_name_that_is_longer_than_its_column_is_cut(own: System) -> None:
    name = "r" * 140
    who = own.new_user(own.new_tenant("Operator"), superuser=True, username=name)
    version = create(own, who)
    assert own.get(who, f"/prompts/{version}")["created_by"] == "r" * 99 + "…"


def test_of_many_activated_at_once_one_is_active_at_every_moment(own: System, root: Account) -> None:
    versions = [create(own, root) for _ in range(4)]
    activate(own, root, versions[0])
    done, seen = threading.Event(), set()

    def look() -> None:
        with psycopg.connect(own.settings.admin_dsn, autocommit=True) as conn:
            while not done.is_set():
                rows = conn.execute("SELECT version FROM evosense.experiments_prompttemplate WHERE is_active")
                seen.add(tuple(version for (version,) in rows))

    def elsewhere(number: int) -> None:
        """Another process: it does not queue up with those that come over HTTP."""
        while True:
            try:
                own.write.commands.handle(
                    prompt_templates(), ActivatePrompt(at=utc_now(), version=versions[number % 4])
                )
            except Contended:
                continue
            return

    def over_http(number: int) -> tuple[str, Any]:
        version = versions[number % 4]
        while True:
            answer = own.client.post(f"/api/v1/prompts/{version}/activate", headers=root.headers)
            # Outrun by the other process again and again: told to try again, and nothing is lost.
            if answer.status_code != 503:
                return version, own.checked(answer, 200)
            assert answer.headers["retry-after"]

    watching = threading.Thread(target=look)
    watching.start()
    try:
        with ThreadPoolExecutor(12) as pool:
            others = [pool.submit(elsewhere, number) for number in range(1, 13)]
            answers = [one.result() for one in [pool.submit(over_http, number) for number in range(40)]]
            for other in others:
                other.result()
        own.projected()
    finally:
        done.set()
        watching.join(20)
    assert {len(active) for active in seen} == {1}
    assert len(seen) > 1

    history = own.write.log.history(prompt_templates().id)
    activations = {one.position: one.event for one in history if isinstance(one.event, PromptTemplateActivated)}
    active = None
    for event in activations.values():
        assert event.replaces == active, "each knows which it replaces: none was decided on what was no longer so"
        assert event.version != active
        active = event.version
    for version, answer in answers:
        if not answer["duplicate"]:
            assert activations[answer["position"]].version == version, "what was answered stands in the log"
    assert list(states(own, root).values()).count("active") == 1
    assert states(own, root)[str(active)] == "active"


def test_of_many_made_at_once_each_is_made_once(own: System, root: Account) -> None:
    version = f"v-{uuid4().hex[:8]}"
    bodies = [BODY, BODY + "Outra.\n"] * 6
    post = lambda body: own.client.post(  # noqa: E731
        "/api/v1/prompts", json={"version": version, "body": body}, headers=root.headers
    )
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(post, bodies))
    kept = {body for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 201}
    assert len(kept) == 1, "the first one's body"
    assert [answer.status_code for answer in answers].count(409) == 6
    history = own.write.log.history(prompt_templates().id)
    created = [one.event for one in history if isinstance(one.event, PromptTemplateCreated)]
    assert [event.body for event in created if event.version == version] == list(kept)
