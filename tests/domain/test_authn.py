"""What a user does with its commands."""

import pytest

from domain.authn import (
    ChangePassword,
    ChangeRole,
    DeactivateUser,
    PasswordChanged,
    RecordLogin,
    RegisterUser,
    RoleChanged,
    UserDeactivated,
    UserLoggedIn,
    UserRegistered,
    normal_username,
    user,
    user_id,
)
from domain.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

EMPTY = user(user_id("ana.souza"))
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"
REGISTERED = fact(
    UserRegistered,
    EMPTY,
    username="ana.souza",
    password_hash=HASH,
    email="ana@example.com",
    first_name="Ana",
    last_name="Souza",
    role="admin",
    is_superuser=False,
)
DEACTIVATED = fact(UserDeactivated, EMPTY, 2)


def register(**fields: object) -> RegisterUser:
    given_fields = {
        "username": " Ana.Souza ",
        "password_hash": HASH,
        "email": "ana@example.com",
        "first_name": "Ana",
        "last_name": "Souza",
        "role": "admin",
    }
    return RegisterUser(at=NOW, tenant_id=TENANT, **{**given_fields, **fields})


def test_somebody_becomes_a_user_under_a_normal_name() -> None:
    given(EMPTY).when(register()).then(REGISTERED)


def test_user_names_are_unique_whatever_their_case() -> None:
    assert user_id("ANA.souza ") == EMPTY.id
    assert user_id("ana_souza") != EMPTY.id
    given(EMPTY, REGISTERED).when(register()).refused(AlreadyExists, "user name is taken")


def test_refusals_quote_no_name_and_no_hash() -> None:
    for scenario, command in (
        (given(EMPTY, REGISTERED), register()),
        (given(EMPTY, REGISTERED, DEACTIVATED), RecordLogin(at=NOW)),
        (given(EMPTY), register(password_hash="$argon2id$" + "x" * 128)),
        (given(EMPTY), register(email="ana@example.com" + "x" * 254)),
    ):
        error = scenario.when(command)._error
        assert error is not None
        for personal in ("ana", "Souza", "$argon2id", "example.com"):
            assert personal not in str(error)


def test_the_id_must_belong_to_the_name() -> None:
    given(EMPTY).when(register(username="bia")).refused(Invalid, "does not belong to that user name")


@pytest.mark.parametrize("name", ["", "an", "ana souza", "-ana", "ana\0souza", "joão", "a" * 151])
def test_what_can_not_be_a_user_name(name: str) -> None:
    with pytest.raises(Invalid, match="a user name has 3 to 150 characters"):
        normal_username(name)


@pytest.mark.parametrize(
    ("fields", "saying"),
    [
        ({"role": "boss"}, "the roles are admin, operator"),
        ({"email": "x" * 255}, "email has at most 254"),
        ({"first_name": "x" * 151}, "first_name has at most 150"),
        ({"last_name": "Sou\0za"}, "last_name contains the character NUL"),
        ({"password_hash": "x" * 129}, "a password's hash has 1 to 128"),
        ({"password_hash": ""}, "a password's hash has 1 to 128"),
    ],
)
def test_what_no_column_can_hold_is_refused(fields: dict[str, object], saying: str) -> None:
    given(EMPTY).when(register(**fields)).refused(Invalid, saying)


def test_the_password_changes_each_time() -> None:
    changed = fact(PasswordChanged, EMPTY, 2, password_hash=HASH)
    given(EMPTY, REGISTERED).when(ChangePassword(at=NOW, password_hash=HASH)).then(changed)
    given(EMPTY, REGISTERED).when(ChangePassword(at=NOW, password_hash="x" * 129)).refused(Invalid, "1 to 128")
    assert given(EMPTY, REGISTERED, fact(PasswordChanged, EMPTY, 2, password_hash="h2")).state.password_hash == "h2"


def test_the_role_changes() -> None:
    changed = fact(RoleChanged, EMPTY, 2, role="operator")
    given(EMPTY, REGISTERED).when(ChangeRole(at=NOW, role="operator")).then(changed)
    given(EMPTY, REGISTERED, changed).when(ChangeRole(at=NOW, role="operator")).then()
    given(EMPTY, REGISTERED).when(ChangeRole(at=NOW, role="boss")).refused(Invalid, "admin, operator")


def test_each_log_in_is_recorded() -> None:
    first = fact(UserLoggedIn, EMPTY, 2)
    given(EMPTY, REGISTERED).when(RecordLogin(at=NOW)).then(first)
    given(EMPTY, REGISTERED, first).when(RecordLogin(at=NOW)).then(fact(UserLoggedIn, EMPTY, 3))


def test_a_deactivated_user_can_do_nothing_more() -> None:
    given(EMPTY, REGISTERED).when(DeactivateUser(at=NOW)).then(DEACTIVATED)
    given(EMPTY, REGISTERED, DEACTIVATED).when(DeactivateUser(at=NOW)).then()
    for command in (RecordLogin(at=NOW), ChangeRole(at=NOW, role="admin"), ChangePassword(at=NOW, password_hash="h")):
        given(EMPTY, REGISTERED, DEACTIVATED).when(command).refused(NotAllowed, "deactivated")
    given(EMPTY, REGISTERED, DEACTIVATED).when(register()).refused(AlreadyExists, "taken")


@pytest.mark.parametrize(
    "command",
    [RecordLogin(at=NOW), DeactivateUser(at=NOW), ChangeRole(at=NOW, role="admin")],
    ids=lambda command: type(command).__name__,
)
def test_a_user_that_was_never_registered_is_not_found(command: RecordLogin) -> None:
    given(EMPTY).when(command).refused(NotFound, "no such user")


def test_a_command_of_another_aggregate_is_refused() -> None:
    given(EMPTY, REGISTERED).when(ReactivateTenant(at=NOW)).refused(Invalid, "ReactivateTenant")
