"""The demo's conversations: shaped like Evolution's payloads, deterministic, of the last six days, varied."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from adapters.embeddings import shared_encoder
from api import demo_data
from domain import masking

NOW = datetime(2026, 3, 11, 15, 30, tzinfo=UTC)


def sent_at(envelope: dict[str, Any]) -> int:
    stamp = envelope["data"]["messageTimestamp"]
    return stamp["low"] + (stamp["high"] << 32) if isinstance(stamp, dict) else int(stamp)


def upserts(now: datetime = NOW, **options: Any) -> list[dict[str, Any]]:
    return [body for body in demo_data.envelopes(now, **options) if body["event"] == "messages.upsert"]


def test_the_same_moment_and_seed_give_the_same_bodies() -> None:
    first = [json.dumps(body) for body in demo_data.envelopes(NOW)]
    assert first == [json.dumps(body) for body in demo_data.envelopes(NOW)]
    ids = {body["data"]["key"]["id"] for body in upserts()}
    assert ids.isdisjoint(body["data"]["key"]["id"] for body in upserts(seed=8))
    assert ids == {body["data"]["key"]["id"] for body in upserts(NOW + timedelta(hours=2))}
    assert ids.isdisjoint(body["data"]["key"]["id"] for body in upserts(NOW + timedelta(days=1)))


def test_there_is_a_week_of_varied_traffic() -> None:
    bodies = list(demo_data.envelopes(NOW, instance="outra"))
    assert {body["instance"] for body in bodies} == {"outra"}
    assert {"connection.update", "messages.update", "messages.upsert"} == {body["event"] for body in bodies}
    messages = upserts()
    kinds = Counter(body["data"]["messageType"] for body in messages)
    assert {
        "conversation", "extendedTextMessage", "imageMessage", "documentMessage", "audioMessage", "stickerMessage",
        "buttonsResponseMessage", "listResponseMessage", "reactionMessage", "ephemeralMessage",
    } == set(kinds)  # fmt: skip
    keys = Counter(json.dumps(body["data"]["key"], sort_keys=True) for body in messages)
    assert 380 <= len(keys) <= 420
    assert 3 <= sum(count > 1 for count in keys.values()) <= 10
    chats = {body["data"]["key"]["remoteJid"] for body in messages}
    assert len(chats) >= 60
    assert {chat.split("@")[1] for chat in chats} == {"s.whatsapp.net", "lid", "g.us"}
    mine = sum(body["data"]["key"]["fromMe"] for body in messages)
    assert 0.3 < mine / len(messages) < 0.6
    assert {type(body["data"]["messageTimestamp"]) for body in messages} == {int, str, dict}


def test_every_envelope_has_the_documented_members() -> None:
    members = {"event", "instance", "data", "destination", "date_time", "sender", "server_url", "apikey"}
    for body in demo_data.envelopes(NOW):
        assert set(body) == members
        json.dumps(body)
    for body in upserts():
        key = body["data"]["key"]
        assert {"remoteJid", "fromMe", "id", "participant", "addressingMode"} <= set(key)
        assert bool(key["participant"]) == key["remoteJid"].endswith("@g.us")
        assert body["data"]["messageType"] in body["data"]["message"]


def test_byte_fields_are_objects_as_evolution_writes_them() -> None:
    image = next(body for body in upserts() if body["data"]["messageType"] == "imageMessage")
    content = image["data"]["message"]["imageMessage"]
    assert content["caption"]
    assert list(content["mediaKey"]) == [str(index) for index in range(32)]


@pytest.mark.parametrize(
    "now",
    [
        NOW,
        datetime(2026, 3, 11, 0, 0, 0, tzinfo=UTC),
        datetime(2026, 3, 11, 0, 4, tzinfo=UTC),
        datetime(2026, 3, 11, 23, 59, 59, tzinfo=timezone(timedelta(hours=-3))),
    ],
)
def test_all_is_past_six_days_at_most_and_partly_of_today(now: datetime) -> None:
    stamps = [sent_at(body) for body in upserts(now)]
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert max(stamps) <= now.timestamp()
    assert min(stamps) >= (now - timedelta(days=6)).timestamp()
    assert 20 <= sum(stamp >= midnight.timestamp() for stamp in stamps) < len(stamps) / 3


def test_they_come_in_the_order_of_time() -> None:
    stamps = [sent_at(body) for body in upserts()]
    assert stamps == sorted(stamps)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        next(demo_data.envelopes(NOW.replace(tzinfo=None)))


def test_no_text_stands_twice() -> None:
    texts = demo_data.conversation_texts()
    assert len(texts) >= 380
    assert len(texts) == len(set(texts))


def test_there_is_personal_data_to_mask_and_an_order_number_to_leave() -> None:
    masked = " ".join(masking.mask(text) for text in demo_data.conversation_texts())
    for token in (masking.CPF, masking.CNPJ, masking.EMAIL, masking.CARD, masking.PHONE):
        assert token in masked
    assert "Pedido 48213" in masked


def test_the_searches_find_what_is_said_in_other_words() -> None:
    expected = ("Esqueci minha senha", "O técnico marcou entre 8h e 12h", "valeu demais, suporte nota mil")
    texts = [masking.mask(text) for text in demo_data.conversation_texts()]
    encoder = shared_encoder()
    vectors = encoder.encode(texts)
    for query, beginning in zip(demo_data.SEARCHES, expected, strict=True):
        best = np.argsort(vectors @ encoder.encode([query])[0])[::-1][:4]
        assert any(texts[index].startswith(beginning) for index in best), query
