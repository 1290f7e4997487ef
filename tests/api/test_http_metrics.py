"""Metrics over real HTTP are what counting by hand gives."""

import random
from datetime import timedelta
from statistics import fmean
from typing import Any

import pytest

from domain.experiments import LIVE_RUN, RecordInference, inference, inference_id
from tests.support.http import Account, System, analysis, envelope, utc_now

#: Above this a message counts as positive (the documented view).
POSITIVE = 0.1
EMOTIONS = ("alegria", "raiva", "neutro", "tristeza")


@pytest.fixture(scope="module")
def shop(system: System) -> tuple[Account, list[dict[str, Any]], list[int]]:
    """A tenant with messages of both sides, old and of today, some analysed, some twice; and its latencies."""
    who = system.new_user(system.new_tenant("Loja Medida", plan="scale"))
    _, path = system.new_connection(who)
    closed, _ = system.new_connection(who, "fechada")
    system.send(who, "POST", f"/connections/{closed}/deactivate")
    chance = random.Random(7)  # noqa: S311 - the same messages every time
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    messages = []
    for number in range(40):
        at = midnight + (timedelta(seconds=number) if number % 4 == 0 else -timedelta(hours=number + 1))
        sent = envelope(f"mensagem {number}", f"T{number}", int(at.timestamp()), from_me=number % 3 == 0)
        messages.append(sent["data"])
    body = {**envelope("", "", 0), "event": "messages.set", "data": messages}
    system.get(who, "/metrics", wait_for=system.deliver(path, body)["position"])
    latencies = []
    for number, row in enumerate(system.messages_of(who.tenant_id)):
        if number % 5 == 0:
            continue
        for _ in range(1 + number % 2):
            said = analysis(
                round(chance.uniform(-1, 1), 3),
                emotion=chance.choice(EMOTIONS),
                satisfaction=chance.randint(0, 100),
            )
            system.analyse(row["id"], said, model=f"model-{chance.random()}")
        latency = chance.randint(1, 900)
        latencies.append(latency)
        stream = system.write.log.stream_at(row["id"])
        assert stream is not None
        system.write.commands.handle(
            inference(inference_id(stream.stream_id, LIVE_RUN, "p-1", "model-1")),
            RecordInference(
                at=utc_now(),
                tenant_id=who.tenant_id,
                message_id=stream.stream_id,
                model_name="model-1",
                prompt_version="p-1",
                template_hash="f" * 64,
                latency_ms=latency,
                sentiment=said.sentiment,
                emotion=said.emotion,
                satisfaction=said.satisfaction,
            ),
        )
    system.projected()
    return who, system.messages_of(who.tenant_id), latencies


def test_figures_are_what_counting_gives(system: System, shop: tuple[Account, list[dict[str, Any]], list[int]]) -> None:
    who, rows, latencies = shop
    shown = system.get(who, "/metrics")
    analysed = [row for row in rows if row["sentiment"] is not None]
    positive = [row for row in analysed if row["sentiment"] > POSITIVE]
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    assert (shown["tenant_id"], shown["tenant_name"], shown["plan"]) == (str(who.tenant_id), "Loja Medida", "scale")
    assert shown["total_messages"] == len(rows) == 40
    assert shown["messages_today"] == sum(row["created_at"] >= midnight for row in rows) == 10
    assert shown["active_connections"] == 1
    assert shown["avg_sentiment"] == pytest.approx(fmean(row["sentiment"] for row in analysed))
    assert shown["avg_satisfaction"] == pytest.approx(fmean(row["satisfaction"] for row in analysed))
    assert shown["positive_pct"] == pytest.approx(100 * len(positive) / len(rows))
    assert shown["avg_latency_ms"] == pytest.approx(fmean(latencies))
    assert 0 < len(positive) < len(analysed) < len(rows)


def test_the_two_sides_are_told_apart(system: System, shop: tuple[Account, list[dict[str, Any]], list[int]]) -> None:
    who, rows, _ = shop
    # Known by who wrote it, as the documented columns have it: in a chat of two, the customer's hash is the chat's.
    sides = {
        "customer": [row for row in rows if row["sender"] == row["chat_id"]],
        "company": [row for row in rows if row["sender"] != row["chat_id"]],
    }
    assert {name: len(of_side) for name, of_side in sides.items()} == {"customer": 26, "company": 14}
    shown = system.get(who, "/metrics")
    by_author = {row["author"]: row for row in shown["by_author"]}
    assert set(by_author) == set(sides)
    for name, of_side in sides.items():
        analysed = [row for row in of_side if row["sentiment"] is not None]
        positive = [row for row in analysed if row["sentiment"] > POSITIVE]
        figures = by_author[name]
        assert figures["total_messages"] == len(of_side)
        assert figures["avg_sentiment"] == pytest.approx(fmean(row["sentiment"] for row in analysed))
        assert figures["avg_satisfaction"] == pytest.approx(fmean(row["satisfaction"] for row in analysed))
        assert figures["positive_pct"] == pytest.approx(100 * len(positive) / len(analysed))
        counts = {row["emotion"]: row["messages"] for row in shown["emotions"] if row["author"] == name}
        expected = {emotion: sum(row["emotion"] == emotion for row in analysed) for emotion in EMOTIONS}
        assert counts == {emotion: number for emotion, number in expected.items() if number}


def test_a_tenant_without_messages(system: System) -> None:
    who = system.new_user(system.new_tenant("Loja Nova"))
    system.projected()
    shown = system.get(who, "/metrics")
    nothing = ("avg_sentiment", "avg_satisfaction", "positive_pct", "avg_latency_ms")
    assert {name: shown[name] for name in nothing} == dict.fromkeys(nothing)
    assert (shown["total_messages"], shown["messages_today"], shown["active_connections"]) == (0, 0, 0)
    assert (shown["by_author"], shown["emotions"]) == ([], [])
