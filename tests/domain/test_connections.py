"""What a connection does with its commands."""

from datetime import timedelta

import pytest

from domain.connections import (
    ActivateConnection,
    ConnectionActivated,
    ConnectionDeactivated,
    ConnectionRegistered,
    ConnectionStateChanged,
    DeactivateConnection,
    RegisterConnection,
    ReportState,
    RotateToken,
    TokenRotated,
    connection,
    connection_id,
)
from domain.errors import AlreadyExists, Invalid, NotFound
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

EMPTY = connection(connection_id(TENANT, "loja"))
URL = "https://evo.example.com:8443/base"
REGISTERED = fact(
    ConnectionRegistered, EMPTY, name="loja", evo_ws_url=URL, sealed_token="c2VhbGVk", company_sender="ab" * 32
)
DEACTIVATED = fact(ConnectionDeactivated, EMPTY, 2)


def register(**fields: object) -> RegisterConnection:
    usual = {"name": "loja ", "evo_ws_url": URL, "sealed_token": "c2VhbGVk", "company_sender": "ab" * 32}
    return RegisterConnection(at=NOW, tenant_id=TENANT, **{**usual, **fields})


def test_an_instance_is_connected() -> None:
    given(EMPTY).when(register()).then(REGISTERED)
    assert given(EMPTY, REGISTERED).state.is_active


def test_its_name_is_unique_within_the_tenant() -> None:
    given(EMPTY, REGISTERED).when(register()).refused(AlreadyExists, "'loja")
    assert connection_id(TENANT, " loja ") == EMPTY.id
    assert connection_id(EMPTY.id, "loja") != EMPTY.id


def test_the_id_must_belong_to_tenant_and_name() -> None:
    given(EMPTY).when(register(name="outra")).refused(Invalid, "does not belong")


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "lo\0ja"])
def test_what_can_not_be_a_name(name: str) -> None:
    with pytest.raises(Invalid, match="a connection's name"):
        connection_id(TENANT, name)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "evo.example.com",
        "ftp://evo.example.com",
        "https://",
        "http://[::1",
        "https://evo.example.com:99999",
        "ws:x",
    ],
)
def test_what_is_no_address_is_refused_and_not_raised(url: str) -> None:
    given(EMPTY).when(register(evo_ws_url=url)).refused(Invalid, "such as https://evo.example.com")


def test_secrets_do_not_belong_in_the_address() -> None:
    command = register(evo_ws_url="https://joao:senha@evo.example.com")
    given(EMPTY).when(command).refused(Invalid, "must not hold a user name or password")


def test_what_no_column_can_hold_is_refused() -> None:
    given(EMPTY).when(register(sealed_token="x" * 256)).refused(Invalid, "token is too long")
    given(EMPTY).when(register(company_sender="x" * 65)).refused(Invalid, "company_sender")
    given(EMPTY).when(register(evo_ws_url="https://evo.example.com/\0")).refused(Invalid, "NUL")
    given(EMPTY, REGISTERED).when(RotateToken(at=NOW, sealed_token="x" * 256)).refused(Invalid, "token is too long")


def test_the_token_is_rotated() -> None:
    rotated = fact(TokenRotated, EMPTY, 2, sealed_token="bm92bw==")
    given(EMPTY, REGISTERED).when(RotateToken(at=NOW, sealed_token="bm92bw==")).then(rotated)
    assert given(EMPTY, REGISTERED, rotated).state.sealed_token == "bm92bw=="


def test_it_is_deactivated_and_activated() -> None:
    activated = fact(ConnectionActivated, EMPTY, 3)
    given(EMPTY, REGISTERED).when(ActivateConnection(at=NOW)).then()
    given(EMPTY, REGISTERED).when(DeactivateConnection(at=NOW)).then(DEACTIVATED)
    given(EMPTY, REGISTERED, DEACTIVATED).when(DeactivateConnection(at=NOW)).then()
    given(EMPTY, REGISTERED, DEACTIVATED).when(ActivateConnection(at=NOW)).then(activated)
    assert given(EMPTY, REGISTERED, DEACTIVATED, activated).state.is_active


