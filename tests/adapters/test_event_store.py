"""The log: sealed, append-only, in commit order, and each unit with its own outcome."""

import base64
import threading
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError, PersistenceError, ProgrammingError, StoredEvent
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from adapters.embedded import PostgresServer
from adapters.embedded.process import free_port
from adapters.event_store import (
    Appended,
    BrokenSeal,
    Conflict,
    EventLog,
    KeyUnavailable,
    LogRecorder,
    PostgresKeyStore,
    RoleDatastore,
    StructMapper,
    standing,
)
from adapters.settings import Settings
from adapters.vault import MasterKey, Vault
from api.wiring import WriteSide, write_side
from domain import authn, connections, messages, tenancy
from domain.event import Event
from domain.ports import Analysis
from sql import queries
from tests.support.proxy import Proxy, proxy_before
from tests.support.spec import NOW, fact
from tests.support.systems import administrator, at_port, wait_for
from tests.support.world import World, record, repeatable, tampered, vector


@pytest.fixture
def tenant_id(write: WriteSide) -> UUID:
    """A tenant with a key."""
    tenant_id = uuid4()
    write.vault.create(tenant_id)
    return tenant_id


@pytest.fixture
def admin(settings: Settings) -> Iterator[psycopg.Connection]:
    """A superuser's connection."""
    with administrator(settings) as conn:
        yield conn


def suspended(tenant_id: UUID, version: int = 1, *, stream: UUID | None = None, reason: str = "atraso") -> Event:
    return fact(tenancy.TenantSuspended, stream or tenant_id, version, tenant_id=tenant_id, reason=reason)


def reactivated(tenant_id: UUID, version: int, *, stream: UUID) -> Event:
    return fact(tenancy.TenantReactivated, stream, version, tenant_id=tenant_id, status="active")


def in_threads(*targets: Callable[[], None], seconds: float = 50) -> None:
    """Run all at once, to the end, and fail with the first error of any."""
    errors: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), f"still running after {seconds} s"
    if errors:
        raise errors[0]


# ---------------------------------------------------------------------------------------------------- sealing

NUMBER = "5511987654321"
SECRETS = {
    "name": "Floricultura Jasmim Ltda",
    "reason": "cheque devolvido em março",
    "username": "beatriz.antunes@example.com",
    "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$Zm9vYmFyYmF6$c2VncmVkbw",
    "email": "beatriz.antunes@example.com",
    "first_name": "Beatriz",
    "last_name": "Antunes",
    "token": "evo-token-7f3a9c",
    "text": "Olá, a minha encomenda de orquídeas não chegou até agora",
    "external_id": "3EB0C767D26A1B5F2E41",
    "summary": "Encomenda de orquídeas atrasada",
    "number": NUMBER,
}
VECTOR = vector(repeatable(5))


def everything(write: WriteSide, tenant_id: UUID) -> list[list[Event]]:
    """One of each kind of event that holds something personal, made as the product makes them."""
    at = NOW
    key = write.vault.key(tenant_id)
    user = authn.user(authn.user_id(SECRETS["username"]))
    connection = connections.connection(connections.connection_id(tenant_id, "loja"))
    chat = key.pseudonym(SECRETS["number"])
    message = messages.message(messages.message_id(connection.id, chat, False, SECRETS["external_id"]))
    analysis = Analysis(sentiment=-0.5, emotion="raiva", satisfaction=10, tone="formal", summary=SECRETS["summary"])
    plan = [
        (
            tenancy.tenant(tenant_id),
            tenancy.RegisterTenant(at=at, name=SECRETS["name"]),
            tenancy.RenameTenant(at=at, name=SECRETS["name"] + " ME"),
            tenancy.SuspendTenant(at=at, reason=SECRETS["reason"]),
        ),
        (
            user,
            authn.RegisterUser(
                at=at,
                tenant_id=tenant_id,
                **{name: SECRETS[name] for name in ("username", "password_hash", "email", "first_name", "last_name")},
            ),
            authn.ChangePassword(at=at, password_hash=SECRETS["password_hash"]),
        ),
        (
            connection,
            connections.RegisterConnection(
                at=at,
                tenant_id=tenant_id,
                name="loja",
                evo_ws_url="https://evo.example.com",
                sealed_token=write.vault.seal_text(tenant_id, SECRETS["token"], "evolution"),
                company_sender=key.pseudonym("company"),
            ),
        ),
        (
            message,
            messages.ReceiveMessage(
                at=at,
                tenant_id=tenant_id,
                connection_id=connection.id,
                chat_id=chat,
                sender=chat,
                from_me=False,
                is_group=False,
                kind="text",
                sent_at=at,
                external_id=SECRETS["external_id"],
                text=SECRETS["text"],
            ),
            messages.AnalyzeMessage(at=at, model_name="m", prompt_version="p", analysis=analysis),
            messages.EmbedMessage(at=at, model_name="e", vector=VECTOR),
        ),
    ]
    world = World()
    return [list(world.carry_out(aggregate, *commands)) for aggregate, *commands in plan]


