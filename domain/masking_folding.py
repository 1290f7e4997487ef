"""Folding: the same text in the characters that the patterns of `domain.masking` know, one for one or none."""

import unicodedata
from typing import Final

#: Invisible characters that are neither marks nor controls: fillers, a blank pattern of Braille, unassigned tags.
INVISIBLE: Final = frozenset({0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0}.union(range(0xE0000, 0xE1000)))
#: The controls that are space.
_SPACES: Final = "\t\n\x0b\x0c\r\x85"


class _Folding(dict[int, str]):
    """Maps a code point to the one ASCII character it stands for, to itself, or to nothing if it is invisible."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cc":
            return character if character in _SPACES else ""
        if character.isascii():
            return character
        # Zero-width and bidirectional marks, variation selectors, keycaps, and what no font shows.
        if category in ("Cf", "Mn", "Me", "Co") or code in INVISIBLE:
            return ""
        if category == "Nd":
            return str(unicodedata.decimal(character))
        if category == "Zs":
            return " "
        if category == "Pd" or character == "\N{MINUS SIGN}":
            return "-"
        if character in "·•∙․":
            return "."
        compatible = unicodedata.normalize("NFKC", character)
        # Superscripts and ordinal signs ("m²", "nº") do not stand for the digit or letter they resemble.
        return (
            compatible if len(compatible) == 1 and compatible.isascii() and category not in ("No", "Lo") else character
        )


FOLDING: Final = _Folding()
