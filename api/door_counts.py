"""Counts what a webhook's door refuses, on the connection where it is known and in the process's metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from litestar.exceptions import HTTPException

from adapters.event_store import Overloaded
from adapters.telemetry import REFUSED
from api.activity import Activity
from api.commands import Contended
from api.problems import UNAVAILABLE, ProblemError
from domain.connections import Connection

_REASONS: Final = {
    400: "no envelope",
    401: "token",
    403: "deactivated",
    409: "ambiguous",
    413: "too large",
    429: "busy",
    503: "busy",
}


@dataclass
class Visitor:
    """Who is at the door: over which transport, and for which connection as soon as that is known.

    `reason` is why it is refused, where the status does not say it.
    """

    transport: str
    source: Connection | None = None
    reason: str | None = None


@contextmanager
def refusals_counted(activity: Activity, visitor: Visitor) -> Iterator[None]:
    """Count the refusal that ends the block, if one does."""
    try:
        yield
    except ProblemError as error:
        _count(activity, visitor, error.status)
        raise
    except HTTPException as error:  # the library's: a body that is too large
        _count(activity, visitor, error.status_code)
        raise
    except (Overloaded, Contended):
        _count(activity, visitor, 503)
        raise
    except UNAVAILABLE:
        visitor.reason = "unavailable"
        _count(activity, visitor, 503)
        raise


def _count(activity: Activity, visitor: Visitor, status: int) -> None:
    REFUSED.labels(str(status)).inc()
    if visitor.source is not None:
        reason = visitor.reason or _REASONS.get(status, "other")
        activity.note(visitor.source, visitor.transport, "refused", kind="delivery", reason=reason)
