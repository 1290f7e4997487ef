"""Passwords: argon2id hashes. Slow on purpose (about a third of a second): call it off the event loop."""

from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

#: A shorter password is guessed; a longer one only costs time. Length is what counts (NIST SP 800-63B).
MIN_LENGTH: Final = 10
MAX_LENGTH: Final = 128


class WeakPassword(ValueError):
    """The password is too short or too long; the message says how long it may be."""


class Passwords:
    """Hashes and verifies."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        # Verified where there is no such user, so that the answer takes as long as for one that there is.
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """The hash to keep; at most 128 characters. Raises `WeakPassword`."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise WeakPassword(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters")
        return self._hasher.hash(password)

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the right one; None stands for a user that does not exist."""
        try:
            return self._hasher.verify(password_hash or self._nobody, password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False
