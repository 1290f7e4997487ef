"""Which connection an event of Evolution belongs to, at doors that serve the whole installation."""

import hmac
import threading
import time
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import urlsplit

from adapters.vault import Vault, VaultError
from api.connections import TOKEN_PURPOSE
from api.known_connections import known_connections
from api.wiring import WriteSide
from domain.connections import Connection

#: Why an event belongs to nobody: there is no connection of that name, or none with that token.
Nobody = Literal["unknown", "foreign apikey"]

#: Seconds for which a connection may be used again: so long a deactivated one may still be taken for active.
KEPT_S: Final = 2.0
_MOST: Final = 10_000
#: What Evolution writes instead of an instance's token where it has none, or keeps it back.
_NO_KEYS: Final = (None, "", "null", "Apikey not found")


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


def is_missing(apikey: object) -> bool:
    """Whether an event carries no token at all."""
    return apikey in _NO_KEYS


class Instances:
    """Finds connections by what an event says of itself, with a short memory. Safe to share between threads."""

    def __init__(self, write: WriteSide, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, list[tuple[Connection, str]]]] = {}

    def connection_of(self, instance: object, apikey: object, server_url: object = None) -> Connection | Nobody:
        """The connection of that name whose token is the `apikey`, active or not; or why there is none.

        An instance's name alone proves nothing: two tenants may use the same, and one could take another's. So an
        event without the token belongs to nobody. Where several connections share name and token (one instance, two
        tenants), the one whose address has the host of `server_url`, else the oldest. Blocks on the database.
        """
        if not isinstance(instance, str) or not instance:
            return "unknown"
        with self._lock:
            until, kept = self._known.get(instance, (0.0, []))
        if until > self._clock():
            found = _chosen(kept, apikey, server_url)
            if isinstance(found, Connection) and found.is_active:
                return found
        # A "no" is never remembered: the connection may have been registered, activated or given its token just now.
        return _chosen(self._named(instance), apikey, server_url)

    def _named(self, instance: str) -> list[tuple[Connection, str]]:
        now = self._clock()
        found = []
        for source in known_connections(self._write, instance):
            try:
                found.append((source, secret_of(self._write.vault, source)))
            except VaultError:
                continue  # a tenant whose key is gone
        if found:
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[instance] = (now + KEPT_S, found)
        return found


def _chosen(candidates: list[tuple[Connection, str]], apikey: object, server_url: object) -> Connection | Nobody:
    # All of them are compared, so that the time tells nothing.
    proved = [source for source, secret in candidates if same(apikey, secret)]
    at_home = [one for one in proved if host_of(one.evo_ws_url) == host_of(server_url) is not None]
    return next(iter(at_home or proved), "foreign apikey" if candidates else "unknown")


def host_of(url: object) -> str | None:
    """The host that an address names; None where it names none."""
    try:
        return urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None