def forms(secret: bytes) -> set[bytes]:
    """How a value might stand somewhere."""
    return {secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), secret[::-1]}


def test_no_byte_of_the_log_on_disk_shows_what_went_in(
    write: WriteSide, tenant_id: UUID, admin: psycopg.Connection
) -> None:
    units = everything(write, tenant_id)
    record(write, units)
    admin.execute("CHECKPOINT")
    relations = [
        name
        for (name,) in admin.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'evosense_log'::regnamespace "
            "AND relkind IN ('r', 'i') UNION SELECT reltoastrelid::regclass::text FROM pg_class "
            "WHERE relnamespace = 'evosense_log'::regnamespace AND reltoastrelid <> 0"
        )
    ]
    read = "SELECT pg_read_binary_file(pg_relation_filepath(%s::regclass))"
    files = {name: admin.execute(read, (name,)).fetchone()[0] for name in relations}
    rows = admin.execute("SELECT e::text, state FROM evosense_log.stored_events AS e").fetchall()
    disk = b"".join(files.values()) + b"".join(text.encode() + bytes(state) for text, state in rows)

    # The test sees what is there: open fields stand on the disk in the clear, and a large event in the TOAST table.
    assert b"starter" in files["evosense_log.stored_events"]
    assert b"raiva" in disk
    assert sum(len(data) for name, data in files.items() if "toast" in name) > len(VECTOR)

    for name, secret in SECRETS.items():
        words = [secret, *(word for word in secret.split() if len(word) > 5)]
        for form in {
            form for word in words for encoding in ("utf-8", "utf-16-le") for form in forms(word.encode(encoding))
        }:
            assert form not in disk, f"{name} can be read"
    for start in range(0, len(VECTOR), 64):
        assert not any(form in disk for form in forms(VECTOR[start : start + 16])), "a piece of the vector can be read"
    # And yet all of it is there for whoever has the key.
    for unit in units:
        assert [recorded.event for recorded in write.log.history(unit[0].originator_id)] == unit


def test_changed_bytes_break_the_seal(write: WriteSide, tenant_id: UUID, admin: psycopg.Connection) -> None:
    position = record(write, [[suspended(tenant_id, reason="segredo")]])
    tampered(admin, position)
    with pytest.raises(BrokenSeal) as broken:
        write.log.load(tenancy.tenant(tenant_id))
    assert str(tenant_id) in str(broken.value)
    assert "segredo" not in str(broken.value)


