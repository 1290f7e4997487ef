"""The master keys of the configuration: the one in use, and while it is being changed the previous one."""

import logging
import stat
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from adapters.settings import Settings
from adapters.vault import MasterKey, MasterKeyError

_log = logging.getLogger(__name__)

#: Where container engines mount secrets, mostly as files that all may read: in there nobody else is.
_MOUNTED: Final = Path("/run/secrets")


class MasterKeys(NamedTuple):
    """The key that wraps what is new, and the one that is only accepted."""

    master: MasterKey
    previous: MasterKey | None


def master_keys(settings: Settings) -> MasterKeys:
    """Read both. Raises `SettingsError` or `MasterKeyError`, which name the variable; warns of files open to others."""
    master = MasterKey.from_text(settings.master_key_text(), _source("EVOSENSE_MASTER_KEY", settings.master_key_file))
    text = settings.previous_master_key_text()
    previous = None
    if text is not None:
        source = _source("EVOSENSE_PREVIOUS_MASTER_KEY", settings.previous_master_key_file)
        previous = MasterKey.from_text(text, source)
        if previous.id == master.id:
            raise MasterKeyError(
                f"{source} is the same key as the master key: make a new master key with `openssl rand -base64 32`, "
                "or unset the previous one"
            )
    for file in (settings.master_key_file, settings.previous_master_key_file):
        if file is not None and _open_to_others(file.resolve()):
            _warn(file)
    return MasterKeys(master, previous)


def _source(name: str, file: Path | None) -> str:
    return name if file is None else f"{name}_FILE: the key in {file}"


def _open_to_others(file: Path) -> bool:
    """Whether any account of this machine can read it: the mode says so, and no directory on the way is closed."""
    if file.is_relative_to(_MOUNTED):
        return False
    try:
        return bool(file.stat().st_mode & stat.S_IROTH) and all(
            parent.stat().st_mode & stat.S_IXOTH for parent in file.parents
        )
    except OSError:
        return False  # not for us to look at: then not for others either


@cache
def _warn(file: Path) -> None:
    """Once a process is enough."""
    _log.warning("%s holds a master key and can be read by every account of this machine: chmod 600 it", file)
