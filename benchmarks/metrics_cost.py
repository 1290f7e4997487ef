"""What keeping the roll-ups costs the projector: the same log projected with and without them, in turns."""

import time
from collections.abc import Callable
from statistics import median
from typing import Final
from unittest.mock import patch

import msgspec

from adapters.settings import Settings
from api.wiring import read_side, write_side
from benchmarks import projection_history
from benchmarks.projection_history import History, recorded
from benchmarks.projection_live import checkpoint, reset
from projections.batch import Projection
from projections.catalog import all_projections
from projections.metrics import MetricsProjection

#: Within how many days the histories lie: thin has about one message an hour and tenant, dense has some eight.
SPREADS: Final = {"thin": 90, "dense": 4}
#: As the projector takes them when it has much to do.
BATCH: Final = 5000


class Cost(msgspec.Struct, frozen=True):
    """Seconds of each round, with the roll-ups and without, and how many messages were projected."""

    messages: int
    with_rollups: list[float]
    without: list[float]

    @property
    def share(self) -> float:
        """How much longer it takes with roll-ups: the median of the rounds' ratios, less 1."""
        return median(a / b for a, b in zip(self.with_rollups, self.without, strict=True)) - 1


def rollup_cost(settings: Settings, messages: int, *, spread: str, rounds: int, batch: int = BATCH) -> Cost:
    """Project a log of so many messages, each analysed once, so often either way."""
    write = write_side(settings)
    try:
        with patch.object(projection_history, "_DAYS", SPREADS[spread]):
            recorded(write, History(messages, seed=5))
    finally:
        write.close()
    cost = Cost(messages, [], [])
    for number in range(rounds):
        # A, B, B, A: whatever grows or shrinks with time meets both alike. With roll-ups at the very end.
        for with_rollups in (False, True) if (rounds - number) % 2 else (True, False):
            took = _project(settings, all_projections if with_rollups else _others, batch)
            (cost.with_rollups if with_rollups else cost.without).append(took)
    return cost


def _others() -> list[Projection]:
    return [projection for projection in all_projections() if projection.name != MetricsProjection.name]


def _project(settings: Settings, projections: Callable[[], list[Projection]], batch: int) -> float:
    reset(settings.admin_dsn)
    checkpoint(settings.admin_dsn)
    with patch("api.wiring.all_projections", projections):
        side = read_side(settings, batch=batch)
    try:
        began = time.perf_counter()
        while side.engine.run_once() or not side.engine.holding:
            pass
        return time.perf_counter() - began
    finally:
        side.close()