def test_sealed_bytes_open_nowhere_else(write: WriteSide, tenant_id: UUID) -> None:
    mapper = StructMapper(write.vault)
    stored = mapper.to_stored_event(suspended(tenant_id))
    other = uuid4()
    write.vault.create(other)
    foreign = mapper.to_stored_event(suspended(other)).state
    moved = [
        StoredEvent(uuid4(), 1, stored.topic, stored.state),
        StoredEvent(stored.originator_id, 2, stored.topic, stored.state),
        # A rename whose sealed part comes from a suspension; and a tenant's bytes in another tenant's stream.
        StoredEvent(stored.originator_id, 1, "tenancy.TenantRenamed:1", stored.state),
        StoredEvent(stored.originator_id, 1, stored.topic, foreign),
        StoredEvent(
            stored.originator_id, 1, stored.topic, stored.state.replace(str(tenant_id).encode(), str(other).encode())
        ),
        # A tenant that has no key.
        StoredEvent(
            stored.originator_id, 1, stored.topic, stored.state.replace(str(tenant_id).encode(), str(uuid4()).encode())
        ),
    ]
    assert mapper.to_domain_event(stored) == suspended(tenant_id)
    for event in moved:
        with pytest.raises(BrokenSeal):
            mapper.to_domain_event(event)


def test_a_wrong_master_key_is_no_fault_of_the_event(write: WriteSide, tenant_id: UUID) -> None:
    stored = StructMapper(write.vault).to_stored_event(suspended(tenant_id))
    wrong = Vault(MasterKey(bytes(32)), PostgresKeyStore(write.datastore))
    with pytest.raises(KeyUnavailable, match="does not open the key of tenant"):
        StructMapper(wrong).to_domain_event(stored)


def test_what_is_not_ours_can_not_be_appended(write: WriteSide) -> None:
    with pytest.raises(TypeError, match="not one of our events"):
        StructMapper(write.vault).to_stored_event(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="without a tenant"):
        write.log._recorder.insert_events([StoredEvent(uuid4(), 1, "x", b"")])


# ---------------------------------------------------------------------------------------------------- privileges


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evosense_log.stored_events SET state = ''",
        "DELETE FROM evosense_log.stored_events",
        "TRUNCATE evosense_log.stored_events",
        "DROP TABLE evosense_log.stored_events",
        "ALTER TABLE evosense_log.stored_events DISABLE TRIGGER ALL",
        "DELETE FROM evosense_log.tenant_keys",
        "UPDATE evosense_log.tenant_keys SET tenant_id = gen_random_uuid()",
        "SELECT setval('evosense_log.stored_events_notification_id_seq', 1)",
        "SELECT * FROM evosense.messages_message",
    ],
)
def test_the_writer_can_not_take_back_what_it_wrote(write: WriteSide, statement: str) -> None:
    with (
        pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
        write.datastore.get_connection() as c,
    ):
        c.execute(statement)


@pytest.mark.parametrize("role", ["evosense_projector", "evosense_app"])
def test_nobody_else_can_append(settings: Settings, write: WriteSide, tenant_id: UUID, role: str) -> None:
    datastore = RoleDatastore(settings.runtime_dsn, role)  # type: ignore[arg-type]
    with pytest.raises(ProgrammingError, match="permission denied"):
        EventLog(LogRecorder(datastore), StructMapper(write.vault)).append([[suspended(tenant_id)]])
    datastore.close()


def test_every_parameter_of_the_address_reaches_the_server(settings: Settings) -> None:
    datastore = RoleDatastore(
        settings.runtime_dsn + "?application_name=loja&channel_binding=disable", "evosense_writer"
    )
    with datastore.get_connection() as conn:
        names = conn.execute(
            "SELECT current_setting('application_name') AS name, current_setting('lock_timeout') AS lock, "
            "current_setting('idle_in_transaction_session_timeout') AS silence, current_user AS role"
        ).fetchone()
        assert names == {"name": "loja", "lock": "20s", "silence": "15s", "role": "evosense_writer"}
        assert conn.info.get_parameters()["channel_binding"] == "disable"
    datastore.close()


# ---------------------------------------------------------------------------------------------------- appending


