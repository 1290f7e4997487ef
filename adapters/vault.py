"""The vault: a key for each tenant, wrapped by the master key; sealing, opening and keyed hashing with it.

Envelope encryption: the master key never touches data, it only wraps the 32 random bytes that are a tenant's root
key. From the root key HKDF-SHA-256 (RFC 5869) derives one key for sealing (AES-256-GCM) and one for hashing
identities (HMAC-SHA-256), so that neither use can tell anything about the other.
"""

import base64
import binascii
import hmac
import os
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
#: Seconds after which an opened key is loaded again: for so long at most a key that was erased can still be used.
FORGET_AFTER_S: Final = 600.0
_NONCE_BYTES: Final = 12


class VaultError(Exception):
    """A key is missing or does not fit. The message names keys by their id, never by their bytes."""


class MasterKeyError(VaultError):
    """The master key is unusable, or is not the one that the tenants' keys were wrapped with."""


class SealBroken(VaultError):
    """Sealed bytes were changed, moved to another place, or sealed with another key."""


class KeyStore(Protocol):
    """Where the wrapped keys are kept."""

    def get(self, tenant_id: UUID) -> tuple[bytes, str] | None:
        """The wrapped key of a tenant and the id of the master key that wraps it; None where there is none."""

    def add(self, tenant_id: UUID, wrapped: bytes, master_key_id: str, known: Sequence[str]) -> bool:
        """Keep a new tenant's key, unless any key in the store is wrapped by a master key that is not among `known`.

        Whether it was kept. The first one stays where two are added at once.
        """

    def probes(self) -> Sequence[tuple[UUID, bytes, str]]:
        """One tenant with its key for each master key that wraps any; empty where there is no tenant yet."""


class MasterKey:
    """The key above all keys."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise MasterKeyError(f"a master key is {KEY_BYTES} bytes in base64; this one is {len(key)} bytes")
        self._wrap = AESGCM(_derive(key, b"evosense wrap"))
        self._sign = _derive(key, b"evosense tokens")
        #: Names the key without telling anything of it.
        self.id: Final = sha256(_derive(key, b"evosense id")).hexdigest()[:16]

    @classmethod
    def from_text(cls, text: str, source: str = "the master key") -> "MasterKey":
        """Read it from base64. Raises `MasterKeyError`, which begins with where the text came from."""
        try:
            key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise MasterKeyError(f"{source} is not base64: make one with `openssl rand -base64 32`") from None
        if len(key) != KEY_BYTES:
            raise MasterKeyError(
                f"{source} is {len(key)} bytes, and has to be {KEY_BYTES} bytes in base64: "
                "make one with `openssl rand -base64 32`"
            )
        return cls(key)

    @staticmethod
    def generate_text() -> str:
        """A new random master key in base64."""
        return base64.b64encode(os.urandom(KEY_BYTES)).decode()

    @property
    def signing_key(self) -> bytes:
        """The key that signs access tokens: it follows from the master key, so there is one secret to keep, not two."""
        return self._sign

    def wrap(self, tenant_id: UUID, key: bytes) -> bytes:
        """Encrypt a tenant's root key."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._wrap.encrypt(nonce, key, tenant_id.bytes)

    def unwrap(self, tenant_id: UUID, wrapped: bytes) -> bytes:
        """Decrypt a tenant's root key. Raises `MasterKeyError`."""
        try:
            return self._wrap.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], tenant_id.bytes)
        except (InvalidTag, ValueError):
            raise MasterKeyError(f"the master key {self.id} does not open the key of tenant {tenant_id}") from None


