"""The models of an installation, by name: those in this process, and those behind the servers that are configured.

Nothing is made before it is asked for: a command that needs no model imports no client and loads no weights.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from adapters.analysis import OfflineAnalyser
from adapters.embeddings import Embedders, offline_embedders
from adapters.model_server import AnalyserServer, EmbedderServer
from adapters.model_server.fields import OFFLINE
from adapters.model_settings import ModelConfig, model_config
from adapters.settings import Settings, SettingsError
from domain.ports import Analyser, AnswerRefused, ModelUnavailable, ServedAnalyser, ServedEmbedder

#: Seconds for which a start waits for the embedders to say what they are.
PATIENCE_S: Final = 5.0
#: What an embedder is asked at the start; no customer's.
_PROBE: Final = "bom dia"

_log = logging.getLogger(__name__)


class Catalogue:
    """All models. `chain`: names of the analysers that tenants have who chose none, in the order of asking.

    What is served belongs to the event loop in which it is first asked.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        self._config = config or ModelConfig()
        self.chain: tuple[str, ...] = self._config.chain

    @classmethod
    def of(cls, settings: Settings) -> "Catalogue":
        """What is configured. Raises `SettingsError`."""
        return cls(model_config(settings))

    @property
    def servers(self) -> tuple[AnalyserServer | EmbedderServer, ...]:
        """How the servers are configured, the analysers first."""
        return (*self._config.analysers, *self._config.embedders)

    @property
    def served_first(self) -> bool:
        """Whether the first analyser of the chain is a server's."""
        return self.chain[0] != OFFLINE

    def labels(self) -> list[str]:
        """Who is asked by default, for people: analysers in their order, then the embedders that are served."""
        models = {server.name: f"{server.model} ({server.name})" for server in self._config.analysers}
        embedders = [f"{server.model} ({server.name})" for server in self._config.embedders]
        return [models.get(name, name) for name in self.chain] + embedders

    @cached_property
    def offline(self) -> OfflineAnalyser:
        """The analyser that needs no server."""
        return OfflineAnalyser()

    @cached_property
    def served_analysers(self) -> tuple[ServedAnalyser, ...]:
        """Those behind servers, in the order of the configuration."""
        if not self._config.analysers:
            return ()
        from adapters.analysis.served import served_analyser  # noqa: PLC0415 - see the module

        return tuple(map(served_analyser, self._config.analysers))

    @cached_property
    def analysers(self) -> Mapping[str, Analyser | ServedAnalyser]:
        """All of them by name, `offline` among them."""
        found: dict[str, Analyser | ServedAnalyser] = {OFFLINE: self.offline}
        return found | {analyser.name: analyser for analyser in self.served_analysers}

    @cached_property
    def served_embedders(self) -> tuple[ServedEmbedder, ...]:
        """Those behind servers, in the order of the configuration."""
        if not self._config.embedders:
            return ()
        from adapters.embeddings.openai import OpenAIEmbedder  # noqa: PLC0415 - see the module

        return tuple(map(OpenAIEmbedder, self._config.embedders))

    @cached_property
    def embedders(self) -> Embedders:
        """All of them. The first that is configured is the default; the offline ones stay, for tenants they answer."""
        return Embedders(*self.served_embedders, *offline_embedders())

    async def close(self) -> None:
        """Let go of the connections to servers."""
        for name in ("served_analysers", "served_embedders"):
            for model in self.__dict__.get(name, ()):  # those that were made
                await model.close()

    async def probe(self, *, patience: float = PATIENCE_S) -> None:
        """Ask each served embedder once, all at the same time, for `patience` seconds at most.

        Raises `SettingsError` where vectors are of no use. A server that can't be asked now is logged: what comes
        meanwhile waits for it, and vectors of no use are refused then, too.
        """
        async with asyncio.TaskGroup() as group:
            asked = [
                (server, group.create_task(_fault_of(embedder, patience)))
                for server, embedder in zip(self._config.embedders, self.served_embedders, strict=True)
            ]
        for server, fault in asked:
            if (wrong := fault.result()) is not None:
                raise SettingsError(
                    f"the embedder {server.name!r} ({server.model}) can't be used: {wrong}. Vectors of up to 768 "
                    "numbers are stored: take a model that has them, or set its `dimensions` where the server can "
                    "shorten (docs/models.md)"
                )


async def probe_at_start(settings: Settings) -> None:
    """See `Catalogue.probe`; with connections of its own, so that any event loop will do."""
    catalogue = Catalogue.of(settings)
    try:
        await catalogue.probe()
    finally:
        await catalogue.close()


async def _fault_of(embedder: ServedEmbedder, patience: float) -> str | None:
    """Why its vectors can't be stored; None where they can, or it can't be asked now."""
    try:
        async with asyncio.timeout(patience):
            await embedder.embed([_PROBE])
    except AnswerRefused as error:
        return str(error)
    except ModelUnavailable as error:
        _log.warning("the embedder %s can't be asked now: %s", embedder.name, error)
    except TimeoutError:
        _log.warning("the embedder %s did not answer within %g s", embedder.name, patience)
    return None