def test_positions_come_in_the_order_of_the_append(write: WriteSide, tenant_id: UUID) -> None:
    streams = [uuid4() for _ in range(50)]
    units = [[suspended(tenant_id, v, stream=s) for v in (1, 2)] for s in streams]
    before = write.log.head()
    outcomes = write.log.append(units)
    positions = [p for outcome in outcomes if isinstance(outcome, Appended) for p in outcome.positions]
    assert len(positions) == 100
    assert positions == sorted(positions)
    assert positions[0] > before
    assert write.log.head() == positions[-1]
    for stream, outcome in zip(streams, outcomes, strict=True):
        assert isinstance(outcome, Appended)
        assert tuple(recorded.position for recorded in write.log.history(stream)) == outcome.positions
        at = write.log.stream_at(outcome.positions[0])
        assert at is not None
        assert (at.stream_id, at.tenant_id, at.type_name) == (stream, tenant_id, "tenancy.TenantSuspended")
        assert write.log.last_position_of(stream) == outcome.positions[1]
    assert write.log.stream_at(positions[-1] + 1) is None
    assert write.log.last_position_of(uuid4()) == 0


def test_an_append_of_nothing_is_nothing(write: WriteSide, tenant_id: UUID) -> None:
    head = write.log.head()
    assert write.log.append([]) == []
    assert write.log._recorder.insert_events([]) == []
    assert write.log.head() == head


