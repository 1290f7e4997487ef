"""`evosense reembed` as a person meets it: as a process, with the offline models."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from adapters.embeddings import offline_embedders
from adapters.settings import Settings
from domain.connections import connection_id
from domain.messages import ReceiveMessage, message, message_id
from domain.tenancy import RegisterTenant, tenant
from tests.support.rebuilding import System, killed, run
from tests.support.spec import NOW
from tests.support.systems import administrator, drain
from tests.support.world import record

CHAT, BEFORE, PLAIN = (embedder.model_name for embedder in offline_embedders())
MESSAGES = 1500


@pytest.fixture(scope="module")
def system(settings: Settings) -> Iterator[System]:
    """Three tenants, and two of one name; the first has messages."""
    with administrator(settings) as admin:
        system = System(settings, admin, 41)
        system.grow(0)
        first = system.world.tenants[0]
        shop = connection_id(first, "balcão")
        units = [
            message(message_id(shop, "c" * 64, False, f"K{number}")).decide(
                ReceiveMessage(
                    at=NOW,
                    tenant_id=first,
                    connection_id=shop,
                    chat_id="c" * 64,
                    sender="c" * 64,
                    from_me=False,
                    is_group=False,
                    kind="text",
                    sent_at=NOW,
                    external_id=f"K{number}",
                    text=f"Vc tbm quer o pedido {number}?",
                )
            )
            for number in range(MESSAGES)
        ]
        twin = tenant(UUID(int=7)).decide(RegisterTenant(at=NOW, name="Loja 1", plan="pro"))
        record(system.write, [*units, twin])
        drain(system.read.engine)
        yield system
        system.close()


def told(system: System, *arguments: str, rc: int = 0) -> str:
    """What the command says; never a traceback."""
    process = run(system, "reembed", *arguments)
    output, errors = process.communicate(timeout=90)
    assert process.returncode == rc, output + errors
    assert "Traceback" not in output + errors
    return errors.removeprefix("error: ") if rc else output


def vectors(system: System) -> dict[str, int]:
    drain(system.read.engine)
    found = system.admin.execute(
        "SELECT model, count(*) FROM evosense.messages_embedding WHERE tenant_id = %s GROUP BY 1",
        (system.world.tenants[0],),
    )
    return {str(model): int(number) for model, number in found}


def test_wrong_names_are_told_what_would_be_right(system: System) -> None:
    assert told(system, "--tenant", "Loja 0", "--model", "gpt", rc=1) == (
        f"there is no model 'gpt'; there are: {CHAT}, {BEFORE}, {PLAIN}\n"
    )
    nobody = told(system, "--tenant", "Loja 9", "--model", PLAIN, rc=1)
    assert nobody == "no tenant is called 'Loja 9': `evosense reembed --list` shows the tenants\n"
    nobody = told(system, "--tenant", str(UUID(int=9)), "--model", PLAIN, rc=1)
    assert nobody.startswith(f"there is no tenant {UUID(int=9)}")
    two = told(system, "--tenant", "Loja 1", "--model", PLAIN, rc=1)
    assert two.startswith("2 tenants are called 'Loja 1': give the id of one of them (")
    assert str(UUID(int=7)) in two
    assert "give both --tenant and --model" in told(system, "--tenant", "Loja 0", rc=1)
    assert "give it alone" in told(system, "--list", "--model", PLAIN, rc=1)


def test_a_move_is_killed_and_goes_on_where_it_was(system: System) -> None:
    recorded = (
        "SELECT count(*) FROM evosense_log.stored_events "
        "WHERE tenant_id = %s AND topic LIKE 'messages.MessageEmbedded:%%'"
    )

    def embedded() -> int:
        row = system.admin.execute(recorded, (system.world.tenants[0],)).fetchone()
        assert row is not None
        return int(row[0])

    killed(run(system, "reembed", "--tenant", "Loja 0", "--model", CHAT), lambda: embedded() > 100, "it is under way")
    before = embedded()
    assert 100 < before < MESSAGES
    listed = told(system)
    assert CHAT in listed
    assert PLAIN in listed
    again = told(system, "--tenant", "Loja 0", "--model", CHAT)
    assert again.splitlines()[0] == f"going on with the move to {CHAT}"
    assert f"{MESSAGES - before:,} of Loja 0's {MESSAGES:,} messages were embedded by this run" in again
    assert embedded() == MESSAGES
    assert vectors(system) == {CHAT: MESSAGES}
    assert told(system, "--tenant", str(system.world.tenants[0]), "--model", CHAT).startswith("nothing to do")

    moved = told(system, "--tenant", str(system.world.tenants[0]), "--model", PLAIN)
    assert f"{MESSAGES:,} of Loja 0's {MESSAGES:,} messages were embedded by this run" in moved
    assert moved.rstrip().endswith(f"{PLAIN} answers, instead of {CHAT}")
    assert vectors(system) == {PLAIN: MESSAGES}
    assert "answers" in told(system, "--list")
