"""What a connection does with its commands."""

import pytest

from domain.connections import (
    ActivateConnection,
    ConnectionActivated,
    ConnectionDeactivated,
    ConnectionRegistered,
    DeactivateConnection,
    RegisterConnection,
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
