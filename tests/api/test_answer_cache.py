"""The cache of answers: for each tenant apart, unreadable without its key, bounded, and never in the way."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec.structs import replace

from adapters.event_store import RoleDatastore
from adapters.settings import Settings
from adapters.vault import SealBroken, VaultError
from api import answer_cache
from api.answer_cache import KEPT, MAX_TEXT, AnswerCache, cacheable
from api.wiring import WriteSide
from domain.ports import Analysis, Answer, Prompt, Question, Usage
from tests.support.systems import administrator, at_port

PROMPT = Prompt("p-1", "corpo")
SAID = Analysis(sentiment=0.4, emotion="alegria", satisfaction=70, tone="cordial", summary="Maria deseja bom dia")
ANSWER = Answer(
    analysis=SAID,
    model_name="m-1",
    prompt_version="p-1",
    template_hash="h" * 64,
    latency_ms=812,
    usage=Usage(calls=1, cost=90),
)


@pytest.fixture
def cache(write: WriteSide) -> AnswerCache:
    """One process's; what another one keeps is found through the table."""
    return AnswerCache(write.datastore, write.vault)


@pytest.fixture
def other(write: WriteSide) -> AnswerCache:
    """Another process's."""
    return AnswerCache(write.datastore, write.vault)


def new_tenant(write: WriteSide) -> UUID:
    made = uuid4()
    write.vault.create(made)
    return made


@pytest.fixture
def tenant_id(write: WriteSide) -> UUID:
    return new_tenant(write)


def question(tenant_id: UUID, text: str = "bom dia, é a Maria", **fields: Any) -> Question:
    return Question(tenant_id=tenant_id, message_id=uuid4(), text=text, **fields)


def key_of(cache: AnswerCache, asked: Question) -> bytes:
    return cache.key(asked, "srv", "m-1", "h" * 64, PROMPT)


def kept(cache: AnswerCache, tenant_id: UUID, text: str = "bom dia, é a Maria") -> bytes:
    key = key_of(cache, question(tenant_id, text))
    cache.keep(tenant_id, key, ANSWER)
    return key


def rows(settings: Settings, tenant_id: UUID) -> list[tuple[bytes, bytes]]:
    with administrator(settings) as admin:
        found = "SELECT key, sealed FROM evosense_ops.answer_cache WHERE tenant_id = %s ORDER BY answered_at"
        return [(bytes(key), bytes(sealed)) for key, sealed in admin.execute(found, (tenant_id,))]


def erase(settings: Settings, tenant_id: UUID) -> None:
    """As an erasure does: without its key nothing of the tenant can be opened (docs/keys.md)."""
    with administrator(settings) as admin:
        admin.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (tenant_id,))


def test_an_answer_comes_back_and_costs_nothing(cache: AnswerCache, other: AnswerCache, tenant_id: UUID) -> None:
    assert cache.find(tenant_id, key_of(cache, question(tenant_id))) is None
    key = kept(cache, tenant_id)
    same = key_of(other, question(tenant_id, run_id="another"))
    assert same == key, "whichever message and run it is"
    for one in (cache, other, other):
        assert one.find(tenant_id, same) == replace(ANSWER, latency_ms=0, usage=Usage())


@pytest.mark.parametrize(
    "changed",
    [
        lambda cache, asked: cache.key(replace(asked, text=asked.text + " "), "srv", "m-1", "h" * 64, PROMPT),
        lambda cache, asked: cache.key(replace(asked, from_me=True), "srv", "m-1", "h" * 64, PROMPT),
        lambda cache, asked: cache.key(asked, "srv", "m-2", "h" * 64, PROMPT),
        lambda cache, asked: cache.key(asked, "other", "m-1", "h" * 64, PROMPT),
        lambda cache, asked: cache.key(asked, "srv", "m-1", "g" * 64, PROMPT),
        lambda cache, asked: cache.key(asked, "srv", "m-1", "h" * 64, Prompt("p-2", "corpo")),
        # The same letters, cut elsewhere.
        lambda cache, asked: cache.key(asked, "srv", "m-", "1" + "h" * 64, PROMPT),
    ],
)
def test_what_shapes_the_answer_is_in_the_key(
    cache: AnswerCache, tenant_id: UUID, changed: Callable[[AnswerCache, Question], bytes]
) -> None:
    asked = question(tenant_id)
    assert changed(cache, asked) != key_of(cache, asked)


def test_tenants_have_nothing_in_common(cache: AnswerCache, settings: Settings, write: WriteSide) -> None:
    mine, theirs = new_tenant(write), new_tenant(write)
    key = kept(cache, mine)
    assert key_of(cache, question(theirs)) != key, "the same text under another tenant's key"
    assert cache.find(theirs, key) is None
    # Somebody who may write the table gives the row to another tenant, or puts it under another key.
    ((_, sealed),) = rows(settings, mine)
    own = key_of(cache, question(theirs))
    with administrator(settings) as admin:
        put = "INSERT INTO evosense_ops.answer_cache (tenant_id, key, sealed) VALUES (%s, %s, %s)"
        admin.execute(put, (theirs, own, sealed))
        admin.execute(put, (mine, own, sealed))
    assert cache.find(theirs, own) is None
    assert cache.find(mine, own) is None


