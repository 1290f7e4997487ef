"""What messages can be filtered by, in lists and in searches."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from litestar.params import Parameter

from api.problems import ProblemError

Sentiment = Annotated[float | None, Parameter(ge=-1, le=1, required=False)]
ChatId = Annotated[str | None, Parameter(pattern="^[0-9a-f]{64}$", required=False, description="as rows have it")]
Emotion = Annotated[str | None, Parameter(pattern="^[^\\0]{1,40}$", required=False)]
Moment = Annotated[
    datetime | None, Parameter(required=False, description="RFC 3339, with a time zone: 2026-03-02T09:30:00Z")
]
ConnectionId = Annotated[int | None, Parameter(ge=0, le=2**63 - 1, required=False)]
Author = Annotated[
    Literal["customer", "company"] | None, Parameter(required=False, description="who wrote: customers or the company")
]


def check_time_zones(**moments: datetime | None) -> None:
    """Return where each moment that is given has a time zone. Raises `ProblemError`, which names one that has none."""
    for name, moment in moments.items():
        if moment is not None and moment.tzinfo is None:
            raise ProblemError(400, f"query.{name}: it has no time zone: add one, such as Z")


class Filters(msgspec.Struct, frozen=True):
    """Which messages a search is about: those that pass everything that is not None."""

    since: datetime | None
    until: datetime | None
    chat_id: str | None
    connection_id: int | None
    sentiment_min: float | None
    sentiment_max: float | None
    emotion: str | None
    author: str | None


#: What lets every message pass.
NO_FILTERS: Final = Filters(*(None,) * 8)


def search_filters(
    since: Moment = None,
    until: Moment = None,
    chat_id: ChatId = None,
    connection_id: ConnectionId = None,
    sentiment_min: Sentiment = None,
    sentiment_max: Sentiment = None,
    emotion: Emotion = None,
    author: Author = None,
) -> Filters:
    """The filters of a search, from its query. Raises `ProblemError` for a moment without a time zone."""
    check_time_zones(since=since, until=until)
    return Filters(since, until, chat_id, connection_id, sentiment_min, sentiment_max, emotion, author)
