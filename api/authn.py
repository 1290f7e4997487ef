"""Logging in, and the users of a tenant."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post, put

from adapters.tokens import ACCESS_LIFETIME, BadToken
from api.commands import Key
from api.common import (
    Accepted,
    Page,
    PageSize,
    WaitFor,
    accepted,
    answer,
    cursor_page,
    handle,
    stream_of,
    until_reached,
)
from api.problems import ProblemError
from api.security import Principal, active_user, admins_only, stamp_of
from api.services import Services, now
from domain.authn import (
    ChangePassword,
    ChangeRole,
    DeactivateUser,
    RecordLogin,
    RegisterUser,
    User,
    UserRegistered,
    user,
    user_id,
)
from domain.errors import Invalid
from domain.tenancy import tenant
from sql import queries

_AUTHN: Final = queries("authn", "apsycopg")

Password = Annotated[str, msgspec.Meta(max_length=1024)]


class LoginRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """User name and password."""

    username: str
    password: Password


class RefreshRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The refresh token of a log-in."""

    refresh_token: str


class TokenPair(msgspec.Struct, frozen=True):
    """Use the access token as a bearer token for `expires_in` seconds, then the refresh token for a new pair."""

    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme


class Me(msgspec.Struct, frozen=True):
    """Who you are."""

    username: str
    tenant_id: UUID
    role: str
    is_superuser: bool


class PasswordRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The password that is, and the one that shall be."""

    current: Password
    new: Password


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user to register. Only a superuser may name another tenant than its own."""

    username: str
    password: Password
    role: str = "operator"
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    tenant_id: UUID | None = None


class RoleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`admin` or `operator`."""

    role: str


class UserRow(msgspec.Struct, frozen=True):
    """A user as the read model has it."""

    id: int
    username: str
    role: str
    is_active: bool
    is_superuser: bool
    email: str | None
    first_name: str | None
    last_name: str | None
    last_login: datetime | None
    date_joined: datetime


class UserCreated(msgspec.Struct, frozen=True):
    """The new user's id, and the position that queries can wait for."""

    id: int
    position: int


@post("/login", public=True, status_code=200)
async def login(data: LoginRequest, services: Services) -> Response[TokenPair]:
    """Log in with user name and password."""
    try:
        account = await asyncio.to_thread(services.aggregates.load, user(user_id(data.username)))
    except Invalid:
        account = None
    known = account.password_hash if account and account.is_active else None
    right = await services.verify_password(known, data.password)
    if not right or account is None:
        raise ProblemError(401, "user name or password is wrong")
    await asyncio.to_thread(active_user, services, account.id)
    done = await handle(services, user(account.id), RecordLogin(at=now()))
    return accepted(done, _tokens(services, account))


@post("/refresh", public=True, status_code=200)
async def refresh(data: RefreshRequest, services: Services) -> TokenPair:
    """Exchange a refresh token for a new pair."""
    try:
        claims = services.tokens.read("refresh", data.refresh_token)
    except BadToken as error:
        raise ProblemError(401, str(error)) from None
    account = await asyncio.to_thread(active_user, services, claims.user_id)
    if stamp_of(account) != claims.stamp:
        raise ProblemError(401, "the password was changed since: log in again")
    return _tokens(services, account)


@get("/me")
async def me(principal: Principal) -> Me:
    """Tell who is asking."""
    return Me(principal.username, principal.tenant_id, principal.role, principal.is_superuser)


@put("/me/password")
async def change_password(
    data: PasswordRequest, services: Services, principal: Principal, key: Key | None
) -> Response[Accepted]:
    """Change your own password; every token given before ends with it."""
    account = await asyncio.to_thread(services.aggregates.load, user(principal.user_id))
    if not await services.verify_password(account.password_hash, data.current):
        raise ProblemError(403, "the current password is wrong")
    hashed = await services.hash_password(data.new)
    return await answer(services, user(principal.user_id), ChangePassword(at=now(), password_hash=hashed), key)


@post("/users", guards=[admins_only])
async def register_user(
    data: NewUser, services: Services, principal: Principal, key: Key | None
) -> Response[UserCreated]:
    """Register a user of your tenant."""
    tenant_id = data.tenant_id or principal.tenant_id
    if tenant_id != principal.tenant_id and not principal.is_superuser:
        raise ProblemError(403, "only a superuser may register users of another tenant")
    await asyncio.to_thread(require_tenant, services, tenant_id)
    hashed = await services.hash_password(data.password)
    command = RegisterUser(
        at=now(),
        tenant_id=tenant_id,
        username=data.username,
        password_hash=hashed,
        email=data.email,
        first_name=data.first_name,
        last_name=data.last_name,
        role=data.role,
    )
    done = await handle(services, user(user_id(data.username)), command, key, new=True)
    return accepted(done, UserCreated(done.positions[0], done.position))


@get("/users", guards=[admins_only])
async def list_users(
    services: Services, principal: Principal, limit: PageSize = 50, after: int = 0, wait_for: WaitFor = None
) -> Page[UserRow]:
    """The users of your tenant, oldest first."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [row async for row in _AUTHN.users(conn, after=after, page=limit + 1)]
    return cursor_page(rows, [msgspec.convert(row, UserRow) for row in rows], limit)


@get("/users/{identifier:int}", guards=[admins_only])
async def get_user(identifier: int, services: Services, principal: Principal, wait_for: WaitFor = None) -> UserRow:
    """One user of your tenant."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _AUTHN.user(conn, id=identifier)
    if row is None:
        raise ProblemError(404, f"there is no user {identifier}")
    return msgspec.convert(row, UserRow)


@put("/users/{identifier:int}/role", guards=[admins_only])
async def change_role(
    identifier: int, data: RoleRequest, services: Services, principal: Principal, key: Key | None
) -> Response[Accepted]:
    """Make a user an admin or an operator."""
    stream_id = await stream_of(services, identifier, UserRegistered.type_name, principal, "user")
    return await answer(services, user(stream_id), ChangeRole(at=now(), role=data.role), key)


@post("/users/{identifier:int}/deactivate", guards=[admins_only], status_code=200)
async def deactivate_user(
    identifier: int, services: Services, principal: Principal, key: Key | None
) -> Response[Accepted]:
    """Shut a user out, at once."""
    stream_id = await stream_of(services, identifier, UserRegistered.type_name, principal, "user")
    if stream_id == principal.user_id:
        raise ProblemError(409, "you can't deactivate yourself")
    return await answer(services, user(stream_id), DeactivateUser(at=now()), key)


def require_tenant(services: Services, tenant_id: UUID) -> None:
    """Raises `ProblemError` 404 where there is no such tenant."""
    if not services.aggregates.load(tenant(tenant_id)).exists:
        raise ProblemError(404, f"there is no tenant {tenant_id}")


def _tokens(services: Services, account: User) -> TokenPair:
    moment, stamp = now(), stamp_of(account)
    return TokenPair(
        access_token=services.tokens.issue("access", account.id, stamp, moment),
        refresh_token=services.tokens.issue("refresh", account.id, stamp, moment),
        expires_in=int(ACCESS_LIFETIME.total_seconds()),
    )


#: Without a token: they are how one is got.
PUBLIC: list[Any] = [login, refresh]
HANDLERS: list[Any] = [
    me,
    change_password,
    register_user,
    list_users,
    get_user,
    change_role,
    deactivate_user,
]
