"""The form in which chat is given to the sentence encoder, which was trained on written language."""

import hashlib
import re
import tomllib
from functools import cache
from importlib import resources
from typing import Final

#: Characters of a message that the encoder reads, about 400 tokens. Longer text is cut: time and memory grow with it
#: (64 KB of text measured 0.8 s and 250 MB), and an average over thousands of words says little of any of them.
MAX_CHARACTERS: Final = 2000

#: A message is shouted where more than this part of its letters are capitals...
SHOUTING_SHARE: Final = 0.6
#: ...of at least this many letters: `OK` and `CPF` are not shouted.
SHOUTING_LETTERS: Final = 4

_WORD = re.compile(r"\w+")
_MASK = re.compile(r"\[[A-ZÃ]+\]")


def bounded(text: str) -> str:
    """Return the first `MAX_CHARACTERS` characters of a text, with lone surrogates replaced by `?`."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def is_shouted(text: str) -> bool:
    """Tell whether a text is written in capitals, the tokens of masked data (`[CPF]`) not counted."""
    letters = [character for character in _MASK.sub("", text) if character.isalpha()]
    capitals = sum(character.isupper() for character in letters)
    return len(letters) >= SHOUTING_LETTERS and capitals > SHOUTING_SHARE * len(letters)


def canonical(text: str) -> str:
    """Return the text as the encoder reads it: bounded, no longer shouted, abbreviations spelt out, spaces single."""
    text = bounded(text)
    if is_shouted(text):
        text = text.lower()
    words = _chat_words()
    text = _WORD.sub(lambda match: words.get(match.group().lower(), match.group()), text)
    return " ".join(text.split())


@cache
def digest() -> str:
    """Return the SHA-256, in hex, of everything that shapes `canonical`."""
    constants = f"{MAX_CHARACTERS} {SHOUTING_SHARE} {SHOUTING_LETTERS} {_WORD.pattern} {_MASK.pattern}"
    return hashlib.sha256(_chat_words_file() + constants.encode()).hexdigest()


def _chat_words_file() -> bytes:
    return resources.files(__package__).joinpath("chat_words.toml").read_bytes()


@cache
def _chat_words() -> dict[str, str]:
    words: dict[str, str] = tomllib.loads(_chat_words_file().decode("utf-8"))["words"]
    return words
