"""User: somebody who may log in, as an admin or an operator of one tenant."""

import re
from typing import Annotated, Final, Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id
from domain.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from domain.event import SEALED, Event, event_type
from domain.limits import fitting

#: Roles of the documented table `authn_user`.
ROLES: Final = ("admin", "operator")
#: The documented column `authn_user.password`.
MAX_PASSWORD_HASH: Final = 128
_USERNAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{2,149}")


@event_type("authn.UserRegistered")
class UserRegistered(Event, frozen=True, kw_only=True):
    """Somebody may log in from now on. `password_hash` is an argon2id hash; the password itself is never recorded."""

    username: Annotated[str, SEALED]
    password_hash: Annotated[str, SEALED]
    email: Annotated[str | None, SEALED]
    first_name: Annotated[str | None, SEALED]
    last_name: Annotated[str | None, SEALED]
    role: str
    is_superuser: bool


@event_type("authn.PasswordChanged")
class PasswordChanged(Event, frozen=True, kw_only=True):
    """The password is another one."""

    password_hash: Annotated[str, SEALED]


@event_type("authn.RoleChanged")
class RoleChanged(Event, frozen=True, kw_only=True):
    """The user's role within the tenant is another one."""

    role: str


@event_type("authn.UserDeactivated")
class UserDeactivated(Event, frozen=True, kw_only=True):
    """The user may not log in any more."""


@event_type("authn.UserLoggedIn")
class UserLoggedIn(Event, frozen=True, kw_only=True):
    """The user gave the right password at `at`."""


class RegisterUser(Command, frozen=True, kw_only=True):
    """Let somebody log in. The password comes hashed: hashing takes a third of a second and chance."""

    tenant_id: UUID
    username: str
    password_hash: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    role: str = "operator"
    is_superuser: bool = False


class ChangePassword(Command, frozen=True, kw_only=True):
    """Set another password."""

    password_hash: str


class ChangeRole(Command, frozen=True, kw_only=True):
    """Set another role."""

    role: str


class DeactivateUser(Command, frozen=True, kw_only=True):
    """Shut the user out."""


class RecordLogin(Command, frozen=True, kw_only=True):
    """The right password was given."""


class User(Aggregate, frozen=True, kw_only=True):
    """State of a user. Its stream id is derived from the user name, which makes user names unique."""

    tenant_id: UUID | None = None
    username: str = ""
    password_hash: str = ""
    role: str = "operator"
    is_superuser: bool = False
    is_active: bool = False

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case UserRegistered():
                return replace(
                    after,
                    tenant_id=event.tenant_id,
                    username=event.username,
                    password_hash=event.password_hash,
                    role=event.role,
                    is_superuser=event.is_superuser,
                    is_active=True,
                )
            case PasswordChanged():
                return replace(after, password_hash=event.password_hash)
            case RoleChanged():
                return replace(after, role=event.role)
            case UserDeactivated():
                return replace(after, is_active=False)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`."""
        if isinstance(command, RegisterUser):
            return self._register(command)
        if self.tenant_id is None:
            raise NotFound("there is no such user")
        if not self.is_active:
            if isinstance(command, DeactivateUser):
                return ()
            raise NotAllowed("the user is deactivated")
        match command:
            case ChangePassword():
                password_hash = _password_hash(command.password_hash)
                return (self._event(PasswordChanged, command, self.tenant_id, password_hash=password_hash),)
            case ChangeRole():
                _check_role(command.role)
                if command.role == self.role:
                    return ()
                return (self._event(RoleChanged, command, self.tenant_id, role=command.role),)
            case DeactivateUser():
                return (self._event(UserDeactivated, command, self.tenant_id),)
            case RecordLogin():
                return (self._event(UserLoggedIn, command, self.tenant_id),)
        raise Invalid(f"a user does not understand {type(command).__name__}")

    def _register(self, command: RegisterUser) -> tuple[Event, ...]:
        if self.exists:
            raise AlreadyExists("the user name is taken: choose another one")
        if self.id != user_id(command.username):
            raise Invalid("the user's id does not belong to that user name")
        _check_role(command.role)
        for field, limit in (("email", 254), ("first_name", 150), ("last_name", 150)):
            value: str | None = getattr(command, field)
            if value is not None:
                fitting(field, value, limit)
        return (
            self._event(
                UserRegistered,
                command,
                command.tenant_id,
                username=normal_username(command.username),
                password_hash=_password_hash(command.password_hash),
                email=command.email,
                first_name=command.first_name,
                last_name=command.last_name,
                role=command.role,
                is_superuser=command.is_superuser,
            ),
        )


def normal_username(username: str) -> str:
    """The user name as it is kept: trimmed, in lower case. Raises `Invalid` if it can't be one."""
    name = username.strip().lower()
    if not _USERNAME.fullmatch(name):
        raise Invalid(
            "a user name has 3 to 150 characters: letters a to z, digits and . _ @ + -, the first a letter or a digit"
        )
    return name


def user_id(username: str) -> UUID:
    """The stream id of the user of that name. Raises `Invalid` if it can't be a user name."""
    return derived_id("user", normal_username(username))


def user(identifier: UUID) -> User:
    """The user of that id before anything has happened."""
    return User(id=identifier)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise Invalid(f"there is no role {role!r}: the roles are {', '.join(ROLES)}")


def _password_hash(password_hash: str) -> str:
    return fitting("a password's hash", password_hash, MAX_PASSWORD_HASH, least=1)
