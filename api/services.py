"""What the HTTP handlers work with, put together once for each process."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from adapters.embeddings import Embedders
from adapters.event_store import AggregateCache
from adapters.model_settings import ModelConfig, model_config
from adapters.passwords import Passwords
from adapters.postgres import ReadPool
from adapters.settings import Settings
from adapters.tokens import Tokens
from api.door import Door
from api.waiting import PositionWaiter
from api.wiring import WriteSide, write_side
from domain.ports import Embedder
from projections.catalog import all_projections

#: How many commands of one process may be under way at once.
COMMAND_THREADS: Final = 64
#: How many passwords are hashed at once: each takes 64 MB and a core for a good while.
HASHING_THREADS: Final = 2


@dataclass(frozen=True)
class Services:
    """Everything that a handler may need."""

    settings: Settings
    write: WriteSide
    aggregates: AggregateCache
    reads: ReadPool
    waiter: PositionWaiter
    passwords: Passwords
    tokens: Tokens
    embedders: Embedders
    hashers: ThreadPoolExecutor
    door: Door
    close_models: Callable[[], Awaitable[None]]
    models: ModelConfig

    @property
    def embedder(self) -> Embedder:
        """The embedder of tenants that chose none."""
        return self.embedders.default

    async def start(self) -> None:
        """Connect. Raises `psycopg_pool.PoolTimeout` where the database does not answer."""
        # Commands wait in threads for the append that they share: the more may wait, the more one append carries.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(COMMAND_THREADS, "command"))
        await self.reads.open()
        self.waiter.start()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.waiter.stop()
        await self.reads.close()
        await self.close_models()
        await asyncio.to_thread(self.write.close)
        self.hashers.shutdown()

    async def hash_password(self, password: str) -> str:
        """See `Passwords.hash`; on the few threads that hashing may take, so that it never crowds out the rest."""
        return await asyncio.get_running_loop().run_in_executor(self.hashers, self.passwords.hash, password)

    async def verify_password(self, password_hash: str | None, password: str) -> bool:
        """See `Passwords.verify`."""
        verify = self.passwords.verify
        return await asyncio.get_running_loop().run_in_executor(self.hashers, verify, password_hash, password)


async def _nothing_to_close() -> None:
    """Models in this process hold no connections."""


def build_services(
    settings: Settings,
    embedder: Embedder,
    *others: Embedder,
    close: Callable[[], Awaitable[None]] = _nothing_to_close,
) -> Services:
    """Put the parts together; `embedder` is for tenants that chose no other; `close` lets go of the embedders.

    Raises `SettingsError` and `MasterKeyError`.
    """
    models = model_config(settings)
    write = write_side(settings)
    return Services(
        settings=settings,
        write=write,
        aggregates=AggregateCache(write.log),
        reads=ReadPool(settings.runtime_dsn),
        waiter=PositionWaiter(
            settings.runtime_dsn, [projection.name for projection in all_projections()], write.log.head
        ),
        passwords=Passwords(),
        tokens=Tokens(*write.vault.signing_keys),
        embedders=Embedders(embedder, *others),
        hashers=ThreadPoolExecutor(HASHING_THREADS, "password"),
        door=Door(),
        close_models=close,
        models=models,
    )


def now() -> datetime:
    """The time, for commands: the domain has no clock."""
    return datetime.now(UTC)
