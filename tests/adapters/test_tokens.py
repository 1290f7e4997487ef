"""Our own tokens: signed by one key, accepted by several while the master key is being changed."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from adapters.tokens import ACCESS_LIFETIME, BadToken, Claims, Tokens

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
USER = UUID(int=7)


def now() -> datetime:
    return datetime.now(UTC)


def test_tokens_of_the_previous_key_are_read_and_new_ones_have_the_new_key() -> None:
    old, both, new = Tokens(OLD), Tokens(NEW, OLD), Tokens(NEW)
    before, after = (tokens.issue("refresh", USER, "stamp", now()) for tokens in (old, both))
    for token in (before, after):
        assert both.read("refresh", token) == Claims(USER, "stamp")
    assert new.read("refresh", after) == Claims(USER, "stamp")
    for tokens, token in ((new, before), (old, after), (both, Tokens(OTHER).issue("refresh", USER, "s", now()))):
        with pytest.raises(BadToken, match="no refresh token of this installation"):
            tokens.read("refresh", token)


@pytest.mark.parametrize("key", [OLD, NEW])
def test_the_previous_key_makes_nothing_else_valid(key: bytes) -> None:
    both = Tokens(NEW, OLD)
    expired = Tokens(key).issue("access", USER, "stamp", now() - ACCESS_LIFETIME - timedelta(seconds=1))
    with pytest.raises(BadToken, match="has expired"):
        both.read("access", expired)
    with pytest.raises(BadToken, match="of the kind access"):
        both.read("access", Tokens(key).issue("refresh", USER, "stamp", now()))
    for token in ("", "a.b.c", Tokens(key).issue("access", USER, "stamp", now())[:-8] + "AAAAAAAA"):
        with pytest.raises(BadToken, match="no access token"):
            both.read("access", token)
