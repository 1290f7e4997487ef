"""`evosense history`: what the log holds of one thing, with and without the keys."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest
from typer.testing import CliRunner

from adapters.event_store import StructMapper
from adapters.settings import Settings
from adapters.vault import MasterKey, Vault
from api.cli.main import app
from api.cli.screen import CommandError
from api.history import BIRTHS, SEALED, SECRET, HistoryEntry, HistoryReader
from api.wiring import ReadSide, WriteSide, key_store
from domain import authn, connections, experiments, messages, prompts, tenancy
from domain.event import event_types
from domain.ports import Analysis
from tests.support.spec import NOW
from tests.support.systems import administrator, drain
from tests.support.world import World, record, repeatable, tampered, vector

ROOT = Path(__file__).parents[2]
#: As a customer could write it: an order to the terminal, a line break, and several signs that are one.
TEXT = "Cadê meu pedido? \x1b[2J\n\x9b31m 👨\u200d👩\u200d👧"
PLAIN = r"Cadê meu pedido? \x1b[2J\n\x9b31m 👨‍👩‍👧"
VECTOR = vector(repeatable(1))
USERNAME, EMAIL, HASH, TOKEN = "joana.historia", "joana@historia.example", "$argon2id$hash", "c2VncmVkbw=="
NAME, REASON = "Padaria da História", "não pagou a conta"
PERSONAL = (TEXT, "Cadê", "KEY-1", "quer o pedido", USERNAME, EMAIL, "Joana", NAME, REASON)


@dataclass(frozen=True)
class Told:
    """A tenant to which everything has happened, and where each thing's history begins."""

    tenant: UUID
    streams: dict[str, UUID]
    rows: dict[str, int]


def happen(write: WriteSide, number: int) -> Told:
    """Everything that can happen to a tenant; `number` tells two of them apart."""
    world, at, tenant_id = World(number, tenants=0), NOW + timedelta(milliseconds=7), uuid4()
    connection_id = connections.connection_id(tenant_id, "balcão")
    message_id = messages.message_id(connection_id, "c" * 64, False, "KEY-1")
    streams = {
        "tenant": tenant_id,
        "user": authn.user_id(f"{USERNAME}.{number}"),
        "connection": connection_id,
        "message": message_id,
        "inference": experiments.inference_id(message_id, experiments.LIVE_RUN, "p-1", "m-1"),
    }
    said = Analysis(sentiment=-0.5, emotion="raiva", satisfaction=10, tone="urgente", summary="quer o pedido")
    units = [
        world.carry_out(
            tenancy.tenant(tenant_id),
            tenancy.RegisterTenant(at=at, name=NAME),
            tenancy.SuspendTenant(at=at, reason=REASON),
        ),
        world.carry_out(
            authn.user(streams["user"]),
            authn.RegisterUser(
                at=at,
                tenant_id=tenant_id,
                username=f"{USERNAME}.{number}",
                password_hash=HASH,
                email=EMAIL,
                first_name="Joana",
            ),
            authn.ChangePassword(at=at, password_hash=HASH),
        ),
        world.carry_out(
            connections.connection(connection_id),
            connections.RegisterConnection(
                at=at,
                tenant_id=tenant_id,
                name="balcão",
                evo_ws_url="https://evo.example.com",
                sealed_token=TOKEN,
                company_sender="5" * 64,
            ),
            connections.RotateToken(at=at, sealed_token=TOKEN),
        ),
        world.carry_out(
            messages.message(message_id),
            messages.ReceiveMessage(
                at=at,
                tenant_id=tenant_id,
                connection_id=connection_id,
                chat_id="c" * 64,
                sender="c" * 64,
                from_me=False,
                is_group=False,
                kind="text",
                sent_at=at,
                external_id="KEY-1",
                text=TEXT,
            ),
            messages.AnalyzeMessage(at=at, model_name="m-1", prompt_version="p-1", analysis=said),
            messages.EmbedMessage(at=at, model_name="e-1", vector=VECTOR),
        ),
        world.carry_out(
            experiments.inference(streams["inference"]),
            experiments.RecordInference(
                at=at,
                tenant_id=tenant_id,
                message_id=message_id,
                model_name="m-1",
                prompt_version="p-1",
                template_hash="f" * 64,
                latency_ms=12,
                sentiment=-0.5,
                emotion="raiva",
                satisfaction=10,
            ),
        ),
    ]
    record(write, units)
    births = write.log.births(streams.values())
    return Told(tenant_id, streams, {kind: births[stream] for kind, stream in streams.items()})


