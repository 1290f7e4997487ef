"""A TOML file that names model servers: tables `[analysers.NAME]` and `[embedders.NAME]`."""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from adapters.model_server.config import AnalyserServer, EmbedderServer
from adapters.model_server.fields import (
    OFFLINE,
    api_key,
    base_address,
    checked,
    model_name,
    number,
    one_of,
    text_of,
    web_address,
)
from adapters.settings import SettingsError, secret_text

_VARIABLE: Final = "EVOSENSE_MODELS_FILE"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}", re.ASCII)
_KEYS: Final = ("api_key_file", "api_key_env")
_BOTH: Final[dict[str, Callable[[Any], Any]]] = {
    "url": base_address,
    "model": model_name,
    "timeout": number(1, 600),
    "concurrency": number(1, 256, whole=True),
    "input_price": number(0, 10_000),
    "call_price": number(0, 1000),
}
_ANALYSER: Final = {
    **_BOTH,
    "kind": one_of("openai", "webhook"),
    "earlier": number(0, 20, whole=True),
    "answers": one_of("json_schema", "json_object", "text"),
    "max_output_tokens": number(50, 32_000, whole=True),
    "output_price": number(0, 10_000),
}
_EMBEDDER: Final = {**_BOTH, "batch": number(1, 2048, whole=True), "dimensions": number(1, 768, whole=True)}


class ModelsFile:
    """The tables of a file of model servers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tables = self._read()

    def analysers(self) -> list[AnalyserServer]:
        """Those of `[analysers.NAME]`."""
        return [AnalyserServer(**fields) for fields in self._servers("analysers", _ANALYSER)]

    def embedders(self) -> list[EmbedderServer]:
        """Those of `[embedders.NAME]`."""
        return [EmbedderServer(**fields) for fields in self._servers("embedders", _EMBEDDER)]

    def _read(self) -> dict[str, Any]:
        try:
            tables = tomllib.loads(self._path.read_text("utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{_VARIABLE}: {self._path} is not TOML: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise SettingsError(f"{_VARIABLE}: {self._path} can't be read: {why}") from None
        for kind, servers in tables.items():
            if kind not in ("analysers", "embedders"):
                raise SettingsError(
                    f"{self._path}: {kind!r} means nothing: there are [analysers.NAME], [embedders.NAME]"
                )
            if not isinstance(servers, dict) or not all(isinstance(fields, dict) for fields in servers.values()):
                raise SettingsError(f"{self._path}: {kind}: give each server a table, such as [{kind}.local]")
        return tables

    def _servers(self, kind: str, known: Mapping[str, Callable[[Any], Any]]) -> Iterable[dict[str, Any]]:
        for name, fields in self._tables.get(kind, {}).items():
            where = f"{self._path}: [{kind}.{name[:60]}]"
            if name == OFFLINE:
                raise SettingsError(f"{where}: {OFFLINE} is the name of the models that need no server: take another")
            if not _NAME.fullmatch(name):
                raise SettingsError(f"{where}: a name has small letters, digits and ._-, 40 at most")
            yield {"name": name, **self._fields(where, fields, known)}

    def _fields(self, where: str, given: dict[str, Any], known: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
        for name in given:
            if name == "api_key":
                raise SettingsError(
                    f"{where}: keys don't belong into this file: api_key_file names a file that holds the key, "
                    "api_key_env an environment variable"
                )
            if name not in known and name not in _KEYS:
                raise SettingsError(
                    f"{where}: there is no field {name[:60]!r}; there are: {', '.join((*known, *_KEYS))}"
                )
        for name in ("url", "model"):
            if name not in given:
                raise SettingsError(f"{where}: {name} is missing")
        checks = {**known, "url": web_address} if given.get("kind") == "webhook" else known
        found = {
            name: checked(f"{where}: {name}", checks[name], value) for name, value in given.items() if name in known
        }
        return found | {"api_key": self._key(where, given)}

    def _key(self, where: str, given: dict[str, Any]) -> SecretStr | None:
        named = [name for name in _KEYS if name in given]
        if not named:
            return None
        if len(named) > 1:
            raise SettingsError(f"{where}: api_key_file and api_key_env are both there: give one of them")
        at, value = f"{where}: {named[0]}", checked(f"{where}: {named[0]}", text_of, given[named[0]])
        if named == ["api_key_file"]:
            return api_key(at, secret_text(at, self._path.parent / Path(value).expanduser(), "the server's key"))
        text = os.environ.get(value, "").strip()
        if not text:
            raise SettingsError(f"{at}: the environment variable {value[:60]!r} is not set, and has to hold the key")
        return api_key(at, text)
