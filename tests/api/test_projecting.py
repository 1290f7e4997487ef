"""`evosense rebuild`, `rollback`, `audit` and `replay` as a person meets them: as processes."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from adapters.settings import Settings
from tests.support.rebuilding import System, killed, run, session_gone
from tests.support.systems import administrator, wait_for
from tests.support.world import tampered


@pytest.fixture(scope="module")
def system(settings: Settings) -> Iterator[System]:
    """A history in the module's database, projected."""
    with administrator(settings) as admin:
        system = System(settings, admin, 31)
        system.grow(300)
        yield system
        system.close()


@pytest.fixture(autouse=True)
def as_it_was(system: System) -> Iterator[None]:
    before = system.contents()
    yield
    assert system.contents() == before, "a test has to leave the tables as they were"
    assert system.builds() == []


def told(system: System, *arguments: str, rc: int = 0) -> tuple[str, list[str]]:
    """What a command says on standard output and, line by line, on standard error; never a traceback."""
    process = run(system, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == rc, output + errors
    assert "Traceback" not in output + errors
    assert "\x1b" not in output + errors, "colours and bars are for a terminal"
    return output, errors.splitlines()


def refused(system: System, *arguments: str) -> str:
    """The one sentence with which a command fails."""
    output, errors = told(system, *arguments, rc=1)
    sentences = [line.removeprefix("error: ") for line in errors]
    assert len(sentences) == 1, errors
    assert errors[0].startswith("error: ")
    assert "evosense-test" not in output + sentences[0]
    return sentences[0]


# ------------------------------------------------------------------------------------------------ rebuild, rollback


def test_rebuild_says_what_it_did(system: System) -> None:
    system.admin.execute("UPDATE evosense.metrics_rollup SET messages = messages + 1")
    output, errors = told(system, "rebuild")
    events = system.one("SELECT count(*) FROM evosense_log.stored_events")
    assert re.search(rf"{events:,} events in [\d.]+ s; live up to position {system.head:,}", output)
    for table, rows in system.contents().items():
        assert re.search(rf"│ {table} +│ +{len(rows):,} │", output), table
    assert "the new tables will take about" in output
    assert errors == []
    part, _ = told(system, "rebuild", "metrics", "billing")
    assert "metrics_rollup" in part
    assert "messages_message" not in part


def test_rebuild_refuses_what_can_t_be(system: System) -> None:
    sentence = refused(system, "rebuild", "messages", "mesages")
    assert sentence == (
        "there is no projection mesages: there are tenancy, authn, connections, messages, experiments, billing, metrics"
    )
    with system.read.builder.guard(1):
        for command in ("rebuild", "rollback"):
            assert refused(system, command) == "a rebuild, a rollback or a new layout of shards is running already"
    system.admin.execute("CREATE VIEW public.moods AS SELECT sentiment FROM evosense.messages_message")
    try:
        assert "view public.moods of evosense_admin (on messages_message)" in refused(system, "rebuild")
    finally:
        system.admin.execute("DROP VIEW public.moods")


def test_rebuild_names_a_poison_event_and_goes_on_where_it_was(system: System) -> None:
    position, words = system.admin.execute(
        "SELECT id, text FROM evosense.messages_message ORDER BY id DESC LIMIT 1"
    ).fetchone() or (0, "")
    tampered(system.admin, position)
    sentence = refused(system, "rebuild")
    assert f"the event at position {position} (messages.MessageReceived:1, stream " in sentence
    assert words not in sentence
    tampered(system.admin, position)
    told(system, "rebuild")


def test_an_event_that_stopped_a_rebuild_can_be_skipped(system: System) -> None:
    position = system.one("SELECT max(id) FROM evosense.messages_message")
    tampered(system.admin, position)
    refused(system, "rebuild")
    skip = ("parked", "skip", str(position), "--reason", "damaged")
    assert refused(system, *skip) == (
        f"no event is parked at position {position}: one that a rebuild stopped at is skipped with --anyway"
    )
    assert told(system, *skip, "--anyway")[0] == f"skipped the event at position {position}\n"
    told(system, "rebuild")
    assert system.one("SELECT count(*) FROM evosense.messages_message WHERE id = %s", position) == 0
    tampered(system.admin, position)
    system.admin.execute("DELETE FROM evosense_ops.skipped_events")
    system.rebuild()


def test_rebuild_goes_on_after_a_kill(system: System) -> None:
    with administrator(system.settings) as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM evosense.messages_message")
        process = run(system, "rebuild")
        killed(process, lambda: any(one.state == "ready" for one in system.builds()), "all is ready for the swap")
    wait_for(session_gone(system), "the server knows of the end")
    [left] = system.builds()
    output, _ = told(system, "rebuild")
    assert f"going on in schema {left.schema_name} behind position {system.head:,}" in output
    assert re.search(r"\b0 events in", output)


def test_keep_roll_back_and_forget(system: System) -> None:
    output, _ = told(system, "rebuild", "--keep")
    [kept] = system.builds()
    flat = " ".join(output.split())
    assert f"the old tables are in schema {kept.schema_name}: `evosense rollback` brings them back" in flat
    assert f"live up to position {system.head:,}" in told(system, "rollback", "--keep")[0]
    assert re.fullmatch(r"dropped evosense_kept_\d+\n", told(system, "rollback", "--forget")[0])
    assert told(system, "rollback", "--forget")[0] == "nothing was kept\n"
    assert refused(system, "rollback") == "nothing was kept: a rebuild keeps the old tables with --keep"


# ------------------------------------------------------------------------------------------------ audit


@pytest.mark.parametrize("fast", [(), ("--fast",)], ids=["rows", "digests"])
def test_audit_says_equal(system: System, fast: tuple[str, ...]) -> None:
    output, errors = told(system, "audit", *fast)
    rows = sum(len(one) for one in system.contents().values())
    assert re.search(
        rf"^equal at position {system.head:,}: {rows:,} rows in {len(system.contents())} tables, [\d.]+ s$",
        output,
        re.MULTILINE,
    )
    assert errors == []


def test_audit_says_what_differs_and_no_value(system: System) -> None:
    tenant, other = system.world.tenants[:2]
    message = system.one("SELECT min(id) FROM evosense.messages_message WHERE tenant_id = %s", tenant)
    with administrator(system.settings) as admin:
        admin.execute("UPDATE evosense.messages_message SET text = 'segredo' WHERE id = %s", (message,))
        admin.execute("DELETE FROM evosense.metrics_latency WHERE tenant_id = %s", (tenant,))
    try:
        output, _ = told(system, "audit", rc=1)
        assert output.splitlines()[1].startswith(f"not equal at position {system.head:,}: ")
        assert re.search(rf"│ messages_message +│ +{message} +│ differs +│ text +│", output), output
        assert re.search(rf"│ metrics_latency +│ +{tenant} +│ only the log has it +│ +│", output), output
        assert "segredo" not in output
        assert "`evosense rebuild` makes the tables say what the log says" in output
        digests, _ = told(system, "audit", "--fast", "metrics", rc=1)
        assert re.search(rf"│ metrics_latency +│ +{tenant} +│ +0 +│ +1 +│", digests), digests
        assert told(system, "audit", "--tenant", str(other))[0].splitlines()[-1].startswith("equal at position ")
    finally:
        system.rebuild()


def test_audit_speaks_of_what_is_parked(system: System) -> None:
    system.admin.execute(
        "INSERT INTO evosense_ops.parked_events (subscriber, position, projections) "
        "VALUES ('projector', %s, '{billing}')",
        (system.head,),
    )
    try:
        output, _ = told(system, "audit", "billing")
        assert "1 parked events are in neither: see `evosense parked list`" in output
    finally:
        system.admin.execute("DELETE FROM evosense_ops.parked_events")


# ------------------------------------------------------------------------------------------------ replay


def test_replay_until_a_position_and_until_a_moment(system: System) -> None:
    until = system.head // 2
    output, errors = told(system, "replay", "--until", str(until), "--schema", "before_the_fault")
    assert errors == []
    assert f"schema before_the_fault shows the read models as they were at position {until:,} (" in output
    assert "`SET search_path = before_the_fault, public`" in output
    assert "`evosense replay --schema before_the_fault --drop` drops it" in output
    with psycopg.connect(system.settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(system.world.tenants[0]),))
        conn.execute("SET search_path = before_the_fault, public")
        seen = conn.execute("SELECT count(*), max(id) FROM messages_message").fetchone()
    assert seen is not None
    assert 0 < seen[1] <= until
    moment = system.one("SELECT max(recorded_at) FROM evosense_log.stored_events")
    assert (
        f"position {system.head:,} (" in told(system, "replay", "--until", moment.isoformat(), "--schema", "march")[0]
    )
    taken = refused(system, "replay", "--until", "3", "--schema", "march")
    assert taken == "schema march is a build already: drop it first, or take another name"
    for schema in ("march", "before_the_fault"):
        assert told(system, "replay", "--schema", schema, "--drop")[0] == f"dropped schema {schema}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--until", "2026-03-31T23:59:59"), "say in which time zone, such as 2026-03-31T23:59:59-03:00"),
        (("--until", "yesterday"), "'yesterday' is neither a position nor a moment such as 2026-03-31T23:59:59-03:00"),
        (("--until", "999999"), "there is no position 999999 yet"),
        (("--until", "9" * 19), "is beyond any position"),
        (("--until", "-5"), "'-5' is neither a position nor a moment"),
        (("--until", "5", "--drop"), "give either --until with a position or a moment, or --drop"),
        ((), "give either --until with a position or a moment, or --drop"),
        (("--drop",), "there is no replay in a schema march"),
    ],
)
def test_replay_refuses_what_can_t_be(system: System, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(system, "replay", "--schema", "march", *arguments)


@pytest.mark.parametrize("name", ["evosense", "Março", "pg_x", "a b"])
def test_replay_refuses_a_name_that_is_none(system: System, name: str) -> None:
    sentence = refused(system, "replay", "--schema", name, "--until", "5")
    assert sentence.startswith(f"'{name}' is not a name that a build may have: small letters, digits and _")


# ------------------------------------------------------------------------------------------------ a terminal


def test_a_terminal_shows_how_it_goes_on(system: System) -> None:
    """The bar is there while it runs, and gone afterwards."""
    ours, theirs = pty.openpty()
    environment = {**system.environment(), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "audit"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait(30) == 0
    text = shown.decode()
    assert "reading the log" in text
    assert "comparing" in text
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).strip().splitlines()[-1]
    assert last.startswith("equal at position ")
