"""Which model servers there are: two settings name one, a TOML file names several (docs/models.md).

Every mistake is a `SettingsError` that says which variable, or which file, table and field, what is wrong with it and
what would be right. None quotes a key or an address, in which a key may stand.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from adapters.model_server import AnalyserServer, EmbedderServer
from adapters.model_server.fields import LONGEST_MODEL, OFFLINE, api_key, base_address, checked, model_name, origin
from adapters.model_server.file import ModelsFile
from adapters.settings import Settings, SettingsError

#: What the settings alone call theirs.
ANALYSER: Final = "model"
EMBEDDER: Final = "embedding"


class ModelConfig(msgspec.Struct, frozen=True):
    """The model servers of an installation.

    `chain`: names of analysers in the order in which they are asked, `offline` among them or not; `embedders`: the
    first is for tenants that have no vectors yet, and the offline one is where there is none.
    """

    analysers: tuple[AnalyserServer, ...] = ()
    embedders: tuple[EmbedderServer, ...] = ()
    chain: tuple[str, ...] = (OFFLINE,)


def model_config(settings: Settings) -> ModelConfig:
    """What is configured. Raises `SettingsError`."""
    analysers, embedders = list(_of_settings(settings)), list(_embedder_of_settings(settings))
    if settings.models_file is not None:
        tables = ModelsFile(settings.models_file)
        analysers += tables.analysers()
        embedders += tables.embedders()
    _once("analysers", [server.name for server in analysers])
    _once("embedders", [server.name for server in embedders])
    for model, number in Counter(map(recorded_name, embedders)).items():
        names = ", ".join(server.name for server in embedders if recorded_name(server) == model)
        if number > 1:
            raise SettingsError(
                f"the embedders {names} have one model, {model!r}: vectors are told apart by their model's name, so "
                "there can be one embedder of each"
            )
        if len(model) > LONGEST_MODEL:
            raise SettingsError(
                f"the embedder {names} would be recorded as {model!r}, which has {len(model)} characters, and "
                f"{LONGEST_MODEL} are the most: give its model a shorter name in the server"
            )
    return ModelConfig(tuple(analysers), tuple(embedders), _chain(settings, [server.name for server in analysers]))


def recorded_name(server: EmbedderServer) -> str:
    """The name that an embedder's vectors are recorded with: vectors of another size are another model's."""
    return server.model if server.dimensions is None else f"{server.model}@{server.dimensions}"


# ------------------------------------------------------------------------------------------------- the settings alone


def _of_settings(settings: Settings) -> Iterable[AnalyserServer]:
    key = api_key("EVOSENSE_MODEL_API_KEY", settings.model_api_key_text())
    if settings.model is None and settings.model_url is None:
        if key is not None and settings.embedding_url is None:
            raise SettingsError(
                "EVOSENSE_MODEL_API_KEY is set, and no server that it is for: set EVOSENSE_MODEL_URL and EVOSENSE_MODEL"
            )
        return
    if settings.model is None:
        raise SettingsError(
            "EVOSENSE_MODEL_URL is set and EVOSENSE_MODEL is not: set it to a model that the server has, such as "
            "qwen2.5:3b. For embeddings alone, set EVOSENSE_EMBEDDING_URL and EVOSENSE_EMBEDDING_MODEL instead"
        )
    if settings.model_url is None:
        raise SettingsError(
            "EVOSENSE_MODEL is set and EVOSENSE_MODEL_URL is not: set it to the server's base address, such as "
            "http://127.0.0.1:11434/v1"
        )
    yield AnalyserServer(
        name=ANALYSER,
        url=checked("EVOSENSE_MODEL_URL", base_address, settings.model_url.get_secret_value()),
        model=checked("EVOSENSE_MODEL", model_name, settings.model),
        api_key=key,
    )


def _embedder_of_settings(settings: Settings) -> Iterable[EmbedderServer]:
    if settings.embedding_model is None:
        if settings.embedding_url is not None:
            raise SettingsError(
                "EVOSENSE_EMBEDDING_URL is set and EVOSENSE_EMBEDDING_MODEL is not: set it to a model that the server "
                "has, such as nomic-embed-text"
            )
        return
    url = settings.embedding_url or settings.model_url
    if url is None:
        raise SettingsError(
            "EVOSENSE_EMBEDDING_MODEL is set, and no address of a server: set EVOSENSE_EMBEDDING_URL, or "
            "EVOSENSE_MODEL_URL where it is the same one, to its base address, such as http://127.0.0.1:11434/v1"
        )
    name = "EVOSENSE_EMBEDDING_URL" if settings.embedding_url else "EVOSENSE_MODEL_URL"
    address = checked(name, base_address, url.get_secret_value())
    # One server's key is never shown to another.
    theirs = settings.model_url is None or origin(settings.model_url.get_secret_value()) == origin(address)
    yield EmbedderServer(
        name=EMBEDDER,
        url=address,
        model=checked("EVOSENSE_EMBEDDING_MODEL", model_name, settings.embedding_model),
        api_key=api_key("EVOSENSE_MODEL_API_KEY", settings.model_api_key_text()) if theirs else None,
    )


def _chain(settings: Settings, names: list[str]) -> tuple[str, ...]:
    there = ", ".join([*names, OFFLINE])
    if settings.analysers is None:
        if not names:
            return (OFFLINE,)
        if ANALYSER in names or len(names) == 1:
            return (ANALYSER,) if ANALYSER in names else (names[0],)
        raise SettingsError(
            f"EVOSENSE_ANALYSERS is not set, and {settings.models_file} has {len(names)} analysers: set it to those "
            f"that are asked, in their order, with commas; there are: {there}"
        )
    chain = [part for part in (piece.strip() for piece in settings.analysers.split(",")) if part]
    if not chain:
        raise SettingsError(f"EVOSENSE_ANALYSERS names nobody: it looks like model,offline; there are: {there}")
    for name in chain:
        if name != OFFLINE and name not in names:
            raise SettingsError(f"EVOSENSE_ANALYSERS: there is no analyser {name[:60]!r}; there are: {there}")
    _once("EVOSENSE_ANALYSERS", chain)
    if OFFLINE in chain[:-1]:
        behind = ", ".join(chain[chain.index(OFFLINE) + 1 :])
        raise SettingsError(
            f"EVOSENSE_ANALYSERS: offline always answers, so {behind} would never be asked: put it last"
        )
    return tuple(chain)


def _once(where: str, names: list[str]) -> None:
    for name, number in Counter(names).items():
        if number > 1:
            raise SettingsError(
                f"{where}: {name!r} is there {number} times: each has a name of its own, and stands once"
            )
