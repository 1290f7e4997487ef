"""Answers of served models to short texts ("bom dia", "ok"), which come again and again: none is paid for twice.

An entry is found by a keyed hash of everything that shaped the answer, since a plain hash of a short text can be
guessed, and holds the answer sealed with the tenant's key: without that key nobody learns what was asked or answered
(ADR 0041). In front of the table stands a memory of this process, sealed as well.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from adapters.event_store import RoleDatastore
from adapters.vault import TenantKey, Vault, VaultError
from domain.answers import checked
from domain.errors import DomainError
from domain.ports import Analysis, Answer, Prompt, Question
from sql import queries

_ANSWERS: Final = queries("answers")
_log = structlog.stdlib.get_logger(__name__)

#: Longer texts hardly come twice, and what was deleted must not live on in a cache.
MAX_TEXT: Final = 64
KEPT: Final = timedelta(days=30)
#: Most entries of a tenant; the oldest go first.
MOST: Final = 10_000
#: Entries of all tenants in this process's memory, and the seconds for which they stay there.
_REMEMBERED: Final = 4096
_REMEMBERED_S: Final = 600.0
#: Entries of a tenant that this process adds between two looks at how many there are.
_ROUND: Final = 100


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    analysis: Analysis
    model_name: str
    prompt_version: str
    template_hash: str


class AnswerCache:
    """Finds and keeps answers; safe to share among threads. Blocks on the database, and never fails for it.

    `most`: entries of a tenant; `remember`: entries in memory.
    """

    def __init__(
        self,
        datastore: RoleDatastore,
        vault: Vault,
        *,
        most: int = MOST,
        remember: int = _REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._datastore = datastore
        self._vault = vault
        self._most = most
        self._remember = remember
        self._clock = clock
        self._lock = threading.Lock()
        # In the order of their expiry.
        self._memory: OrderedDict[tuple[UUID, bytes], tuple[bytes, float]] = OrderedDict()
        self._added: Counter[UUID] = Counter()
        self._cleared: datetime | None = None

    def key(self, question: Question, server: str, model_name: str, template_hash: str, prompt: Prompt) -> bytes:
        """What an answer is found by: 32 bytes. `server`: as the configuration calls it. Raises `VaultError`."""
        parts = (server, model_name, prompt.version, template_hash, str(question.from_me), question.text)
        # A length before each part: no two questions have one key.
        told = "".join(f"{len(part)}:{part}" for part in parts)
        return bytes.fromhex(self._vault.key(question.tenant_id).pseudonym(f"answer {told}"))

    def find(self, tenant_id: UUID, key: bytes) -> Answer | None:
        """The answer as it was given, except that it takes no time and costs nothing; None where there is none."""
        sealed = self._recall(tenant_id, key)
        if sealed is None:
            try:
                with self._datastore.get_connection() as conn:
                    row = _ANSWERS.find_answer(conn, tenant_id=tenant_id, key=key, since=datetime.now(UTC) - KEPT)
            except (psycopg.Error, PersistenceError) as error:
                _log.warning("the cache of answers can't be read", error=type(error).__name__)
                return None
            if row is None:
                return None
            sealed = bytes(row["sealed"])
            self._put_in_mind(tenant_id, key, sealed)
        try:
            return _opened(self._vault.key(tenant_id), tenant_id, key, sealed)
        except (VaultError, msgspec.MsgspecError, DomainError) as error:
            # Of another key, or of a program with other vocabularies: it is asked anew.
            _log.warning("a cached answer can't be used", tenant=str(tenant_id), error=type(error).__name__)
            with self._lock:
                self._memory.pop((tenant_id, key), None)
            return None

    def keep(self, tenant_id: UUID, key: bytes, answer: Answer) -> None:
        """Keep an answer, and now and then let old ones go."""
        kept = _Kept(answer.analysis, answer.model_name, answer.prompt_version, answer.template_hash)
        try:
            sealed = self._vault.key(tenant_id).seal(msgspec.msgpack.encode(kept), _place(tenant_id, key))
            with self._datastore.get_connection() as conn, conn.transaction():
                # It can be asked for again: nobody shall wait for it on the disk.
                conn.execute("SET LOCAL synchronous_commit = off")
                _ANSWERS.put_answer(conn, tenant_id=tenant_id, key=key, sealed=sealed)
            self._put_in_mind(tenant_id, key, sealed)
            self._prune(tenant_id)
        except (psycopg.Error, PersistenceError, VaultError) as error:
            _log.warning("an answer was not kept", error=type(error).__name__)

    def _recall(self, tenant_id: UUID, key: bytes) -> bytes | None:
        with self._lock:
            sealed, until = self._memory.get((tenant_id, key), (None, 0.0))
            return sealed if until > self._clock() else None

    def _put_in_mind(self, tenant_id: UUID, key: bytes, sealed: bytes) -> None:
        now = self._clock()
        with self._lock:
            self._memory.pop((tenant_id, key), None)
            self._memory[tenant_id, key] = (sealed, now + _REMEMBERED_S)
            while len(self._memory) > self._remember or next(iter(self._memory.values()))[1] <= now:
                self._memory.popitem(last=False)

    def _prune(self, tenant_id: UUID) -> None:
        now = datetime.now(UTC)
        with self._lock:
            # The first one counts, too: a process may live for a few answers alone.
            crowded = self._added[tenant_id] % _ROUND == 0
            self._added[tenant_id] += 1
            stale = self._cleared is None or now - self._cleared > timedelta(hours=1)
            if stale:
                self._cleared = now
                # Who adds nothing for hours is counted anew.
                self._added.clear()
        if not crowded and not stale:
            return
        with self._datastore.get_connection() as conn, conn.transaction():
            if stale:
                _ANSWERS.forget_old_answers(conn, before=now - KEPT)
            if crowded:
                _ANSWERS.keep_latest_answers(conn, tenant_id=tenant_id, most=self._most)


def cacheable(question: Question) -> bool:
    """Whether its answer is to be kept: a short text on its own."""
    return not question.earlier and len(question.text) <= MAX_TEXT


def _place(tenant_id: UUID, key: bytes) -> bytes:
    """What a sealed answer is bound to: put under another key or tenant it does not open."""
    return tenant_id.bytes + b"answer" + key


def _opened(tenant: TenantKey, tenant_id: UUID, key: bytes, sealed: bytes) -> Answer:
    kept = msgspec.msgpack.decode(tenant.open(sealed, _place(tenant_id, key)), type=_Kept)
    return Answer(
        analysis=checked(kept.analysis),
        model_name=kept.model_name,
        prompt_version=kept.prompt_version,
        template_hash=kept.template_hash,
        latency_ms=0,
    )
