"""`evosense import`: nothing lost, nothing doubled, whatever is in the file and whenever it is killed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr

from adapters.embedded import NatsServer, PostgresServer
from adapters.settings import Settings
from api.commands import Contended, Intent, Outcome
from api.connections import TOKEN_PURPOSE
from api.importing import Report, import_source, open_source
from api.importing import source as sources
from api.receiving import Origin
from api.wiring import WriteSide
from domain.connections import DeactivateConnection, RegisterConnection, connection, connection_id
from domain.messages import MessageReceived
from tests.support.amending import Analyser, Shop, found_anywhere, relay, worker
from tests.support.http import System, envelope, running_system, utc_now
from tests.support.systems import administrator, fresh_system, wait_for
from tests.support.transport import running, until, wipe

SAMPLES = Path(__file__).parents[1] / "samples" / "evolution"
AT = 1_760_000_000


@pytest.fixture
def tenant_id(write: WriteSide) -> UUID:
    """A tenant with its key."""
    identifier = uuid4()
    write.vault.create(identifier)
    return identifier


@pytest.fixture
def origin(write: WriteSide, tenant_id: UUID) -> Origin:
    """A registered connection."""
    identifier = connection_id(tenant_id, "balcão")
    sealed = write.vault.seal_text(tenant_id, "um-token-com-mais-de-16", TOKEN_PURPOSE)
    command = RegisterConnection(
        at=utc_now(),
        tenant_id=tenant_id,
        name="balcão",
        evo_ws_url="https://evo.example.com",
        sealed_token=sealed,
        company_sender="c" * 64,
    )
    write.commands.handle(connection(identifier), command, new=True)
    return Origin(identifier, tenant_id, "c" * 64)


@pytest.fixture
def log(settings: Settings) -> Iterator[psycopg.Connection]:
    """A look at the tables behind the program."""
    with administrator(settings) as conn:
        yield conn


@pytest.fixture
def shop(postgres: PostgresServer, nats_server: NatsServer) -> Iterator[Shop]:
    """A system with nothing in it yet, so that a worker has nothing else to do."""
    asyncio.run(wipe(nats_server.url))
    with fresh_system(postgres) as settings:
        update = {"nats_url": SecretStr(nats_server.url), "worker_batch": 16, "worker_retry_delay": 0.1}
        with running_system(settings.model_copy(update=update)) as system:
            yield Shop(system)


def row(number: int, text: str | None = None) -> dict[str, Any]:
    return {
        "key": {"remoteJid": f"55119{number % 500:08d}@s.whatsapp.net", "fromMe": False, "id": f"{number:032X}"},
        "message": {"conversation": text or f"mensagem número {number}"},
        "messageType": "conversation",
        "messageTimestamp": AT + number,
    }


def deletion(number: int) -> dict[str, Any]:
    return {"event": "messages.delete", "instance": "balcão", "data": row(number)["key"]}


def edit(number: int, text: str) -> dict[str, Any]:
    content = {"key": row(number)["key"], "editedMessage": {"conversation": text}, "timestampMs": (AT + 9_000) * 1000}
    return {"event": "messages.edited", "instance": "balcão", "data": content}


def lines(path: Path, *documents: Any) -> Path:
    """A file of these lines; texts stand as they are."""
    text = "".join(f"{d if isinstance(d, str) else json.dumps(d, ensure_ascii=False)}\n" for d in documents)
    path.write_text(text, "utf-8")
    return path


def run(write: WriteSide, settings: Settings, path: Path, origin: Origin, **options: Any) -> Report:
    return import_source(write, settings, open_source(path), origin, **options)


def stored(log: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    """The streams of the tenant's messages, in the order of their positions."""
    return recorded(log, tenant_id, "messages.MessageReceived:1")


def recorded(log: psycopg.Connection, tenant_id: UUID, topic: str) -> list[UUID]:
    """The streams of the tenant's events of this topic, in the order of their positions."""
    rows = log.execute(
        "SELECT originator_id FROM evosense_log.stored_events "
        "WHERE tenant_id = %s AND topic = %s ORDER BY notification_id",
        (tenant_id, topic),
    )
    return [stream for (stream,) in rows]


def texts(write: WriteSide, streams: list[UUID]) -> list[str]:
    events = [recorded.event for stream in streams for recorded in write.log.history(stream)]
    return [event.text for event in events if isinstance(event, MessageReceived)]


def refusals(report: Report) -> list[tuple[int, int, str]]:
    return [(refused.line, refused.message, refused.reason) for refused in report.run.refusals]


