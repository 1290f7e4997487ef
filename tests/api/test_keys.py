"""`evosense keys`, and what every role and command says of a master key that can't be used."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr

from adapters.embedded import PostgresServer, start_postgres
from adapters.embeddings import OfflineEmbedder
from adapters.event_store import PostgresKeyStore, RoleDatastore
from adapters.key_rotation import Rotated, rotate
from adapters.master_keys import master_keys
from adapters.migrations import migrate
from adapters.postgres import connect
from adapters.settings import Settings, SettingsError
from adapters.tokens import BadToken
from adapters.vault import MasterKey, MasterKeyError, Vault
from api.cli import keys as command
from api.cli.installation import Installation
from api.cli.screen import CommandError
from api.services import build_services
from api.wiring import read_side, write_side
from tests.support.systems import administrator, fresh_system, wait_for

NUMBER = "5511987654321"
OLD, NEW = MasterKey(bytes(range(32))), MasterKey(bytes(range(1, 33)))


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[Settings]:
    with fresh_system(postgres) as settings:
        yield settings


@pytest.fixture
def store(system: Settings) -> Iterator[PostgresKeyStore]:
    datastore = RoleDatastore(system.runtime_dsn, "evosense_writer")
    yield PostgresKeyStore(datastore)
    datastore.close()


def tenants(vault: Vault, number: int) -> dict[UUID, str]:
    """New tenants, each with a hash by which its data key is known again."""
    made = [uuid4() for _ in range(number)]
    for tenant_id in made:
        vault.create(tenant_id)
    return {tenant_id: vault.key(tenant_id).pseudonym(NUMBER) for tenant_id in made}


def same(vault: Vault, known: dict[UUID, str]) -> bool:
    return {tenant_id: vault.key(tenant_id).pseudonym(NUMBER) for tenant_id in known} == known


# -------------------------------------------------------------------------------------------------------- rotation


def test_every_key_is_wrapped_anew_and_stays_the_same(system: Settings, store: PostgresKeyStore) -> None:
    known = tenants(Vault(OLD, store), 7)
    told: list[int] = []
    assert rotate(store, NEW, OLD, batch=3, on_batch=told.append) == Rotated(moved=7, tenants=7)
    assert told == [3, 6, 7]
    assert store.census() == {NEW.id: 7}
    assert same(Vault(NEW, store), known)
    with pytest.raises(MasterKeyError, match=NEW.id):
        Vault(OLD, store).verify()
    assert rotate(store, NEW, OLD) == Rotated(moved=0, tenants=7), "a second time there is nothing to do"
    with administrator(system) as conn:
        assert conn.execute("SELECT count(*) FROM evosense_log.stored_events").fetchone() == (0,)


def test_it_goes_on_where_it_was_stopped_and_all_is_open_meanwhile(store: PostgresKeyStore) -> None:
    known = tenants(Vault(OLD, store), 8)

    class Stopped(Exception):
        pass

    def stop(_: int) -> None:
        raise Stopped

    for moved in (3, 6, 8):
        with pytest.raises(Stopped):
            rotate(store, NEW, OLD, batch=3, on_batch=stop)
        assert store.census().get(NEW.id) == moved
        assert same(Vault(NEW, store, previous=OLD), known)
        assert same(Vault(OLD, store, previous=NEW), known), "a role that was started before, with both"
    assert rotate(store, NEW, OLD).tenants == 8


def test_a_third_master_key_is_named_before_anything_changes(store: PostgresKeyStore) -> None:
    tenants(Vault(OLD, store), 2)
    third = MasterKey(bytes(32))
    for wrong in (third, MasterKey(bytes(31) + b"1")):
        with pytest.raises(MasterKeyError, match=f"2 tenants' keys are wrapped with the master key {OLD.id}"):
            rotate(store, NEW, wrong)
    assert store.census() == {OLD.id: 2}


def test_a_damaged_key_does_not_keep_the_others(system: Settings, store: PostgresKeyStore) -> None:
    known = tenants(Vault(OLD, store), 7)
    damaged = sorted(known)[2]
    with administrator(system) as conn:
        conn.execute(
            "UPDATE evosense_log.tenant_keys SET wrapped_key = reverse(wrapped_key) WHERE tenant_id = %s", (damaged,)
        )
    with pytest.raises(MasterKeyError, match=f"does not open the key of tenant {damaged}: .*6 other keys"):
        rotate(store, NEW, OLD, batch=2)
    assert store.census() == {NEW.id: 6, OLD.id: 1}
    del known[damaged]
    assert same(Vault(NEW, store, previous=OLD), known)


def test_a_key_that_is_just_being_added_is_not_overlooked(system: Settings, store: PostgresKeyStore) -> None:
    known = tenants(Vault(OLD, store), 3)
    late = uuid4()
    results: list[Rotated] = []
    with connect(system.runtime_dsn, "evosense_writer") as conn, administrator(system) as admin:
        with conn.transaction():
            # As `PostgresKeyStore.add` does it, stopped before its commit.
            conn.execute("SELECT pg_advisory_xact_lock_shared('evosense_log.tenant_keys'::regclass::oid::bigint)")
            conn.execute(
                "INSERT INTO evosense_log.tenant_keys VALUES (%s, %s, %s)",
                (late, OLD.wrap(late, bytes(32)), OLD.id),
            )
            rotation = threading.Thread(target=lambda: results.append(rotate(store, NEW, OLD)))
            rotation.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_for(lambda: admin.execute(waiting).fetchone() == (1,), "the rotation waits for it")
            assert admin.execute(
                "SELECT count(*) FROM evosense_log.tenant_keys WHERE master_key_id = %s", (OLD.id,)
            ).fetchone() == (3,)
        rotation.join(20)
    assert results == [Rotated(moved=4, tenants=4)]
    assert same(Vault(NEW, store), known)


def test_tenants_are_registered_during_a_rotation_and_none_is_left_behind(store: PostgresKeyStore) -> None:
    """By roles with both keys, with the new one, and with the old one alone, which somebody forgot to restart."""
    known = tenants(Vault(OLD, store), 40)
    vaults = [Vault(NEW, store, previous=OLD), Vault(OLD, store), Vault(OLD, store)]
    made: list[dict[UUID, str]] = [{} for _ in vaults]
    refused: list[UUID] = []
    stop, started = threading.Event(), threading.Barrier(len(vaults) + 1)

    def register(vault: Vault, into: dict[UUID, str]) -> None:
        started.wait(10)
        while not stop.is_set():
            tenant_id = uuid4()
            try:
                vault.create(tenant_id)
            except MasterKeyError:
                refused.append(tenant_id)
            else:
                into[tenant_id] = ""

    threads = [threading.Thread(target=register, args=pair) for pair in zip(vaults, made, strict=True)]
    for thread in threads:
        thread.start()
    started.wait(10)
    rotate(store, NEW, OLD, batch=3)
    seen = len(refused)
    wait_for(lambda: len(refused) > seen + 3 and len(made[0]) > 3, "the old ones try in vain, the new one goes on")
    stop.set()
    for thread in threads:
        thread.join(20)
    assert store.census() == {NEW.id: len(known) + sum(map(len, made))}
    assert all(store.get(tenant_id) is None for tenant_id in refused)
    assert same(Vault(NEW, store), known)


async def test_nobody_is_logged_out_before_the_previous_key_is_removed(system: Settings) -> None:
    old, new = (SecretStr(MasterKey.generate_text()) for _ in range(2))
    now = datetime.now(UTC)
    before, both, after = (
        build_services(system.model_copy(update=keys), OfflineEmbedder())
        for keys in (
            {"master_key": old},
            {"master_key": new, "previous_master_key": old},
            {"master_key": new},
        )
    )
    session, renewed = (services.tokens.issue("refresh", UUID(int=7), "", now) for services in (before, both))
    assert both.tokens.read("refresh", session) == both.tokens.read("refresh", renewed)
    assert after.tokens.read("refresh", renewed)
    with pytest.raises(BadToken):
        after.tokens.read("refresh", session)
    for services in (before, both, after):
        await services.stop()


# ----------------------------------------------------------------------------------------------------- as commands


def evosense(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVOSENSE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", *arguments],
        env={**environment, **variables, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and everything that it said, in one line."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, " ".join((out + err).split())


def test_a_killed_rotation_is_finished_by_the_next(system: Settings, store: PostgresKeyStore) -> None:
    old, new = (MasterKey.generate_text() for _ in range(2))
    previous, master = MasterKey.from_text(old), MasterKey.from_text(new)
    known = tenants(Vault(previous, store), 250)
    both = {
        "EVOSENSE_DATABASE_URL": system.runtime_dsn,
        "EVOSENSE_MASTER_KEY": new,
        "EVOSENSE_PREVIOUS_MASTER_KEY": old,
    }
    with administrator(system) as admin, psycopg.connect(system.admin_dsn) as holder:
        # The last key is held: the third batch of a hundred can't commit.
        last = "SELECT FROM evosense_log.tenant_keys WHERE tenant_id = %s FOR UPDATE"
        holder.execute(last, (max(known),))
        killed = evosense("keys", "rotate", **both)
        moved = "SELECT count(*) FROM evosense_log.tenant_keys WHERE master_key_id = %s"
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_for(lambda: admin.execute(waits).fetchone() != (0,), "it waits for the last key", seconds=30)
        killed.kill()
        killed.communicate(timeout=20)
        assert admin.execute(moved, (master.id,)).fetchone() == (200,)
        holder.rollback()
        ours = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = %s AND xact_start IS NOT NULL"
        )
        wait_for(
            lambda: (
                admin.execute(ours, (psycopg.conninfo.conninfo_to_dict(system.runtime_dsn)["user"],)).fetchone() == (0,)
            ),
            "the server notices that the client has gone",
        )
        assert admin.execute(moved, (master.id,)).fetchone() == (200,)

    code, text = said(evosense("keys", "status", **both))
    assert code == 0
    assert f"{master.id} │ master key │ 200 │ yes" in text
    assert f"{previous.id} │ previous master key │ 50 │ yes" in text
    assert "a rotation is not finished" in text
    alone = {**both, "EVOSENSE_PREVIOUS_MASTER_KEY": ""}
    code, text = said(evosense("keys", "status", **alone))
    assert code == 1
    assert f"{previous.id} │ not configured │ 50 │ not tried" in text
    code, text = said(evosense("projector", **alone))
    assert (code, f"wrapped with {previous.id}" in text) == (1, True), text

    code, text = said(evosense("keys", "rotate", **both))
    assert code == 0, text
    assert f"wrapped 50 tenants' keys anew; master key {master.id} wraps all 250" in text
    assert same(Vault(master, store), known)
    assert "can be removed" in said(evosense("keys", "status", **both))[1]
    assert not any(secret in text for secret in (old, new))


@pytest.fixture(scope="module")
def keyed(settings: Settings) -> Settings:
    """A system with a tenant, whose key the settings' master key wraps."""
    write = write_side(settings)
    write.vault.create(uuid4())
    write.close()
    return settings


