"""The models that can be measured, by name. To measure another, add a line: what makes it, and where it computes."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from adapters.analysis import OfflineAnalyser
from adapters.embeddings import Embedders, offline_embedders
from domain.ports import Analyser, Embedder

Model = TypeVar("Model")


class Maker(msgspec.Struct, Generic[Model], frozen=True):
    """`make` gives the model; `in_process` where it computes in this process, so that its time is the processor's."""

    make: Callable[[], Model]
    in_process: bool


def _offline(place: int) -> Callable[[], Embedder]:
    return lambda: tuple(offline_embedders())[place]


ANALYSERS: Final[dict[str, Maker[Analyser]]] = {
    "offline": Maker(OfflineAnalyser, in_process=True),
}

EMBEDDERS: Final[dict[str, Maker[Embedder]]] = {
    "offline": Maker(_offline(0), in_process=True),
    "offline-chat": Maker(_offline(1), in_process=True),
    "offline-plain": Maker(_offline(2), in_process=True),
}


def only(embedder: Embedder) -> Embedders:
    """An installation that has this one and no other."""
    return Embedders(embedder)