# ---------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("processes", [0, 2])
def test_twenty_thousand_messages_in_their_order(
    write: WriteSide, settings: Settings, origin: Origin, log: psycopg.Connection, tmp_path: Path, processes: int
) -> None:
    path = lines(tmp_path / "história.jsonl", *map(row, range(20_000)))
    report = run(write, settings, path, origin, processes=processes)
    assert (report.run.stored, report.run.duplicates, report.run.refused, report.run.ignored) == (20_000, 0, 0, {})
    streams = stored(log, origin.tenant_id)
    assert len(set(streams)) == len(streams) == 20_000
    assert texts(write, [streams[0], streams[12_345], streams[-1]]) == [
        f"mensagem número {number}" for number in (0, 12_345, 19_999)
    ]
    again = run(write, settings, path, origin, processes=processes, restart=True)
    assert (again.run.stored, again.run.duplicates) == (0, 20_000)
    assert stored(log, origin.tenant_id) == streams


def test_what_is_in_a_line(
    write: WriteSide, settings: Settings, origin: Origin, log: psycopg.Connection, tmp_path: Path
) -> None:
    without_time = {**row(7), "messageTimestamp": "ontem"}
    sticker = {**row(8), "message": {"stickerMessage": {}}}
    path = lines(
        tmp_path / "a.jsonl",
        "\ufeff" + json.dumps(row(1, "meu CPF é 529.982.247-25")),
        "",
        {"event": "messages.set", "instance": "loja", "data": [row(2), without_time, row(3)]},
        row(2),
        "segredo {",
        [row(4)],
        {"texto": "segredo"},
        without_time,
        sticker,
        {"event": "presence.update", "instance": "loja", "data": {}},
        '{"event": "messages.upsert", "instance": "loja", "data": 5}',
        '{"key": {"remoteJid": "5511987650001@s.whatsapp.net", "id": "X"}, "message": {"conversation": "oi \\ud83d"}, '
        f'"messageTimestamp": {AT}}}',
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row(9)))  # without an end of line
    report = run(write, settings, path, origin)
    assert (report.run.stored, report.run.duplicates, report.run.refused) == (5, 1, 6)
    assert report.run.ignored == {"sticker: no text": 1, "presence.update: not about messages": 1}
    no_document = "neither a message {key, message, messageTimestamp, …} nor an envelope {event, instance, data}"
    assert refusals(report) == [
        (3, 2, "bad timestamp"),
        (5, 0, "not JSON in UTF-8"),
        (6, 0, no_document),
        (7, 0, no_document),
        (8, 0, "bad timestamp"),
        (11, 0, "`data` must be an object or an array of messages"),
    ]
    kept = texts(write, stored(log, origin.tenant_id))
    assert kept[0] == "meu CPF é [CPF]"
    assert kept[-2] == "oi \N{REPLACEMENT CHARACTER}"


def test_refusals_are_all_counted_and_the_first_are_listed(
    write: WriteSide, settings: Settings, origin: Origin, tmp_path: Path
) -> None:
    path = lines(tmp_path / "a.jsonl", *("não é JSON" for _ in range(50)), row(1))
    report = run(write, settings, path, origin)
    assert (report.run.stored, report.run.refused, len(report.run.refusals)) == (1, 50, 20)


@pytest.mark.parametrize("longest", [600, 3000])
def test_a_line_that_is_too_long_is_passed_over(
    write: WriteSide,
    settings: Settings,
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    longest: int,
) -> None:
    monkeypatch.setattr(sources, "_BLOCK", 256)
    monkeypatch.setattr(sources, "MAX_DOCUMENT", longest)
    path = lines(tmp_path / "a.jsonl", row(1), row(2, "x" * 5000), row(3), "{", row(4, "y" * 4000))
    report = run(write, settings, path, origin)
    assert report.run.stored == 2
    assert refusals(report) == [(2, 0, sources.TOO_LONG), (4, 0, "not JSON in UTF-8"), (5, 0, sources.TOO_LONG)]


