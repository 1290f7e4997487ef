"""Tokens of our own users (JWT, HS256), and the ones that Evolution signs its webhooks with."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import jwt
import msgspec

ACCESS_LIFETIME: Final = timedelta(minutes=15)
REFRESH_LIFETIME: Final = timedelta(days=14)
#: Evolution makes the token once and retries with it for 20 minutes (EVOLUTION.md).
WEBHOOK_LEEWAY: Final = timedelta(minutes=30)
_ISSUER: Final = "evosense"

Kind = Literal["access", "refresh"]


class BadToken(Exception):
    """The token was not signed by us, is of another kind, or has expired; the message says which."""


class Claims(msgspec.Struct, frozen=True):
    """Whose token it is; `stamp` ties a refresh token to the password that it was given for."""

    user_id: UUID
    stamp: str


class Tokens:
    """Issues and reads our own tokens. Signs with `key`, and accepts what one of the `previous` keys has signed.

    So nobody is logged out while the master key, from which the key follows, is being changed.
    """

    def __init__(self, key: bytes, *previous: bytes) -> None:
        self._keys = (key, *previous)

    def issue(self, kind: Kind, user_id: UUID, stamp: str, now: datetime) -> str:
        """A token of that kind."""
        lifetime = ACCESS_LIFETIME if kind == "access" else REFRESH_LIFETIME
        claims = {"iss": _ISSUER, "use": kind, "sub": str(user_id), "stamp": stamp, "iat": now, "exp": now + lifetime}
        return jwt.encode(claims, self._keys[0], algorithm="HS256")

    def read(self, kind: Kind, token: str) -> Claims:
        """Whose it is. Raises `BadToken`."""
        try:
            claims = self._decoded(token)
        except jwt.ExpiredSignatureError:
            raise BadToken(f"the {kind} token has expired") from None
        except jwt.InvalidTokenError:
            raise BadToken(f"this is no {kind} token of this installation") from None
        if claims.get("use") != kind:
            raise BadToken(f"a token of the kind {kind} is needed here")
        try:
            return Claims(UUID(claims["sub"]), str(claims["stamp"]))
        except (KeyError, ValueError):
            raise BadToken(f"this is no {kind} token of this installation") from None

    def _decoded(self, token: str) -> dict[str, Any]:
        """The claims, by the first key that fits. Raises `jwt.InvalidTokenError`."""
        for key in self._keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, key, algorithms=["HS256"], issuer=_ISSUER, options={"require": ["exp", "sub"]}
                )
            except jwt.InvalidSignatureError:
                continue
            return claims
        raise jwt.InvalidSignatureError


def is_evolution_bearer(token: str, key: str, now: datetime) -> bool:
    """Whether Evolution signed this bearer token with the `jwt_key` that is the connection's token."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key.encode(), algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
        )
        return datetime.fromtimestamp(float(claims["exp"]), UTC) + WEBHOOK_LEEWAY >= now
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return False
