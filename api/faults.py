"""Which errors of recording pass by themselves, and so are worth trying for as long as it takes."""

from typing import Final

import psycopg
from eventsourcing import persistence

from api.commands import Contended
from api.relay import PASSING

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
