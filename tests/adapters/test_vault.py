"""Keys: one for each tenant, wrapped by the master key, each good for its own place alone."""

import base64
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from adapters.embedded import PostgresServer
from adapters.event_store import PostgresKeyStore
from adapters.settings import Settings
from adapters.vault import MasterKey, MasterKeyError, SealBroken, TenantKey, Vault, VaultError
from api.wiring import WriteSide, write_side
from tests.support.systems import administrator, fresh_system

A, B = UUID(int=0xA), UUID(int=0xB)
NUMBER = "5511987654321"


@pytest.fixture
def vault(write: WriteSide) -> Vault:
    for tenant_id in (A, B):
        write.vault.create(tenant_id)
    return write.vault


def test_the_same_number_is_somebody_else_in_another_tenant(vault: Vault) -> None:
    in_a, in_b = vault.key(A).pseudonym(NUMBER), vault.key(B).pseudonym(NUMBER)
    assert in_a != in_b
    assert in_a == vault.key(A).pseudonym(NUMBER)
    assert len(in_a) == 64
    assert in_a != vault.key(A).pseudonym(NUMBER + "0")


def test_what_was_sealed_opens_with_its_key_at_its_place_alone(vault: Vault) -> None:
    sealed = vault.key(A).seal(b"ola", b"place")
    assert vault.key(A).open(sealed, b"place") == b"ola"
    assert sealed != vault.key(A).seal(b"ola", b"place"), "the nonce is never the same"
    for key, data, place in (
        (vault.key(B), sealed, b"place"),
        (vault.key(A), sealed, b"elsewhere"),
        (vault.key(A), sealed[:-1], b"place"),
        (vault.key(A), b"", b"place"),
        *((vault.key(A), _flipped(sealed, at), b"place") for at in (0, 13, len(sealed) - 1)),
    ):
        with pytest.raises(SealBroken) as broken:
            key.open(data, place)
        assert "ola" not in str(broken.value)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_sealed_texts_are_bound_to_tenant_and_purpose(vault: Vault) -> None:
    sealed = vault.seal_text(A, "token-123", "evolution")
    assert vault.open_text(A, sealed, "evolution") == "token-123"
    assert "token-123" not in sealed
    assert b"token-123" not in base64.b64decode(sealed)
    for tenant_id, text, purpose in ((B, sealed, "evolution"), (A, sealed, "stripe"), (A, "não é base64", "evolution")):
        with pytest.raises(SealBroken):
            vault.open_text(tenant_id, text, purpose)


def test_the_longest_token_fits_the_documented_column(vault: Vault) -> None:
    assert len(vault.seal_text(A, "x" * 160, "evolution")) <= 255


def test_a_tenant_without_a_key_is_named(vault: Vault) -> None:
    stranger = uuid4()
    with pytest.raises(VaultError, match=f"no key of tenant {stranger}"):
        vault.key(stranger)


def test_the_first_key_stays_where_two_are_made_at_once(settings: Settings) -> None:
    tenant_id = uuid4()
    sides = [write_side(settings) for _ in range(4)]
    start = threading.Barrier(len(sides))

    def create(side: WriteSide) -> None:
        start.wait(10)
        side.vault.create(tenant_id)

    threads = [threading.Thread(target=create, args=(side,)) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    pseudonyms = {side.vault.key(tenant_id).pseudonym(NUMBER) for side in sides}
    for side in sides:
        side.close()
    assert len(pseudonyms) == 1


def test_the_store_holds_no_key_in_the_clear(settings: Settings, vault: Vault) -> None:
    with administrator(settings) as conn:
        rows = conn.execute("SELECT tenant_id, wrapped_key FROM evosense_log.tenant_keys").fetchall()
    master = MasterKey.from_text(settings.master_key_text())
    assert rows
    for tenant_id, wrapped in rows:
        root = master.unwrap(tenant_id, bytes(wrapped))
        assert len(root) == 32
        assert root not in bytes(wrapped)
        with pytest.raises(MasterKeyError):
            master.unwrap(uuid4(), bytes(wrapped))


def test_few_keys_are_remembered_and_all_are_found(write: WriteSide, settings: Settings) -> None:
    store = PostgresKeyStore(write.datastore)
    vault = Vault(MasterKey.from_text(settings.master_key_text()), store, remember=2)
    tenants = [uuid4() for _ in range(5)]
    for tenant_id in tenants:
        vault.create(tenant_id)
    first = [vault.key(tenant_id).pseudonym(NUMBER) for tenant_id in tenants]
    assert [vault.key(tenant_id).pseudonym(NUMBER) for tenant_id in tenants] == first
    assert len(vault._known) == 2


@pytest.mark.parametrize("text", ["", "abc", "não é base64", base64.b64encode(bytes(31)).decode(), "=" * 44])
def test_what_is_no_master_key_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(MasterKeyError, match="base64") as refused:
        MasterKey.from_text(text)
    assert not text or text not in str(refused.value)


def test_generated_master_keys_are_good_and_different() -> None:
    keys = {MasterKey.from_text(MasterKey.generate_text()).id for _ in range(3)}
    assert len(keys) == 3


def test_sealing_hashing_wrapping_and_signing_use_different_keys() -> None:
    root = bytes(range(32))
    # HKDF with another purpose gives another key: seal and pseudonym can tell nothing of each other.
    key, other = TenantKey(root), TenantKey(bytes(32))
    assert key.pseudonym(NUMBER) != other.pseudonym(NUMBER)
    assert MasterKey(root).signing_key not in (root, MasterKey(bytes(32)).signing_key)


def test_another_master_key_is_refused_at_the_start(settings: Settings, vault: Vault) -> None:
    right = MasterKey.from_text(settings.master_key_text())
    other = MasterKey.generate_text()
    changed = settings.model_copy(update={"master_key": SecretStr(other)})
    with pytest.raises(MasterKeyError, match="EVOSENSE_MASTER_KEY") as refused:
        write_side(changed)
    assert right.id in str(refused.value)
    assert other not in str(refused.value)


def test_an_empty_store_says_nothing_of_the_master_key(postgres: PostgresServer, tmp_path: Path) -> None:
    with fresh_system(postgres) as settings:
        side = write_side(settings)
        side.vault.verify()
        side.close()


# ----------------------------------------------------------------------------------------------------- forgetting


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingStore(PostgresKeyStore):
    """The real one; counts how often a key is read."""

    reads = 0

    def get(self, tenant_id: UUID) -> tuple[bytes, str] | None:
        self.reads += 1
        return super().get(tenant_id)


def forgetful(write: WriteSide, settings: Settings) -> tuple[Vault, CountingStore, Clock]:
    store, clock = CountingStore(write.datastore), Clock()
    master = MasterKey.from_text(settings.master_key_text())
    return Vault(master, store, forget_after=600, clock=clock), store, clock


def test_a_key_is_loaded_again_after_its_time_and_not_before(write: WriteSide, settings: Settings) -> None:
    vault, store, clock = forgetful(write, settings)
    tenant_id = uuid4()
    vault.create(tenant_id)
    first = vault.key(tenant_id)
    clock.now += 599.9
    assert vault.key(tenant_id) is first, "being used does not make it younger, nor older"
    assert store.reads == 1
    clock.now += 0.1
    assert vault.key(tenant_id) is not first
    assert store.reads == 2
    clock.now += 599.9
    vault.key(tenant_id)
    assert store.reads == 2


def test_an_erased_key_is_gone_within_that_time(write: WriteSide, settings: Settings) -> None:
    vault, _, clock = forgetful(write, settings)
    tenant_id = uuid4()
    vault.create(tenant_id)
    vault.key(tenant_id)
    with administrator(settings) as conn:
        conn.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (tenant_id,))
    clock.now += 600
    with pytest.raises(VaultError, match=f"no key of tenant {tenant_id}"):
        vault.key(tenant_id)
    assert tenant_id.int not in vault._known


