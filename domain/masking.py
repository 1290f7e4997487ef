"""Masks personal numbers and addresses in text, before anything is stored or shown to a model (DESIGN rule 6).

What is masked, and with which token:

| what | token | proof asked for |
| --- | --- | --- |
| CPF | `[CPF]` | both check digits, not eleven equal digits |
| CNPJ, numeric and alphanumeric | `[CNPJ]` | both check digits, not fourteen equal digits |
| e-mail address | `[EMAIL]` | its form; with typing errors at the usual providers alone |
| payment card | `[CARTÃO]` | Luhn, and a first digit and length that card schemes issue |
| telephone | `[TELEFONE]` | a Brazilian area code and subscriber, a leading `+`, a WhatsApp mention or link, or a cue |
| random Pix key | `[PIX]` | a UUID of version 4 that nothing calls an order, or any UUID that is called a key |
| Pix "copia e cola" | `[PIX]` | `br.gov.bcb.pix` in it |

A number that proves nothing stays: order numbers, prices, dates, CEPs, protocols, boleto lines, access keys. Every
match covers whole runs of digits, so a part of a longer number is never masked. Text outside a match keeps every
character. `mask` is idempotent because it runs until it finds nothing more, and takes time linear in the text: every
pattern is bounded and tried at the beginning of a run alone. docs/masking.md has the limits, and what was measured.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from domain import masking_patterns as patterns
from domain import masking_pix as pix
from domain.check_digits import is_card, is_cnpj, is_cpf
from domain.identity import AREA_CODES
from domain.masking_folding import FOLDING

CPF: Final = "[CPF]"
CNPJ: Final = "[CNPJ]"
EMAIL: Final = "[EMAIL]"
PHONE: Final = "[TELEFONE]"
CARD: Final = "[CARTÃO]"
PIX: Final = "[PIX]"

# ------------------------------------------------------------------------------------------------ detection

#: Those of ASCII that nobody sees: the rest of it is folded to itself.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")

#: First and one-past-last index into the folded text.
Span = tuple[int, int]


def _emails(pattern: re.Pattern[str], folded: str) -> list[Span]:
    spans: list[Span] = []
    end = 0
    for domain in pattern.finditer(folded):
        start = domain.start()
        # Two addresses never share a character, so all these steps together pass over the text once.
        while start > end and patterns.LOCAL_PART.match(folded[start - 1]):
            start -= 1
        while folded[start] in ".'%-":
            start += 1
        if start < domain.start():
            end = domain.end()
            spans.append((start, end))
    return spans


def _accepted(
    pattern: re.Pattern[str], accept: Callable[[re.Match[str]], Span | None], folded: str, where: slice
) -> list[Span]:
    """Return the accepted matches from left to right; after a refused one, go on at the next character."""
    spans: list[Span] = []
    at = where.start
    while (match := pattern.search(folded, at, where.stop)) is not None:
        span = accept(match)
        if span is None:
            at = match.start() + 1
        else:
            spans.append(span)
            at = span[1]
    return spans


def _digits(text: str) -> str:
    return patterns.NOT_DIGITS.sub("", text)


def _proved(is_one: Callable[[str], bool], group: str | int = 0) -> Callable[[re.Match[str]], Span | None]:
    """Accept what has the check digits."""
    return lambda match: match.span(group) if is_one(_digits(match[group])) else None


def _cnpj_alphanumeric(match: re.Match[str]) -> Span | None:
    if not is_cnpj(re.sub("[ ./-]", "", match[0])):
        return None
    start = match.start()
    if "/" in match[0] or patterns.CNPJ_CUE.search(match.string, max(0, start - 32), start):
        return match.span()
    # Without a slash, words are more often than a CNPJ what fourteen characters are, and so are the codes of orders.
    plausible = " " not in match[0] and any(character.isdigit() for character in match[0][:-2])
    return match.span() if plausible and not _called_other(match) else None


def _card_after_cue(match: re.Match[str]) -> Span | None:
    start, end = match.span("number")
    # The date of expiry or the security code may follow.
    while end > start and len(digits := _digits(match.string[start:end])) >= 13:
        if is_card(digits):
            return (start, end)
        end = start + len(re.sub(r"[ ./_-]*[0-9]+\Z", "", match.string[start:end]))
    return None


def _is_spelled_phone(digits: str) -> bool:
    """Tell whether eleven digits are a mobile number with its area code."""
    digits = digits[2:] if len(digits) == 13 and digits.startswith("55") else digits
    return len(digits) == 11 and digits[:2] in AREA_CODES and digits[2] == "9"


def _number(match: re.Match[str]) -> Span:
    return match.span("number")


def _whole(match: re.Match[str]) -> Span:
    return match.span()


def _called_other(match: re.Match[str], group: str | int = 0) -> bool:
    start = match.start(group)
    cue = patterns.OTHER_NUMBER_CUE.search(match.string, max(0, start - 40), start)
    # "Cancela o pedido. 11987650001": the sentence about the order is over.
    return cue is not None and not (cue["gap"].startswith(". ") and len(_digits(match[group])) > 10)


def _begun_by_letters(match: re.Match[str]) -> bool:
    before = match.string[max(0, match.start() - 8) : match.start()].lower()
    return before[-1:].isalpha() and not before.endswith(("tel", "fone", "cel", "zap", "whats", "fixo"))


def _phone_in_brazil(match: re.Match[str]) -> Span | None:
    if not match[0].isdecimal():
        return match.span()
    if _called_other(match):
        return None
    if match["mobile"] or match["country"]:
        return match.span()
    # Ten bare digits are an order number as easily as a landline. No mobile has been so short since 2016.
    if match[0][-8] in "6789" or pix.in_address(match) or _begun_by_letters(match):
        return None
    return match.span()


def _phone_abroad(match: re.Match[str]) -> Span | None:
    if re.fullmatch(r"\+ ?[0-9]{1,3}(?:\.[0-9]{3})+", match[0]):  # an amount with its thousands
        return None
    start, end = match.span()
    # E.164 allows 15 digits: the groups beyond belong to another number.
    while len(_digits(match.string[start:end])) > 15:
        end = start + len(re.sub(r"[ .()-]+[0-9]+\Z", "", match.string[start:end]))
    return (start, end) if len(_digits(match.string[start:end])) >= 9 else None


def _phone_surely_abroad(match: re.Match[str]) -> Span | None:
    return None if _digits(match[0]).startswith("55") else _phone_abroad(match)


def _phone_after_cue(match: re.Match[str]) -> Span | None:
    return None if _called_other(match, "number") else match.span("number")


def _phone_after_weak_cue(match: re.Match[str]) -> Span | None:
    group = "mobile" if match["mobile"] else "landline"
    return None if _called_other(match, group) else match.span(group)


def _phones_joined(folded: str, ends: list[int]) -> list[Span]:
    """Return the telephones that follow others, which end at `ends`, by an "e", an "ou" or a comma."""
    spans: list[Span] = []
    for at in ends:
        while (match := patterns.PHONE_JOINED.match(folded, at)) is not None:
            spans.append(match.span("number"))
            at = match.end()  # noqa: PLW2901 - a list of any length, in one pass
    return spans


def _cpf_without_zeros(match: re.Match[str]) -> Span | None:
    # Two digits less to prove it by: what it is called counts.
    is_one = is_cpf(match["number"].zfill(11)) and not _called_other(match, "number")
    return match.span("number") if is_one else None


#: No pattern begins so far before its first digit, or ends so far behind its last one.
_REACH: Final = 80

#: In order of precedence: the proof of a check digit comes before the shape of a telephone.
_DETECTORS: Final = (
    (patterns.CNPJ, _proved(is_cnpj), CNPJ),
    (patterns.CNPJ_ALPHANUMERIC, _cnpj_alphanumeric, CNPJ),
    (patterns.MENTION, _number, PHONE),
    (patterns.LINK, _number, PHONE),
    (patterns.CPF, _proved(is_cpf), CPF),
    (patterns.CPF_AFTER_CUE, _proved(is_cpf, "number"), CPF),
    (patterns.CPF_WITHOUT_ZEROS, _cpf_without_zeros, CPF),
    (patterns.CARD_OF_19, _proved(is_card), CARD),
    (patterns.CARD, _proved(is_card), CARD),
    (patterns.CARD_AFTER_CUE, _card_after_cue, CARD),
    (patterns.LONE_DIGITS, _proved(is_cnpj), CNPJ),
    (patterns.LONE_DIGITS, _proved(is_cpf), CPF),
    (patterns.LONE_DIGITS, _proved(is_card), CARD),
    (patterns.LONE_DIGITS, _proved(_is_spelled_phone), PHONE),
    (patterns.PHONE_ABROAD, _phone_surely_abroad, PHONE),
    (patterns.PHONE_IN_BRAZIL, _phone_in_brazil, PHONE),
    (patterns.PHONE_IN_GROUPS, _whole, PHONE),
    (patterns.PHONE_ABROAD, _phone_abroad, PHONE),
    (patterns.PHONE_ABROAD_DIALLED, _whole, PHONE),
    (patterns.PHONE_WITHOUT_AREA, _whole, PHONE),
    (patterns.PHONE_AFTER_CUE, _phone_after_cue, PHONE),
    (patterns.PHONE_AFTER_WEAK_CUE, _phone_after_weak_cue, PHONE),
)


def _blank(folded: str, spans: list[Span]) -> str:
    """Return the text, of the same length, with the spans made unreadable to every pattern."""
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces += (folded[at:start], "\0" * (end - start))
        at = end
    return "".join((*pieces, folded[at:])) if spans else folded


def _around_digits(folded: str) -> slice:
    """Return where numbers are and the words that announce them: most of a message need not be searched."""
    first, from_the_end = patterns.DIGIT.search(folded), patterns.DIGIT.search(folded[::-1])
    if first is None or from_the_end is None:
        return slice(0, 0)
    return slice(max(0, first.start() - _REACH), len(folded) - from_the_end.start() + _REACH)


def _find(folded: str) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []

    def take(spans: list[Span], token: str) -> str:
        found.extend((start, end, token) for start, end in spans)
        return _blank(folded, spans)

    lower = folded.lower()
    where = _around_digits(folded)
    if "br.gov.bcb.pix" in lower:
        folded = take(_accepted(pix.PAYLOAD, pix.payload, folded, where), PIX)
    folded = take(_accepted(pix.KEY, pix.key, folded, where), PIX)
    folded = _blank(folded, [match.span() for match in patterns.PROTECTED.finditer(folded, where.start, where.stop)])
    if "@" in folded or "arroba" in lower:
        folded = take(_emails(patterns.DOMAIN, folded), EMAIL)
        folded = take(_emails(patterns.DOMAIN_TYPED_OTHERWISE, folded), EMAIL)
    for pattern, accept, token in _DETECTORS:
        folded = take(_accepted(pattern, accept, folded, where), token)
    ends = [match.end() for match in re.finditer(re.escape(PHONE), folded)]
    ends += [end for _, end, token in found if token == PHONE]
    take(_phones_joined(folded, ends), PHONE)
    return sorted(found)


def _worth_a_look(folded: str) -> bool:
    if patterns.DIGIT.search(folded) is not None and patterns.WORTH_A_LOOK.search(folded) is not None:
        return True
    return "@" in folded or "arroba" in folded.lower()


def mask(text: str) -> str:
    """Return the text with personal numbers and addresses replaced by their tokens; `mask(mask(x)) == mask(x)`."""
    while True:
        folded = text if text.isascii() and not _CONTROLS.search(text) else text.translate(FOLDING)
        found = _find(folded) if _worth_a_look(folded) else []
        if not found:
            return text
        # Where invisible characters were dropped, say which character of the text each folded one was.
        index = range(len(text)) if len(folded) == len(text) else [at for at, c in enumerate(text) if FOLDING[ord(c)]]
        pieces: list[str] = []
        at = 0
        for start, end, token in found:
            last = index[end - 1] + 1
            while last < len(text) and unicodedata.category(text[last]) in ("Mn", "Me"):
                last += 1  # it is drawn on the digit that goes
            pieces += (text[at : index[start]], token)
            at = last
        text = "".join((*pieces, text[at:]))