@pytest.fixture(scope="module")
def told(write: WriteSide, read: ReadSide) -> Told:
    """A tenant that nobody harms, in the read models as well."""
    told = happen(write, 1)
    drain(read.engine)
    return told


@pytest.fixture
def harmed(write: WriteSide, told: Told) -> Told:
    """A tenant of the test's own, with the same numbers of events."""
    return happen(write, int(uuid4()) % 10**9)


@pytest.fixture
def opened(write: WriteSide) -> HistoryReader:
    """A reader with the key."""
    return HistoryReader(write.datastore, StructMapper(write.vault))


@pytest.fixture
def closed(write: WriteSide) -> HistoryReader:
    """A reader without any."""
    return HistoryReader(write.datastore)


def evosense(settings: Settings, *arguments: object, **env: str) -> str:
    """What the command shows, without a master key in its environment."""
    given = {"EVOSENSE_DATABASE_URL": settings.runtime_dsn, "NO_COLOR": "1", **env}
    done = CliRunner(env=given).invoke(app, ["history", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def process(settings: Settings, *arguments: object, **env: str) -> "subprocess.CompletedProcess[str]":
    """The same as a process: opening sets up the logging of the whole of it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVOSENSE_")}
    given = {"PYTHONPATH": str(ROOT), "EVOSENSE_DATABASE_URL": settings.runtime_dsn, "NO_COLOR": "1", **env}
    command = [sys.executable, "-m", "api.cli", "history", *map(str, arguments)]
    done = subprocess.run(command, env={**clean, **given}, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done


def key_of(settings: Settings) -> dict[str, str]:
    return {"EVOSENSE_MASTER_KEY": settings.master_key_text()}


# ---------------------------------------------------------------------------------------- without the master key


def test_an_auditor_without_the_key_sees_the_log_and_no_content(settings: Settings, told: Told) -> None:
    for kind, row in told.rows.items():
        identifier: object = told.tenant if kind == "tenant" else row
        shown = evosense(settings, kind, identifier, "--json")
        assert evosense(settings, kind, told.streams[kind], "--json") == shown, "by the stream's uuid as well"
        entries = json.loads(shown)
        assert [entry["version"] for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry["position"] for entry in entries] == list(range(row, row + len(entries)))
        assert entries[0]["type"] == BIRTHS[kind].type_name
        assert {entry["type_version"] for entry in entries} == {1}
        assert {entry["at"] for entry in entries} == {msgspec.to_builtins(NOW + timedelta(milliseconds=7))}
        assert "problem" not in shown
        for entry in entries:
            cls = event_types()[entry["type"]]
            for name in cls.sealed_fields:
                assert entry["data"][name] in (SEALED, SECRET), name
            place = {"originator_id", "originator_version", "tenant_id", "at"}
            assert set(entry["data"]) == set(cls.__struct_fields__) - place
        for secret in (*PERSONAL, HASH, TOKEN):
            assert secret not in shown
            assert secret not in evosense(settings, kind, identifier)


def test_what_an_event_speaks_of_is_named_by_its_row(settings: Settings, told: Told) -> None:
    message = json.loads(evosense(settings, "message", told.rows["message"], "--json"))
    assert message[0]["links"] == {"connection": told.rows["connection"]}
    assert "links" not in message[1]
    inference = json.loads(evosense(settings, "inference", told.rows["inference"], "--json"))
    assert inference[0]["links"] == {"message": told.rows["message"]}
    shown = evosense(settings, "message", told.rows["message"])
    assert f"connection_id  {told.streams['connection']} (connection {told.rows['connection']})" in shown
    assert shown.splitlines()[-1] == f"inferences: {told.rows['inference']}"


def test_the_prompts_have_one_history_by_the_id_of_any_version(settings: Settings, write: WriteSide) -> None:
    world = World(1, tenants=0)
    created = [
        prompts.CreatePrompt(
            at=NOW, version=version, body=f"corpo {version}", description="sigilosa", created_by="joana"
        )
        for version in ("v1", "v2")
    ]
    activate, retire = prompts.ActivatePrompt(at=NOW, version="v2"), prompts.RetirePrompt(at=NOW, version="v1")
    last = record(write, [world.carry_out(prompts.prompt_templates(), *created, activate, retire)])
    shown = [evosense(settings, "prompt", position, "--json") for position in (last - 3, last - 2)]
    assert shown[0] == shown[1] == evosense(settings, "prompt", prompts.prompt_templates().id, "--json")
    entries = json.loads(shown[0])
    assert [entry["type"].rpartition(".")[2] for entry in entries] == [
        "PromptTemplateCreated",
        "PromptTemplateCreated",
        "PromptTemplateActivated",
        "PromptTemplateRetired",
    ]
    # Which prompt was in force is for an auditor without keys to see, and not who wrote it.
    assert entries[0]["data"]["body"] == "corpo v1"
    assert (entries[0]["data"]["description"], entries[0]["data"]["created_by"]) == (SEALED, SEALED)
    assert entries[2]["data"] == {"version": "v2", "replaces": None}
    with pytest.raises(CommandError, match=f"PromptTemplateRetired of prompt {last - 3}"):
        evosense(settings, "prompt", last)


def test_inferences_that_are_not_projected_yet(settings: Settings, harmed: Told) -> None:
    shown = evosense(settings, "message", harmed.rows["message"])
    assert shown.splitlines()[-1] == "inferences: none in the read models"


def test_both_times_are_told(settings: Settings, told: Told) -> None:
    shown = evosense(settings, "tenant", told.tenant)
    with administrator(settings) as conn:
        row = conn.execute(
            "SELECT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') "
            "FROM evosense_log.stored_events WHERE notification_id = %s",
            (told.rows["tenant"],),
        ).fetchone()
    assert row is not None
    elsewhere = json.loads(evosense(settings, "tenant", told.tenant, "--json", PGTZ="America/Sao_Paulo"))
    assert elsewhere[0]["recorded_at"] == f"{row[0].replace(' ', 'T')}Z"
    happened = f"{NOW + timedelta(milliseconds=7):%Y-%m-%d %H:%M:%S.%f}"
    assert f"\n  happened {happened} UTC, recorded {row[0]} UTC\n" in shown
    assert f"position {told.rows['tenant']}, version 1: tenancy.TenantRegistered:1\n" in shown


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("message", "{tenant_row}", "no message has id {tenant_row}: that position holds a tenancy.TenantRegistered"),
        ("user", "{message}", "that position holds a messages.MessageReceived"),
        ("connection", "{user}", "that position holds an authn.UserRegistered"),
        ("message", "{analyzed}", "that position holds a messages.MessageAnalyzed of message {message}"),
        ("message", "{stream}", "no message has id {stream}: that stream begins with a tenancy.TenantRegistered"),
        ("message", "999999999", "no message has id 999999999: nothing stands at that position of the log"),
        ("message", "9" * 19, "nothing stands at that position"),
        ("tenant", "{unknown}", "no tenant has id {unknown}: the log has no stream of that id"),
        ("tenant", "{tenant_row}", "that is no id of a tenant: it goes by its UUID"),
        (
            "inference",
            "joana@loja",
            "no id of an inference: it goes by the number that its row has in SQL, or the UUID",
        ),
        ("message", "9" * 4999, "that is no id of a message"),
        ("message", "٣", "that is no id of a message"),
    ],
)
def test_an_id_of_something_else_is_explained(
    settings: Settings, told: Told, kind: str, given: str, sentence: str
) -> None:
    known = {
        "tenant_row": told.rows["tenant"],
        "message": told.rows["message"],
        "analyzed": told.rows["message"] + 1,
        "user": told.rows["user"],
        "stream": told.tenant,
        "unknown": UUID(int=7),
    }
    with pytest.raises(CommandError) as refused:
        evosense(settings, kind, given.format(**known), "--json")
    assert sentence.format(**known) in str(refused.value)
    assert "joana" not in str(refused.value)


def test_without_a_running_system(servers_home: Path) -> None:
    env = {"EVOSENSE_HOME": str(servers_home / "nothing-here"), "EVOSENSE_DATABASE_URL": ""}
    with pytest.raises(CommandError, match="start it with `evosense up`"):
        CliRunner(env=env).invoke(app, ["history", "message", "1"], catch_exceptions=False)
    assert not (servers_home / "nothing-here").exists(), "nothing is made to look into it"


# -------------------------------------------------------------------------------------------- with the master key


def test_opened_for_machines(settings: Settings, told: Told) -> None:
    done = process(settings, "message", told.rows["message"], "--open", "--json", **key_of(settings))
    received, analyzed, embedded = (entry["data"] for entry in json.loads(done.stdout))
    assert (received["text"], received["external_id"]) == (TEXT, "KEY-1")
    assert received["connection_id"] == str(told.streams["connection"])
    assert (analyzed["summary"], analyzed["sentiment"]) == ("quer o pedido", -0.5)
    assert not any(order in done.stdout for order in ("\x1b", "\x9b"))
    assert embedded["vector"] == list(memoryview(VECTOR).cast("f"))


def test_opening_leaves_a_trace_of_who_and_which_but_not_what(settings: Settings, told: Told) -> None:
    done = process(settings, "user", told.rows["user"], "--open", "--json", **key_of(settings))
    registered, changed = (entry["data"] for entry in json.loads(done.stdout))
    assert (registered["email"], registered["password_hash"], changed["password_hash"]) == (EMAIL, SECRET, SECRET)
    assert HASH not in done.stdout
    lines = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert len(lines) == 1
    assert f"the history of user {told.streams['user']} of tenant {told.tenant} was opened by account " in lines[0]
    assert not any(personal in done.stderr for personal in PERSONAL)


def test_opened_for_people(settings: Settings, told: Told) -> None:
    shown = process(settings, "message", told.rows["message"], "--open", **key_of(settings)).stdout
    assert f"  text           {PLAIN}\n" in shown, "what a terminal would obey is spelled out"
    assert not any(order in shown for order in ("\x1b", "\x9b"))
    assert "  vector      768 numbers of e-1\n" in shown
    assert f"message {told.rows['message']}: stream {told.streams['message']}, of tenant {told.tenant}\n" in shown


@pytest.mark.parametrize("what", ["missing", "another"])
def test_opening_needs_the_master_key(settings: Settings, told: Told, what: str) -> None:
    env = {} if what == "missing" else {"EVOSENSE_MASTER_KEY": MasterKey.generate_text()}
    done = process(settings, "message", told.rows["message"], "--open", **env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --open needs the master key, and it can't be used: ")
    right = MasterKey.from_text(settings.master_key_text()).id
    assert ("set EVOSENSE_MASTER_KEY" if what == "missing" else f"wrapped with {right}") in done.stderr


def test_no_secret_is_opened(told: Told, opened: HistoryReader) -> None:
    data = [entry.data for entry in opened.all(told.streams["connection"])]
    assert [fields["sealed_token"] for fields in data] == [SECRET, SECRET]
    assert data[0]["name"] == "balcão"


def test_which_fields_are_secrets() -> None:
    """Whoever adds an event with a secret in it has to come by here."""
    secret = {
        field
        for cls in event_types().values()
        for field in cls.__struct_fields__
        if any(word in field for word in ("password", "token", "secret", "credential", "key"))
    }
    # WhatsApp's key of a message opens nothing.
    assert secret - {"key_id"} == {"password_hash", "sealed_token"}


# --------------------------------------------------------------------------------------------- what can't be read


def by_version(reader: HistoryReader, stream_id: UUID) -> dict[int, HistoryEntry]:
    return {entry.version: entry for entry in reader.all(stream_id)}


def test_a_broken_seal_is_told_and_the_rest_goes_on(
    settings: Settings, harmed: Told, opened: HistoryReader, closed: HistoryReader
) -> None:
    with administrator(settings) as conn:
        tampered(conn, harmed.rows["message"] + 1)
    entries = by_version(opened, harmed.streams["message"])
    assert entries[1].data["text"] == TEXT
    assert entries[3].data["vector"] == "768 numbers of e-1"
    assert (entries[1].problem, entries[3].problem) == (None, None)
    assert "its sealed part does not fit" in str(entries[2].problem)
    assert (entries[2].data["summary"], entries[2].data["sentiment"]) == (SEALED, -0.5)
    assert [entry.problem for entry in closed.all(harmed.streams["message"])] == [None] * 3, "nobody has looked"
    shown = process(settings, "message", harmed.rows["message"], "--open", **key_of(settings))
    assert shown.returncode == 0
    assert shown.stdout.count("can't be read as it should be: event 2 of stream") == 1
    assert PLAIN in shown.stdout


def test_a_changed_open_field_is_told(settings: Settings, harmed: Told, opened: HistoryReader) -> None:
    with administrator(settings) as conn:
        conn.execute(
            "UPDATE evosense_log.stored_events SET state = decode(replace(encode(state, 'hex'), %s, %s), 'hex') "
            "WHERE notification_id = %s",
            (b"urgente".hex(), b"cordial".hex(), harmed.rows["message"] + 1),
        )
    entry = by_version(opened, harmed.streams["message"])[2]
    assert entry.data["tone"] == "cordial", "as it stands in the log"
    assert "sealed part does not fit" in str(entry.problem)


def test_an_erased_key(settings: Settings, harmed: Told) -> None:
    with administrator(settings) as conn:
        conn.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (harmed.tenant,))
    done = process(settings, "message", harmed.rows["message"], "--open", "--json", **key_of(settings))
    entries = json.loads(done.stdout)
    assert [entry["version"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        assert f"there is no key of tenant {harmed.tenant}" in entry["problem"]
    assert (entries[0]["data"]["text"], entries[0]["data"]["chat_id"]) == (SEALED, "c" * 64)
    assert entries[2]["data"] == {"model_name": "e-1", "vector": SEALED}


def test_a_tenant_key_that_does_not_open(settings: Settings, write: WriteSide, harmed: Told) -> None:
    with administrator(settings) as conn:
        conn.execute(
            "UPDATE evosense_log.tenant_keys SET wrapped_key = reverse(wrapped_key) WHERE tenant_id = %s",
            (harmed.tenant,),
        )
    master = MasterKey.from_text(settings.master_key_text())
    with key_store(settings) as store:
        entries = list(HistoryReader(write.datastore, StructMapper(Vault(master, store))).all(harmed.tenant))
    assert [entry.data["name"] for entry in entries[:1]] == [SEALED]
    assert all("does not open the key of tenant" in str(entry.problem) for entry in entries)


@pytest.mark.parametrize(
    "topic", ["messages.MessageAnalyzed:2", "messages.Forgotten:1", "nonsense", "messages.MessageAnalyzed:x", ""]
)
def test_an_unknown_type_is_told_and_the_rest_goes_on(
    settings: Settings, harmed: Told, opened: HistoryReader, closed: HistoryReader, topic: str
) -> None:
    with administrator(settings) as conn:
        conn.execute(
            "UPDATE evosense_log.stored_events SET topic = %s WHERE notification_id = %s",
            (topic, harmed.rows["message"] + 1),
        )
    for reader in (opened, closed):
        entries = by_version(reader, harmed.streams["message"])
        assert "does not know" in str(entries[2].problem)
        assert (entries[1].problem, entries[3].problem) == (None, None)
        assert entries[2].data["emotion"] == "raiva", "its open fields can be read all the same"
        assert "quer o pedido" not in str(entries[2])
    shown = evosense(settings, "message", harmed.rows["message"])
    assert f"version 2: {topic}\n" in shown


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\x93",
        b"\xc3",
        msgspec.msgpack.encode((b"\x80",)),
        msgspec.msgpack.encode((b"\x91\x01", b"")),
        msgspec.msgpack.encode((b"\x81\x01\x02", b"")),
        b"\x91" * 5000,
        msgspec.msgpack.encode((b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0", b"")),
    ],
)
def test_bytes_that_are_no_event_are_told_and_the_rest_goes_on(
    settings: Settings, harmed: Told, opened: HistoryReader, closed: HistoryReader, state: bytes
) -> None:
    with administrator(settings) as conn:
        conn.execute(
            "UPDATE evosense_log.stored_events SET state = %s WHERE notification_id = %s",
            (state, harmed.rows["message"]),
        )
    for reader in (opened, closed):
        entries = by_version(reader, harmed.streams["message"])
        assert f"event 1 of stream {harmed.streams['message']}" in str(entries[1].problem)
        assert (entries[1].at, entries[1].data) == (None, {})
        assert (entries[2].problem, entries[3].problem) == (None, None)
    shown = evosense(settings, "message", harmed.rows["message"])
    assert "happened at a time that can't be read" in shown


def test_open_fields_of_any_shape_can_be_shown(settings: Settings, harmed: Told, closed: HistoryReader) -> None:
    """Fields of types that no event has: bytes, foreign extensions, keys that are no text."""
    odd = {
        "at": "yesterday",
        "blob": b"\0\1",
        "vector": b"abc",
        "foreign": msgspec.msgpack.Ext(5, b"x"),
        "deep": {7: [None, 1.5]},
        "connection_id": 7,
        "message_id": "\x1b]0;title",
        "api_token": "abc",
    }
    state = msgspec.msgpack.encode((msgspec.msgpack.encode(odd), b""))
    with administrator(settings) as conn:
        conn.execute(
            "UPDATE evosense_log.stored_events SET state = %s WHERE notification_id = %s",
            (state, harmed.rows["message"] + 1),
        )
    entry = by_version(closed, harmed.streams["message"])[2]
    assert entry.at is None
    assert entry.data["blob"] == "2 bytes"
    assert entry.data["vector"] == "3 bytes"
    assert entry.data["api_token"] == SECRET
    assert entry.data["deep"] == {"7": [None, 1.5]}
    assert json.loads(msgspec.json.encode(entry))
    shown = evosense(settings, "message", harmed.rows["message"])
    assert r"\x1b]0;title" in shown
    assert "\x1b" not in shown


def test_a_long_stream_is_read_in_pages(told: Told, opened: HistoryReader) -> None:
    stream = told.streams["message"]
    whole = list(opened.all(stream))
    assert [entry.version for entry in whole] == [1, 2, 3]
    assert opened.page(stream, limit=2) == whole[:2]
    assert opened.page(stream, after=2, limit=2) == whole[2:]
    assert opened.page(stream, after=3) == []
    assert list(opened.all(uuid4())) == []


def test_a_stream_longer_than_a_page_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, told: Told, opened: HistoryReader
) -> None:
    monkeypatch.setattr(HistoryReader.page, "__kwdefaults__", {"after": 0, "limit": 1})
    assert [entry.version for entry in opened.all(told.streams["message"])] == [1, 2, 3]
