"""Who is asking: the bearer token is read, and the user and the tenant behind it are looked up as they are now."""

import asyncio
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from adapters.tokens import BadToken
from api.problems import ProblemError
from api.services import Services
from domain.authn import User, user
from domain.tenancy import tenant

Connection = ASGIConnection[Any, Any, Any, Any]


class Principal(msgspec.Struct, frozen=True):
    """The user who asks, and for which tenant."""

    user_id: UUID
    tenant_id: UUID
    username: str
    role: str
    is_superuser: bool


class Authentication(AbstractAuthenticationMiddleware):
    """Every handler needs a token, except those that say `public=True`."""

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """Raises `ProblemError` 401 or 403."""
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ProblemError(401, "a bearer token is needed: POST /api/v1/login gives one")
        services = cast(Services, connection.app.state.services)
        try:
            claims = services.tokens.read("access", token.strip())
        except BadToken as error:
            raise ProblemError(401, str(error)) from None
        account = await asyncio.to_thread(active_user, services, claims.user_id)
        if stamp_of(account) != claims.stamp:
            raise ProblemError(401, "the password was changed since: log in again")
        return AuthenticationResult(user=principal_of(account), auth=token)


def active_user(services: Services, user_id: UUID) -> User:
    """The user as it is now. Raises `ProblemError` where it may not come in any more."""
    account = services.aggregates.load(user(user_id))
    if account.tenant_id is None or not account.is_active:
        raise ProblemError(401, "the user is deactivated")
    home = services.aggregates.load(tenant(account.tenant_id))
    if home.status == "suspended" and not account.is_superuser:
        raise ProblemError(403, "the tenant is suspended; its messages are still received")
    return account


def principal_of(account: User) -> Principal:
    """The principal that a user is."""
    if account.tenant_id is None:
        raise ProblemError(401, "there is no such user")
    return Principal(account.id, account.tenant_id, account.username, account.role, account.is_superuser)


def stamp_of(account: User) -> str:
    """Changes with the password, so that a change of it ends every session."""
    return sha256(account.password_hash.encode()).hexdigest()[:16]


def admins_only(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: admins of the tenant, and superusers. Raises `ProblemError` 403."""
    principal = cast(Principal, connection.user)
    if principal.role != "admin" and not principal.is_superuser:
        raise ProblemError(403, "only an admin may do this; you are an operator")


def superusers_only(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: superusers. Raises `ProblemError` 403."""
    if not cast(Principal, connection.user).is_superuser:
        raise ProblemError(403, "only a superuser may do this")