def test_a_directory_of_payloads(
    write: WriteSide, settings: Settings, origin: Origin, log: psycopg.Connection, tmp_path: Path
) -> None:
    for number in range(12):
        data = [row(number * 250 + i) for i in range(250)]
        document = {"event": "messages.set", "instance": "loja", "data": data}
        (tmp_path / f"{number:03}.json").write_text(json.dumps(document), "utf-8")
    (tmp_path / "005b.json").write_text("{ quebrado", "utf-8")
    (tmp_path / "leia-me.txt").write_text("nada", "utf-8")
    (tmp_path / "999.json").write_bytes((SAMPLES / "49-history-with-broken-rows.json").read_bytes())
    report = run(write, settings, tmp_path, origin)
    assert report.run.stored >= 3000
    opened = open_source(tmp_path)
    named = [(opened.name(refused.file), refused.line, refused.message) for refused in report.run.refusals]
    assert named[0] == ("005b.json", 0, 0)
    assert {name for name, _, _ in named[1:]} == {"999.json"}
    assert all(message > 0 for _, _, message in named[1:])
    assert len(stored(log, origin.tenant_id)) == report.run.stored
    again = run(write, settings, tmp_path, origin)
    assert (again.run.stored, again.run.duplicates, again.began.offset) == (0, 0, 14)
    assert again.total == report.total
    (tmp_path / "zz.json").write_text(json.dumps(row(-1, "mais uma")), "utf-8")
    assert run(write, settings, tmp_path, origin).run.stored == 1
    # A file among those that were done is another one now: everything is looked at again.
    (tmp_path / "000.json").write_text(json.dumps(row(77_777)), "utf-8")
    changed = run(write, settings, tmp_path, origin)
    assert (changed.run.stored, changed.began.offset) == (1, 0)


def test_the_webhook_and_the_import_know_the_same_messages(system: System, tmp_path: Path) -> None:
    who = system.new_user(system.new_tenant())
    _, hook = system.new_connection(who)
    delivery = envelope("Bom dia!", "3EB0AA", AT)
    assert system.deliver(hook, delivery)["received"] == 1
    path = lines(tmp_path / "a.jsonl", delivery, delivery["data"], row(1), deletion(1))
    done = evosense(system.settings, "import", str(path), "--connection", hook.rpartition("/")[2])
    assert done.returncode == 0, done.stderr
    assert counts(done.stdout) == {"stored": 1, "edits and deletions": 1, "duplicates": 2, "refused": 0}
    system.projected()
    assert len(system.messages_of(who.tenant_id)) == 2


# ------------------------------------------------------------------------------------------- edits and deletions


@pytest.mark.parametrize("processes", [0, 2])
async def test_edits_and_deletions_are_followed(shop: Shop, tmp_path: Path, processes: int) -> None:
    """One of a message of before, one before and one behind its message; and a row that tells a deletion again."""
    settings, write = shop.system.settings, shop.write
    origin = Origin(shop.source.id, shop.tenant_id, shop.source.company_sender)

    def stream(number: int) -> UUID:
        key = row(number)["key"]
        return shop.stream(key["id"], chat=key["remoteJid"].partition("@")[0])

    def imported(*documents: Any, restart: bool = False) -> tuple[int, int, int, int]:
        path = lines(tmp_path / f"{len(documents)}.jsonl", *documents)
        done = run(write, settings, path, origin, processes=processes, restart=restart).run
        assert done.ignored == {}
        return done.stored, done.announced, done.duplicates, done.refused

    history = (
        deletion(1),
        row(2, "segredo dois"),
        deletion(2),
        {**row(1, "segredo um"), "status": "DELETED"},
        edit(3, "meu CPF é 529.982.247-25"),
        row(3, "mensagem com erro"),
    )
    kept = "meu CPF é [CPF]"
    assert await asyncio.to_thread(imported, row(1, "segredo um")) == (1, 0, 0, 0)
    async with running(relay(shop.system)), running(worker(shop.system, Analyser())):
        assert await asyncio.to_thread(imported, *history) == (2, 3, 1, 0)
        assert await asyncio.to_thread(imported, *history) == (0, 0, 0, 0), "nothing was left to do"
        await until(lambda: shop.gone(stream(1)) and shop.gone(stream(2)), "both are gone")
        await until(lambda: shop.analysed(stream(3), kept), "the edit is analysed")
        head = write.log.head()
        assert await asyncio.to_thread(lambda: imported(*history, restart=True)) == (0, 0, 6, 0)
        assert write.log.head() == head, "what was sealed away came back"
    with administrator(settings) as conn:
        assert found_anywhere(conn, "segredo") == []


