"""Whatever arrives, parsing gives an envelope of sound values or says what is wrong without quoting it."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.evolution import Envelope, EnvelopeError, InboundEdit, InboundMessage, parse, parse_object
from adapters.evolution.cutting import is_blank
from adapters.evolution.texts import KINDS
from adapters.evolution.vocabulary import (
    CHANGE_EVENTS,
    DELETED,
    EDITED,
    EMPTY,
    MESSAGE_EVENTS,
    OTHER,
    OTHER_EVENTS,
    REASONS,
    STATE_EVENTS,
    STATUS,
    STUB,
    UNKNOWN,
)
from tests.support.evolution import NOW, OWN, SAMPLES, SECRET, row
from tests.support.mutations import mutations

COUNT, SEED = 10_000, 20_251_022
BODIES: Final = [path.read_bytes() for path in sorted(SAMPLES.rglob("*.json"))]
EVENTS: Final = MESSAGE_EVENTS | CHANGE_EVENTS | STATE_EVENTS | OTHER_EVENTS
WORDS: Final = EVENTS | set(KINDS.values()) | {OTHER, EMPTY, STUB, STATUS, EDITED, DELETED}
#: All that is ever said of a body that is no envelope.
ERRORS: Final = frozenset(
    {
        "the body is not JSON in UTF-8; expected an object with `event`, `instance` and `data`",
        "the body must be a JSON object with `event`, `instance` and `data`",
        "`event` is missing; expected a name such as `messages.upsert`",
        "`data` is missing; expected a message or an array of messages",
        "`data` must be an object or an array of messages",
    }
)

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,39}", re.ASCII)
_ID: Final = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)
_PERSON: Final = re.compile(r"[1-9][0-9]{6,14}|lid:[0-9]{1,32}", re.ASCII)
_LID: Final = re.compile(r"lid:[0-9]{1,32}", re.ASCII)
_CHAT: Final = re.compile(rf"{_PERSON.pattern}|group:[0-9]{{1,32}}(-[0-9]{{1,32}})?", re.ASCII)


def check(found: Envelope) -> None:
    """All that `model` promises of the values."""
    assert found.event == OTHER or _NAME.fullmatch(found.event)
    assert len(found.instance.encode()) <= 255
    for message in found.messages:
        _check_message(message)
    for edit in found.edits:
        _check_text(edit)
    for change in (*found.edits, *found.deletions):
        assert _ID.fullmatch(change.external_id)
        assert change.chat is None or _CHAT.fullmatch(change.chat)
        assert change.from_me in (True, False, None)
    for moment in (*(edit.edited_at for edit in found.edits), *(deletion.deleted_at for deletion in found.deletions)):
        assert moment is None or _is_possible(moment)
    if found.state is not None:
        assert found.state.state in ("open", "connecting", "close")
        assert found.state.reason is None or 0 <= found.state.reason <= 9999
    for ignored in found.ignored:
        assert ignored.reason in REASONS
        assert ignored.kind in WORDS or (ignored.reason == UNKNOWN and _NAME.fullmatch(ignored.kind))


def _check_message(message: InboundMessage) -> None:
    _check_text(message)
    assert _ID.fullmatch(message.external_id)
    assert _CHAT.fullmatch(message.chat)
    assert message.kind in KINDS.values()
    assert message.from_me in (True, False)
    assert message.is_group == message.chat.startswith("group:")
    assert (message.author is None) == message.from_me
    assert message.author is None or _PERSON.fullmatch(message.author)
    assert message.is_group or message.author in (None, message.chat)
    for lid in (message.chat_lid, message.author_lid):
        assert lid is None or _LID.fullmatch(lid)
    assert message.chat_lid is None or not message.is_group
    assert message.author_lid is None or not message.from_me
    assert _is_possible(message.sent_at)


def _check_text(said: InboundMessage | InboundEdit) -> None:
    assert not is_blank(said.text)
    assert "\0" not in said.text
    assert len(said.text.encode()) <= 65_536


def _is_possible(moment: datetime) -> bool:
    return datetime(2009, 1, 1, tzinfo=UTC) <= moment <= NOW + timedelta(hours=24) and moment.tzinfo is UTC


def test_ten_thousand_mutations_of_the_samples() -> None:
    seen = Counter[str]()
    for body in mutations(BODIES, COUNT, SEED):
        try:
            found = parse(body, now=NOW)
        except EnvelopeError as error:
            assert str(error) in ERRORS  # noqa: PT017
            assert error.__context__ is None  # noqa: PT017
            seen["errors"] += 1
            continue
        check(found)
        for name in ("messages", "edits", "deletions", "ignored", "state"):
            seen[name] += bool(getattr(found, name))
    # Were they all refused at the door, this would prove nothing.
    assert {name for name, times in seen.items() if times > COUNT // 50} == {
        "errors", "messages", "edits", "deletions", "ignored", "state",
    }  # fmt: skip


def test_mutations_are_the_same_for_the_same_seed() -> None:
    first, again, other = (list(mutations(BODIES, 200, seed)) for seed in (1, 1, 2))
    assert first == again
    assert len(set(first) & set(other)) < 20
    assert len(set(first) - set(BODIES)) > 180


#: Anything that JSON can say, and bytes, which socket.io adds.
anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(["REVOKE", "5511987650001@s.whatsapp.net", "77@lid", "status@broadcast", OWN, 1761134400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
contents: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        anything,
        st.dictionaries(st.sampled_from(sorted(KINDS)), anything, max_size=2),
        st.fixed_dictionaries({"conversation": st.text(max_size=5) | anything}),
        st.builds(lambda name, inner: {name: {"message": inner}}, st.sampled_from(sorted(KINDS)), contents),
        st.builds(lambda inner: {"protocolMessage": inner}, protocols),
    )
)
keys: st.SearchStrategy[Any] = anything | st.fixed_dictionaries(
    {},
    optional={
        "remoteJid": st.sampled_from(["5511987650001@s.whatsapp.net", "77@lid", "1203@g.us", OWN]) | anything,
        "remoteJidAlt": anything,
        "participant": anything,
        "fromMe": st.booleans() | anything,
        "id": st.sampled_from(["3A00", "3A77"]) | anything,
        "keyId": anything,
        "deleted": anything,
    },
)
protocols: st.SearchStrategy[Any] = anything | st.fixed_dictionaries(
    {},
    optional={
        "key": keys,
        "type": st.sampled_from([0, 14, "REVOKE", "MESSAGE_EDIT"]) | anything,
        "editedMessage": contents,
        "timestampMs": anything,
    },
)
rows: st.SearchStrategy[Any] = (
    anything
    | keys
    | protocols
    | st.fixed_dictionaries(
        {},
        optional={
            "key": keys,
            "message": contents,
            "update": anything | st.fixed_dictionaries({"message": contents}),
            "status": st.sampled_from(["READ", "EDITED", "DELETED"]) | anything,
            "state": anything,
            "messageStubType": anything,
            "messageType": anything,
            "messageTimestamp": st.just(1761134400) | anything,
            "participant": anything,
            "speechToText": anything,
        },
    )
)
envelopes = st.fixed_dictionaries(
    {"event": st.sampled_from(sorted(EVENTS)) | anything, "data": rows | st.lists(rows, max_size=3)},
    optional={"instance": anything, "sender": st.just(OWN) | anything, "apikey": st.just(SECRET)},
)


# A busy machine makes the values slowly; that says nothing about what is tried.
@examples(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelopes | anything)
def test_whatever_arrives(envelope: Any) -> None:
    try:
        found = parse_object(envelope, now=NOW)
    except EnvelopeError as error:
        assert str(error) in ERRORS  # noqa: PT017
        return
    check(found)
    assert SECRET not in repr(found)


@examples(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows, st.sampled_from(sorted(MESSAGE_EVENTS)))
def test_a_row_never_harms_its_neighbours(strange: Any, event: str) -> None:
    found = parse_object({"event": event, "data": [row(), strange, row(key__id="3A01")]}, now=NOW)
    check(found)
    assert found.messages[0].external_id == "3A00"
    assert found.messages[-1].external_id == "3A01"


@pytest.mark.parametrize("depth", [100, 900, 5_000, 200_000])
@pytest.mark.parametrize(
    "around",
    [
        '{"event": "messages.upsert", "data": %s}',
        '{"event": "messages.upsert", "data": {"key": %s}}',
        '{"event": "messages.edited", "data": {"editedMessage": {"a": %s}}}',
    ],
)
def test_depth_is_no_error_of_ours(depth: int, around: str) -> None:
    body = around % ("[" * depth + "]" * depth)
    try:
        check(parse(body.encode(), now=NOW))
    except EnvelopeError as error:
        assert str(error) in ERRORS  # noqa: PT017


@pytest.mark.parametrize("wrapper", ["ephemeralMessage", "editedMessage", "somethingNewMessage"])
@pytest.mark.parametrize("depth", [8, 9, 50_000])
def test_a_message_may_be_wrapped_without_end(wrapper: str, depth: int) -> None:
    content: Any = {"conversation": "oi"}
    for _ in range(depth):
        content = {wrapper: {"message": content}}
    found = parse_object({"event": "messages.upsert", "data": row(content)}, now=NOW)
    check(found)
    assert bool(found.messages) == (depth == 8)
    assert bool(found.ignored) == (depth > 8)


def test_the_samples_are_sound_themselves() -> None:
    for body in BODIES:
        check(parse(body, now=NOW))
        check(parse_object(json.loads(body), now=NOW))
