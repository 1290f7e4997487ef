"""`evosense vector`: what it prints, and what it does to an installation."""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from adapters.settings import Settings
from api.liveness import NotWorking, check_role
from projections.vector_index import FIRST
from tests.support.deployment import ROOT
from tests.support.systems import administrator
from tests.support.vectors import DIMENSIONS, text

BIG, SMALL = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.fixture(scope="module")
def admin(settings: Settings) -> Iterator[psycopg.Connection]:
    """A big tenant, with the same hundred vectors over and over, and a small one."""
    vectors = [text(vector) for vector in np.random.default_rng(3).normal(size=(100, DIMENSIONS)).astype(np.float32)]
    with administrator(settings) as conn:
        for tenant, name in ((BIG, "Padaria [b]Estrela"), (SMALL, "Oficina")):
            conn.execute("INSERT INTO evosense.tenancy_tenant (id, name) VALUES (%s, %s)", (tenant, name))
        with conn.cursor() as cursor:
            with cursor.copy(
                "COPY evosense.messages_message (id, tenant_id, chat_id, sender, text, created_at, embedding) "
                "FROM STDIN"
            ) as copy:
                for n in range(1, FIRST + 6):
                    copy.write_row((n, BIG if n <= FIRST else SMALL, "c", "s", "x", "2026-05-04Z", vectors[n % 100]))
            conn.execute(
                "INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, embedding) "
                "SELECT id, tenant_id, 'm', embedding::halfvec(768) FROM evosense.messages_message"
            )
        yield conn


def vector(settings: Settings, *arguments: str, rc: int = 0) -> str:
    command = [sys.executable, "-m", "api.cli", "vector", *arguments]
    environment = {**settings.environment(), "COLUMNS": "160", "NO_COLOR": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == rc, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if rc == 0 else done.stderr


def test_from_exact_to_indexed(settings: Settings, admin: psycopg.Connection) -> None:
    before = {row["tenant_id"]: row for row in json.loads(vector(settings, "status", "--json"))}
    assert before[str(BIG)]["indexes"] == 0
    assert before[str(SMALL)]["vectors"] == 5
    shown = vector(settings, "maintain", "--once")
    assert f"Padaria [b]Estrela (m): an index of {FIRST:,} vectors" in shown
    assert "1 vector index made" in shown
    assert "nothing is due" in vector(settings, "maintain", "--once")

    after = {row["tenant_id"]: row for row in json.loads(vector(settings, "status", "--json", "--sample", "3"))}
    big = after[str(BIG)]
    assert (big["indexes"], big["indexed"], big["coverage"]) == (1, FIRST, 1.0)
    assert big["bytes"] > 0
    # Every vector stands there eighty times, so that any twenty of the eighty are as good.
    assert 0 <= big["recall"] <= 1
    assert after[str(SMALL)] == before[str(SMALL)]
    table = vector(settings, "status")
    assert "100%" in table
    assert "exact" in table
    assert "1 vector index made" in vector(settings, "reindex", "--tenant", str(BIG))


def test_a_tenant_without_vectors_is_named(settings: Settings, admin: psycopg.Connection) -> None:
    nobody = uuid.UUID(int=77)
    said = vector(settings, "status", "--tenant", str(nobody), rc=1)
    assert said.strip() == f"error: tenant {nobody} has no vectors, or there is no such tenant"


def test_without_an_administrators_address_it_says_so(settings: Settings, admin: psycopg.Connection) -> None:
    said = vector(settings.model_copy(update={"admin_database_url": None}), "maintain", rc=1)
    assert said.startswith("error: EVOSENSE_ADMIN_DATABASE_URL is not set")


def test_the_role_is_seen_and_ends_when_told(settings: Settings, admin: psycopg.Connection) -> None:
    with pytest.raises(NotWorking, match="no process keeps the vector index"):
        check_role(settings, "vector", patience=0.1)
    command = [sys.executable, "-m", "api.cli", "vector", "maintain", "--every", "1"]
    process = subprocess.Popen(command, cwd=ROOT, env=settings.environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                check_role(settings, "vector", patience=1)
                break
            except NotWorking:
                assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