@pytest.mark.parametrize("processes", [0, 2])
def test_edits_and_deletions_that_could_not_be_recorded_are_read_again(
    write: WriteSide,
    settings: Settings,
    origin: Origin,
    log: psycopg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
) -> None:
    monkeypatch.setattr(sources, "_BLOCK", 2048)
    # Several pieces with edits in each; those of the fourth find no quiet moment.
    path = lines(tmp_path / "a.jsonl", *(one for n in range(60) for one in (row(n), edit(n, f"versão {n}"))))
    through, calls = write.commands.handle_many, 0

    def outrun(intents: list[Intent]) -> list[Outcome]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Contended("try again")
        return through(intents)

    def announced() -> int:
        return len(recorded(log, origin.tenant_id, "amendments.EditAnnounced:1"))

    with monkeypatch.context() as patched:
        patched.setattr(write.commands, "handle_many", outrun)
        with pytest.raises(Contended):
            run(write, settings, path, origin, processes=processes)
    before = announced()
    assert 0 < before < 60
    again = run(write, settings, path, origin, processes=processes)
    assert 0 < again.began.line <= 2 * before + 1, "the checkpoint has passed what was not recorded"
    assert (again.total.stored + again.total.duplicates, again.total.announced, announced()) == (60, 60, 60)


def test_edits_and_deletions_are_counted_on_their_connection(
    write: WriteSide, settings: Settings, tmp_path: Path, origin: Origin, log: psycopg.Connection
) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        row(1),
        edit(1, "outra versão"),
        deletion(1),
        deletion(1),
        {"event": "messages.delete", "instance": "balcão", "data": {"keys": [row(2)["key"], {"fromMe": False}]}},
        {"event": "connection.update", "instance": "balcão", "data": {"state": "close", "statusReason": 401}},
    )
    report = run(write, settings, path, origin)
    assert (report.run.stored, report.run.announced, report.run.duplicates) == (1, 3, 1)
    assert refusals(report) == [(5, 2, "no key.id")]
    assert report.run.ignored == {"connection.update: not about messages": 1}
    assert write.log.load(connection(origin.connection_id)).instance is None, "that is how it was back then"
    assert activity(write, log, origin) == [
        ("accepted", "deletion", "", 2),
        ("accepted", "edit", "", 1),
        ("accepted", "message", "", 1),
        ("duplicate", "deletion", "", 1),
        ("ignored", "connection.update", "not about messages", 1),
        ("refused", "message", "invalid", 1),
    ]


# -------------------------------------------------------------------------------------------------- going on


def test_a_file_that_grew_or_changed(
    write: WriteSide, settings: Settings, origin: Origin, log: psycopg.Connection, tmp_path: Path
) -> None:
    # Longer than the head that names it: it is the same source, whatever stands behind that.
    first = [row(number) for number in range(1000)]
    path = lines(tmp_path / "a.jsonl", *first)
    assert run(write, settings, path, origin).run.stored == 1000
    moved = lines(tmp_path / "b.jsonl", *first, row(1000), row(1001))
    grown = run(write, settings, moved, origin)
    assert (grown.began.line, grown.run.stored, grown.run.duplicates, grown.total.stored) == (1000, 2, 0, 1002)
    first[900] = row(5000)
    changed = run(write, settings, lines(path, *first), origin)
    assert (changed.began.line, changed.run.stored, changed.run.duplicates) == (0, 1, 999)
    # A last line that was half written when it was read is no line that was read.
    path.write_text(path.read_text("utf-8") + json.dumps(row(6000))[:40], "utf-8")
    assert run(write, settings, path, origin).run.refused == 1
    whole = run(write, settings, lines(path, *first, row(6000)), origin)
    assert (whole.run.stored, whole.run.refused) == (1, 0)
    assert len(set(stored(log, origin.tenant_id))) == 1004


