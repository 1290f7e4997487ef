"""How many messages a second are analysed and embedded."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

from domain.ports import Analyser, Embedder

ROUNDS: Final = 3
#: Texts that are handed over at once, as the worker does.
BATCH: Final = 64


class Speed(msgspec.Struct, frozen=True):
    """Messages a second, the median of `ROUNDS`: of the processor's time, and by the clock."""

    processor: float
    clock: float


async def speed(analyser: Analyser, embedder: Embedder, texts: Sequence[str], *, rounds: int = ROUNDS) -> Speed:
    """Analyse and embed all texts, `rounds` times, every text as none was before, so that no cache answers."""
    await _through(analyser, embedder, ["aquecimento"])
    processor, clock = [], []
    for round_number in range(rounds):
        fresh = [f"{text} {round_number}{place:04}" for place, text in enumerate(texts)]
        began, used = time.perf_counter(), time.process_time()
        await _through(analyser, embedder, fresh)
        clock.append(len(fresh) / (time.perf_counter() - began))
        processor.append(len(fresh) / max(time.process_time() - used, 1e-9))
    return Speed(median(processor), median(clock))


async def _through(analyser: Analyser, embedder: Embedder, texts: Sequence[str]) -> None:
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        await analyser.analyse(batch)
        await embedder.embed(batch)
