"""`evosense parked` and `evosense shards` as an operator meets them, whoever has parked the events."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from adapters.embedded import NatsServer, PostgresServer
from adapters.settings import Settings
from api.cli.main import app
from api.cli.screen import CommandError, console
from api.parking import SUBSCRIBER as WORKER
from api.relay import Relay
from api.worker import run_worker
from domain.messages import EmbedMessage, message
from domain.ports import Analysis
from projections.parking import HELD_BACK
from tests.support.projectors import System, a_system
from tests.support.spec import NOW
from tests.support.systems import forget_read_models, parked
from tests.support.transport import jetstream, receive, running, settled, until, wipe
from tests.support.world import repeatable, tampered, vector

ROOT = Path(__file__).parents[2]


@pytest.fixture
def system(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """Everything is projected."""
    monkeypatch.setattr(console, "_width", 250)
    with a_system(postgres) as system:
        system.grow(120)
        system.project()
        yield system


@pytest.fixture
def poison(system: System) -> int:
    """The position of a message that is damaged and parked, with an event that is held back behind it."""
    position, stream = system.admin.execute(
        "SELECT notification_id, originator_id FROM evosense_log.stored_events AS e "
        "WHERE topic = 'messages.MessageReceived:1' AND NOT EXISTS "
        "(SELECT FROM evosense.experiments_inference AS i WHERE i.message_id = e.notification_id) AND NOT EXISTS "
        "(SELECT FROM evosense_log.stored_events AS o WHERE o.originator_id = e.originator_id "
        "AND o.originator_version > 1) ORDER BY 1 LIMIT 1"
    ).fetchone()
    tampered(system.admin, position)
    command = EmbedMessage(at=NOW, model_name="e-9", vector=vector(repeatable(1)))
    system.append([system.world.carry_out(message(stream), command)])
    forget_read_models(system.admin)
    system.project()
    assert parked(system.admin)[system.head] == HELD_BACK
    return int(position)


def environment(settings: Settings) -> dict[str, str | None]:
    """The settings' own variables, and no others of ours."""
    clean = {name: None for name in os.environ if name.startswith("EVOSENSE_")}
    ours = {name: value for name, value in settings.environment().items() if name.startswith("EVOSENSE_")}
    return {**clean, **ours}


def evosense(settings: Settings, *arguments: str) -> str:
    """What a command prints; it must end well."""
    done = CliRunner(env=environment(settings)).invoke(app, arguments, prog_name="evosense")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return str(done.output)


def refused(settings: Settings, *arguments: str, printed: str = "") -> str:
    """The sentence with which a command fails after it has printed something, or nothing."""
    done = CliRunner(env=environment(settings)).invoke(app, arguments, prog_name="evosense")
    assert isinstance(done.exception, CommandError), done.output + repr(done.exception)
    assert printed in done.output if printed else not done.output
    return str(done.exception)


# ------------------------------------------------------------------------------------------- parked by the projections


def test_where_nothing_is_parked_that_is_said(system: System) -> None:
    settings = system.settings
    assert evosense(settings, "parked", "list") == "nothing is parked\n"
    assert evosense(settings, "parked", "retry", "--all") == "nothing is parked\n"
    assert "no event is parked at position 7:" in refused(settings, "parked", "show", "7")
    assert refused(settings, "parked", "retry", "7", "9") == "no event is parked at position 7, 9"
    assert "no event is parked at position 7" in refused(settings, "parked", "skip", "7", "--reason", "x")


