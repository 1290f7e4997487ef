"""What is an envelope, and what becomes of rows that are none."""

import json
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.evolution import Envelope, EnvelopeError, Ignored, parse, parse_object
from adapters.telemetry import REGISTRY, count_ignored
from tests.support.evolution import JULIANA, NOW, SAMPLES, SECRET, holding, one, read, row


@pytest.mark.parametrize("spelling", ["messages.upsert", "MESSAGES_UPSERT", "messages-upsert"])
@pytest.mark.parametrize("shape", [lambda r: r, lambda r: [r], lambda r: {"messages": [r]}])
def test_spellings_and_shapes(spelling: str, shape: Any) -> None:
    parsed = read(shape(row()), event=spelling)
    assert parsed.event == "messages.upsert"
    assert [m.text for m in parsed.messages] == ["oi"]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ([[row(), [row()]], row()], 3),
        ({"messages": [[row()], {"messages": [row()]}], "isLatest": True}, 2),
        ([], 0),
        ([[], [[]]], 0),
        ({"messages": []}, 0),
    ],
)
def test_rows_may_be_nested(data: Any, texts: int) -> None:
    parsed = read(data, event="messages.set")
    assert [m.text for m in parsed.messages] == ["oi"] * texts
    assert parsed.ignored == ()


def test_rows_may_be_nested_deeply() -> None:
    # Deeper than the interpreter lets a function call itself.
    data: Any = row()
    for _ in range(100_000):
        data = [data]
    parsed = parse_object({"event": "messages.set", "instance": "loja", "data": data}, now=NOW)
    assert [m.text for m in parsed.messages] == ["oi"]


@pytest.mark.parametrize("event", ["QRCODE_UPDATED", "presence.update", "contacts-upsert", "call"])
@pytest.mark.parametrize("data", [None, {}, [], 7, row()])
def test_other_events_are_ignored_whatever_they_hold(event: str, data: Any) -> None:
    name = event.lower().replace("_", ".").replace("-", ".")
    assert read(data, event=event) == holding(name, Ignored(name, "not about messages"), instance="loja")


def test_an_event_name_from_outside_is_safe_to_log() -> None:
    assert read({}, event="ligue 11987654321\n").ignored == (Ignored("other", "unknown"),)


def test_an_empty_history_is_empty() -> None:
    assert read([], event="messages.set") == Envelope("messages.set", "loja", (), ())


@pytest.mark.parametrize("instance", [None, 7, {}])
def test_the_instance_may_be_missing(instance: Any) -> None:
    assert read(row(), instance=instance).instance == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense 11987654321 " + SECRET.encode(),
        b'{"event": "messages.upsert", "apikey": "' + SECRET.encode() + b'"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"' + SECRET.encode() + b'"',
        b'{"data": {}, "apikey": "' + SECRET.encode() + b'"}',
        b'{"event": "", "data": {}}',
        b'{"event": 7, "data": {}}',
        b'{"event": "messages.upsert", "apikey": "' + SECRET.encode() + b'"}',
        b'{"event": "messages.upsert", "data": null}',
        b'{"event": "messages.upsert", "data": "' + SECRET.encode() + b'"}',
        b'{"event": "messages.set", "data": 7}',
    ],
)
def test_what_is_no_envelope_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(EnvelopeError) as refusal:
        parse(body, now=NOW)
    assert isinstance(refusal.value, ValueError)
    assert SECRET not in str(refusal.value)
    assert "11987654321" not in str(refusal.value)
    # A decoder's error carries the body; it must not hang on ours.
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


def test_nothing_personal_is_in_a_repr() -> None:
    shown = repr(read([row(), row({"hologramMessage": SECRET})]))
    for personal in (JULIANA, "oi", SECRET, "3A00"):
        assert f"'{personal}'" not in shown
        assert len(personal) < 4 or personal not in shown
    assert one(row()).__rich_repr__() == [("kind", "conversation"), ("from_me", False), ("is_group", False)]


@pytest.mark.parametrize("raw", [b"\x00\x01", {"0": 255}, {"type": "Buffer", "data": [1, 2]}, bytearray(b"x")])
@pytest.mark.parametrize(
    "field", ["key__remoteJidAlt", "key__participant", "participant", "messageType", "contextInfo"]
)
def test_bytes_may_stand_anywhere(field: str, raw: Any) -> None:
    data = row({"messageContextInfo": raw, "conversation": "oi", "base64": raw}, **{field: raw})
    parsed = parse_object({"event": "messages.upsert", "instance": "loja", "sender": raw, "data": data}, now=NOW)
    assert [m.text for m in parsed.messages] == ["oi"]


