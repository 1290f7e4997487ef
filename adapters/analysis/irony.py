"""Praise that may be meant the other way: what is left of a message without it, to be judged by itself."""

import re
from typing import Final

#: Letters that have to be left for it to say anything.
LEAST: Final = 10
#: How bad what is left has to be, as a share, for the praise to be taken for irony...
DOUBT: Final = 0.8
#: ...and how much it says then, beside the whole message.
WEIGHT: Final = 0.9

PRAISE: Final = re.compile(
    r"\b(?:que (?:maravilha|beleza|bom|boa|lind[oa]|[oó]timo|rom[aâ]ntico|conforto|gentileza|legal|efici[eê]ncia"
    r"|\w+ (?=de|da|do))|ador(?:ei|o)|am(?:ei|o)|parab[eé]ns|obrigad[oa]|agradeço|valeu|excelente|[oó]tim[oa]s?"
    r"|lind[oa]s?|super|bel[oa]|maravilh\w+|nota (?:dez|10)|perfeit[oa]|sensacional|incr[ií]ve(?:l|is)|nossa"
    r"|de primeira)\b",
    re.IGNORECASE,
)


def without_praise(text: str) -> str | None:
    """Return what is left of a text when its praise is put aside; None where there is no praise, or too little left."""
    left = PRAISE.sub(" ", text)
    if left == text or sum(map(str.isalpha, left)) <= LEAST:
        return None
    return left
