"""What a text must be to fit its column: a fact that no row can hold would be poison to every projection for ever."""

from domain.errors import Invalid


def fitting(field: str, value: str, most: int, *, least: int = 0) -> str:
    """The value, if it has `least` to `most` characters and PostgreSQL can store it. Raises `Invalid`, without it."""
    if not least <= len(value) <= most:
        wanted = f"at most {most}" if least == 0 else f"{least} to {most}"
        raise Invalid(f"{field} has {wanted} characters; this one has {len(value)}")
    storable(field, value)
    return value


def storable(field: str, value: str) -> bytes:
    """The value in UTF-8. Raises `Invalid` for NUL, which PostgreSQL's texts can't hold, and half surrogate pairs."""
    if "\0" in value:
        raise Invalid(f"{field} contains the character NUL, which can't be stored: leave it out")
    try:
        return value.encode()
    except UnicodeEncodeError:
        # Its own message would quote the text.
        raise Invalid(f"{field} contains half of a surrogate pair: it is no valid Unicode") from None
