"""Which errors of recording pass by themselves, and so are worth trying for as long as it takes."""

import asyncio
import logging
from typing import Final

import psycopg
from eventsourcing import persistence

from adapters.settings import Settings
from api.commands import Contended
from api.relay import PASSING, wait_any
from api.wiring import WriteSide, write_side

_RETRY_S: Final = 1.0
_log = logging.getLogger(__name__)

#: Of the database, but about what was to be stored: the same again will fail again.
_ABOUT_THE_VALUE: Final = (
    persistence.DataError,
    persistence.IntegrityError,
    psycopg.DataError,
    psycopg.IntegrityError,
)


def passes(error: BaseException) -> bool:
    """Whether it is the database or the way to it, and not what was to be recorded."""
    return isinstance(error, (*PASSING, Contended)) and not isinstance(error, _ABOUT_THE_VALUE)


async def connected(settings: Settings, stop: asyncio.Event) -> WriteSide | None:
    """The write side, as soon as there is a database; None where `stop` was set before.

    Raises `SettingsError` or `MasterKeyError` where the configuration can't be used.
    """
    while not stop.is_set():
        try:
            return await asyncio.to_thread(write_side, settings)
        except PASSING as error:
            _log.warning("the database can't be worked with (%s); trying again", type(error).__name__)
            await wait_any(stop.wait(), seconds=_RETRY_S)
    return None
