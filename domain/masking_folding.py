"""Folding: the same text in the characters that the patterns of `domain.masking` know, one for one or none."""

import unicodedata
from typing import Final


class _Folding(dict[int, str]):
    """Maps a code point to the one ASCII character it stands for, to itself, or to nothing if it is invisible."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character.isascii():
            return character
        category = unicodedata.category(character)
        if category in ("Cf", "Mn", "Me"):  # zero-width and bidirectional marks, variation selectors, keycaps
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
