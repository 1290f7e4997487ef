"""What a model's summary must be. It is the one text of a model that anybody reads."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from adapters.analysis.errors import BrokenContract
from adapters.analysis.framing import cleaned
from adapters.analysis.language import agrees
from domain.answers import MAX_SUMMARY
from domain.masking import mask
from domain.ports import Question

#: Words in a row that a summary may not share with the instructions.
LEAKED_WORDS: Final = 8
#: Letters of the longest word that a summary may bring in: what is longer is code.
_LONGEST_WORD: Final = 40

#: Addresses, and hosts without a scheme. Two-letter ends that are words ("pedido.me ajude") need a path.
_LINK: Final = re.compile(
    r"[a-z][a-z0-9+.-]{1,20}://\S+|\bwww\.\S+|\b(?:wa|t|bit|goo)\.(?:me|ly|gl)/\S+"
    r"|\b[a-z0-9-]{2,63}\.(?:com|net|org|br|io|app|link|info|online|shop|store|site|xyz|dev|gov|edu)\b(?:[/.]\S*)?"
    r"|\b(?:javascript|data|mailto):\S+"
)
_EMAIL: Final = re.compile(r"[\w.%+-]+\s?@\s?[\w-]+(?:\.[\w-]+)+")
#: Tags, code and the marks of a model's turns.
_MARKUP: Final = re.compile(r"<\s?[/!a-z|]|```|\{[{%#]|\[/?(?:inst|sys)|!?\[[^\]]*\]\(")
_WORD: Final = re.compile(r"[a-z0-9]+")


def checked_summary(summary: object, question: Question, instructions: str) -> str:
    """The summary as it may be stored: one line, without invisible characters, masked. Raises `BrokenContract`.

    `instructions`: the prompt, of which it may not repeat a part.
    """
    if not isinstance(summary, str):
        raise BrokenContract("summary is a text")
    if "\0" in summary:
        raise BrokenContract("summary has no character NUL")
    line = " ".join(unicodedata.normalize("NFC", cleaned(summary[: MAX_SUMMARY * 20])).split())
    if "\N{REPLACEMENT CHARACTER}" in line:
        raise BrokenContract("summary holds what is no valid Unicode")
    _fits(line)
    _no_code(line, question)
    line = mask(line)
    _fits(line)
    if not agrees(line, question.text):
        raise BrokenContract(
            "summary is in another language than the message; it is in the message's language, which is Portuguese "
            "where that can't be told"
        )
    _no_leak(line, question, instructions)
    return line


def _fits(line: str) -> None:
    if not line:
        raise BrokenContract("summary is empty; it says in a few words what the message is about")
    if len(line) > MAX_SUMMARY:
        raise BrokenContract(f"summary is too long; it has at most {MAX_SUMMARY} characters")


def _no_code(line: str, question: Question) -> None:
    """Raises `BrokenContract` for addresses, markup and endless words that the conversation does not have."""
    lower = line.casefold()
    said = _said(question)
    if _EMAIL.search(lower) is not None:
        raise BrokenContract("summary holds an e-mail address; it holds no personal data")
    if any(match[0].rstrip(".,;:!?)") not in said for match in _LINK.finditer(lower)):
        raise BrokenContract("summary holds an address that is not in the message; it has no links")
    if any(match[0] not in said for match in _MARKUP.finditer(lower)):
        raise BrokenContract("summary holds markup or code that is not in the message; it is plain text")
    if any(len(word) > _LONGEST_WORD and word not in said for word in lower.split()):
        raise BrokenContract(f"summary holds a word of more than {_LONGEST_WORD} letters; it is plain text")


def _no_leak(line: str, question: Question, instructions: str) -> None:
    runs = _runs(line) & _prompt_runs(instructions)
    if runs and runs - _runs(_said(question)):
        raise BrokenContract("summary repeats the instructions; it says what the message is about")


def _said(question: Question) -> str:
    return "\n".join((*question.earlier, question.text)).casefold()


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words: Sequence[str] = _WORD.findall(
        unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode("ascii")
    )
    return frozenset(tuple(words[at : at + LEAKED_WORDS]) for at in range(len(words) - LEAKED_WORDS + 1))


@lru_cache(maxsize=8)
def _prompt_runs(instructions: str) -> frozenset[tuple[str, ...]]:
    return _runs(instructions)
