"""Errors as `application/problem+json` (RFC 9457): what was wrong, where, and what would be right."""

import logging
from traceback import walk_tb
from typing import Any, Final

import msgspec
import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError
from litestar import Request, Response
from litestar.exceptions import HTTPException, SerializationException, ValidationException
from litestar.serialization import decode_json
from psycopg_pool import PoolTimeout

from adapters.event_store import Overloaded
from adapters.passwords import WeakPassword
from api.commands import Contended
from domain.errors import AlreadyExists, DomainError, Invalid, NotAllowed, NotFound
from domain.receipts import KeyReused

_log = logging.getLogger(__name__)
_STATUS = {KeyReused: 422, NotFound: 404, AlreadyExists: 409, NotAllowed: 409, Invalid: 422}
_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not acceptable as it is",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available at the moment",
    504: "Not in time",
}

#: The database does not answer, which passes by itself. Anything else of it is a fault of ours, and trying again would
#: not help.
UNAVAILABLE: Final = (
    OperationalError,
    InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error."""

    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []


class ProblemError(Exception):
    """Answer with a problem. `retry_after`, in seconds, says when another try makes sense."""

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


def respond(
    status: int, detail: str, *, errors: list[dict[str, str]] | None = None, headers: dict[str, str] | None = None
) -> Response[Problem]:
    """The response for a problem."""
    problem = Problem(_TITLES.get(status, "Error"), status, detail, errors or [])
    return Response(problem, status_code=status, media_type="application/problem+json", headers=headers or {})


def _problem(_: Request[Any, Any, Any], error: ProblemError) -> Response[Problem]:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return respond(error.status, error.detail, headers=headers)


def _domain(_: Request[Any, Any, Any], error: DomainError) -> Response[Problem]:
    return respond(_STATUS.get(type(error), 422), str(error))


def _weak(_: Request[Any, Any, Any], error: WeakPassword) -> Response[Problem]:
    return respond(422, str(error))


def _validation(_: Request[Any, Any, Any], error: ValidationException) -> Response[Problem]:
    extra = error.extra if isinstance(error.extra, list) else []
    errors = [{"where": _where(e), "what": str(e["message"])} for e in extra if isinstance(e, dict) and "message" in e]
    detail = "; ".join(f"{e['where']}: {e['what']}" if e["where"] else e["what"] for e in errors)
    return respond(400, detail or "the request can't be read", errors=errors)


def _where(entry: dict[str, Any]) -> str:
    """Such as `query.limit` or `body.name`."""
    source = entry.get("source", "")
    return ".".join(filter(None, (str(getattr(source, "value", source)), str(entry.get("key", "")))))


def _http(_: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    headers = dict(error.headers or {})
    if isinstance(error.__cause__, SerializationException):
        return respond(400, f"the body is not JSON: {error.detail}")
    return respond(error.status_code, error.detail or _TITLES.get(error.status_code, "Error"), headers=headers)


def _unavailable(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    _log.error("the database can't be worked with: %s", type(error).__name__)
    return respond(503, "the database does not answer: try again", headers={"Retry-After": "5"})


def _overloaded(_: Request[Any, Any, Any], error: Overloaded) -> Response[Problem]:
    return respond(503, str(error), headers={"Retry-After": "1"})


def _contended(_: Request[Any, Any, Any], error: Contended) -> Response[Problem]:
    return respond(503, str(error), headers={"Retry-After": "1"})


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    _log.error("an error that nobody foresaw: %s %s", request.method, request.scope["path_template"], exc_info=error)
    return respond(500, "something went wrong on our side; it was logged")


def _undecodable(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    # The library's decoder lets these through, and so could code of ours.
    if any(frame.f_code is decode_json.__code__ for frame, _ in walk_tb(error.__traceback__)):
        return respond(400, "the body is not JSON in UTF-8, or is nested too deep")
    return _unexpected(request, error)


HANDLERS: dict[Any, Any] = {
    ProblemError: _problem,
    DomainError: _domain,
    WeakPassword: _weak,
    ValidationException: _validation,
    HTTPException: _http,
    Overloaded: _overloaded,
    **dict.fromkeys(UNAVAILABLE, _unavailable),
    Contended: _contended,
    UnicodeDecodeError: _undecodable,
    RecursionError: _undecodable,
    Exception: _unexpected,
}
