"""Read your own writes: who waits is woken by the projectors' word, with several shards and after a swap, too."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.embedded import PostgresServer
from api import waiting
from api.problems import ProblemError
from api.waiting import PositionWaiter
from projections.catalog import all_projections
from projections.rebuild import rebuild
from tests.support.projectors import System, a_system
from tests.support.systems import administrator, drain
from tests.support.transport import until

NAMES = [projection.name for projection in all_projections()]


@pytest.fixture
def system(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A projected history; the waiter looks by itself only once a minute."""
    monkeypatch.setattr(waiting, "_POLL_S", 60.0)
    with a_system(postgres, tenants=6) as system:
        system.grow(20)
        system.project()
        yield system


@asynccontextmanager
async def a_waiter(system: System) -> AsyncIterator[PositionWaiter]:
    """A waiter that has had its first look."""
    waiter = PositionWaiter(system.settings.runtime_dsn, NAMES, system.write.log.head)
    waiter.start()
    try:
        await until(lambda: waiter.position == system.head, "the first look")
        yield waiter
    finally:
        await waiter.stop()


async def test_who_waits_is_woken_when_the_slowest_shard_is_there(system: System) -> None:
    system.lay_out(3)
    async with a_waiter(system) as waiter:
        before, head = system.head, await asyncio.to_thread(system.grow, 40)
        waits = [asyncio.create_task(waiter.wait(head, 20)) for _ in range(20)]
        with administrator(system.settings) as other, other.transaction():
            other.execute("SELECT FROM evosense_ops.projection_checkpoints WHERE shard = 2 FOR UPDATE")
            await asyncio.to_thread(drain, system.read.engine)
            assert system.one("SELECT max(position) FROM evosense_ops.projection_checkpoints") == head
            with pytest.raises(ProblemError) as told:
                await waiter.wait(head, 0.3)
            assert told.value.detail == (
                f"the read models stand at position {before} and did not reach {head} within 0.3 s"
            )
            assert not any(one.done() for one in waits)
        await asyncio.to_thread(drain, system.read.engine)
        await asyncio.wait_for(asyncio.gather(*waits), 10)


async def test_who_waits_is_woken_by_a_swap(system: System) -> None:
    async with a_waiter(system) as waiter:
        head = await asyncio.to_thread(system.grow, 40)
        wait = asyncio.create_task(waiter.wait(head, 30))
        # No projector runs: the new tables are the first that have it.
        await asyncio.to_thread(rebuild, system.read.builder, NAMES, Silent())
        await asyncio.wait_for(wait, 10)


async def test_a_new_layout_of_shards_loses_nobody_who_waits(system: System) -> None:
    async with a_waiter(system) as waiter:
        head = await asyncio.to_thread(system.grow, 20)
        wait = asyncio.create_task(waiter.wait(head, 30))
        await asyncio.to_thread(system.lay_out, 4)
        await asyncio.to_thread(drain, system.read.engine)
        await asyncio.wait_for(wait, 10)


async def test_without_any_word_it_looks_by_itself(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_POLL_S", 0.1)
    async with a_waiter(system) as waiter:
        head = await asyncio.to_thread(system.grow, 20)
        system.admin.execute("UPDATE evosense_ops.projection_checkpoints SET position = %s", (head,))
        await asyncio.wait_for(waiter.wait(head, 20), 10)


async def test_a_position_that_the_log_has_not_reached_is_refused_at_once(system: System) -> None:
    async with a_waiter(system) as waiter:
        with pytest.raises(ProblemError) as told:
            await asyncio.wait_for(waiter.wait(system.head + 1, 600), 10)
    assert told.value.detail == f"the log ends at position {system.head}: nothing has reached {system.head + 1}"


class Silent:
    """A watcher that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None
