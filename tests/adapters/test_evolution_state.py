"""What `connection.update` says, and what is none of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.evolution import InboundState, parse, parse_object

SAMPLE = Path(__file__).parent.parent / "samples" / "evolution" / "23-connection-update-open.json"
NOW = datetime(2025, 10, 22, 13, 0, tzinfo=UTC)
TOLD = datetime(2025, 10, 22, 8, 59, 30, 412000, tzinfo=UTC)


def update(**changes: Any) -> dict[str, Any]:
    data = {"instance": "loja", "state": "close", "statusReason": 428}
    return {"event": "connection.update", "instance": "loja", "data": data, **changes}


def state(**changes: Any) -> InboundState | None:
    return parse_object(update(**changes), now=NOW).state


def test_the_state_of_the_sample() -> None:
    assert parse(SAMPLE.read_bytes(), now=NOW).state == InboundState(state="open", reason=200, told_at=TOLD)


def test_every_spelling_of_the_event() -> None:
    for event in ("CONNECTION_UPDATE", "connection-update", "connection.update"):
        assert state(event=event) == InboundState(state="close", reason=428)


@pytest.mark.parametrize("data", [None, [], "open", {}, {"state": "refused"}, {"state": None}, {"state": ["open"]}])
def test_what_is_no_state(data: Any) -> None:
    assert state(data=data) is None


@pytest.mark.parametrize("reason", [None, "quatro", True, -1, 10**7, 401.5, {"low": 401}])
def test_a_reason_that_is_none_is_left_out(reason: Any) -> None:
    assert state(data={"state": "close", "statusReason": reason}) == InboundState(state="close", reason=None)


@pytest.mark.parametrize(
    ("written", "told_at"),
    [
        ("2025-10-22T08:59:30.412Z", TOLD),
        ("2025-10-22T05:59:30.412-03:00", TOLD),
        ("2025-10-22T08:59:30.412", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("yesterday", None),
        ("2" * 10_000, None),
        (1761134400, None),
        (None, None),
    ],
)
def test_the_servers_clock(written: Any, told_at: datetime | None) -> None:
    told = state(date_time=written)
    assert told is not None
    assert told.told_at == told_at


def test_another_event_tells_none() -> None:
    body = json.loads(SAMPLE.read_bytes())
    assert parse_object({**body, "event": "qrcode.updated"}, now=NOW).state is None