class TenantKey:
    """What one tenant's root key can do."""

    def __init__(self, root: bytes) -> None:
        self._seal = AESGCM(_derive(root, b"evosense seal"))
        self._identity = _derive(root, b"evosense identity")

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Encrypt and bind to a place: 12 bytes of nonce, the ciphertext, 16 bytes of tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, plain, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Decrypt what was sealed for this place. Raises `SealBroken`."""
        try:
            return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise SealBroken("sealed bytes do not fit their key and place") from None

    def pseudonym(self, identity: str) -> str:
        """HMAC-SHA-256 of a canonical identity in hex, 64 characters: one person, one hash, within one tenant."""
        return hmac.new(self._identity, identity.encode(), sha256).hexdigest()


class Vault:
    """All tenants' keys, with a bounded memory that forgets. Safe to share between threads.

    While the master key is being changed there are two: `master` wraps new keys, and `previous` opens the others.
    """

    def __init__(
        self,
        master: MasterKey,
        store: KeyStore,
        *,
        previous: MasterKey | None = None,
        remember: int = 1024,
        forget_after: float = FORGET_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._master = master
        self._masters = {key.id: key for key in (master, previous) if key is not None}
        self._store = store
        self._remember = remember
        self._forget_after = forget_after
        self._clock = clock
        # In the order of loading, which is the order of expiry. Each with the time at which it expires.
        # By the number of the tenant's UUID: the hash of the UUID itself runs Python code, for every event.
        self._known: dict[int, tuple[TenantKey, float]] = {}
        self._forgotten = 0
        self._lock = threading.Lock()

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """See `MasterKey.signing_key`; the one to sign with first, and after it the one still accepted."""
        return tuple(master.signing_key for master in self._masters.values())

    def verify(self) -> None:
        """Check that the master keys open the store. Raises `MasterKeyError`; says nothing of an empty store."""
        for tenant_id, wrapped, master_key_id in self._store.probes():
            if master_key_id not in self._masters:
                raise MasterKeyError(
                    f"this is the master key {' or '.join(self._masters)}, but tenants' keys are wrapped with "
                    f"{master_key_id}: set EVOSENSE_MASTER_KEY or EVOSENSE_MASTER_KEY_FILE to that one; "
                    "while the master key is being changed, EVOSENSE_PREVIOUS_MASTER_KEY or "
                    "EVOSENSE_PREVIOUS_MASTER_KEY_FILE (`evosense keys status` shows which one wraps what)"
                )
            self._masters[master_key_id].unwrap(tenant_id, wrapped)

    def create(self, tenant_id: UUID) -> None:
        """Make a key for a new tenant; does nothing where it has one.

        Raises `MasterKeyError` where the store has keys that this vault can't open: its master key was replaced, and
        a key wrapped with it now could be lost with it.
        """
        wrapped = self._master.wrap(tenant_id, os.urandom(KEY_BYTES))
        if not self._store.add(tenant_id, wrapped, self._master.id, list(self._masters)):
            self.verify()

    def key(self, tenant_id: UUID) -> TenantKey:
        """The tenant's key. Raises `VaultError` where there is none, `MasterKeyError` where it does not open."""
        # Asked for each event, so without the lock: reading a dict is atomic.
        known = self._known.get(tenant_id.int)
        if known is not None and self._clock() < known[1]:
            return known[0]
        return self._load(tenant_id)

    def forget(self, tenant_id: UUID) -> None:
        """Load the tenant's key again at its next use: it was erased or changed."""
        with self._lock:
            self._forgotten += 1
            self._known.pop(tenant_id.int, None)

    def _load(self, tenant_id: UUID) -> TenantKey:
        with self._lock:
            forgotten = self._forgotten
            self._expire()
        # Counted from before the reading: what is changed after it is noticed in time.
        expiry = self._clock() + self._forget_after
        kept = self._store.get(tenant_id)
        if kept is None:
            raise VaultError(f"there is no key of tenant {tenant_id}")
        key = TenantKey(self._unwrap(tenant_id, *kept))
        with self._lock:
            # What was forgotten while it was being read may be this one: use it now, and read it again next time.
            if forgotten == self._forgotten:
                self._known.pop(tenant_id.int, None)
                self._known[tenant_id.int] = (key, expiry)
                while len(self._known) > self._remember:
                    del self._known[next(iter(self._known))]
        return key

    def _unwrap(self, tenant_id: UUID, wrapped: bytes, master_key_id: str) -> bytes:
        master = self._masters.get(master_key_id)
        if master is None:
            raise MasterKeyError(
                f"the master key {self._master.id} does not open the key of tenant {tenant_id}: "
                f"it is wrapped with {master_key_id}"
            )
        return master.unwrap(tenant_id, wrapped)

    def _expire(self) -> None:
        now = self._clock()
        while self._known and self._known[oldest := next(iter(self._known))][1] <= now:
            del self._known[oldest]

    def seal_text(self, tenant_id: UUID, text: str, purpose: str) -> str:
        """Encrypt a short text for a column; base64."""
        sealed = self.key(tenant_id).seal(text.encode(), tenant_id.bytes + purpose.encode())
        return base64.b64encode(sealed).decode()

    def open_text(self, tenant_id: UUID, sealed: str, purpose: str) -> str:
        """Decrypt what `seal_text` encrypted for that purpose. Raises `SealBroken`."""
        try:
            data = base64.b64decode(sealed, validate=True)
        except ValueError:
            raise SealBroken("a sealed text is not base64") from None
        return self.key(tenant_id).open(data, tenant_id.bytes + purpose.encode()).decode()


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)
