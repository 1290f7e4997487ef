"""`evosense monitor`: every query of sql/monitoring, over all tenants."""

import json
import subprocess
import sys

import pytest

from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide
from tests.support.deployment import ROOT
from tests.support.systems import administrator, drain
from tests.support.world import World, record

QUERIES = sorted(path.stem for path in (ROOT / "sql" / "monitoring").glob("*.sql"))


def monitor(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api.cli", "monitor", *arguments]
    environment = {**settings.environment(), "COLUMNS": "200"}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def world(write: WriteSide, read: ReadSide) -> World:
    world = World(4)
    record(write, [*world.births(), *world.happen(150)])
    drain(read.engine)
    return world


def test_every_query_is_shown(settings: Settings, world: World) -> None:
    shown = monitor(settings)
    assert shown.returncode == 0, shown.stderr
    for name in QUERIES:
        assert name.replace("_", " ") in shown.stdout
    with administrator(settings) as admin:
        names = [name for (name,) in admin.execute("SELECT name FROM evosense.tenancy_tenant")]
    assert len(names) == 3
    for name in names:
        assert name in shown.stdout


def test_the_numbers_are_those_of_all_tenants(settings: Settings, world: World) -> None:
    found = json.loads(monitor(settings, "tenant_usage", "projection_lag", "--json").stdout)
    assert sorted(found) == ["projection_lag", "tenant_usage"]
    with administrator(settings) as admin:
        counted = admin.execute("SELECT count(*) FROM evosense.messages_message").fetchone()
    assert (sum(row["message_count"] for row in found["tenant_usage"]),) == counted
    assert len(found["tenant_usage"]) == 3
    assert {row["lag"] for row in found["projection_lag"]} == {0}


def test_no_words_of_a_message_are_shown(settings: Settings, world: World) -> None:
    assert "mensagem" not in monitor(settings, "--json").stdout


def test_an_unknown_query_is_named_with_those_there_are(settings: Settings, world: World) -> None:
    refused = monitor(settings, "weather")
    assert refused.returncode == 1
    assert "there is no query weather" in refused.stderr
    assert "tenant_usage" in refused.stderr
