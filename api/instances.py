"""Which connection an event of Evolution belongs to, at doors that serve the whole installation."""

import hmac
import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from adapters.vault import Vault, VaultError
from api.connections import TOKEN_PURPOSE
from api.known_connections import known_connections
from api.wiring import WriteSide
from domain.connections import Connection

#: Seconds for which an answer may be used again: so long a deactivated connection may still be taken for active.
KEPT_S: Final = 2.0
_MOST: Final = 10_000


def secret_of(vault: Vault, source: Connection) -> str:
    """The connection's token. Raises `VaultError`, and what the database raises."""
    if source.tenant_id is None:
        return ""
    return vault.open_text(source.tenant_id, source.sealed_token, TOKEN_PURPOSE)


def same(given: object, secret: str) -> bool:
    """Whether what was given is the secret, in a time that does not depend on how much of it is right."""
    if not isinstance(given, str) or not given or not secret:
        return False
    # Evolution is written in JavaScript, whose strings may hold half a surrogate pair.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


class Instances:
    """Finds connections by what an event says of itself, with a short memory. Safe to share between threads."""

    def __init__(self, write: WriteSide, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, list[tuple[Connection, str]]]] = {}

    def connection_of(self, instance: object, apikey: object, server_url: object = None) -> Connection | None:
        """The connection, active or not; None where there is none of that name whose token is the `apikey`.

        An instance's name alone proves nothing: two tenants may use the same, and one could take another's. So an
        event without the token belongs to nobody. Where several connections share name and token (one instance, two
        tenants), the one whose address has the host of `server_url`, else the oldest. Blocks on the database.
        """
        if not isinstance(instance, str) or not instance:
            return None
        # All of them are compared, so that the time tells nothing.
        proved = [source for source, secret in self._named(instance) if same(apikey, secret)]
        at_home = [one for one in proved if host_of(one.evo_ws_url) == host_of(server_url) is not None]
        return next(iter(at_home or proved), None)

    def _named(self, instance: str) -> list[tuple[Connection, str]]:
        now = self._clock()
        with self._lock:
            kept = self._known.get(instance)
        if kept is not None and kept[0] > now:
            return kept[1]
        found = []
        for source in known_connections(self._write, instance):
            try:
                found.append((source, secret_of(self._write.vault, source)))
            except VaultError:
                continue  # a tenant whose key is gone
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[instance] = (now + KEPT_S, found)
        return found


def host_of(url: object) -> str | None:
    """The host that an address names; None where it names none."""
    try:
        return urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None
