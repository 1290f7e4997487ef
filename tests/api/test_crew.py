"""A rebuild that is loaded by several processes: the same rows, also after some of them were killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from adapters.embedded import PostgresServer
from tests.support.deployment import ROOT
from tests.support.rebuilding import System, a_system
from tests.support.systems import drain, parked, wait_for
from tests.support.world import tampered


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres) as system:
        system.grow(900)
        drain(system.read.engine)
        yield system


def crew(system: System, *, size: int = 2, batch: int = 50) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.crew_process", str(size), str(batch)]
    environment = system.settings.environment()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def positions(system: System) -> list[int]:
    """Where the shards of the divided build stand."""
    row = system.admin.execute("SELECT positions FROM evosense_ops.builds WHERE purpose = 'rebuild'").fetchone()
    return list(row[0] or ()) if row else []


@pytest.mark.parametrize(("size", "batch"), [(1, 500), (2, 50), (3, 7)])
def test_a_crew_of_any_size_makes_the_same_rows(system: System, size: int, batch: int) -> None:
    before = system.contents()
    system.admin.execute("UPDATE evosense.messages_message SET text = 'verfälscht'")
    process = crew(system, size=size, batch=batch)
    output, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert system.contents() == before
    assert int(output.split()[-1]) == system.one("SELECT count(*) FROM evosense_log.stored_events")
    assert not system.build_schemas()


def test_a_crew_stops_at_a_poison_event_and_goes_on_when_it_is_skipped(system: System) -> None:
    before = system.contents()
    poison = system.one("SELECT max(id) FROM evosense.messages_message m WHERE NOT EXISTS "
                        "(SELECT FROM evosense.experiments_inference i WHERE i.message_id = m.id)")  # fmt: skip
    tampered(system.admin, poison)
    process = crew(system)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the event at position {poison} " in complaints
    assert "mensagem" not in complaints
    assert system.contents() == before
    assert any(positions(system)), "what was loaded stays"

    with system.read.connect() as conn:
        assert system.read.parked.skip(conn, poison, "verdorben", unparked=True)
    process = crew(system)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    after = system.contents()
    assert len(after["messages_message"]) == len(before["messages_message"]) - 1
    assert not parked(system.admin)


@pytest.mark.parametrize("whom", ["the command", "one of the crew"])
def test_what_was_killed_is_gone_on_with(system: System, whom: str) -> None:
    before = system.contents()
    process = crew(system, batch=5)
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    wait_for(lambda: any(positions(system)), "a shard was begun")
    if whom == "the command":
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    else:
        os.kill(workers[0], signal.SIGKILL)
        _, complaints = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "a process that was loading has ended" in complaints
    left = positions(system)
    assert any(left)
    assert min(left) < system.head
    wait_for(lambda: not any(alive(pid) for pid in workers), "nobody of the crew goes on by itself")
    assert system.contents() == before

    # Gone on with alone, as with --jobs 1.
    report = system.rebuild()
    assert report.events < system.one("SELECT count(*) FROM evosense_log.stored_events")
    assert system.contents() == before


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
