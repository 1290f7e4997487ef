"""The models that can be measured, by name: the offline ones, and those that the settings configure."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from adapters.analysis import OfflineAnalyser
from adapters.embeddings import Embedders, offline_embedders
from api.model_catalogue import Catalogue
from benchmarks.quality.served import Concurrent
from domain.ports import Analyser, Embedder, ServedAnalyser, ServedEmbedder

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


def analysers(catalogue: Catalogue) -> dict[str, Maker[Analyser]]:
    """Those of this process, and the configured ones, which are asked under the built-in prompt."""
    concurrency = {server.name: server.concurrency for server in catalogue.servers}
    return ANALYSERS | {one.name: _asked(one, concurrency[one.name]) for one in catalogue.served_analysers}


def embedders(catalogue: Catalogue) -> dict[str, Maker[Embedder]]:
    """Those of this process, and the configured ones."""
    return EMBEDDERS | {one.name: _as_it_is(one) for one in catalogue.served_embedders}


def only(embedder: Embedder) -> Embedders:
    """An installation that has this one and no other."""
    return Embedders(embedder)


def _asked(served: ServedAnalyser, concurrency: int) -> Maker[Analyser]:
    from adapters.analysis.rendering import BUILT_IN  # noqa: PLC0415 - where no server is, no template is rendered

    return Maker(lambda: Concurrent(served, BUILT_IN, concurrency), in_process=False)


def _as_it_is(served: ServedEmbedder) -> Maker[Embedder]:
    return Maker(lambda: served, in_process=False)
