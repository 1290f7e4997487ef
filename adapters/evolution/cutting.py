"""Makes a text from outside storable: without NUL and half surrogate pairs, and within the limit."""

import re
from typing import Final

#: Bytes of UTF-8 kept of one text. WhatsApp itself allows 65,536 characters.
MAX_TEXT_BYTES: Final = 65_536
#: Ends a text that was cut, within the limit, so that a reader sees that there was more.
CUT_MARK: Final = " […]"

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_UNSEEN: Final = re.compile(r"[\s\xad\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufeff]*")
#: Characters looked back over for the beginning of a number or an address that the cut went through.
_LOOK_BACK: Final = 320


def clean(text: str, limit: int = MAX_TEXT_BYTES, mark: str = "") -> str:
    """Return the text without NUL (PostgreSQL takes none), without halves of surrogate pairs, at most `limit` bytes.

    A cut text ends with `mark`.
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii() and len(text) <= limit:
        return text
    encoded = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text).encode()
    if len(encoded) <= limit:
        return encoded.decode()
    kept = encoded[: limit - len(mark.encode())].decode(errors="ignore")
    return _without_half_words(kept) + mark if mark else kept


def fitted(text: str) -> str:
    """Return a message's text as it may be stored: clean, and cut and marked where it is over `MAX_TEXT_BYTES`.

    Masking can lengthen a text (`@12345678` becomes `@[TELEFONE]`): call it once more on what `mask` returns.
    """
    return clean(text, MAX_TEXT_BYTES, CUT_MARK)


def is_blank(text: str) -> bool:
    """Tell whether nothing in it can be seen: white space, zero-width and directional marks."""
    return _UNSEEN.fullmatch(text) is not None


def _without_half_words(text: str) -> str:
    # Half a CPF or half an e-mail address is personal, too, and no mask would recognise it.
    head, tail = text[:-_LOOK_BACK], text[-_LOOK_BACK:]
    words = tail.rsplit(None, 1)
    return head + (words[0] if len(words) == 2 else tail).rstrip(" 0123456789.()/+-@")
