"""Finds the one JSON object in what a model said."""

import json
import re
from typing import Any, Final, NoReturn

from adapters.analysis.errors import BrokenContract

#: Characters of an answer. The object needs 400.
MAX_ANSWER: Final = 16_384
#: Braces that begin no object: each costs a look at the rest of the text.
_MAX_FALSE_STARTS: Final = 20

#: What models that think put before their answer, where the server does not take it out.
_THOUGHTS: Final = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)


def the_object(text: str) -> dict[str, Any]:
    """The JSON object; a fence or words around it are passed over. Raises `BrokenContract`.

    None, two, a key twice, `NaN`, an endless number or nesting, or an answer of more than `MAX_ANSWER` characters is
    refused.
    """
    if len(text) > MAX_ANSWER:
        raise BrokenContract(
            f"the answer has more than {MAX_ANSWER} characters; one JSON object of five keys is wanted"
        )
    thoughts = _THOUGHTS.match(text)
    at = thoughts.end() if thoughts else 0
    found: list[dict[str, Any]] = []
    false_starts = 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError:
            at, false_starts = at + 1, false_starts + 1
            if false_starts > _MAX_FALSE_STARTS:
                break
        except RecursionError:
            raise BrokenContract("the answer nests too deep; one flat JSON object of five keys is wanted") from None
        except ValueError:  # int() reads 4300 digits at the most
            raise BrokenContract("the answer holds a number that is too long") from None
        else:
            found.append(value)
            if len(found) > 1:
                raise BrokenContract("the answer holds more than one JSON object; exactly one is wanted")
    if not found:
        raise BrokenContract("the answer holds no complete JSON object; exactly one is wanted, and nothing around it")
    return found[0]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise BrokenContract("a key stands twice in the answer; each of the five stands once")
    return dict(pairs)


def _constant(_name: str) -> NoReturn:
    raise BrokenContract("NaN and Infinity are no JSON; numbers are finite")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
