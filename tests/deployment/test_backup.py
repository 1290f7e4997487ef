"""The documented way back: docs/operations.md's dump and restore, with the tools of the embedded PostgreSQL."""

import re
import shlex
import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr

from adapters.embedded import PostgresServer
from adapters.embedded.binaries import postgres_binaries
from adapters.migrations import migrate
from adapters.settings import Settings
from api.accounts import ensure_first_admin
from api.wiring import read_side, write_side
from projections.catalog import all_projections
from projections.rebuild import Unwatched, rebuild
from tests.conftest import RUNTIME
from tests.support.deployment import ROOT
from tests.support.systems import administrator, contents, drain


def documented(tool: str) -> list[str]:
    """The arguments with which docs/operations.md calls a tool in the container of PostgreSQL."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (line,) = re.findall(rf"^docker compose exec -T postgres {tool} (.*)$", text, re.MULTILINE)
    words = shlex.split(line)
    return words[: next((at for at, word in enumerate(words) if word in ("<", ">")), len(words))]


def arguments(tool: str, dsn: str) -> list[str]:
    """The same for a database of the tests."""
    words = [word for word in documented(tool) if not word.startswith("--username=")]
    if "evosense" in words:
        words.remove("evosense")
    return [*(word for word in words if not word.startswith("--dbname=")), f"--dbname={dsn}"]


@pytest.mark.parametrize("left_out", [[], ["--exclude-table-data=evosense.*"]], ids=["everything", "the log alone"])
def test_a_dump_comes_back_as_it_was(
    settings: Settings, postgres: PostgresServer, servers_home: Path, left_out: list[str]
) -> None:
    write = write_side(settings)
    ensure_first_admin(write, "uma senha bem longa")
    write.close()
    side = read_side(settings)
    drain(side.engine)
    side.close()

    tools = postgres_binaries(servers_home, None).postgres.parent
    dump = run(tools / "pg_dump", [*arguments("pg_dump", settings.admin_dsn), *left_out])
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    try:
        restored = settings.model_copy(
            update={
                "database_url": SecretStr(postgres.dsn_for(name, *RUNTIME)),
                "admin_database_url": SecretStr(postgres.dsn_for(name)),
            }
        )
        migrate(restored.admin_dsn, runtime_dsn=restored.runtime_dsn)
        (statement,) = re.findall(r"--command=(.*)", "\n".join(documented("psql")))
        with administrator(restored) as conn:
            conn.execute(statement.encode())
        run(tools / "pg_restore", arguments("pg_restore", restored.admin_dsn), dump)
        assert migrate(restored.admin_dsn, runtime_dsn=restored.runtime_dsn).applied == ()
        if left_out:
            side = read_side(restored)
            rebuild(side.builder, [projection.name for projection in all_projections()], Unwatched())
            side.close()
        with administrator(settings) as before, administrator(restored) as after:
            assert contents(after) == contents(before)
            assert any(contents(before).values())
            log = "SELECT l::text FROM evosense_log.stored_events AS l ORDER BY notification_id"
            assert after.execute(log).fetchall() == before.execute(log).fetchall() != []
            assert after.execute("SHOW search_path").fetchone() == before.execute("SHOW search_path").fetchone()
        write = write_side(restored)  # the keys still fit
        assert not ensure_first_admin(write, "uma senha bem longa")
        write.close()
    finally:
        with psycopg.connect(postgres.dsn, autocommit=True) as conn:
            conn.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def run(tool: Path, words: list[str], given: bytes = b"") -> bytes:
    """Run a tool of PostgreSQL; returns its output."""
    done = subprocess.run([str(tool), *words], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
