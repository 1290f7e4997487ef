"""The backlog's table: what is put, taken in hand, put off and gone, by one process and by several."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from adapters.settings import Settings
from api.backlog import Backlog, Claim, Earlier, Order, Owed, Wants
from api.parking import SUBSCRIBER
from api.sweeps import forget_erased
from api.wiring import WriteSide
from tests.support.systems import administrator
from tests.support.transport import NOW

TYPE = "messages.MessageReceived:1"


@pytest.fixture
def admin(settings: Settings) -> Iterator[psycopg.Connection]:
    with administrator(settings) as conn:
        conn.execute("TRUNCATE evosense_ops.model_backlog, evosense_ops.parked_events")
        yield conn


@pytest.fixture
def backlog(write: WriteSide, admin: psycopg.Connection) -> Backlog:
    return Backlog(write.datastore)


def a_tenant(write: WriteSide) -> UUID:
    tenant = uuid4()
    write.vault.create(tenant)
    return tenant


def owed(tenant: UUID, *positions: int, wants: Wants = "analysis") -> list[Owed]:
    return [Owed(uuid4(), wants, tenant, position, TYPE) for position in positions]


def row(admin: psycopg.Connection, one: Owed) -> dict[str, Any]:
    found = (
        admin.cursor(row_factory=dict_row)
        .execute(
            "SELECT *, due_at <= clock_timestamp() AS due, claimed_until > clock_timestamp() AS claimed "
            "FROM evosense_ops.model_backlog WHERE message_id = %s AND wants = %s",
            (one.message_id, one.wants),
        )
        .fetchone()
    )
    return dict(found or {})


@pytest.mark.parametrize(("order", "expected"), [("oldest", [3, 5, 8]), ("newest", [8, 5, 3])])
def test_a_tenants_rows_come_in_order_and_once(
    backlog: Backlog, write: WriteSide, order: Order, expected: list[int]
) -> None:
    tenant, other = a_tenant(write), a_tenant(write)
    backlog.put([*owed(tenant, 5, 8, 3), *owed(other, 1), *owed(tenant, 2, wants="vectors")])
    assert set(backlog.tenants("analysis")) == {tenant, other}
    assert backlog.tenants("vectors") == [tenant]
    first = backlog.claim(tenant, "analysis", 2, order)
    assert [claim.position for claim in first] == expected[:2]
    another = Backlog(write.datastore)
    assert [claim.position for claim in another.claim(tenant, "analysis", 9, order)] == expected[2:]
    assert backlog.claim(tenant, "analysis", 9, order) == []
    assert backlog.tenants("analysis") == [other]


def test_claims_of_many_at_once_are_disjoint(backlog: Backlog, write: WriteSide) -> None:
    tenant = a_tenant(write)
    backlog.put(owed(tenant, *range(200)))
    with ThreadPoolExecutor(4) as pool:
        others = [Backlog(write.datastore) for _ in range(4)]
        taken = list(pool.map(lambda one: one.claim(tenant, "analysis", 40, "oldest"), others * 2))
    positions = [claim.position for claims in taken for claim in claims]
    assert len(positions) == len(set(positions))
    assert len(positions) + len(backlog.claim(tenant, "analysis", 200, "oldest")) == 200


def test_an_event_that_comes_again_changes_nothing_and_a_later_one_asks_anew(
    backlog: Backlog, write: WriteSide, admin: psycopg.Connection
) -> None:
    tenant = a_tenant(write)
    (one,) = owed(tenant, 5)
    backlog.put([one])
    (claim,) = backlog.claim(tenant, "analysis", 1, "oldest")
    backlog.postpone({claim: 60.0}, "aside", failed=True)
    before = row(admin, one)
    assert (before["attempts"], before["reason"], before["due"]) == (1, "aside", False)
    backlog.put([one, Owed(uuid4(), "vectors", tenant, 4, TYPE)])
    backlog.put([Owed(one.message_id, "analysis", tenant, 4, TYPE)])
    assert row(admin, one) == before
    backlog.put([Owed(one.message_id, "analysis", tenant, 9, "messages.MessageEdited:1")])
    after = row(admin, one)
    assert (after["position"], after["event_type"], after["due"]) == (9, "messages.MessageEdited:1", True)
    assert (after["attempts"], after["unavailable"], after["reason"]) == (0, 0, None)
    assert after["queued_at"] == before["queued_at"]


def test_what_was_asked_for_in_between_is_not_done_with(
    backlog: Backlog, write: WriteSide, admin: psycopg.Connection
) -> None:
    tenant = a_tenant(write)
    rows = owed(tenant, 1, 2, 3, 4)
    backlog.put(rows)
    claims = backlog.claim(tenant, "analysis", 4, "oldest")
    later = [Owed(one.message_id, "analysis", tenant, one.position + 10, TYPE) for one in rows[1:]]
    backlog.put(later)
    assert backlog.claim(tenant, "analysis", 4, "oldest") == [], "they are in a hand still"
    backlog.done(claims[:2])
    backlog.postpone({claims[2]: 60.0}, "aside", failed=True)
    backlog.park(claims[3], "refused", 1)
    assert row(admin, rows[0]) == {}
    for one in later:
        found = row(admin, one)
        assert (found["position"], found["due"], found["claimed"], found["attempts"]) == (one.position, True, None, 0)
    assert admin.execute("SELECT count(*) FROM evosense_ops.parked_events").fetchone() == (0,), "of the later event"


def test_a_lease_that_has_run_out_is_anybodys_and_a_renewed_one_is_not(
    write: WriteSide, backlog: Backlog, admin: psycopg.Connection
) -> None:
    tenant = a_tenant(write)
    rows = owed(tenant, 1, 2)
    backlog.put(rows)
    dead = Backlog(write.datastore, lease=0)
    assert len(dead.claim(tenant, "analysis", 2, "oldest")) == 2
    (taken,) = backlog.claim(tenant, "analysis", 1, "oldest")
    # Who has lost its lease gets it back by no renewal, puts nothing off, and gives nothing away.
    ghost = Claim(rows[0].message_id, "analysis", tenant, 1, TYPE, 0, 0)
    dead.renew([ghost])
    dead.postpone({ghost: 60.0}, "aside", failed=True)
    dead.release([ghost])
    found = row(admin, rows[0])
    assert (found["claimed_by"], found["claimed"], found["attempts"]) == (backlog.holder, True, 0)
    admin.execute("UPDATE evosense_ops.model_backlog SET claimed_until = clock_timestamp()")
    backlog.renew([taken])
    assert row(admin, rows[0])["claimed"]
    backlog.release([taken])
    assert row(admin, rows[0])["claimed_by"] is None
    assert [claim.position for claim in backlog.claim(tenant, "analysis", 2, "newest")] == [2, 1]


def test_what_is_parked_is_parked_as_the_worker_does(
    backlog: Backlog, write: WriteSide, admin: psycopg.Connection
) -> None:
    tenant = a_tenant(write)
    (one,) = owed(tenant, 5)
    backlog.put([one, Owed(one.message_id, "vectors", tenant, 5, TYPE)])
    (claim,) = backlog.claim(tenant, "analysis", 1, "oldest")
    backlog.park(claim, "AnswerRefused: no", 1)
    parked = admin.execute(
        "SELECT subscriber, position, tenant_id, stream_id, event_type, reason, attempts "
        "FROM evosense_ops.parked_events"
    ).fetchall()
    assert parked == [(SUBSCRIBER, 5, tenant, one.message_id, TYPE, "AnswerRefused: no", 1)]
    assert row(admin, one) == {}
    assert [claim.wants for claim in backlog.claim(tenant, "vectors", 9, "oldest")] == ["vectors"]


def test_how_much_waits_is_told_by_tenant(backlog: Backlog, write: WriteSide, admin: psycopg.Connection) -> None:
    tenant, other = a_tenant(write), a_tenant(write)
    backlog.put([*owed(tenant, 1, 2, 3), *owed(tenant, 1, wants="vectors"), *owed(other, 7)])
    admin.execute("UPDATE evosense_ops.model_backlog SET queued_at = queued_at - interval '1 hour' WHERE position = 2")
    first, second, _ = backlog.claim(tenant, "analysis", 3, "oldest")
    backlog.postpone({first: 1.0}, "down", failed=False)
    backlog.postpone({second: 1.0}, "slow", failed=False)
    found = {(one.tenant_id, one.wants): one for one in backlog.waiting()}
    assert backlog.waiting()[0].wants == "analysis", "the one that has waited longest"
    assert {key: (one.messages, one.in_hand, one.reason) for key, one in found.items()} == {
        (tenant, "analysis"): (3, 1, "slow"),
        (tenant, "vectors"): (1, 0, None),
        (other, "analysis"): (1, 0, None),
    }
    assert found[tenant, "analysis"].seconds >= 3600 > found[other, "analysis"].seconds >= 0


def test_of_an_erased_tenant_nothing_is_put_taken_or_kept(
    backlog: Backlog, write: WriteSide, admin: psycopg.Connection
) -> None:
    tenant, other = a_tenant(write), a_tenant(write)
    backlog.put([*owed(tenant, 1), *owed(other, 2)])
    admin.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (tenant,))
    backlog.put(owed(tenant, 3))
    assert backlog.tenants("analysis") == [other]
    forget_erased(write)
    rows = admin.execute("SELECT tenant_id, position FROM evosense_ops.model_backlog").fetchall()
    assert rows == [(other, 2)]


def test_the_earlier_texts_of_a_conversation(backlog: Backlog, admin: psycopg.Connection) -> None:
    tenant, other = uuid4(), uuid4()
    texts = [
        (tenant, 1, "c1", "um"),
        (tenant, 2, "c1", "dois"),
        (other, 3, "c1", "de outra loja"),
        (tenant, 4, "c2", "de outra conversa"),
        (tenant, 5, "c1", ""),  # deleted
        (tenant, 6, "c1", "três"),
        (tenant, 7, "c1", "quatro"),
    ]
    for one in (tenant, other):
        admin.execute(
            "INSERT INTO evosense.tenancy_tenant (id, name, plan, status) VALUES (%s, 'Loja', 'pro', 'active')", (one,)
        )
    for owner, position, chat, text in texts:
        at = NOW + timedelta(minutes=min(position, 6))  # the last two were sent in the same second
        admin.execute(
            "INSERT INTO evosense.messages_message (id, tenant_id, chat_id, sender, text, created_at) "
            "VALUES (%s, %s, %s, 's', %s, %s)",
            (position, owner, chat, text, at),
        )
    admin.execute("INSERT INTO evosense.messages_person VALUES (%s, 'lid', 9, 'c1')", (tenant,))

    def asked(position: int, chat: str = "c1") -> Earlier:
        return Earlier(position, chat, NOW + timedelta(minutes=min(position, 6)))

    found = backlog.earlier(tenant, [asked(1), asked(6), asked(7)], 2)
    assert found == {1: (), 6: ("um", "dois"), 7: ("dois", "três")}
    assert backlog.earlier(tenant, [asked(7, "lid")], 9) == {7: ("um", "dois", "três")}
    assert backlog.earlier(other, [asked(7)], 9) == {7: ("de outra loja",)}
