"""What the fields of a model server's configuration may hold: each check gives the value, or a `ValueError` that says
what would be right."""

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from pydantic import SecretStr

from adapters.settings import SettingsError

#: The analyser that is always there.
OFFLINE: Final = "offline"
#: Characters of a model's name in the documented tables.
LONGEST_MODEL: Final = 64
#: How the names of the models in this process begin: an answer has to show who gave it.
_OURS: Final = ("evosense-", "usem3-")
_KEY: Final = re.compile(r"[!-~]+")


def checked(where: str, check: Callable[[Any], Any], value: Any) -> Any:
    """The value as the check gives it. Raises `SettingsError` that names `where`."""
    try:
        return check(value)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def api_key(where: str, text: str | None) -> SecretStr | None:
    """A key that can stand in a header. Raises `SettingsError` that names `where`."""
    if text is not None and not _KEY.fullmatch(text):
        raise SettingsError(f"{where}: a key has no blanks, line breaks or letters beyond ASCII")
    return None if text is None else SecretStr(text)


def text_of(value: Any) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError('it has to be a text in quotes, such as "…"')
    return value.strip()


def model_name(value: Any) -> str:
    """A model as it can be recorded."""
    name = text_of(value)
    if len(name) > LONGEST_MODEL:
        raise ValueError(f"the name has {len(name)} characters, and {LONGEST_MODEL} are the most that are recorded")
    if not name.isprintable():
        raise ValueError("the name has characters that can't be seen")
    if name.startswith(_OURS):
        raise ValueError(f"{' and '.join(_OURS)} are how the names of the offline models begin")
    return name


def web_address(value: Any) -> str:
    """An address by HTTP, in which no user is."""
    address = text_of(value)
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        _wrong("it is no address")
    if parts.scheme not in ("http", "https"):
        _wrong("it has to begin with http:// or https://")
    if not host or not address.isascii() or any(map(str.isspace, address)):
        _wrong("it is no address")
    if "@" in parts.netloc:
        _wrong("leave user and password out of it, and give the server's key as the key")
    if parts.fragment:
        _wrong("leave out what is behind #")
    return address


def base_address(value: Any) -> str:
    """The base address of a server, to which a call's path is added."""
    address = web_address(value).rstrip("/")
    if urlsplit(address).query:
        _wrong("leave out what is behind ?")
    for call in ("/chat/completions", "/embeddings", "/models"):
        if address.endswith(call):
            _wrong(f"leave out {call}")
    return address


def _wrong(what: str) -> NoReturn:
    raise ValueError(f"{what}; it looks like http://127.0.0.1:11434/v1")


def origin(address: str) -> tuple[str, str | None, int | None]:
    """Whose an address is: scheme, host, port."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port


def number(least: float, most: float, *, whole: bool = False) -> Callable[[Any], float]:
    """A check for numbers of that range."""

    def check(value: Any) -> float:
        right = isinstance(value, int) if whole else isinstance(value, int | float)
        if not right or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"it has to be a {'whole number' if whole else 'number'} from {least:g} to {most:g}")
        return int(value) if whole else float(value)

    return check


def one_of(*names: str) -> Callable[[Any], str]:
    """A check for these words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"it has to be one of {', '.join(names)}")
        return value

    return check
