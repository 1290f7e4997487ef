"""What the HTTP handlers work with, put together once for each process."""

from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.event_store import AggregateCache
from adapters.passwords import Passwords
from adapters.postgres import ReadPool
from adapters.settings import Settings
from adapters.tokens import Tokens
from api.waiting import PositionWaiter
from api.wiring import WriteSide, write_side
from domain.ports import Embedder
from projections.catalog import all_projections


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
    embedder: Embedder

    async def start(self) -> None:
        """Connect. Raises `psycopg_pool.PoolTimeout` where the database does not answer."""
        await self.reads.open()
        self.waiter.start()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.waiter.stop()
        await self.reads.close()
        self.write.close()


def build_services(settings: Settings, embedder: Embedder) -> Services:
    """Put the parts together. Raises `SettingsError` and `MasterKeyError`."""
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
        tokens=Tokens(write.vault.signing_key),
        embedder=embedder,
    )


def now() -> datetime:
    """The time, for commands: the domain has no clock."""
    return datetime.now(UTC)