RIGHT, OTHER = "{right}", "{other}"
_SHORT = "c2hvcnQ="


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "no master key: set EVOSENSE_MASTER_KEY, or EVOSENSE_MASTER_KEY_FILE"),
        ({"MASTER_KEY": "not base64!"}, "EVOSENSE_MASTER_KEY is not base64"),
        ({"MASTER_KEY": _SHORT}, "EVOSENSE_MASTER_KEY is 5 bytes, and has to be 32"),
        ({"MASTER_KEY": OTHER}, "but tenants' keys are wrapped with"),
        (
            {"MASTER_KEY": RIGHT, "MASTER_KEY_FILE": "x"},
            "EVOSENSE_MASTER_KEY and EVOSENSE_MASTER_KEY_FILE are both set",
        ),
        ({"MASTER_KEY_FILE": "{gone}"}, "gone can't be read: No such file"),
        ({"MASTER_KEY_FILE": "{empty}"}, "empty is empty, and has to hold 32 random bytes"),
        ({"MASTER_KEY": RIGHT, "PREVIOUS_MASTER_KEY": RIGHT}, "EVOSENSE_PREVIOUS_MASTER_KEY is the same key"),
        ({"MASTER_KEY": RIGHT, "PREVIOUS_MASTER_KEY": _SHORT}, "EVOSENSE_PREVIOUS_MASTER_KEY is 5 bytes"),
        (
            {"MASTER_KEY": RIGHT, "PREVIOUS_MASTER_KEY": OTHER, "PREVIOUS_MASTER_KEY_FILE": "x"},
            "EVOSENSE_PREVIOUS_MASTER_KEY and EVOSENSE_PREVIOUS_MASTER_KEY_FILE are both set",
        ),
        ({"MASTER_KEY": OTHER, "PREVIOUS_MASTER_KEY_FILE": "{gone}"}, "EVOSENSE_PREVIOUS_MASTER_KEY_FILE"),
    ],
)
def test_a_master_key_that_can_not_be_used_is_explained(
    keyed: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    (tmp_path / "empty").touch(mode=0o600)
    given = {
        "right": keyed.master_key_text(),
        "other": MasterKey.generate_text(),
        "gone": str(tmp_path / "gone"),
        "empty": str(tmp_path / "empty"),
    }
    monkeypatch.setenv("EVOSENSE_DATABASE_URL", keyed.runtime_dsn)
    for name, value in variables.items():
        monkeypatch.setenv(f"EVOSENSE_{name}", value.format(**given))
    for role in (write_side, read_side):
        with pytest.raises((SettingsError, MasterKeyError)) as refused:
            role(Settings.load())
        assert sentence in str(refused.value)
        assert not any(value in str(refused.value) for value in (given["right"], given["other"], _SHORT))


def test_a_missing_and_a_malformed_master_key_are_one_sentence(keyed: Settings, tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    file.write_text("not base64!", "ascii")
    running = {
        "no master key: set": evosense("projector", EVOSENSE_DATABASE_URL=keyed.runtime_dsn),
        f"EVOSENSE_MASTER_KEY_FILE: the key in {file} is not base64: make one with": evosense(
            "admin",
            EVOSENSE_DATABASE_URL=keyed.runtime_dsn,
            EVOSENSE_MASTER_KEY_FILE=str(file),
            EVOSENSE_ADMIN_PASSWORD="uma senha bem longa",
        ),
    }
    for sentence, process in running.items():
        code, text = said(process)
        assert code == 1
        assert text.startswith(f"error: {sentence}")


@pytest.mark.parametrize("arguments", ["api", "worker", "projector", "rebuild", "admin", "keys status", "keys rotate"])
def test_every_role_and_command_refuses_a_wrong_master_key(keyed: Settings, arguments: str) -> None:
    environment = {
        "EVOSENSE_DATABASE_URL": keyed.runtime_dsn,
        "EVOSENSE_NATS_URL": "nats://127.0.0.1:1",
        "EVOSENSE_MASTER_KEY": MasterKey.generate_text(),
        "EVOSENSE_PREVIOUS_MASTER_KEY": MasterKey.generate_text(),
        "EVOSENSE_ADMIN_PASSWORD": "uma senha bem longa",
    }
    code, text = said(evosense(*arguments.split(), **environment))
    assert code == 1
    assert text.count("error: ") == 1
    assert MasterKey.from_text(keyed.master_key_text()).id in text, "which one would be right"


def test_a_rotation_needs_both_keys(keyed: Settings) -> None:
    environment = {"EVOSENSE_DATABASE_URL": keyed.runtime_dsn, "EVOSENSE_MASTER_KEY": keyed.master_key_text()}
    code, text = said(evosense("keys", "rotate", **environment))
    assert code == 1
    assert "no previous master key: set" in text


def test_a_key_file_that_others_can_read_is_warned_of(
    keyed: Settings, servers_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = servers_home / f"keys-{uuid4().hex[:8]}"
    directory.mkdir()
    file = directory / "master.key"
    file.write_text(keyed.master_key_text(), "ascii")
    settings = keyed.model_copy(update={"master_key": None, "master_key_file": file})
    for directory_mode, mode, warned in ((0o755, 0o600, 0), (0o700, 0o644, 0), (0o755, 0o644, 1)):
        directory.chmod(directory_mode)
        file.chmod(mode)
        assert master_keys(settings).master.id == MasterKey.from_text(keyed.master_key_text()).id
        assert sum("can be read by every account" in text for text in caplog.messages) == warned
    environment = {"EVOSENSE_DATABASE_URL": keyed.runtime_dsn, "EVOSENSE_MASTER_KEY_FILE": str(file)}
    process = evosense("keys", "status", **environment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"{file} holds a master key and can be read by every account" in err


# ------------------------------------------------------------------------------- an installation with its own key


@pytest.fixture(scope="module")
def home(servers_home: Path) -> Iterator[Path]:
    """An installation on this machine: its PostgreSQL runs, the system is not up."""
    home = servers_home / "keys"
    installation = Installation(home)
    installation.prepare()
    home.chmod(0o755)
    with start_postgres(home) as server:
        settings = installation.settings_for(Settings(), server, None)
        migrate(settings.admin_dsn, runtime_dsn=settings.runtime_dsn)
        yield home
    shutil.rmtree(home)


@pytest.fixture
def installation(home: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setenv("EVOSENSE_HOME", str(home))
    return Installation(home)


def own(installation: Installation) -> Settings:
    with start_postgres(installation.home) as server:
        return installation.settings_for(Settings.load(), server, None)


@pytest.mark.parametrize("killed", ["never", "making the key", "before the rows", "in the rows", "after", "renaming"])
def test_an_installation_changes_its_own_key_wherever_it_was_killed(
    installation: Installation, home: Path, killed: str
) -> None:
    secrets = home / "secrets"
    write = write_side(own(installation))
    known = tenants(write.vault, 5)
    write.close()
    before = MasterKey.from_text((secrets / "master.key").read_text().strip())
    if killed == "making the key":
        (secrets / "master.key.partial").write_text("AAA")
    elif killed != "never":
        _as_if_killed(installation, killed)
        # Until it is finished, everything works, and what is new is wrapped with the new key.
        write = write_side(own(installation))
        assert same(write.vault, known)
        known |= tenants(write.vault, 1)
        write.close()
    command.rotate()
    after = MasterKey.from_text((secrets / "master.key").read_text().strip())
    assert after.id != before.id
    assert {file.name for file in secrets.glob("master.key*")} >= {"master.key", f"master.key.retired-{before.id}"}
    assert not list(secrets.glob("*.next")) + list(secrets.glob("*.partial"))
    retired = secrets / f"master.key.retired-{before.id}"
    assert MasterKey.from_text(retired.read_text().strip()).id == before.id
    assert all(file.stat().st_mode & 0o077 == 0 for file in secrets.iterdir())
    settings = own(installation)
    assert settings.previous_master_key_file is None
    write = write_side(settings)
    assert same(write.vault, known)
    assert list(PostgresKeyStore(write.datastore).census()) == [after.id]
    write.close()


def _as_if_killed(installation: Installation, where: str) -> None:
    installation.begin_key_change()
    settings = own(installation)
    master, previous = master_keys(settings)
    assert previous is not None
    datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer")
    store = PostgresKeyStore(datastore)
    if where == "in the rows":
        changed = store.rewrap(
            previous.id,
            master.id,
            lambda tenant_id, key: master.wrap(tenant_id, previous.unwrap(tenant_id, key)),
            after=None,
            limit=2,
        )
        assert changed.moved == 2
    elif where in ("after", "renaming"):
        rotate(store, master, previous)
    datastore.close()
    if where == "renaming":
        os.link(installation.secrets / "master.key", installation.secrets / f"master.key.retired-{previous.id}")


def test_it_is_not_changed_while_the_system_is_up(installation: Installation) -> None:
    before = (installation.secrets / "master.key").read_bytes()
    with installation.only_one(), pytest.raises(CommandError, match="up already"):
        command.rotate()
    assert (installation.secrets / "master.key").read_bytes() == before
    assert not (installation.secrets / "master.key.next").exists()


def test_nothing_is_made_where_there_is_no_installation(servers_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSENSE_HOME", str(servers_home / "nowhere"))
    for asked in (command.rotate, command.status):
        with pytest.raises(CommandError, match="there is no installation below"):
            asked()
    assert not (servers_home / "nowhere").exists()
