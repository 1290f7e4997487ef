"""Whatever is posted to the webhook: no 5xx, no half-written message, nothing personal in a line of the log."""

import asyncio
import json
import logging
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from domain.messages import MAX_TEXT_BYTES, MessageReceived
from tests.support.burst import offer, post
from tests.support.evolution import OWN, SAMPLES
from tests.support.http import TOKEN, Account, System, envelope, utc_now
from tests.support.mutations import mutations

COUNT, SEED = 10_000, 20_261_127
BODIES: Final = [path.read_bytes() for path in sorted(SAMPLES.rglob("*.json"))]
#: Calls at once: few enough to be let in, so that no 503 hides anything.
AT_ONCE: Final = 48

#: Values of the samples that say nothing of a person: names of kinds, states, places in a payload.
_WORD: Final = re.compile(r"[A-Za-z_.]+")
_NUMBER: Final = re.compile(r"[0-9]{10,}")

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(OWN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
places = st.sampled_from(["event", "instance", "sender", "apikey", "data", "key", "message", "messageTimestamp", "id"])

events = st.sampled_from(["messages.upsert", "messages.edited", "messages.delete"])


def test_ten_thousand_mutations_at_the_door(system: System, caplog: pytest.LogCaptureFixture) -> None:
    who = system.new_user(system.new_tenant())
    _, hook = system.new_connection(who)
    address = urlsplit(system.url)
    requests = [post(hook, address.netloc, TOKEN, body) for body in mutations(BODIES, COUNT, SEED)]
    # As in the running roles: the HTTP server's line for each call is not written.
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.WARNING, "uvicorn.access"):
        offered = asyncio.run(
            offer(str(address.hostname), int(address.port or 0), requests, rate=1e6, connections=AT_ONCE)
        )
    assert set(offered.by_status) == {200, 400}, offered.by_status
    assert offered.by_status[200] > COUNT // 2
    _assert_nothing_personal(caplog)
    assert _whole_messages(system, who) > 50  # most mutations are of the same few messages


@examples(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=places, value=json_values, event=st.sampled_from(["messages.upsert", "messages.edited", "messages.delete"])
)
def test_anything_anywhere(system: System, admin: Account, place: str, value: Any, event: str) -> None:
    hook = _hook(system, admin)
    body = envelope("Bom dia, tudo bem?", "3EB0FUZZ", int(utc_now().timestamp()))
    body["event"] = event
    target = {"key": body["data"], "message": body["data"], "messageTimestamp": body["data"], "id": body["data"]["key"]}
    target.get(place, body)[place] = value
    answer = system.client.post(hook, content=json.dumps(body), headers={"X-EvoSense-Token": TOKEN})
    assert answer.status_code in (200, 400), answer.text


@examples(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(system: System, admin: Account, body: bytes) -> None:
    answer = system.client.post(_hook(system, admin), content=body, headers={"X-EvoSense-Token": TOKEN})
    assert answer.status_code in (200, 400), answer.text


_HOOKS: dict[str, str] = {}


def _hook(system: System, who: Account) -> str:
    if who.username not in _HOOKS:
        _, _HOOKS[who.username] = system.new_connection(who, "fuzz")
    return _HOOKS[who.username]


def _assert_nothing_personal(caplog: pytest.LogCaptureFixture) -> None:
    """No line has a number, a text or a token of the samples in it, and none tells of an error that nobody foresaw."""
    personal = set().union(*(_strings(json.loads(body)) for body in BODIES))
    assert len(personal) > 100
    for record in caplog.records:
        line = record.getMessage()
        assert record.exc_info is None, line
        assert record.levelno < logging.ERROR, line
        found = Counter(secret for secret in personal if secret in line)
        assert not found, f"{record.name} logged {found}"


def _strings(value: Any) -> set[str]:
    """What a line of the log must not have: numbers of people, and every text of some length."""
    if isinstance(value, dict):
        return set().union(*map(_strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(_strings, value))
    if not isinstance(value, str) or _WORD.fullmatch(value):
        return set()
    return {*_NUMBER.findall(value), *([value] if len(value) >= 12 and not value.startswith("http") else [])}


def _whole_messages(system: System, who: Account) -> int:
    """How many messages the tenant has; each is whole, in the log and in the tables alike."""
    system.projected()
    rows = {row["id"]: row for row in system.messages_of(who.tenant_id)}
    born = 0
    with system.write.datastore.get_connection() as conn:
        streams = conn.execute(
            "SELECT originator_id, notification_id FROM evosense_log.stored_events "
            "WHERE tenant_id = %s AND originator_version = 1 AND topic LIKE 'messages.MessageReceived:%%'",
            (who.tenant_id,),
        ).fetchall()
    for stream in streams:
        event = system.write.log.history(stream["originator_id"])[0].event
        assert isinstance(event, MessageReceived)
        assert event.text.strip()
        assert len(event.text.encode()) <= MAX_TEXT_BYTES
        assert datetime(2009, 1, 1, tzinfo=UTC) <= event.sent_at <= utc_now() + timedelta(hours=24)
        assert rows[stream["notification_id"]]["created_at"] == event.sent_at
        born += 1
    assert born == len(rows)
    return born