def test_nothing_can_be_read_or_guessed_in_the_table(
    cache: AnswerCache, settings: Settings, write: WriteSide, tenant_id: UUID
) -> None:
    key = kept(cache, tenant_id)
    ((stored, sealed),) = rows(settings, tenant_id)
    assert stored == key
    assert len(key) == 32
    for word in (b"Maria", b"alegria", b"m-1", b"p-1"):
        assert word not in sealed
    # A customer's pseudonym and an answer's key never meet.
    assert write.vault.key(tenant_id).pseudonym("bom dia, é a Maria") != key.hex()


def test_of_an_erased_tenant_nothing_stays_and_nothing_can_be_read(
    cache: AnswerCache, other: AnswerCache, settings: Settings, write: WriteSide
) -> None:
    gone, stays = new_tenant(write), new_tenant(write)
    key, own = kept(cache, gone), kept(cache, stays)
    ((_, sealed),) = rows(settings, gone)  # as a backup has it
    place = gone.bytes + b"answer" + key
    assert b"Maria" in write.vault.key(gone).open(sealed, place)
    erase(settings, gone)
    assert rows(settings, gone) == [], "the rows go with the key"
    assert len(rows(settings, stays)) == 1
    assert other.find(gone, key) is None
    # This process has the entry in its memory, and forgets the key after ten minutes at the most.
    write.vault.forget(gone)
    assert cache.find(gone, key) is None
    with pytest.raises(VaultError):
        key_of(cache, question(gone))
    with pytest.raises(SealBroken):
        write.vault.key(stays).open(sealed, place)
    # Whoever was about to keep something of it leaves nothing either, and no error.
    cache.keep(gone, key, ANSWER)
    assert rows(settings, gone) == []
    assert cache.find(stays, own) is not None


def test_a_writer_that_still_has_the_key_keeps_nothing_of_an_erased_tenant(
    cache: AnswerCache, settings: Settings, tenant_id: UUID
) -> None:
    key = key_of(cache, question(tenant_id))
    erase(settings, tenant_id)
    cache.keep(tenant_id, key, ANSWER)
    assert rows(settings, tenant_id) == []


def test_which_questions_are_kept(tenant_id: UUID) -> None:
    assert cacheable(question(tenant_id, "x" * MAX_TEXT))
    assert not cacheable(question(tenant_id, "x" * (MAX_TEXT + 1)))
    assert not cacheable(question(tenant_id, "ok", earlier=("chegou?",)))


def test_old_entries_are_of_no_use_and_go(
    cache: AnswerCache, other: AnswerCache, settings: Settings, tenant_id: UUID
) -> None:
    kept(cache, tenant_id, "ok")
    key = key_of(cache, question(tenant_id, "ok"))
    with administrator(settings) as admin:
        age = "UPDATE evosense_ops.answer_cache SET answered_at = now() - %s WHERE tenant_id = %s"
        admin.execute(age, (KEPT + timedelta(minutes=1), tenant_id))
    assert other.find(tenant_id, key) is None
    kept(other, tenant_id, "sim")
    assert [stored for stored, _ in rows(settings, tenant_id)] == [key_of(cache, question(tenant_id, "sim"))]


def test_a_tenant_s_entries_are_bounded(
    write: WriteSide, settings: Settings, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "_ROUND", 5)
    cache = AnswerCache(write.datastore, write.vault, most=7)
    others = new_tenant(write)
    kept(cache, others)
    keys = [kept(cache, tenant_id, f"ok {number}") for number in range(21)]
    assert [key for key, _ in rows(settings, tenant_id)] == keys[-7:]
    assert len(rows(settings, others)) == 1


def test_the_memory_is_bounded_and_forgets(write: WriteSide, settings: Settings, tenant_id: UUID) -> None:
    now = [0.0]
    cache = AnswerCache(write.datastore, write.vault, remember=3, clock=lambda: now[0])
    keys = [kept(cache, tenant_id, f"ok {number}") for number in range(5)]
    with administrator(settings) as admin:
        admin.execute("DELETE FROM evosense_ops.answer_cache WHERE tenant_id = %s", (tenant_id,))
    assert [cache.find(tenant_id, key) is not None for key in keys] == [False, False, True, True, True]
    now[0] = 601.0
    assert [cache.find(tenant_id, key) for key in keys] == [None] * 5
    kept(cache, tenant_id, "ok 9")
    assert len(cache._memory) == 1


def test_an_answer_of_other_vocabularies_is_asked_anew(cache: AnswerCache, tenant_id: UUID) -> None:
    key = key_of(cache, question(tenant_id))
    cache.keep(tenant_id, key, replace(ANSWER, analysis=replace(SAID, emotion="euforia")))
    assert cache.find(tenant_id, key) is None
    cache.keep(tenant_id, key, ANSWER)
    assert cache.find(tenant_id, key) is not None


def test_without_the_database_there_is_no_cache_and_no_error(
    cache: AnswerCache, write: WriteSide, settings: Settings, tenant_id: UUID
) -> None:
    away = RoleDatastore(at_port(settings.runtime_dsn, 1), "evosense_writer")
    lost = AnswerCache(away, write.vault)
    key = key_of(lost, question(tenant_id))
    lost.keep(tenant_id, key, ANSWER)
    assert lost.find(tenant_id, key) is None
    away.close()


@pytest.mark.parametrize("role", ["evosense_app", "evosense_projector"])
def test_nobody_else_reads_the_table(cache: AnswerCache, settings: Settings, tenant_id: UUID, role: str) -> None:
    kept(cache, tenant_id)
    with psycopg.connect(settings.runtime_dsn, autocommit=True) as conn:
        conn.execute(f"SET ROLE {role}".encode())
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant_id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM evosense_ops.answer_cache")
