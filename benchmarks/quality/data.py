"""The labelled messages, the pairs, and the distractors; which half each of them is in.

Which half is held out is a rule over the files' order, fixed before anything was measured: no label and no answer of a
model has a part in it.
"""

import csv
import random
import string
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

Half = Literal["tuning", "held-out"]
Polarity = Literal["negative", "neutral", "positive"]

POLARITIES: Final[tuple[Polarity, ...]] = ("negative", "neutral", "positive")
#: What `LabelledMessage.style` may hold.
STYLES: Final = (
    "plain",
    "slang",
    "typo",
    "sarcasm",
    "emoji",
    "negation",
    "transcript",
    "mixed",
    "question",
    "capitals",
)
#: Messages among which the right answers of the pairs have to be found, beside the answers themselves.
DISTRACTORS: Final = 1000

_FOLDER: Final = Path(__file__).parent
_SEED: Final = 20


class LabelledMessage(msgspec.Struct, frozen=True):
    """A customer's message, as it looks after masking, and what it feels like."""

    sector: str
    style: tuple[str, ...]
    polarity: Polarity
    emotion: str
    satisfaction: int
    text: str
    half: Half


class Pair(msgspec.Struct, frozen=True):
    """What someone looks for, and the message that says it in other words."""

    query: str
    answer: str
    half: Half


@cache
def messages() -> tuple[LabelledMessage, ...]:
    """All messages of messages.tsv.

    Of those of one sector and emotion every second one is held out: the second, the fourth … in the first sector, the
    first, the third … in the next, and so in turn, so that neither half has the odd ones.
    """
    found: list[LabelledMessage] = []
    sectors: dict[str, int] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for row in _rows("messages.tsv"):
        place = sectors.setdefault(row["sector"], len(sectors)) + seen[row["sector"], row["emotion"]]
        seen[row["sector"], row["emotion"]] += 1
        values = {
            **row,
            "style": row["style"].split(","),
            "satisfaction": int(row["satisfaction"]),
            "half": "held-out" if place % 2 else "tuning",
        }
        found.append(msgspec.convert(values, LabelledMessage))
    return tuple(found)


@cache
def pairs() -> tuple[Pair, ...]:
    """All pairs of pairs.tsv; every second one is held out."""
    return tuple(
        Pair(row["query"], row["answer"], "held-out" if place % 2 else "tuning")
        for place, row in enumerate(_rows("pairs.tsv"))
    )


@cache
def distractors() -> tuple[str, ...]:
    """`DISTRACTORS` messages, all different: those written by hand, and then of each template in turn."""
    drawn = tomllib.loads((_FOLDER / "distractors.toml").read_text("utf-8"))
    chance = random.Random(_SEED)  # noqa: S311 - the same ones every time
    found: dict[str, None] = dict.fromkeys(drawn["messages"])
    while len(found) < DISTRACTORS:
        for template in drawn["templates"]:
            names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
            text = template.format(**{name: chance.choice(drawn["words"][name]) for name in names})
            found[text[0].upper() + text[1:]] = None
    return tuple(found)[:DISTRACTORS]


def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