def test_a_conflict_concerns_its_own_unit_alone(write: WriteSide, tenant_id: UUID) -> None:
    old, gap, free, both = (uuid4() for _ in range(4))
    record(write, [[suspended(tenant_id, stream=old)]])
    outcomes = write.log.append(
        [
            [suspended(tenant_id, stream=free)],
            [suspended(tenant_id, stream=old)],
            [suspended(tenant_id, 3, stream=gap)],
            # All or nothing: its first event would fit, its second does not.
            [suspended(tenant_id, stream=both), suspended(tenant_id, stream=old)],
            [suspended(tenant_id, 2, stream=free)],
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Appended, Conflict, Conflict, Conflict, Appended]
    assert outcomes[1] == Conflict(old, 0, 1)
    assert outcomes[2] == Conflict(gap, 2, 0)
    assert outcomes[3] == Conflict(old, 0, 1)
    assert [len(write.log.history(s)) for s in (old, gap, free, both)] == [1, 0, 2, 0]


def test_a_duplicate_within_a_batch_fails_alone(write: WriteSide, tenant_id: UUID) -> None:
    stream, neighbour = uuid4(), uuid4()
    outcomes = write.log.append(
        [
            [suspended(tenant_id, stream=stream, reason="primeira")],
            [suspended(tenant_id, stream=stream, reason="segunda")],
            [suspended(tenant_id, stream=neighbour)],
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Appended, Conflict, Appended]
    assert [recorded.event for recorded in write.log.history(stream)] == [
        suspended(tenant_id, stream=stream, reason="primeira")
    ]


@pytest.mark.parametrize("strict", [False, True])
def test_a_unit_is_appended_where_its_conditions_hold(write: WriteSide, tenant_id: UUID, strict: bool) -> None:
    there, absent, ours, theirs, third = (uuid4() for _ in range(5))
    record(write, [[suspended(tenant_id, stream=there)]])
    at = [standing(there, 1, tenant_id, strict=strict), standing(absent, 0, tenant_id, strict=strict)]
    one, other = write.log.append(
        [[suspended(tenant_id, v, stream=ours) for v in (1, 2)], [suspended(tenant_id, stream=theirs)]], [at, at[:1]]
    )
    assert isinstance(one, Appended)
    assert isinstance(other, Appended)
    positions = [recorded.position for s in (ours, theirs) for recorded in write.log.history(s)]
    assert [*one.positions, *other.positions] == positions == [positions[0], positions[0] + 1, positions[0] + 2]
    # What does not hold refuses its own unit alone; so does what an earlier unit of the same call has changed.
    outcomes = write.log.append(
        [
            [suspended(tenant_id, stream=third)],
            [suspended(tenant_id, stream=uuid4())],
            [suspended(tenant_id, stream=absent)],
            [suspended(tenant_id, stream=uuid4())],
        ],
        [at, [standing(there, 0, tenant_id, strict=strict)], at[1:], at[1:]],
    )
    assert [type(outcome) for outcome in outcomes] == [Appended, Conflict, Appended, Conflict]
    assert outcomes[1] == Conflict(there, 0, 1)
    assert outcomes[3] == Conflict(absent, 0, 1)


def test_a_strict_condition_is_looked_at_in_turn(write: WriteSide, settings: Settings, tenant_id: UUID) -> None:
    """Whoever had to wait for the turn sees what was appended meanwhile."""
    stream, ours = uuid4(), uuid4()
    mapper, outcomes = StructMapper(write.vault), list[Appended | Conflict]()
    theirs = mapper.to_stored_event(suspended(tenant_id, stream=stream))
    with RoleDatastore(settings.runtime_dsn, "evosense_writer") as rival, rival.get_connection() as conn:
        with conn.transaction():
            queries("log").lock_for_append(conn)
            waiting = threading.Thread(
                target=lambda: outcomes.extend(
                    write.log.append(
                        [[suspended(tenant_id, stream=ours)]], [[standing(stream, 0, tenant_id, strict=True)]]
                    )
                )
            )
            waiting.start()
            wait_for(lambda: _waiting_for_a_turn(settings), "the append waits for its turn")
            LogRecorder(rival)._insert(conn, [theirs])
        waiting.join(20)
    assert outcomes == [Conflict(stream, 0, 1)]
    assert not write.log.history(ours)


def _waiting_for_a_turn(settings: Settings) -> bool:
    with administrator(settings) as admin:
        rows = admin.execute("SELECT FROM pg_locks WHERE NOT granted AND database IS NOT NULL").fetchall()
    return bool(rows)


def test_the_librarys_own_interface_appends_all_or_none(write: WriteSide, tenant_id: UUID) -> None:
    mapper, recorder = StructMapper(write.vault), write.log._recorder
    stream, other = uuid4(), uuid4()
    stored = [mapper.to_stored_event(suspended(tenant_id, stream=s)) for s in (stream, other)]
    assert len(recorder.insert_events(stored)) == 2
    with pytest.raises(IntegrityError, match="stands at 1, not at 0"):
        recorder.insert_events([mapper.to_stored_event(suspended(tenant_id, stream=s)) for s in (uuid4(), stream)])


def test_loading_many_is_loading_each(write: WriteSide, tenant_id: UUID) -> None:
    world = World(3)
    record(write, [*world.births(), *world.happen(60)])
    empties = [tenancy.tenant(t) for t in (*world.tenants, uuid4())]
    assert write.log.load_many(empties) == [write.log.load(empty) for empty in empties]
    assert write.log.load_many([]) == []
    assert not write.log.load(empties[-1]).exists


def test_a_reader_never_sees_a_position_appear_behind_one_it_has_seen(
    settings: Settings, write: WriteSide, tenant_id: UUID
) -> None:
    """Six writers on connections of their own, and a reader that tails: what it sees is everything, in order."""
    head, writers, appends = write.log.head(), 6, 70
    seen: list[int] = []
    written: list[int] = []
    done = threading.Event()

    def append(number: int) -> None:
        side, source = write_side(settings), repeatable(number)
        for _ in range(appends):
            size = source.randint(1, 12)
            outcome = side.log.append([[suspended(tenant_id, v + 1, stream=s) for v in range(size)] for s in [uuid4()]])
            assert isinstance(outcome[0], Appended)
            written.extend(outcome[0].positions)
        side.close()

    def tail() -> None:
        with administrator(settings) as conn:
            last = head
            while True:
                finished = done.is_set()
                rows = conn.execute(
                    "SELECT notification_id FROM evosense_log.stored_events WHERE notification_id > %s "
                    "ORDER BY notification_id",
                    (last,),
                ).fetchall()
                seen.extend(position for (position,) in rows)
                last = seen[-1] if seen else last
                if finished and not rows:
                    return

    def write_all() -> None:
        try:
            in_threads(*(lambda number=number: append(number) for number in range(writers)))
        finally:
            done.set()

    in_threads(write_all, tail)
    assert len(written) > 2000
    assert seen == sorted(written)


def test_who_inserts_without_asking_for_a_turn_waits_for_it_too(
    settings: Settings, write: WriteSide, tenant_id: UUID
) -> None:
    stored = StructMapper(write.vault).to_stored_event(suspended(tenant_id))
    insert = (
        "INSERT INTO evosense_log.stored_events (originator_id, originator_version, topic, state, tenant_id) "
        "VALUES (%s, %s, %s, %s, %s)"
    )
    with administrator(settings) as holder, administrator(settings) as intruder:
        with holder.transaction():
            holder.execute("SELECT evosense_log.lock_for_append()")
            intruder.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                intruder.execute(insert, (stored.originator_id, 1, stored.topic, stored.state, tenant_id))
        intruder.execute(insert, (stored.originator_id, 1, stored.topic, stored.state, tenant_id))


def test_of_two_who_decided_on_the_same_state_one_is_told(settings: Settings, tenant_id: UUID) -> None:
    stream = uuid4()
    outcomes: list[Appended | Conflict] = []
    start = threading.Barrier(4)

    def append() -> None:
        side = write_side(settings)
        side.log.head()
        start.wait(20)
        outcomes.extend(side.log.append([[suspended(tenant_id, stream=stream)]]))
        side.close()

    in_threads(*[append] * 4)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Appended", "Conflict", "Conflict", "Conflict"]
    assert all(outcome == Conflict(stream, 0, 1) for outcome in outcomes if isinstance(outcome, Conflict))


def test_twenty_thousand_events_and_one_of_eight_megabytes_pass(write: WriteSide, tenant_id: UUID) -> None:
    """The library's own recorder hangs for ever with far less (DESIGN section 5)."""
    many = [[suspended(tenant_id, v + 1, stream=s) for v in range(20)] for s in (uuid4() for _ in range(1000))]
    large = suspended(tenant_id, reason="x" * 8_000_000)
    outcomes: list[Appended | Conflict] = []
    in_threads(lambda: outcomes.extend(write.log.append(many)), seconds=40)
    in_threads(lambda: outcomes.extend(write.log.append([[large]])), seconds=20)
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    assert sum(len(outcome.positions) for outcome in outcomes if isinstance(outcome, Appended)) == 20_001
    assert [recorded.event for recorded in write.log.history(tenant_id)] == [large]


def test_every_append_wakes_whoever_listens(settings: Settings, write: WriteSide, tenant_id: UUID) -> None:
    with administrator(settings) as listener:
        listener.execute("LISTEN evosense_log")
        position = record(write, [[suspended(tenant_id)]])
        heard = list(listener.notifies(timeout=10, stop_after=1))
    assert [notification.payload for notification in heard] == [str(position)]


# ---------------------------------------------------------------------------------------------------- faults


@pytest.fixture
def proxied(postgres: PostgresServer, settings: Settings) -> Iterator[tuple[Proxy, WriteSide]]:
    """A write side whose way to the database can be cut."""
    port = int(str(conninfo_to_dict(postgres.dsn)["port"]))
    with proxy_before(port) as proxy:
        dsn = SecretStr(at_port(settings.runtime_dsn, proxy.port))
        side = write_side(settings.model_copy(update={"database_url": dsn}))
        yield proxy, side
        side.close()


@pytest.mark.parametrize("lost", ["commit", "answer"])
def test_a_lost_commit_is_tried_again_and_stands_once(
    proxied: tuple[Proxy, WriteSide], write: WriteSide, tenant_id: UUID, lost: str
) -> None:
    proxy, side = proxied
    old, sealed, plain = uuid4(), uuid4(), uuid4()
    record(write, [[suspended(tenant_id, stream=s)] for s in (old, plain)])
    units = [
        [suspended(tenant_id, v, stream=sealed) for v in (1, 2)],
        [reactivated(tenant_id, 2, stream=plain)],
        [suspended(tenant_id, stream=old)],
        [suspended(tenant_id, stream=sealed, reason="outra decisão")],
    ]
    side.log.head()  # the connection is there, and no COMMIT of its making will come by
    proxy.lose(lost)  # type: ignore[arg-type]
    # A condition that a retry no longer finds is no reason to deny what was appended.
    outcomes = side.log.append(units, [[standing(sealed, 0, tenant_id, strict=False)], [], [], []])
    assert proxy.lost == 1
    assert [type(outcome) for outcome in outcomes] == [Appended, Appended, Conflict, Conflict]
    for stream, outcome, count in ((sealed, outcomes[0], 2), (plain, outcomes[1], 1)):
        assert isinstance(outcome, Appended)
        positions = [recorded.position for recorded in write.log.history(stream)]
        assert tuple(positions[-count:]) == outcome.positions
    assert [len(write.log.history(s)) for s in (old, sealed, plain)] == [1, 2, 2]


def test_somebody_elses_event_is_not_taken_for_ours_after_a_lost_commit(
    proxied: tuple[Proxy, WriteSide], write: WriteSide, tenant_id: UUID
) -> None:
    """Activated and deactivated at the same moment, so that nothing but topic and seal tells them apart."""
    proxy, side = proxied
    stream = uuid4()
    record(
        write,
        [
            [suspended(tenant_id, stream=stream)],
            [fact(connections.ConnectionActivated, stream, 2, tenant_id=tenant_id)],
        ],
    )
    side.log.head()
    proxy.lose("commit")
    ours = fact(connections.ConnectionDeactivated, stream, 2, tenant_id=tenant_id)
    assert side.log.append([[ours]]) == [Conflict(stream, 1, 2)]
    assert proxy.lost == 1


def test_connections_that_the_server_dropped_are_survived(
    settings: Settings, write: WriteSide, tenant_id: UUID, admin: psycopg.Connection
) -> None:
    """Log-ins of one user, one append each, while all the writer's connections are ended again and again."""
    side = write_side(settings)
    stream, appended, stop = uuid4(), [0], threading.Event()
    record(write, [[suspended(tenant_id, stream=stream)]])

    def append() -> None:
        while not stop.is_set():
            event = reactivated(tenant_id, appended[0] + 2, stream=stream)
            assert isinstance(side.log.append([[event]])[0], Appended)
            appended[0] += 1

    def end_connections() -> None:
        try:
            for _ in range(3):  # the pool takes some three seconds to get over each
                reached = appended[0] + 5
                wait_for(lambda reached=reached: appended[0] >= reached, "appends go on")
                ended = admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND usename = %s",
                    (conninfo_to_dict(settings.runtime_dsn)["user"],),
                ).fetchall()
                assert ended
        finally:
            stop.set()

    in_threads(append, end_connections)
    side.close()
    versions = [recorded.event.originator_version for recorded in write.log.history(stream)]
    assert versions == list(range(1, appended[0] + 2))


def test_a_database_that_stays_away_is_an_error_and_not_a_hang(
    write: WriteSide, settings: Settings, tenant_id: UUID
) -> None:
    recorder = write.log._recorder
    datastore = RoleDatastore(at_port(settings.runtime_dsn, free_port()), "evosense_writer")
    datastore.pool.timeout = 0.5
    log = EventLog(recorder, StructMapper(write.vault))
    recorder.datastore, there = datastore, recorder.datastore
    try:
        with pytest.raises(PersistenceError, match="couldn't get a connection"):
            log.append([[suspended(tenant_id)]])
    finally:
        recorder.datastore = there
        datastore.close()


def test_a_recorded_event_is_equal_to_the_decided_one(write: WriteSide) -> None:
    world = World(11)
    units = [*world.births(), *world.happen(150)]
    record(write, units)
    by_stream: dict[UUID, list[Event]] = {}
    for unit in units:
        for event in unit:
            by_stream.setdefault(event.originator_id, []).append(event)
    assert len({type(event) for unit in units for event in unit}) > 10
    for stream, events in by_stream.items():
        assert [recorded.event for recorded in write.log.history(stream)] == events
