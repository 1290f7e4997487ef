"""The one error that callers of the embedded servers have to expect."""


class EmbeddedError(Exception):
    """An embedded server cannot be had; the message says what is wrong, where, and what to do about it."""