@pytest.mark.parametrize("raw", [b"oi", {"0": 255}, {"type": "Buffer", "data": [111, 105]}, bytearray(b"oi")])
def test_bytes_are_no_text(raw: Any) -> None:
    for content in ({"conversation": raw}, {"imageMessage": {"caption": raw}}, {"reactionMessage": {"text": raw}}):
        parsed = parse_object({"event": "messages.upsert", "data": row(content)}, now=NOW)
        assert [ignored.reason for ignored in parsed.ignored] == ["text is not a string"]


def test_bytes_as_socket_io_delivers_them_are_passed_over() -> None:
    envelope = {
        "event": "messages.upsert",
        "instance": "loja",
        "data": row({"imageMessage": {"caption": "oi", "mediaKey": b"\x00\x01", "jpegThumbnail": {"0": 255}}}),
    }
    assert parse_object(envelope, now=NOW).messages[0].text == "oi"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("key", "message", "messageTimestamp", "messageType", "participant", "messageStubType")
KEY_FIELDS = ("key__remoteJid", "key__fromMe", "key__id", "key__participant", "key__remoteJidAlt", "key__senderPn")
CONTENTS = (
    "conversation", "imageMessage", "listResponseMessage", "pollCreationMessage", "templateMessage", "audioMessage",
    "ephemeralMessage", "editedMessage", "protocolMessage", "speechToText", "interactiveMessage",
)  # fmt: skip


# A busy machine makes the values slowly; that says nothing about what is tried.
@examples(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2)
    | st.dictionaries(st.sampled_from(KEY_FIELDS), json_values, max_size=2)
    | st.dictionaries(st.sampled_from(CONTENTS), json_values, max_size=3).map(lambda content: {"message": content})
)
def test_a_malformed_row_never_harms_its_neighbours(changes: dict[str, Any]) -> None:
    parsed = read([row(), row(**changes), row(key__id="3A01")])
    assert len(parsed.messages) + len(parsed.ignored) == 3
    assert parsed.messages[0].external_id == "3A00"
    assert parsed.messages[-1].external_id == "3A01"


def test_a_history_of_ten_thousand_messages() -> None:
    sample = json.loads((SAMPLES / "03-image-caption.json").read_bytes())
    sample["event"], sample["data"] = "messages.set", [sample["data"]] * 10_000
    parsed = parse(json.dumps(sample).encode(), now=NOW)
    assert len(parsed.messages) == 10_000
    assert parsed.ignored == ()


def test_the_work_grows_with_the_rows_and_no_faster() -> None:
    sample = json.loads((SAMPLES / "17-ephemeral-wrapped.json").read_bytes())["data"]

    def calls(rows: int) -> int:
        count = 0

        def profile(*_: object) -> None:
            nonlocal count
            count += 1

        envelope = {"event": "messages.set", "data": [sample, {"broken": 1}] * rows}
        sys.setprofile(profile)
        try:
            parse_object(envelope, now=NOW)
        finally:
            sys.setprofile(None)
        return count

    calls(1)
    once = calls(200) - calls(100)
    assert once > 100
    assert calls(2_000) - calls(1_000) <= 10 * once + 100


def test_one_broken_row_of_ten_thousand_costs_itself_alone() -> None:
    rows = [row(key__id=f"3A{number:04}") for number in range(10_000)]
    rows[5_000] = row(messageTimestamp="ontem")
    parsed = read(rows, event="messages.set")
    assert len(parsed.messages) == 9_999
    assert parsed.ignored == (Ignored("conversation", "bad timestamp"),)


def test_names_chosen_by_a_sender_make_no_new_kinds() -> None:
    # Kinds and reasons are labels of metrics: only what is unknown has the sender's word, and is counted as `other`.
    rows: list[Any] = []
    for number in range(300):
        name = f"kind{number}Message"
        rows += [
            row({name: {"x": 1}}),
            row({name: {"message": {"conversation": ""}}}),
            row({"conversation": "oi"}, messageType=name, key=None),
            row({"conversation": "oi"}, messageType=name, key__remoteJid="1@broadcast"),
            row(number, messageType=name),
        ]
    parsed = read(rows)
    known = {(ignored.kind, ignored.reason) for ignored in parsed.ignored if ignored.reason != "unknown"}
    assert known == {
        ("conversation", "no text"),
        ("other", "no key"),
        ("other", "status or broadcast list"),
        ("other", "no message"),
    }
    for ignored in parsed.ignored:
        count_ignored(ignored.kind, ignored.reason)
    labels = {
        (sample.labels["kind"], sample.labels["reason"])
        for family in REGISTRY.collect()
        for sample in family.samples
        if family.name == "evosense_webhook_ignored"
    }
    assert known <= labels
    assert {kind for kind, reason in labels if reason == "unknown"} == {"other"}
