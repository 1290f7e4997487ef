"""Messages: pages of them, one, and search by meaning."""

import base64
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import get
from litestar.params import Parameter

from api.common import Page, PageSize, WaitFor, until_reached
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from domain.masking import mask
from sql import queries

_MESSAGES: Final = queries("messages", "apsycopg")

Sentiment = Annotated[float | None, Parameter(ge=-1, le=1, required=False)]
ChatId = Annotated[str | None, Parameter(pattern="^[0-9a-f]{64}$", required=False, description="as rows have it")]
Emotion = Annotated[str | None, Parameter(pattern="^[^\\0]{1,40}$", required=False)]
Moment = Annotated[
    datetime | None, Parameter(required=False, description="RFC 3339, with a time zone: 2026-03-02T09:30:00Z")
]
#: What a cursor holds: time and id of the last row of a page, both within what PostgreSQL can compare.
_Cursor = tuple[Annotated[datetime, msgspec.Meta(tz=True)], Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]


class MessageRow(msgspec.Struct, frozen=True):
    """A message as the read model has it. `text` is masked; `chat_id` and `sender` are keyed hashes."""

    id: int
    connection_id: int | None
    chat_id: str
    sender: str
    text: str
    created_at: datetime
    sentiment: float | None
    emotion: str | None
    satisfaction: int | None
    tone: str | None
    summary: str | None
    embedded: bool


class Hit(msgspec.Struct, frozen=True):
    """A message that was found; `similarity_score` is the cosine, 1 for the same meaning."""

    message_id: int
    text: str
    sentiment: float | None
    satisfaction: int | None
    similarity_score: float
    created_at: datetime


@get("/messages")
async def list_messages(
    services: Services,
    principal: Principal,
    limit: PageSize = 50,
    before: str | None = None,
    chat_id: ChatId = None,
    since: Moment = None,
    until: Moment = None,
    sentiment_min: Sentiment = None,
    sentiment_max: Sentiment = None,
    emotion: Emotion = None,
    wait_for: WaitFor = None,
) -> Page[MessageRow]:
    """Messages, newest first. `before` is the `next` of the page before."""
    before_at, before_id = _cursor(before)
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.tzinfo is None:
            raise ProblemError(400, f"query.{name}: it has no time zone: add one, such as Z")
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [
            row
            async for row in _MESSAGES.messages_page(
                conn,
                chat_id=chat_id,
                since=since,
                until=until,
                sentiment_min=sentiment_min,
                sentiment_max=sentiment_max,
                emotion=emotion,
                before_at=before_at,
                before_id=before_id,
                page=limit + 1,
            )
        ]
    items = [msgspec.convert(row, MessageRow) for row in rows[:limit]]
    return Page(items, _next(items[-1]) if len(rows) > limit else None)


@get("/messages/{identifier:int}")
async def get_message(
    identifier: int, services: Services, principal: Principal, wait_for: WaitFor = None
) -> MessageRow:
    """One message."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _MESSAGES.message(conn, id=identifier)
    if row is None:
        raise ProblemError(404, f"there is no message {identifier}")
    return msgspec.convert(row, MessageRow)


@get("/search")
async def search(
    services: Services,
    principal: Principal,
    q: Annotated[str, Parameter(min_length=1, max_length=2000, description="what to look for, in any words")],
    limit: Annotated[int, Parameter(ge=1, le=100, required=False)] = 20,
    threshold: Annotated[float, Parameter(ge=-1, le=1, required=False)] = 0.3,
    wait_for: WaitFor = None,
) -> list[Hit]:
    """Messages that mean what `q` says, best first. The default threshold suits the offline embedder."""
    await until_reached(services, wait_for)
    if not q.strip():
        raise ProblemError(400, "q is empty: say what to look for")
    vector = (await services.embedder.embed([mask(q)]))[0]
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        found = _MESSAGES.search(
            conn,
            tenant_id=principal.tenant_id,
            vector=_as_text(vector),
            page=limit,
            threshold=threshold,
        )
        return [msgspec.convert(row, Hit) async for row in found]


def _as_text(vector: bytes) -> str:
    floats = memoryview(vector).cast("f")
    return f"[{','.join(map(repr, floats))}]"


def _next(row: MessageRow) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((row.created_at, row.id))).decode()


def _cursor(before: str | None) -> tuple[datetime | None, int | None]:
    if before is None:
        return None, None
    try:
        place: _Cursor = msgspec.json.decode(base64.urlsafe_b64decode(before), type=_Cursor)
    except (ValueError, RecursionError):
        raise ProblemError(400, "query.before: take it from `next` of the page before") from None
    return place


HANDLERS: list[Any] = [list_messages, get_message, search]
