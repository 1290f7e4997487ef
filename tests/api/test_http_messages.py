"""Messages over real HTTP: pages, filters, and history."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.http import Account, System, analysis, envelope

START = 1761134400
CHATS = ("5511987650001", "5521998760002", "5531977660019")
EMOTIONS = ("alegria", "raiva", "neutro")


def batch(first: int, number: int) -> dict[str, Any]:
    """A history of messages; every three share a second, so that the id has to break the tie."""
    rows = [
        envelope(f"mensagem {index}", f"L{index}", START + index // 3, phone=CHATS[index % 3])["data"]
        for index in range(first, first + number)
    ]
    return {**envelope("", "", 0), "event": "messages.set", "data": {"messages": rows}}


@pytest.fixture(scope="module")
def shop(system: System) -> tuple[Account, str, list[dict[str, Any]]]:
    """A tenant with thirty messages, two thirds of them analysed; its rows in the order of the log."""
    who = system.new_user(system.new_tenant("Loja Cheia"))
    _, path = system.new_connection(who)
    done = system.deliver(path, batch(0, 30))
    system.get(who, "/messages", wait_for=done["position"])
    for index, row in enumerate(system.messages_of(who.tenant_id)):
        if index % 3:
            system.analyse(row["id"], analysis(round(-1 + index / 15, 4), emotion=EMOTIONS[index % 3]))
    system.projected()
    return who, path, system.messages_of(who.tenant_id)


def newest_first(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in sorted(rows, key=lambda row: (row["created_at"], row["id"]), reverse=True)]


def ids(page: dict[str, Any]) -> list[int]:
    return [row["id"] for row in page["items"]]


@pytest.mark.parametrize("limit", [1, 4, 7, 29, 30, 31, 200])
def test_all_pages_hold_every_message_once(
    system: System, shop: tuple[Account, str, list[dict[str, Any]]], limit: int
) -> None:
    who, _, rows = shop
    seen: list[int] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = system.get(who, "/messages", **query)
        assert 0 < len(page["items"]) <= limit
        seen += ids(page)
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == newest_first(rows)


def test_new_messages_move_no_page(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    system.deliver(path, batch(0, 20))
    system.projected()
    rows = system.messages_of(who.tenant_id)
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 3}
    arrived = 20
    while True:
        page = system.get(who, "/messages", **query)
        seen += ids(page)
        # A newer one and an older one than everything arrive between two pages.
        old = envelope(f"antiga {arrived}", f"V{arrived}", START - 10_000 - arrived)
        new = batch(arrived, 1)
        system.deliver(path, old)
        system.get(who, "/metrics", wait_for=system.deliver(path, new)["position"])
        arrived += 1
        if page["next"] is None or len(seen) > 100:
            break
        query["before"] = page["next"]
        if len(seen) >= 20:
            break
    assert seen[:20] == newest_first(rows)
    assert len(seen) == len(set(seen))


def test_filters(system: System, shop: tuple[Account, str, list[dict[str, Any]]]) -> None:
    who, _, rows = shop
    since, until = (datetime.fromtimestamp(START + seconds, UTC) for seconds in (2, 7))
    chat = rows[1]["chat_id"]

    def analysed(low: float, high: float) -> list[dict[str, Any]]:
        return [row for row in rows if row["sentiment"] is not None and low <= row["sentiment"] <= high]

    filters: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"chat_id": chat}, [row for row in rows if row["chat_id"] == chat]),
        ({"chat_id": "0" * 64}, []),
        ({"since": since.isoformat()}, [row for row in rows if row["created_at"] >= since]),
        ({"until": until.isoformat()}, [row for row in rows if row["created_at"] < until]),
        # The same moment, told in São Paulo.
        ({"since": since.astimezone().isoformat()}, [row for row in rows if row["created_at"] >= since]),
        ({"emotion": "raiva"}, [row for row in rows if row["emotion"] == "raiva"]),
        ({"emotion": "tédio"}, []),
        ({"sentiment_min": 0.2}, analysed(0.2, 1)),
        ({"sentiment_max": -0.2}, analysed(-1, -0.2)),
        ({"sentiment_min": -1, "sentiment_max": 1}, analysed(-1, 1)),
        (
            {"since": since.isoformat(), "until": until.isoformat(), "chat_id": chat, "sentiment_max": 0},
            [row for row in analysed(-1, 0) if since <= row["created_at"] < until and row["chat_id"] == chat],
        ),
    ]
    for query, expected in filters:
        assert ids(system.get(who, "/messages", limit=200, **query)) == newest_first(expected), query
        first = system.get(who, "/messages", limit=2, **query)
        if len(expected) > 2:
            rest = system.get(who, "/messages", limit=200, before=first["next"], **query)
            assert ids(first) + ids(rest) == newest_first(expected), query
    assert sum(1 for _, expected in filters if expected) > 7, "the filters above must find something"


def test_a_row_as_the_api_shows_it(system: System, shop: tuple[Account, str, list[dict[str, Any]]]) -> None:
    who, _, rows = shop
    row = rows[1]
    shown = system.get(who, f"/messages/{row['id']}")
    assert shown["embedded"] is False
    assert datetime.fromisoformat(shown["created_at"]) == row["created_at"]
    for name in set(shown) - {"embedded", "created_at"}:
        assert shown[name] == row[name], name
    assert set(row) - set(shown) == {"tenant_id", "embedding"}


def cursor(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "before",
    [
        "",
        "abc",
        "é",
        "!!!!",
        cursor(),
        cursor("2025-10-22T12:00:00+00:00"),
        cursor("yesterday", 1),
        cursor("2025-10-22T12:00:00+00:00", "one"),
        cursor("2025-10-22T12:00:00", 1),
        cursor("2025-10-22T12:00:00+00:00", 2**70),
        cursor("2025-10-22T12:00:00+00:00", float("inf")),
        cursor("2025-10-22T12:00:00+00:00", float("nan")),
        cursor("2025-10-22T12:00:00+00:00", 1.5),
        cursor(None, None),
        cursor({}, []),
        cursor("2025-10-22T12:00:00+00:00", 1, 2),
        base64.urlsafe_b64encode(b"[" * 5000).decode(),
    ],
)
def test_a_cursor_that_is_none_of_ours(system: System, admin: Account, before: str) -> None:
    assert "before" in system.get(admin, "/messages", before=before, expect=400)["detail"]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"limit": 0}, "query.limit"),
        ({"limit": 201}, "query.limit"),
        ({"limit": "many"}, "query.limit"),
        ({"since": "yesterday"}, "query.since"),
        ({"sentiment_min": 2}, "query.sentiment_min"),
        ({"sentiment_max": "nan"}, "query.sentiment_max"),
        ({"wait_for": -1}, "query.wait_for"),
        ({"chat_id": "a\0b"}, "chat_id"),
        ({"emotion": "a\0b"}, "emotion"),
        ({"since": "2025-10-22T12:00:00"}, "since"),
    ],
)
def test_a_query_that_can_not_be(system: System, admin: Account, query: dict[str, Any], where: str) -> None:
    problem = system.get(admin, "/messages", expect=400, **query)
    assert where in problem["detail"]


def test_the_history_of_a_message(system: System) -> None:
    who = system.new_user(system.new_tenant())
    stranger = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    done = system.deliver(path, envelope("Obrigada, resolveu na hora!", "R1", START))
    identifier = system.get(who, "/messages", wait_for=done["position"])["items"][0]["id"]
    assert identifier == done["position"], "a row's id is the position of the event that made it"
    vector = asyncio.run(system.services.embedder.embed(["Obrigada, resolveu na hora!"]))[0]
    last = system.analyse(identifier, analysis(0.9, emotion="gratidão", satisfaction=95), vector=vector)
    history = system.get(who, f"/messages/{identifier}/history")
    assert [entry["type"] for entry in history] == [
        "messages.MessageReceived",
        "messages.MessageAnalyzed",
        "messages.MessageEmbedded",
    ]
    assert [entry["position"] for entry in history] == [identifier, last - 1, last]
    received, analysed, embedded = (entry["data"] for entry in history)
    assert received["text"] == "Obrigada, resolveu na hora!"
    assert received["external_id"] == "R1"
    assert (analysed["sentiment"], analysed["emotion"], analysed["satisfaction"]) == (0.9, "gratidão", 95)
    assert embedded["vector"] == f"768 numbers of {system.services.embedder.model_name}"
    for path_ in (f"/messages/{identifier}", f"/messages/{identifier}/history"):
        assert f"no message {identifier}" in system.get(stranger, path_, expect=404)["detail"]
    # The position of another event, or of none.
    for other in (last, 10**15, 10**30, 0):
        system.get(who, f"/messages/{other}/history", expect=404)
        system.get(who, f"/messages/{other}", expect=404)


def test_times_in_the_far_past_and_future(system: System, admin: Account) -> None:
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC) - timedelta(days=1)):
        system.get(admin, "/messages", since=moment.isoformat(), until=moment.isoformat())
