"""Another master key: every tenant's key is wrapped again, and no event is touched.

Each key says which master key wraps it, so that a rotation can stop anywhere and go on later, and everybody who holds
both master keys can work meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from adapters.vault import MasterKey, MasterKeyError

#: Keys that are changed in one transaction. New tenants wait for it: some milliseconds.
BATCH: Final = 100

#: Gives the key of a tenant as the new master key wraps it; None where the old one does not open it.
Rewrap = Callable[[UUID, bytes], bytes | None]


@dataclass(frozen=True)
class Batch:
    """What one transaction did: keys changed, tenants whose key did not open, and the last tenant that it looked at."""

    moved: int
    broken: Sequence[UUID]
    last: UUID | None


class RotatingKeyStore(Protocol):
    """Where the wrapped keys are kept, as the rotation needs it."""

    def rewrap(self, old: str, new: str, change: Rewrap, *, after: UUID | None, limit: int) -> Batch:
        """Change the next keys that the master key `old` wraps, in one transaction while no key is added."""

    def census(self) -> dict[str, int]:
        """How many keys each master key wraps, by its id, at a moment when no key is being added."""


@dataclass(frozen=True)
class Rotated:
    """What a rotation did: keys changed in this run, and keys that the new master key wraps now."""

    moved: int
    tenants: int


def rotate(
    store: RotatingKeyStore,
    new: MasterKey,
    previous: MasterKey,
    *,
    batch: int = BATCH,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Rotated:
    """Wrap with `new` every tenant's key that `previous` wraps; `on_batch` hears how many are done.

    Returns when not one is left, those included that were added meanwhile. Raises `MasterKeyError` where a key is
    wrapped by a third master key (before anything is changed), or does not open (when all others have been changed).
    """
    _require_known(store.census(), new, previous)
    moved = 0
    while True:
        broken: list[UUID] = []
        after: UUID | None = None
        while True:
            done = store.rewrap(previous.id, new.id, _rewrap(new, previous), after=after, limit=batch)
            moved += done.moved
            broken += done.broken
            if done.moved:
                on_batch(moved)
            if done.last is None:
                break
            after = done.last
        # A tenant that was registered meanwhile may sort before those that were looked at: look until none is left.
        left = store.census()
        if left.get(previous.id, 0) <= len(broken):
            break
    _require_known(left, new, previous)
    if broken:
        raise MasterKeyError(
            f"the master key {previous.id} does not open the key of tenant {broken[0]}"
            + (f" and of {len(broken) - 1} more" if len(broken) > 1 else "")
            + f": damaged in the store, restore them from a backup; {moved} other keys were changed. "
            "Keep the previous master key"
        )
    return Rotated(moved, left.get(new.id, 0))


def _rewrap(new: MasterKey, previous: MasterKey) -> Rewrap:
    def change(tenant_id: UUID, wrapped: bytes) -> bytes | None:
        try:
            return new.wrap(tenant_id, previous.unwrap(tenant_id, wrapped))
        except MasterKeyError:
            return None

    return change


def _require_known(census: dict[str, int], new: MasterKey, previous: MasterKey) -> None:
    for stranger in census.keys() - {new.id, previous.id}:
        raise MasterKeyError(
            f"{census[stranger]} tenants' keys are wrapped with the master key {stranger}, which is neither the new "
            f"one ({new.id}) nor the previous one ({previous.id}): set EVOSENSE_PREVIOUS_MASTER_KEY or "
            "EVOSENSE_PREVIOUS_MASTER_KEY_FILE to that one"
        )
