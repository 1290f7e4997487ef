"""A command that comes again has the outcome of the first: by its derived id, or by its idempotency key."""

import threading
from uuid import UUID, uuid4

import pytest

from api.commands import Done, Intent, Key, Step
from api.wiring import WriteSide
from domain import authn, messages, tenancy
from domain.receipts import KeyReused, receipt_id
from tests.support.spec import NOW


@pytest.fixture
def tenant_id(write: WriteSide) -> UUID:
    """A registered tenant."""
    tenant_id = uuid4()
    write.vault.create(tenant_id)
    write.commands.handle(tenancy.tenant(tenant_id), tenancy.RegisterTenant(at=NOW, name="Loja"), new=True)
    return tenant_id


def key(tenant_id: UUID, name: str, fingerprint: str = "f1") -> Key:
    return Key(tenant_id, receipt_id(UUID(int=1), name), fingerprint, NOW)


def new_name() -> str:
    return f"u{uuid4().hex}"


def register_user(write: WriteSide, tenant_id: UUID, name: str, with_key: Key | None) -> Done:
    command = authn.RegisterUser(at=NOW, tenant_id=tenant_id, username=name, password_hash="h")
    return write.commands.handle(authn.user(authn.user_id(name)), command, new=True, key=with_key)


def received(tenant_id: UUID, external_id: str) -> Intent:
    connection = UUID(int=7)
    stream = messages.message_id(connection, "c" * 64, False, external_id)
    command = messages.ReceiveMessage(
        at=NOW,
        tenant_id=tenant_id,
        connection_id=connection,
        chat_id="c" * 64,
        sender="s" * 64,
        from_me=False,
        is_group=False,
        kind="conversation",
        sent_at=NOW,
        external_id=external_id,
        text="oi",
    )
    return Intent((Step(messages.message(stream), (command,)),), new=True)


def test_a_message_that_comes_again_has_the_position_of_the_first_time(write: WriteSide, tenant_id: UUID) -> None:
    names = [uuid4().hex for _ in range(3)]
    first = write.commands.handle_many([received(tenant_id, name) for name in names])
    again = write.commands.handle_many([received(tenant_id, name) for name in reversed(names)])
    assert [outcome.positions for outcome in reversed(again) if isinstance(outcome, Done)] == [
        outcome.positions for outcome in first if isinstance(outcome, Done)
    ]
    assert all(isinstance(outcome, Done) and outcome.duplicate for outcome in again)


def test_the_same_key_gives_the_same_outcome_where_the_command_alone_would_be_refused(
    write: WriteSide, tenant_id: UUID
) -> None:
    name = new_name()
    first = register_user(write, tenant_id, name, key(tenant_id, name))
    head = write.log.head()
    again = register_user(write, tenant_id, name, key(tenant_id, name))
    assert (again.position, again.positions) == (first.position, first.positions)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert write.log.head() == head
    event = write.log.history(authn.user_id(name))[0]
    assert first.positions == (event.position,)


def test_the_same_key_with_another_command_is_refused(write: WriteSide, tenant_id: UUID) -> None:
    name = new_name()
    register_user(write, tenant_id, name, key(tenant_id, name))
    head = write.log.head()
    with pytest.raises(KeyReused, match="take a new key"):
        register_user(write, tenant_id, new_name(), key(tenant_id, name, "f2"))
    assert write.log.head() == head


def test_a_command_that_changed_nothing_is_remembered_too(write: WriteSide, tenant_id: UUID) -> None:
    reactivate = tenancy.ReactivateTenant(at=NOW)
    first = write.commands.handle(tenancy.tenant(tenant_id), reactivate, key=key(tenant_id, "nothing"))
    write.commands.handle(tenancy.tenant(tenant_id), tenancy.SuspendTenant(at=NOW, reason="x"))
    again = write.commands.handle(tenancy.tenant(tenant_id), reactivate, key=key(tenant_id, "nothing"))
    assert first == again
    assert write.log.load(tenancy.tenant(tenant_id)).status == "suspended", "the repeated command was not carried out"


def test_a_refused_command_leaves_its_key_free(write: WriteSide, tenant_id: UUID) -> None:
    name = new_name()
    with pytest.raises(Exception, match="role"):
        write.commands.handle(
            authn.user(authn.user_id(name)),
            authn.RegisterUser(at=NOW, tenant_id=tenant_id, username=name, password_hash="h", role="king"),
            new=True,
            key=key(tenant_id, name),
        )
    assert not register_user(write, tenant_id, name, key(tenant_id, name)).duplicate


def test_of_many_at_once_with_one_key_one_is_carried_out(write: WriteSide, tenant_id: UUID) -> None:
    name, outcomes, start = new_name(), [], threading.Barrier(8)

    def call() -> None:
        start.wait()
        outcomes.append(register_user(write, tenant_id, name, key(tenant_id, name)))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert len({(outcome.position, outcome.positions) for outcome in outcomes}) == 1
    assert sorted(outcome.duplicate for outcome in outcomes) == [False] + [True] * 7


def test_two_tenants_of_one_receipt_book_do_not_meet() -> None:
    assert receipt_id(UUID(int=1), "k") != receipt_id(UUID(int=2), "k")