def test_killed_in_the_middle_and_started_again(
    write: WriteSide, settings: Settings, origin: Origin, log: psycopg.Connection, tmp_path: Path
) -> None:
    total = 40_000
    deleted = range(0, total, 100)
    told = (one for n in range(total) for one in ((row(n), deletion(n)) if n in deleted else (row(n),)))
    path = lines(tmp_path / "a.jsonl", "{ quebrado", *told)
    command = arguments("import", str(path), "--connection", str(origin.connection_id))

    def announced() -> int:
        return len(recorded(log, origin.tenant_id, "amendments.DeletionAnnounced:1"))

    def remembered() -> int:
        found = log.execute(
            "SELECT (position->>'line')::int FROM evosense_ops.import_progress WHERE connection_id = %s",
            (origin.connection_id,),
        ).fetchone()
        return int(found[0]) if found else 0

    killed = subprocess.Popen(command, env=settings.environment(), stdout=subprocess.DEVNULL)
    wait_for(lambda: remembered() > 0 or killed.poll() is not None, "a checkpoint")
    helpers = children(killed.pid)
    assert helpers, "it prepared everything by itself: the file is too small to show anything"
    killed.kill()
    killed.wait(10)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers), "the helpers to end as well")
    line, before, before_that = remembered(), len(stored(log, origin.tenant_id)), announced()
    assert 0 < line <= before + before_that + 1 <= total, "it was killed too late to show anything"
    done = subprocess.run(command, env=settings.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"went on behind line {line:,}" in done.stdout
    assert counts(done.stdout)["stored"] == total - before
    assert counts(done.stdout)["edits and deletions"] == len(deleted) - before_that
    assert announced() == len(deleted)
    # It was refused in the run that was killed, and is told all the same.
    assert "refused: a.jsonl:1: not JSON in UTF-8" in done.stdout
    streams = stored(log, origin.tenant_id)
    assert len(streams) == len(set(streams)) == total


def test_two_imports_of_one_file_at_once(
    write: WriteSide, settings: Settings, origin: Origin, log: psycopg.Connection, tmp_path: Path
) -> None:
    path = lines(tmp_path / "a.jsonl", *map(row, range(5000)))
    command = arguments("import", str(path), "--connection", "balcão", "--tenant", str(origin.tenant_id))
    both = [subprocess.Popen(command, env=settings.environment(), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [counts(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(counted["stored"] for counted in found) == 5000
    assert len(stored(log, origin.tenant_id)) == 5000


# -------------------------------------------------------------------------------------------------- refusals


def test_one_clear_sentence(write: WriteSide, settings: Settings, origin: Origin, tmp_path: Path) -> None:
    path, empty = lines(tmp_path / "a.jsonl", row(1)), tmp_path / "vazio"
    empty.mkdir()
    known, unknown = str(origin.connection_id), str(uuid4())
    cases = [
        ((tmp_path / "nada.jsonl", "--connection", known), "there is no file or directory"),
        ((empty, "--connection", known), "there are no .json files in"),
        ((Path(__file__), "--connection", known), "is neither a .jsonl or .json file nor a directory"),
        ((path, "--connection", unknown), f"there is no connection '{unknown}'"),
        ((path, "--connection", "balcão"), "a connection's name is unique in its tenant alone: add --tenant"),
        (
            (path, "--connection", "outro", "--tenant", str(origin.tenant_id)),
            "there is no connection 'outro' of tenant",
        ),
        ((path, "--connection", known, "--tenant", str(uuid4())), "there is no connection"),
    ]
    write.commands.handle(connection(origin.connection_id), DeactivateConnection(at=utc_now()))
    cases.append(((path, "--connection", known), "the connection 'balcão' is deactivated"))
    # All at once: most of their time goes into starting.
    started = [
        subprocess.Popen(
            arguments("import", *map(str, given)),
            env=settings.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for given, _ in cases
    ]
    for (_, sentence), process in zip(cases, started, strict=True):
        output, error = process.communicate(timeout=60)
        assert process.returncode == 1, output
        assert error.startswith("error: ")
        assert sentence in " ".join(error.split())
        assert "Traceback" not in error


# ----------------------------------------------------------------------------------------------------- helpers


def arguments(*given: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", *given]


def evosense(settings: Settings, *given: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments(*given), env=settings.environment(), capture_output=True, text=True, timeout=60, check=False
    )


def counts(output: str) -> dict[str, int]:
    """The figures of this run in the table that ends an import."""
    found: dict[str, int] = {}
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("│").split("│")]
        if cells[0] in ("stored", "edits and deletions", "duplicates", "refused") and len(cells) > 1:
            found[cells[0]] = int(cells[1].replace(",", ""))
    return found


def activity(write: WriteSide, log: psycopg.Connection, origin: Origin) -> list[tuple[Any, ...]]:
    """Outcome, kind, reason and number of all that is counted as imported."""
    write.activity.flush()
    return log.execute(
        "SELECT outcome, kind, reason, count FROM evosense_ops.connection_activity "
        "WHERE connection_id = %s AND hour = '-infinity' AND transport = 'import' ORDER BY 1, 2",
        (origin.connection_id,),
    ).fetchall()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_is_counted_on_its_connection(
    write: WriteSide, settings: Settings, tmp_path: Path, origin: Origin, log: psycopg.Connection
) -> None:
    path = lines(tmp_path / "a.jsonl", row(1), row(2), row(1), {"texto": "segredo"}, json.dumps(row(3)))
    run(write, settings, path, origin)
    assert activity(write, log, origin) == [
        ("accepted", "message", "", 3),
        ("duplicate", "message", "", 1),
        ("refused", "message", "invalid", 1),
    ]
    # A history is no sign of life.
    last = "SELECT count(*) FROM evosense_ops.connection_last WHERE connection_id = %s"
    assert log.execute(last, (origin.connection_id,)).fetchone() == (0,)
