"""Messages: pages of them, and one."""

import base64
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import get

from api.common import Page, PageSize, WaitFor, until_reached
from api.filters import ChatId, Emotion, Moment, Sentiment, check_time_zones
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from sql import queries

_MESSAGES: Final = queries("messages", "apsycopg")

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
    check_time_zones(since=since, until=until)
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [
            row
            async for row in _MESSAGES.messages_page(
                conn,
                chat_id=chat_id and (await _MESSAGES.chat_now(conn, chat_id=chat_id))["chat_id"],
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


HANDLERS: list[Any] = [list_messages, get_message]
