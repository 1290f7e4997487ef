"""What a connection shows of itself: its state, its last message, and its counts by outcome, over real HTTP."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eventsourcing.persistence import PersistenceError

from adapters.evolution import Envelope, InboundEdit, InboundState, parse_object
from api.receiving import MAX_DOCUMENT, record
from domain.connections import connection, connection_id
from domain.errors import NotAllowed
from tests.support.http import Account, System, envelope, utc_now

SAMPLES = Path(__file__).parent.parent / "samples" / "evolution"
OTHER = "another-token-of-16-or-more"


class Watched:
    """A connection of a tenant of its own, its hook, and what it shows."""

    def __init__(self, system: System, name: str = "loja-centro") -> None:
        self.system, self.who = system, system.new_user(system.new_tenant())
        self.name = name
        self.id, self.hook = system.new_connection(self.who, name)
        self.stream_id = connection_id(self.who.tenant_id, name)

    def shown(self) -> dict[str, Any]:
        """The connection, with all that was counted and recorded."""
        self.system.write.activity.flush()
        self.system.projected()
        row: dict[str, Any] = self.system.get(self.who, f"/connections/{self.id}")
        assert row in self.system.get(self.who, "/connections")["items"]
        return row

    def activity(self, **query: Any) -> dict[str, Any]:
        """Its activity, with all that was counted."""
        self.system.write.activity.flush()
        self.system.projected()
        answer: dict[str, Any] = self.system.get(self.who, f"/connections/{self.id}/activity", **query)
        return answer

    def counts(self, **query: Any) -> dict[tuple[str, str, str, str], int]:
        """The counts by transport, outcome, kind and reason."""
        found = self.activity(**query)["counts"]
        return {(one["transport"], one["outcome"], one["kind"], one["reason"]): one["count"] for one in found}

    def deliver(self, state: str, reason: int | None = None, *, clock: str = "2025-10-22T09:00:00.000Z") -> None:
        """The instance tells its state by webhook."""
        data = {"instance": self.name, "state": state, "statusReason": reason}
        body = {"event": "connection.update", "instance": self.name, "data": data, "date_time": clock}
        self.system.deliver(self.hook, body)

    def recorded(self) -> list[tuple[str, int | None]]:
        """The states in its history."""
        entries = self.system.get(self.who, f"/connections/{self.id}/history")
        return [
            (entry["data"]["state"], entry["data"]["reason"])
            for entry in entries
            if entry["type"] == "connections.ConnectionStateChanged"
        ]


@pytest.fixture
def watched(system: System) -> Watched:
    return Watched(system)


def test_messages_are_counted_by_outcome_and_kind(system: System, watched: Watched) -> None:
    before = utc_now()
    for number in range(3):
        system.deliver(watched.hook, envelope("oi", f"A{number}", 1761134400 + number))
    system.deliver(watched.hook, envelope("oi", "A0", 1761134400))
    for name in ("03-image-caption", "06-audio-ptt", "10-reaction", "47-unknown-kind", "49-history-with-broken-rows"):
        system.deliver(watched.hook, (SAMPLES / f"{name}.json").read_bytes())
    counts = watched.counts()
    assert counts[("webhook", "accepted", "conversation", "")] == 3 + 2
    assert counts[("webhook", "accepted", "image", "")] == 1
    assert counts[("webhook", "duplicate", "conversation", "")] == 1
    assert counts[("webhook", "ignored", "audio", "no text")] == 1
    assert counts[("webhook", "accepted", "reaction", "")] == 1
    assert counts[("webhook", "ignored", "other", "unknown")] == 1
    row, activity = watched.shown(), watched.activity()
    assert row["totals"] == activity["totals"] == {"accepted": 7, "duplicate": 1, "ignored": 2 + 5, "refused": 0}
    assert before <= datetime.fromisoformat(row["last_message_at"]) <= utc_now()
    # The newest message's own time, whatever came last.
    assert datetime.fromisoformat(activity["last_sent_at"]) == datetime.fromtimestamp(1761136320, UTC)
    assert activity["last_message_at"] == row["last_message_at"]


def test_every_kind_of_the_samples_has_a_name(system: System, watched: Watched) -> None:
    """A kind that Evolution sends and that is counted as `other` is one that `api/vocabulary.py` has to learn."""
    for path in sorted(SAMPLES.glob("*.json")):
        system.deliver(watched.hook, path.read_bytes())
    unnamed = {key for key in watched.counts() if "other" in key}
    # Made up in the samples: a kind, an event, and a row that is nothing at all.
    assert {(kind, reason) for _, _, kind, reason in unnamed} <= {("other", "unknown"), ("other", "not an object")}


def test_a_duplicate_alone_is_no_sign_of_a_new_message(system: System, watched: Watched) -> None:
    assert watched.shown()["last_message_at"] is None
    system.deliver(watched.hook, envelope("oi", "A1", 1761134400))
    first = watched.shown()["last_message_at"]
    system.deliver(watched.hook, envelope("oi", "A1", 1761134400))
    assert watched.shown()["last_message_at"] == first is not None


REFUSALS: dict[str, tuple[int, Callable[[System, Watched], Any]]] = {
    "token": (401, lambda system, one: system.deliver(one.hook, {}, token="wrong-token-0123456789", expect=401)),
    "no envelope": (400, lambda system, one: system.deliver(one.hook, b"nonsense", expect=400)),
    "too large": (413, lambda system, one: system.deliver(one.hook, b" " * (MAX_DOCUMENT + 1), expect=413)),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals_are_counted_by_reason(system: System, watched: Watched, reason: str) -> None:
    series = f'evosense_webhook_refused_total{{status="{REFUSALS[reason][0]}"}}'
    before = _metric(system, series)
    for _ in range(2):
        REFUSALS[reason][1](system, watched)
    assert watched.counts() == {("webhook", "refused", "delivery", reason): 2}
    assert watched.shown()["totals"]["refused"] == 2
    assert _metric(system, series) == before + 2


def _metric(system: System, series: str) -> float:
    lines = system.client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(series)), 0.0)


def test_a_full_door_is_counted_where_the_connection_is_known(system: System, watched: Watched) -> None:
    system.deliver(watched.hook, envelope("oi", "A1", 1761134400))
    calls, system.services.door.calls = system.services.door.calls, 0
    try:
        system.deliver(watched.hook, envelope("oi", "A2", 1761134401), expect=503)
    finally:
        system.services.door.calls = calls
    assert watched.counts()[("webhook", "refused", "delivery", "busy")] == 1


def test_a_deactivated_connection_takes_nothing_over_any_transport(system: System, watched: Watched) -> None:
    system.send(watched.who, "POST", f"/connections/{watched.id}/deactivate")
    system.deliver(watched.hook, envelope("oi", "D1", 1761134400), expect=403)
    source = system.services.aggregates.load(connection(watched.stream_id))
    empty = Envelope("messages.upsert", watched.name, (), ())
    for transport in ("socket.io", "nats", "backfill", "sweep"):
        with pytest.raises(NotAllowed, match="deactivated"):
            record(system.write, source, empty, utc_now(), transport)
    assert watched.counts() == {
        (transport, "refused", "delivery", "deactivated"): 1
        for transport in ("webhook", "socket.io", "nats", "backfill", "sweep")
    }
    system.send(watched.who, "POST", f"/connections/{watched.id}/activate")
    assert system.deliver(watched.hook, envelope("oi", "D1", 1761134400))["received"] == 1
    source = system.services.aggregates.load(connection(watched.stream_id))
    assert record(system.write, source, empty, utc_now(), "nats").refused == 0


@pytest.mark.parametrize("breaks", ["amending.edit", "_report"])
def test_what_was_recorded_before_something_broke_is_counted_as_new(
    system: System, watched: Watched, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    source = system.services.aggregates.load(connection(watched.stream_id))
    body = {**envelope("oi", f"B{len(breaks)}", 1761134400), "instance": watched.name}
    edit = InboundEdit(external_id="not there", chat=None, from_me=None, text="olá", edited_at=None)
    told = InboundState(state="open", reason=None)
    delivery = msgspec.structs.replace(parse_object(body, now=utc_now()), edits=(edit,), state=told)

    def broken(*_: object) -> None:
        raise PersistenceError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(f"api.receiving.{breaks}", broken)
        with pytest.raises(PersistenceError):
            record(system.write, source, delivery, utc_now(), "nats")
    record(system.write, source, delivery, utc_now(), "nats")
    counts = watched.counts()
    assert counts[("nats", "accepted", "conversation", "")] == 1
    assert counts[("nats", "duplicate", "conversation", "")] == 1
    assert watched.shown()["last_message_at"] is not None


def test_counts_by_the_hour(system: System, watched: Watched) -> None:
    system.deliver(watched.hook, envelope("oi", "H1", 1761134400))
    watched.activity()  # written
    for hours, count in ((1, 10), (30, 100)):
        system.rows(
            "INSERT INTO evosense_ops.connection_activity SELECT connection_id, tenant_id, hour - %s::interval, "
            "transport, outcome, kind, reason, %s FROM evosense_ops.connection_activity "
            "WHERE connection_id = %s AND hour = (SELECT max(hour) FROM evosense_ops.connection_activity) RETURNING 1",
            f"{hours} hours",
            count,
            watched.stream_id,
        )
    hourly = watched.activity(per="hour")
    now = utc_now().replace(minute=0, second=0, microsecond=0)
    shown = [(datetime.fromisoformat(one["hour"]), one["count"]) for one in hourly["counts"]]
    assert [count for _, count in shown] == [10, 1]
    assert shown[1][0] - shown[0][0] == timedelta(hours=1)
    assert hourly["totals"]["accepted"] == 11
    assert watched.activity(since=(now - timedelta(days=3)).isoformat())["totals"]["accepted"] == 111
    assert watched.activity()["totals"]["accepted"] == 1, "of all time: what is counted once for all"
    whole = watched.activity(since=(now - timedelta(days=3)).isoformat())
    assert [one["hour"] for one in whole["counts"]] == [None]
    older = {"since": (now - timedelta(days=3)).isoformat(), "until": (now - timedelta(hours=20)).isoformat()}
    assert watched.activity(**older)["totals"]["accepted"] == 100


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"since": "2026-03-02T09:00:00"}, "no time zone"),
        ({"since": "2026-03-02T09:00:00Z", "until": "2026-03-01T09:00:00Z"}, "before until"),
        ({"since": "2025-03-02T09:00:00Z", "until": "2026-03-01T09:00:00Z"}, "more than 90 days"),
        ({"per": "minute"}, "query.per"),
    ],
)
def test_periods_that_are_none(system: System, watched: Watched, query: dict[str, str], says: str) -> None:
    system.projected()
    problem = system.get(watched.who, f"/connections/{watched.id}/activity", expect=400, **query)
    assert says in problem["detail"]


# ------------------------------------------------------------------------------------------- the state of the instance


def test_the_state_is_shown(system: System, watched: Watched) -> None:
    assert watched.shown()["state"] is None
    before = utc_now()
    system.deliver(watched.hook, (SAMPLES / "23-connection-update-open.json").read_bytes())
    row = watched.shown()
    assert (row["state"], row["state_reason"]) == ("open", 200)
    assert before <= datetime.fromisoformat(row["state_changed_at"]) <= utc_now()
    assert row["updated_at"] == row["created_at"], "the documented row is not touched"
    watched.deliver("close", 401)
    row = watched.shown()
    assert (row["state"], row["state_reason"]) == ("close", 401)
    assert watched.recorded() == [("open", 200), ("close", 401)]
    # An attempt is no event, and shown all the same.
    watched.deliver("connecting")
    assert watched.recorded() == [("open", 200), ("close", 401)]
    activity = watched.activity()
    assert activity["last_state"] == "connecting"
    assert watched.counts()[("webhook", "state", "connecting", "")] == 1
    assert activity["totals"]["accepted"] == 0


def test_both_webhooks_and_late_retries_tell_a_state_once(watched: Watched) -> None:
    told = [("open", 200, "2025-10-22T09:00:00.000Z"), ("close", 428, "2025-10-22T09:00:05.000Z")]
    told.append(("open", 200, "2025-10-22T09:00:09.000Z"))
    for state, reason, clock in [*told, *told, told[1]]:
        watched.deliver(state, reason, clock=clock)
    assert watched.recorded() == [("open", 200), ("close", 428), ("open", 200)]
    assert watched.shown()["state"] == "open"


def test_states_over_other_transports(system: System, watched: Watched) -> None:
    source = system.services.aggregates.load(connection(watched.stream_id))
    told = Envelope("connection.update", watched.name, (), (), state=InboundState(state="open", reason=None))
    for _ in range(3):
        record(system.write, source, told, utc_now(), "socket.io")
    assert watched.recorded() == [("open", None)]
    assert watched.counts() == {("socket.io", "state", "open", ""): 3}


# ------------------------------------------------------------------------------------------------------------ walls


def test_nothing_of_it_is_another_tenants(system: System, watched: Watched) -> None:
    stranger = Watched(system)
    system.deliver(watched.hook, envelope("oi", "W1", 1761134400))
    watched.deliver("open", 200)
    assert watched.shown()["totals"]["accepted"] == 1
    row = stranger.shown()
    assert (row["state"], row["last_message_at"]) == (None, None)
    assert row["totals"] == dict.fromkeys(("accepted", "duplicate", "ignored", "refused"), 0)
    assert stranger.activity()["counts"] == []
    system.get(stranger.who, f"/connections/{watched.id}/activity", expect=404)


def test_the_apikey_of_a_payload_is_stored_nowhere(system: System, watched: Watched) -> None:
    apikey = "9C0B2F7E-61D4-4A58-8E33-5D0A7C1E42FA"
    for path in sorted(SAMPLES.glob("*.json")):
        assert apikey in path.read_text("utf-8") or "apikey" not in json.loads(path.read_text("utf-8"))
        system.deliver(watched.hook, path.read_bytes())
    watched.shown()
    tables = system.rows(
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE starts_with(schemaname, 'evosense')"
    )
    assert len(tables) > 20
    for table in tables:
        held = system.rows(f"SELECT 1 FROM {table['name']} t WHERE t::text LIKE %s", f"%{apikey}%")  # noqa: S608
        assert held == [], table
        # Bytes are shown in hexadecimal.
        held = system.rows(f"SELECT 1 FROM {table['name']} t WHERE t::text LIKE %s", f"%{apikey.encode().hex()}%")  # noqa: S608
        assert held == [], table


def test_operators_see_it(system: System, admin: Account, operator: Account) -> None:
    identifier, _ = system.new_connection(admin, "vista por todos")
    system.projected()
    assert system.get(operator, f"/connections/{identifier}/activity")["counts"] == []
