"""An extractive summary: the beginning of the message. Nothing is rewritten, so nothing is made up."""

import re
from typing import Final

#: Characters that `domain.ports.Analysis.summary` may have.
MAX_SUMMARY: Final = 200

_SENTENCE_END = re.compile(r"[.!?…]+[\"')]*(?=\s)")


def summarise(text: str) -> str:
    """Return whole sentences from the beginning of `text`, as many as `MAX_SUMMARY` characters hold.

    Where not even the first fits, it is cut behind a word and ends in an ellipsis.
    """
    # Whitespace only shrinks when it is joined, and no summary needs more than this to begin with.
    text = " ".join(text[: MAX_SUMMARY * 20].split())
    if len(text) <= MAX_SUMMARY:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: MAX_SUMMARY + 1])]
    if ends and ends[-1] >= MAX_SUMMARY // 4:
        return text[: ends[-1]]
    cut = text[: MAX_SUMMARY - 1]
    if not text[MAX_SUMMARY - 1].isspace() and " " in cut:
        cut = cut.rsplit(" ", 1)[0]
    return cut.rstrip(" ,;:-") + "…"