def test_the_exit_code_and_one_sentence_on_standard_error(system: System, poison: int) -> None:
    base = [sys.executable, "-m", "api.cli", "parked"]
    env = {name: value for name, value in environment(system.settings).items() if value is not None}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVOSENSE_")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, *arguments],
            env={**inherited, **env, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    failed = run("retry", str(poison))
    assert failed.returncode == 1
    assert failed.stderr == "error: 2 events are still parked: see `evosense parked list`\n"
    assert f"still parked: position {poison}" in failed.stdout.replace(",", "")
    assert run("retry", "0").returncode == 2, "a position begins at 1"


def test_list_and_show_say_what_is_parked_and_nothing_of_its_content(system: System, poison: int) -> None:
    listed = evosense(system.settings, "parked", "list")
    assert "2 events are parked" in listed
    assert "messages.MessageReceived:1" in listed
    assert HELD_BACK in listed
    assert "and 1 more" in evosense(system.settings, "parked", "list", "--most", "1")
    shown = evosense(system.settings, "parked", "show", str(poison))
    for expected in ("projector", "its sealed part does not fit its key", "1 later events of its stream", "tenancy, "):
        assert expected in shown
    held = evosense(system.settings, "parked", "show", str(system.head))
    assert HELD_BACK in held
    for text in (listed, shown, held):
        assert "mensagem" not in text


def test_retry_goes_on_with_what_was_held_back(system: System, poison: int) -> None:
    for wrong in ((), (str(poison), "--all")):
        assert refused(system.settings, "parked", "retry", *wrong) == "say which: positions of the log, or --all"
    some = refused(system.settings, "parked", "retry", str(poison), "999")
    assert some == "no event is parked at position 999"
    told = refused(system.settings, "parked", "retry", str(system.head), printed="still parked: position")
    assert told == "2 events are still parked: see `evosense parked list`"
    tampered(system.admin, poison)
    done = evosense(system.settings, "parked", "retry", str(poison))
    assert done == f"projected the event at position {poison}\nprojected the event at position {system.head}\n"
    system.assert_undisturbed()


def test_skip_leaves_it_out_and_goes_on_with_what_was_held_back(system: System, poison: int) -> None:
    settings = system.settings
    for empty in ("", "  "):
        assert "--reason is empty" in refused(settings, "parked", "skip", str(poison), "--reason", empty)
    held = refused(settings, "parked", "skip", str(system.head), "--reason", "x")
    assert "only held back behind an earlier one of its stream" in held
    assert len(parked(system.admin)) == 2
    done = evosense(settings, "parked", "skip", str(poison), "--reason", " danificado [3 de março] ")
    assert f"skipped the event at position {poison}" in done
    assert f"projected the event at position {system.head}" in done
    listed = evosense(settings, "parked", "list")
    assert "nothing is parked" in listed
    assert "1 events are skipped" in listed
    assert "danificado [3 de março]" in listed
    system.assert_undisturbed()
    assert "Missing option '--reason'" in CliRunner().invoke(app, ["parked", "skip", "1"]).output


def test_an_event_that_is_held_back_is_not_skipped_because_the_worker_has_parked_it(
    system: System, poison: int
) -> None:
    """Only the first subscriber was looked at: skipped, it would have been passed by before the one in front of it."""
    for subscriber in ("another", WORKER):
        system.admin.execute(
            "INSERT INTO evosense_ops.parked_events (subscriber, position, stream_id, event_type, reason, attempts) "
            "SELECT %s, position, stream_id, event_type, 'failed', 3 FROM evosense_ops.parked_events "
            "WHERE position = %s AND subscriber = 'projector'",
            (subscriber, system.head),
        )
    assert "only held back" in refused(system.settings, "parked", "skip", str(system.head), "--reason", "x")
    assert system.one("SELECT count(*) FROM evosense_ops.skipped_events") == 0


def test_shards_are_changed_by_a_command(system: System) -> None:
    assert evosense(system.settings, "shards", "4") == (
        f"the projections run in 4 shards from position {system.head} on\n"
    )
    assert system.one("SELECT count(*) FROM evosense_ops.projection_checkpoints") == 4 * 7
    for wrong in ("0", "257", "many"):
        done = CliRunner(env=environment(system.settings)).invoke(app, ["shards", wrong])
        assert done.exit_code == 2
    system.assert_undisturbed()


# ------------------------------------------------------------------------------------------- parked by the worker


class Analyser:
    """Fails until it is told otherwise."""

    model_name = "one-analyser"
    prompt_version = "p1"
    template_hash = "0" * 64

    def __init__(self) -> None:
        self.broken = True

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        if self.broken:
            raise RuntimeError("can't be done today")
        return [Analysis(sentiment=0.5, emotion="neutro", satisfaction=50, tone="neutro", summary="s") for _ in texts]


class Embedder:
    """The same vector for all."""

    model_name = "one-embedder"

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [vector(repeatable(1)) for _ in texts]


def parked_by_worker(system: System) -> list[int]:
    rows = system.admin.execute(
        "SELECT position FROM evosense_ops.parked_events WHERE subscriber = %s ORDER BY position", (WORKER,)
    )
    return [position for (position,) in rows]


async def test_what_the_worker_has_parked_is_sent_to_it_again(system: System, nats_server: NatsServer) -> None:
    await wipe(nats_server.url)
    update: dict[str, Any] = {
        "nats_url": SecretStr(nats_server.url), "worker_max_deliver": 2, "worker_retry_delay": 0.1
    }  # fmt: skip
    settings = system.settings.model_copy(update=update)
    analyser = Analyser()

    async def worker(stop: asyncio.Event) -> None:
        await run_worker(settings, stop, analyser=analyser, embedder=Embedder(), ack_wait=10)

    # Nothing of the history before: only these are for the worker.
    system.admin.execute("TRUNCATE evosense_ops.parked_events")
    ids: list[UUID] = await asyncio.to_thread(
        receive, system.write, ["segredo um", "segredo dois"], tenant=a_tenant(system)
    )
    wanted = [system.write.log.history(stream)[0].position for stream in ids]
    async with (
        jetstream(settings.nats_dsn) as js,
        running(Relay(settings.runtime_dsn, settings.nats_dsn, poll=0.2).run),
        running(worker),
    ):
        await until(lambda: set(parked_by_worker(system)) >= set(wanted), "the worker has parked them")
        await until(lambda: settled(js), "and all the others")
        listed = await asyncio.to_thread(evosense, settings, "parked", "list", "--most", "500")
        assert WORKER in listed
        assert "segredo" not in listed
        shown = await asyncio.to_thread(evosense, settings, "parked", "show", str(wanted[0]))
        assert WORKER in shown
        # Skipped by the worker alone: the read models have it, and keep it.
        skipped = parked_by_worker(system)[0]
        assert skipped not in wanted
        done = await asyncio.to_thread(evosense, settings, "parked", "skip", str(skipped), "--reason", "curto")
        assert f"skipped the event at position {skipped}" in done
        assert system.one("SELECT count(*) FROM evosense_ops.skipped_events") == 0
        # Still broken: parked again, and sent again when it works.
        done = await asyncio.to_thread(evosense, settings, "parked", "retry", str(wanted[0]))
        assert done == f"sent the event at position {wanted[0]} to the worker again\n"
        await until(lambda: wanted[0] in parked_by_worker(system), "it is parked again")
        analyser.broken = False
        waiting = parked_by_worker(system)
        done = await asyncio.to_thread(evosense, settings, "parked", "retry", "--all")
        assert [f"{position:,}" in line for position, line in zip(waiting, done.splitlines(), strict=True)]
        await until(
            lambda: all(len(system.write.log.history(stream)) == 3 for stream in ids), "they are answered, once"
        )
        await until(lambda: settled(js), "all are answered")
    assert parked_by_worker(system) == []
    assert all(len(system.write.log.history(stream)) == 3 for stream in ids)


def a_tenant(system: System) -> UUID:
    tenant = uuid4()
    system.write.vault.create(tenant)
    return tenant


def test_where_nats_is_away_nothing_is_unparked(system: System, poison: int) -> None:
    system.admin.execute(
        "UPDATE evosense_ops.parked_events SET subscriber = %s WHERE position = %s", (WORKER, system.head)
    )
    away = system.settings.model_copy(update={"nats_url": SecretStr("nats://evosense:geheim@127.0.0.1:9")})
    for settings in (away, system.settings):
        told = refused(settings, "parked", "retry", str(system.head))
        assert "1 events that the worker parked can't be sent to it again" in told
        assert "geheim" not in told
    assert parked_by_worker(system) == [system.head]
