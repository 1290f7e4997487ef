"""What the documentation says of errors: which ones an operation may answer with, all of them problems."""

from collections.abc import Sequence
from typing import Final

from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from api.problems import Problem

_MEANING: Final = {
    400: "The request can't be read: `errors` says which field is wrong.",
    401: "Nobody is logged in, or the token is wrong or has expired.",
    403: "This may not be done with this token.",
    404: "There is no such thing, or it is another tenant's.",
    409: "It can't be done as things are.",
    422: "It can't be done with these values.",
    503: "It can't be done at the moment: `Retry-After` says when to try again.",
}


def with_errors(handlers: Sequence[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """The same handlers, with the errors that each may answer with in their documentation."""
    for handler in handlers:
        handler.responses = {
            status: ResponseSpec(
                Problem, description=_MEANING[status], media_type="application/problem+json", generate_examples=False
            )
            for status in _statuses(handler)
        }
    return list(handlers)


def _statuses(handler: HTTPRouteHandler) -> list[int]:
    changes = "GET" not in handler.http_methods
    conflicts = changes or bool(handler.opt.get("conflicts"))
    of_one = any("{" in path for path in handler.paths) or bool(handler.opt.get("missing"))
    return [400, 401, 403, *([404] if of_one else []), *([409] if conflicts else []), *([422] if changes else []), 503]
