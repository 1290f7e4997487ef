"""Series, chats and latencies over real HTTP are what counting by hand gives."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from domain.experiments import LIVE_RUN, RecordInference, inference, inference_id
from tests.support.http import Account, System, analysis, envelope, utc_now

#: Brazil's summer time began at midnight: this day has 23 hours, and begins at one o'clock.
SHORT_DAY = datetime(2018, 11, 4, 3, tzinfo=UTC)
SAO_PAULO = "America/Sao_Paulo"
EMOTIONS = ("alegria", "raiva", "neutro")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shop(system: System) -> tuple[Account, Rows]:
    """A tenant with two connections and 60 messages of eleven days, two thirds of them analysed."""
    who = system.new_user(system.new_tenant("Loja Medida", plan="scale"))
    chance = random.Random(7)  # noqa: S311 - the same messages every time
    for name in ("centro", "praia"):
        _, path = system.new_connection(who, name)
        messages = []
        for number in range(30):
            at = SHORT_DAY + timedelta(minutes=chance.randint(-5 * 1440, 6 * 1440))
            phone = f"55119876500{number % 7:02}"
            sent = envelope(f"{name} {number}", f"{name}{number}", int(at.timestamp()), phone=phone, from_me=number < 9)
            messages.append(sent["data"])
        system.deliver(path, {**envelope("", "", 0), "event": "messages.set", "data": messages})
    system.projected()
    for number, row in enumerate(system.messages_of(who.tenant_id)):
        if number % 3:
            sentiment, emotion = round(chance.uniform(-1, 1), 3), chance.choice(EMOTIONS)
            system.analyse(row["id"], analysis(sentiment, emotion=emotion, satisfaction=chance.randint(0, 100)))
    system.projected()
    return who, system.messages_of(who.tenant_id)


def figures(rows: Rows) -> dict[str, Any]:
    analysed = [row for row in rows if row["sentiment"] is not None]
    return {
        "messages": len(rows),
        "analysed": len(analysed),
        "avg_sentiment": fmean(row["sentiment"] for row in analysed) if analysed else None,
        "avg_satisfaction": fmean(row["satisfaction"] for row in analysed) if analysed else None,
        "positive_pct": 100 * sum(row["sentiment"] > 0.1 for row in analysed) / len(analysed) if analysed else None,
    }


def same(shown: dict[str, Any], rows: Rows) -> None:
    for name, figure in figures(rows).items():
        assert shown[name] == pytest.approx(figure), name


@pytest.mark.parametrize("tz", ["UTC", SAO_PAULO, "Pacific/Kiritimati"])
def test_days_are_those_of_the_time_zone(system: System, shop: tuple[Account, Rows], tz: str) -> None:
    who, rows = shop
    since, until = SHORT_DAY - timedelta(days=1), SHORT_DAY + timedelta(days=3)
    shown = system.get(who, "/metrics/series", since=since.isoformat(), until=until.isoformat(), tz=tz)
    (series,) = shown["series"]
    assert series["key"] is None
    by_day: dict[str, Rows] = {}
    for row in rows:
        by_day.setdefault(str(row["created_at"].astimezone(ZoneInfo(tz)).date()), []).append(row)
    days = [point["day"] for point in series["points"]]
    first, last = since.astimezone(ZoneInfo(tz)).date(), (until - timedelta(seconds=1)).astimezone(ZoneInfo(tz)).date()
    assert days == [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]
    for point in series["points"]:
        same(point, by_day.get(point["day"], []))
    same(series["total"], [row for day in days for row in by_day.get(day, [])])
    before = [str(first - timedelta(days=n + 1)) for n in range(len(days))]
    same(series["previous"], [row for day in before for row in by_day.get(day, [])])
    if tz == SAO_PAULO:
        starts = [datetime.fromisoformat(point["start"]) for point in series["points"]] + [_at(shown["until"])]
        hours = [(b - a) / timedelta(hours=1) for a, b in pairwise(starts)]
        assert hours == [24, 23, 24, 24, 24]


def test_hours_have_no_gaps(system: System, shop: tuple[Account, Rows]) -> None:
    who, rows = shop
    since, until = SHORT_DAY - timedelta(minutes=90), SHORT_DAY + timedelta(hours=40)
    shown = system.get(who, "/metrics/series", bucket="hour", since=since.isoformat(), until=until.isoformat())
    (series,) = shown["series"]
    assert (_at(shown["since"]), _at(shown["until"])) == (SHORT_DAY - timedelta(hours=2), until)
    assert len(series["points"]) == 42
    for number, point in enumerate(series["points"]):
        start = SHORT_DAY + timedelta(hours=number - 2)
        assert (_at(point["start"]), point["day"]) == (start, None)
        same(point, [row for row in rows if start <= row["created_at"] < start + timedelta(hours=1)])
    assert sum(point["messages"] == 0 for point in series["points"]) > 10
    assert series["total"]["messages"] > 0


@pytest.mark.parametrize(
    ("by", "key_of"),
    [
        ("connection", lambda row: str(row["connection_id"])),
        ("emotion", lambda row: row["emotion"]),
        ("tone", lambda row: row["tone"]),
        ("author", lambda row: "customer" if row["sender"] == row["chat_id"] else "company"),
    ],
)
def test_series_are_divided(
    system: System, shop: tuple[Account, Rows], by: str, key_of: Callable[[dict[str, Any]], str | None]
) -> None:
    who, rows = shop
    period = {"since": "2018-10-25T00:00:00Z", "until": "2018-11-20T00:00:00Z"}
    shown = system.get(who, "/metrics/series", by=by, **period)
    groups: dict[str | None, Rows] = {}
    for row in rows:
        groups.setdefault(key_of(row), []).append(row)
    assert {series["key"] for series in shown["series"]} == set(groups)
    assert len(groups) > 1
    for series in shown["series"]:
        same(series["total"], groups[series["key"]])
        assert series["previous"]["messages"] == 0
        assert sum(point["messages"] for point in series["points"]) == len(groups[series["key"]])
        assert len(series["points"]) == 26
    counts = [series["total"]["messages"] for series in shown["series"]]
    assert counts == sorted(counts, reverse=True)


def test_a_tenant_without_messages_has_a_series_of_nothing(system: System) -> None:
    who = system.new_user(system.new_tenant())
    system.projected()
    (series,) = system.get(who, "/metrics/series")["series"]
    assert len(series["points"]) == 31
    assert {point["messages"] for point in series["points"]} == {0}
    assert {point["avg_sentiment"] for point in series["points"]} == {None}
    assert system.get(who, "/metrics/series", by="emotion")["series"] == []
    assert len(system.get(who, "/metrics/series", bucket="hour")["series"][0]["points"]) == 25
    assert system.get(who, "/metrics/chats")["items"] == system.get(who, "/metrics/latency")["models"] == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"since": "2026-01-01T00:00:00"}, "time zone"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-02T00:00:00Z"}, "before until"),
        ({"since": "0001-01-01T00:00:00Z"}, "1970"),
        ({"until": "9999-12-31T23:59:59Z"}, "1970"),
        ({"since": "2020-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "more than 1000"),
        ({"since": "2020-01-01T00:00:00Z", "until": "2020-03-01T00:00:00Z", "bucket": "hour"}, "more than 1000"),
        ({"tz": "America/Atlantis"}, "no such time zone"),
        ({"tz": "Asia/Kolkata"}, "whole hour"),
        ({"tz": "-03:00"}, "tz"),
        ({"bucket": "week"}, "bucket"),
        ({"by": "chat"}, "by"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    system: System, shop: tuple[Account, Rows], query: dict[str, str], says: str
) -> None:
    problem = system.get(shop[0], "/metrics/series", expect=400, **query)
    assert says in str(problem)


def test_hours_can_be_asked_for_in_any_time_zone(system: System, shop: tuple[Account, Rows]) -> None:
    assert system.get(shop[0], "/metrics/series", tz="Asia/Kolkata", bucket="hour")["tz"] == "Asia/Kolkata"


def test_chats(system: System, shop: tuple[Account, Rows]) -> None:
    who, rows = shop
    period = {"since": "2018-10-25T00:00:00Z", "until": "2018-11-20T00:00:00Z"}
    items = system.get(who, "/metrics/chats", **period)["items"]
    assert len(items) == len({row["chat_id"] for row in rows})
    for item in items:
        of_chat = [row for row in rows if row["chat_id"] == item["chat_id"]]
        same(item, of_chat)
        assert _at(item["last_message_at"]) == max(row["created_at"] for row in of_chat)
    assert [item["messages"] for item in items] == sorted((item["messages"] for item in items), reverse=True)
    worst = system.get(who, "/metrics/chats", sort="sentiment", limit=2, **period)["items"]
    sentiments = sorted(item["avg_sentiment"] for item in items if item["avg_sentiment"] is not None)
    assert [item["avg_sentiment"] for item in worst] == sentiments[:2]
    assert system.get(who, "/metrics/chats", since="2018-11-19T00:00:00Z", until="2018-11-20T00:00:00Z")["items"] == []
    assert "92 days" in str(system.get(who, "/metrics/chats", expect=400, since="2018-01-01T00:00:00Z"))


def test_latencies(system: System, shop: tuple[Account, Rows]) -> None:
    who, rows = shop
    chance = random.Random(3)  # noqa: S311 - the same latencies every time
    told: dict[tuple[str, bool], list[int]] = {("model-a", False): [], ("model-a", True): [], ("model-b", False): []}
    for number, row in enumerate(rows):
        model, is_shadow = list(told)[number % 3]
        latency = round(chance.lognormvariate(6, 1))
        told[model, is_shadow].append(latency)
        stream = system.write.log.stream_at(row["id"])
        assert stream is not None
        system.write.commands.handle(
            inference(inference_id(stream.stream_id, LIVE_RUN, "p-1", model)),
            RecordInference(
                at=utc_now(),
                tenant_id=who.tenant_id,
                message_id=stream.stream_id,
                model_name=model,
                prompt_version="p-1",
                template_hash="f" * 64,
                latency_ms=latency,
                sentiment=0.0,
                emotion="neutro",
                satisfaction=50,
                is_shadow=is_shadow,
            ),
        )
    system.projected()
    shown = system.get(who, "/metrics/latency")
    assert [(one["model_name"], one["is_shadow"]) for one in shown["models"]] == sorted(told)
    for one in shown["models"]:
        latencies = sorted(told[one["model_name"], one["is_shadow"]])
        assert one["latency"]["inferences"] == len(latencies) == 20
        assert one["latency"]["avg_ms"] == pytest.approx(fmean(latencies))
        assert one["latency"]["p50_ms"] == pytest.approx(latencies[9], rel=1 / 32)
        assert one["latency"]["p95_ms"] == pytest.approx(latencies[18], rel=1 / 32)
        assert one["previous"] == {"inferences": 0, "avg_ms": None, "p50_ms": None, "p95_ms": None}
    later = (utc_now() + timedelta(hours=2)).isoformat()
    moved = system.get(who, "/metrics/latency", since=(utc_now() + timedelta(hours=1)).isoformat(), until=later)
    assert [one["latency"]["inferences"] for one in moved["models"]] in ([0, 0, 0], [])


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)