def test_expired_keys_do_not_stay_in_memory(write: WriteSide, settings: Settings) -> None:
    vault, _, clock = forgetful(write, settings)
    old, new = [uuid4() for _ in range(5)], uuid4()
    for tenant_id in (*old, new):
        vault.create(tenant_id)
    for tenant_id in old:
        vault.key(tenant_id)
    clock.now += 600
    vault.key(new)
    assert set(vault._known) == {new.int}, "nobody has asked for the others, and they are gone all the same"


def test_a_key_can_be_forgotten_at_once(write: WriteSide, settings: Settings) -> None:
    vault, store, _ = forgetful(write, settings)
    one, other = uuid4(), uuid4()
    for tenant_id in (one, other):
        vault.create(tenant_id)
        vault.key(tenant_id)
    vault.forget(one)
    vault.forget(uuid4())
    vault.key(other)
    assert store.reads == 2
    vault.key(one)
    assert store.reads == 3


def test_a_key_that_is_forgotten_while_it_is_read_is_not_remembered(write: WriteSide, settings: Settings) -> None:
    class ErasedMeanwhile(CountingStore):
        def get(self, tenant_id: UUID) -> tuple[bytes, str] | None:
            kept = super().get(tenant_id)
            vault.forget(tenant_id)
            return kept

    vault = Vault(MasterKey.from_text(settings.master_key_text()), ErasedMeanwhile(write.datastore))
    tenant_id = uuid4()
    vault.create(tenant_id)
    vault.key(tenant_id)
    assert tenant_id.int not in vault._known


# ------------------------------------------------------------------------------------------------ two master keys


def test_both_master_keys_open_and_the_new_one_wraps(write: WriteSide, settings: Settings) -> None:
    old, new = MasterKey.from_text(settings.master_key_text()), MasterKey.from_text(MasterKey.generate_text())
    store = PostgresKeyStore(write.datastore)
    before, both = Vault(old, store), Vault(new, store, previous=old)
    tenant_id, later = uuid4(), uuid4()
    before.create(tenant_id)
    both.verify()
    assert both.key(tenant_id).pseudonym(NUMBER) == before.key(tenant_id).pseudonym(NUMBER)
    assert both.signing_keys == (new.signing_key, old.signing_key)

    both.create(later)
    kept = store.get(later)
    assert kept is not None
    assert kept[1] == new.id
    try:
        with pytest.raises(MasterKeyError, match="EVOSENSE_PREVIOUS_MASTER_KEY"):
            Vault(new, store).verify()
        for left_behind in (before, Vault(new, store)):
            # Whoever can't open all keys would wrap with a key that may be thrown away.
            refused = uuid4()
            with pytest.raises(MasterKeyError, match="evosense keys status"):
                left_behind.create(refused)
            assert store.get(refused) is None
        with pytest.raises(MasterKeyError, match=f"does not open the key of tenant {later}: it is wrapped with"):
            before.key(later)
    finally:
        with administrator(settings) as conn:
            conn.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (later,))