@pytest.mark.parametrize(
    "command",
    [RotateToken(at=NOW, sealed_token="x"), ActivateConnection(at=NOW), DeactivateConnection(at=NOW)],
    ids=lambda command: type(command).__name__,
)
def test_a_connection_that_was_never_registered_is_not_found(command: RotateToken) -> None:
    given(EMPTY).when(command).refused(NotFound, "no such connection")


def test_a_command_of_another_aggregate_is_refused() -> None:
    given(EMPTY, REGISTERED).when(ReactivateTenant(at=NOW)).refused(Invalid, "ReactivateTenant")


# ------------------------------------------------------------------------------------------- states of the instance


def told(state: str, reason: int | None = None, *, after: float = 0, clock: float | None = None) -> ReportState:
    """A state that is told some minutes after noon, by the server's clock so many minutes after another noon."""
    told_at = None if clock is None else NOW - timedelta(hours=3) + timedelta(minutes=clock)
    return ReportState(at=NOW + timedelta(minutes=after), state=state, reason=reason, told_at=told_at)


def states(*commands: ReportState) -> list[tuple[str, int | None]]:
    """What is recorded of them, in order."""
    state, recorded = given(EMPTY, REGISTERED).state, []
    for command in commands:
        events = state.decide(command)
        state = state.replay(events)
        recorded += [(event.state, event.reason) for event in events if isinstance(event, ConnectionStateChanged)]
    return recorded


def test_a_state_is_recorded_once() -> None:
    fact_of = fact(ConnectionStateChanged, EMPTY, 2, state="open", reason=200, told_at=None)
    given(EMPTY, REGISTERED).when(told("open", 200)).then(fact_of)
    given(EMPTY, REGISTERED, fact_of).when(told("open", 200)).then()
    given(EMPTY, REGISTERED, fact_of).when(told("open", None, after=900)).then()
    assert states(told("connecting"), told("connecting"), told("open"), told("close", 401), told("open")) == [
        ("connecting", None),
        ("open", None),
        ("close", 401),
        ("open", None),
    ]


def test_an_instance_that_fails_to_connect_does_not_fill_the_log() -> None:
    told_ones = [told("open")]
    for number in range(200):
        told_ones += [
            told("close", 408 if number % 2 else 428, after=number / 10),
            told("connecting", after=number / 10),
        ]
    # 20 minutes of it: the first end, and after a quarter of an hour that the reason is another one by now.
    assert states(*told_ones) == [("open", None), ("close", 428), ("close", 408)]


def test_an_end_for_good_is_told_at_once() -> None:
    assert states(told("close", 428), told("close", 408, after=1), told("close", 401, after=2)) == [
        ("close", 428),
        ("close", 401),
    ]


def test_a_delivery_that_comes_late_changes_nothing() -> None:
    """Evolution retries for 20 minutes; the other webhook brings everything once more."""
    close, opened = told("close", 428, clock=0), told("open", clock=1, after=1)
    assert states(close, opened, told("close", 428, clock=0, after=20), told("open", clock=1, after=21)) == [
        ("close", 428),
        ("open", None),
    ]
    # A clock that was set back by an hour is believed again.
    assert states(opened, told("close", 428, clock=-60, after=2)) == [("open", None), ("close", 428)]
    # What comes without the server's time counts in the order in which it comes.
    assert states(opened, told("close", 428, after=2)) == [("open", None), ("close", 428)]


@pytest.mark.parametrize(("state", "reason"), [("refused", None), ("", None), ("open", -1), ("open", 10**7)])
def test_what_is_no_state(state: str, reason: int | None) -> None:
    given(EMPTY, REGISTERED).when(told(state, reason)).refused(Invalid, "state")
    given(EMPTY).when(told("open")).refused(NotFound, "no such connection")
    naive = ReportState(at=NOW.replace(tzinfo=None), state="open")
    given(EMPTY, REGISTERED).when(naive).refused(Invalid, "without a zone")


def test_a_deactivated_connection_still_has_a_state() -> None:
    state = fact(ConnectionStateChanged, EMPTY, 3, state="close", reason=401, told_at=None)
    given(EMPTY, REGISTERED, DEACTIVATED).when(told("close", 401)).then(state)
