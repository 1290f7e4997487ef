"""One list of hits from the one that goes by words and the one that goes by meaning.

Reciprocal rank fusion: G. V. Cormack, C. L. A. Clarke and S. Büttcher, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR 2009. A list gives its n-th hit 1 / (60 + n) points. Only places count, so
that a rank of words and a cosine, which have no common measure, need none.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

#: The constant of the paper: the larger, the less a first place is worth beside a tenth.
K: Final = 60
#: Characters of a snippet, as in `search_snippet()`.
SNIPPET: Final = 200

Way = Literal["text", "meaning"]


class Piece(msgspec.Struct, frozen=True):
    """A piece of a snippet; `match` where it is a word that was looked for. The text is plain: escape it for HTML."""

    text: str
    match: bool


class Hit(msgspec.Struct, frozen=True):
    """A message that was found.

    `found_by` says how; `score` is what hits are ordered by, to be compared within one answer alone;
    `similarity_score` is the cosine, 1 for the same meaning, null where the meaning did not find it; `snippet` is the
    part around the words that were found, or the beginning.
    """

    message_id: int
    text: str
    sentiment: float | None
    satisfaction: int | None
    created_at: datetime
    found_by: list[Way]
    score: float
    similarity_score: float | None
    snippet: list[Piece]


def fused(lists: Mapping[Way, Sequence[Mapping[str, Any]]], limit: int) -> list[Hit]:
    """The best `limit` hits of lists of rows, each best first: by score, then the newest, then the largest id."""
    scores: dict[int, float] = {}
    ways: dict[int, list[Way]] = {}
    rows: dict[int, dict[str, Any]] = {}
    for way, found in lists.items():
        for place, row in enumerate(found, start=1):
            identifier = row["message_id"]
            scores[identifier] = scores.get(identifier, 0.0) + 1 / (K + place)
            ways.setdefault(identifier, []).append(way)
            rows.setdefault(identifier, {}).update(row)
    order = sorted(rows, key=lambda identifier: (scores[identifier], rows[identifier]["created_at"], identifier))
    return [_hit(rows[identifier], ways[identifier], scores[identifier]) for identifier in order[: -limit - 1 : -1]]


def _hit(row: Mapping[str, Any], ways: list[Way], score: float) -> Hit:
    return Hit(
        message_id=row["message_id"],
        text=row["text"],
        sentiment=row["sentiment"],
        satisfaction=row["satisfaction"],
        created_at=row["created_at"],
        found_by=ways,
        score=score,
        similarity_score=row.get("similarity_score"),
        snippet=pieces(row["text"], row.get("snippet", row["text"][:SNIPPET]), row.get("highlights", [])),
    )


def pieces(text: str, snippet: str, highlights: Sequence[int]) -> list[Piece]:
    """A snippet of `text` cut at its highlights, and `…` for what is left out before and behind it.

    `highlights`: first character (from 1) and number of characters in turn.
    """
    text = unicodedata.normalize("NFC", text)
    snippet = unicodedata.normalize("NFC", snippet)
    cut: list[Piece] = [] if text.startswith(snippet) else [Piece("…", match=False)]
    done = 0
    for first, number in zip(highlights[::2], highlights[1::2], strict=True):
        cut += [
            Piece(snippet[done : first - 1], match=False),
            Piece(snippet[first - 1 : first - 1 + number], match=True),
        ]
        done = first - 1 + number
    cut += [Piece(snippet[done:], match=False)]
    if not text.endswith(snippet):
        cut.append(Piece("…", match=False))
    return [piece for piece in cut if piece.text]
