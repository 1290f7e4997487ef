"""Masks personal numbers and addresses in text, before anything is stored or shown to a model (DESIGN rule 6).

What is masked, and with which token:

| what | token | proof asked for |
| --- | --- | --- |
| CPF | `[CPF]` | both check digits, not eleven equal digits |
| CNPJ, numeric and alphanumeric | `[CNPJ]` | both check digits, not fourteen equal digits |
| e-mail address | `[EMAIL]` | its form |
| payment card | `[CARTÃO]` | Luhn, and a first digit and length that card schemes issue |
| telephone | `[TELEFONE]` | a Brazilian area code and subscriber, a leading `+`, a WhatsApp mention or link, or a cue |

A number that proves nothing stays: order numbers, prices, dates, CEPs, protocols, boleto lines, access keys. Every
match covers whole runs of digits, so a part of a longer number is never masked. Text outside a match keeps every
character. `mask` is idempotent because it runs until it finds nothing more, and takes time linear in the text: every
pattern is bounded and tried at the beginning of a run alone.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from domain.check_digits import is_card, is_cnpj, is_cpf
from domain.identity import AREA_CODES

CPF: Final = "[CPF]"
CNPJ: Final = "[CNPJ]"
EMAIL: Final = "[EMAIL]"
PHONE: Final = "[TELEFONE]"
CARD: Final = "[CARTÃO]"

# ------------------------------------------------------------------------------------------------- patterns

_NOT_DIGITS: Final = re.compile("[^0-9]")
_WORTH_A_LOOK: Final = re.compile("@|[0-9](?:[^0-9@]*[0-9]){7}")
_START, _END = r"(?<![0-9])", r"(?![0-9])"
_AREA = "(?:" + "|".join(sorted(AREA_CODES)) + ")"

# Long payment and tax numbers, identifiers and coordinates, whose parts may look like something shorter.
_PROTECTED: Final = re.compile(
    rf"{_START}(?:"
    r"[0-9]{5}\.?[0-9]{5} ?[0-9]{5}\.?[0-9]{6} ?[0-9]{5}\.?[0-9]{6} ?[0-9] ?[0-9]{14}"  # bank boleto: 47
    r"|[0-9]{11}[- ]?[0-9](?: ?[0-9]{11}[- ]?[0-9]){3}"  # utilities' and taxes' boleto: 48
    r"|[0-9]{4}(?: [0-9]{4}){10}"  # access key of an electronic invoice: 44
    r"|[0-9]{1,3}\.[0-9]{5,17}, ?-?[0-9]{1,3}\.[0-9]{5,17}"  # latitude and longitude
    rf"){_END}"
    r"|(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Fa-f])"  # UUID (Pix key)
)
_DOMAIN: Final = re.compile(
    # All in lower case first, so that a sentence glued to the address ("x@gmail.com.Obrigado") is not its end.
    r"@(?:(?:[a-z0-9à-öø-ÿ-]{1,63}\.){1,8}[a-zà-öø-ÿ]{2,24}|(?:[\w-]{1,63}\.){1,8}(?:[^\W\d_]{2,24}|xn--[\w-]{2,59}))"
    r"(?!\w)"
)
_LOCAL_PART: Final = re.compile(r"[\w.%+'-]")
_CNPJ: Final = re.compile(
    rf"{_START}[0-9]{{2}}[ .-]{{0,2}}[0-9]{{3}}[ .-]{{0,2}}[0-9]{{3}} ?[/.-]? ?[0-9]{{4}}[ -]{{0,3}}[0-9]{{2}}{_END}"
)
_CNPJ_ALPHANUMERIC: Final = re.compile(
    r"(?:(?<![^\W_])|(?<=CNPJ))[A-Z0-9]{2}\.?[A-Z0-9]{3}\.?[A-Z0-9]{3}/?[A-Z0-9]{4}-?[0-9]{2}(?![^\W_])",
    re.IGNORECASE | re.ASCII,
)
_CPF: Final = re.compile(rf"{_START}[0-9]{{3}}[ .-]{{0,2}}[0-9]{{3}}[ .-]{{0,2}}[0-9]{{3}} ?[-./ ]? ?[0-9]{{2}}{_END}")
_GAP = "[ .-]{1,3}"
_CARD_OF_19: Final = re.compile(rf"{_START}[0-9]{{4}}(?:{_GAP}[0-9]{{4}}){{3}}{_GAP}[0-9]{{3}}{_END}")
_CARD: Final = re.compile(
    rf"{_START}(?:[0-9]{{13,19}}|[0-9]{{4}}(?:{_GAP}[0-9]{{4}}){{2}}{_GAP}[0-9]{{1,4}}"
    rf"|[0-9]{{4}}{_GAP}[0-9]{{6}}{_GAP}[0-9]{{4,5}}|[0-9]{{8}}{_GAP}[0-9]{{8}}"
    rf"|[0-9]{{4}}{_GAP}[0-9]{{12}}|[0-9]{{12}}{_GAP}[0-9]{{4}}){_END}"
)
_MENTION: Final = re.compile(rf"(?<![^\W\d])@(?P<number>[0-9]{{8,20}}){_END}")
_LINK: Final = re.compile(rf"(?:wa\.me/|phone=)(?P<number>(?:\+|%2B)?[0-9]{{8,15}}){_END}", re.IGNORECASE)
_PHONE_IN_BRAZIL: Final = re.compile(
    rf"(?:{_START}|(?=[+(]))(?<!R\$)(?<!R\$ )"
    r"(?P<country>(?:\((?:\+ ?)?55\)|(?:\+ ?|00 ?)?55)[ .-]{0,3})?"
    # The trunk 0 may stand before the area code, alone or with a carrier's code (0 15 11, 0xx11).
    rf"(?:\( ?(?:0(?:xx|[0-9]{{2}})?)? ?{_AREA} ?\)|(?:0(?:xx|[0-9]{{2}}[ -])?[ -]?)?{_AREA})[ .-]{{0,3}}"
    r"(?:(?P<mobile>9(?:[ .-]?[0-9]{4}[ .-]{0,3}[0-9]{4}|[0-9]{3}[ .-][0-9]{5}|[0-9]{2}[ -][0-9]{3}[ -][0-9]{3}))"
    r"|[2-9][0-9]{3}[ .-]{0,3}[0-9]{4})"
    # A number with cents is a price.
    rf"{_END}(?!,[0-9]{{2}}(?![0-9]|[ .()-]{{1,6}}[0-9]))",
    re.IGNORECASE,
)
_PHONE_ABROAD: Final = re.compile(
    rf"\+ ?(?:1[ .-]?\(?[0-9]{{3}}\)?[ .-]{{0,2}}[0-9]{{3}}[ .-]?[0-9]{{4}}"
    rf"|[1-9][0-9]{{0,14}}(?:[ .()-]{{1,2}}[0-9]){{0,2}}(?:[ .()-]{{1,2}}[0-9]{{2,15}}){{0,6}}){_END}"
)
_PHONE_WITHOUT_AREA: Final = re.compile(rf"{_START}9 ?[0-9]{{4}}-[0-9]{{4}}{_END}")
_PHONE_AFTER_CUE: Final = re.compile(
    r"(?<!\[)(?<![^\W\d])(?:tel(?:efone)?|fone|cel(?:ular)?|zap(?:zap)?|wh?ats(?:app)?|wpp)s?(?![^\W\d_])[^0-9\n\[]{0,12}"
    rf"(?P<number>(?:9[ .-]?)?[2-9][0-9]{{3}}[ .-]?[0-9]{{4}}){_END}",
    re.IGNORECASE,
)
_OTHER_NUMBER_CUE: Final = re.compile(
    r"(?<![^\W\d_])(?:pedido|protocolo|nota|nf-?e?|danfe|c[oó]d(?:igo)?|rastre(?:io|amento)|ordem|chamado|ticket|fatura"
    r"|boleto|contrato|matr[ií]cula|lote|s[eé]rie|serial|sku|ref(?:er[eê]ncia)?)[ :.#º°n-]{0,6}$",
    re.IGNORECASE,
)


# ------------------------------------------------------------------------------------------------ detection

#: First and one-past-last index into the folded text.
Span = tuple[int, int]


def _emails(folded: str) -> list[Span]:
    spans: list[Span] = []
    end = 0
    for domain in _DOMAIN.finditer(folded):
        start = domain.start()
        # Two addresses never share a character, so all these steps together pass over the text once.
        while start > end and _LOCAL_PART.match(folded[start - 1]):
            start -= 1
        while folded[start] in ".'%-":
            start += 1
        if start < domain.start():
            end = domain.end()
            spans.append((start, end))
    return spans


def _accepted(pattern: re.Pattern[str], accept: Callable[[re.Match[str]], Span | None], folded: str) -> list[Span]:
    """Return the accepted matches from left to right; after a refused one, go on at the next character."""
    spans: list[Span] = []
    at = 0
    while (match := pattern.search(folded, at)) is not None:
        span = accept(match)
        if span is None:
            at = match.start() + 1
        else:
            spans.append(span)
            at = span[1]
    return spans


def _cnpj(match: re.Match[str]) -> Span | None:
    return match.span() if is_cnpj(_NOT_DIGITS.sub("", match[0])) else None


def _cnpj_alphanumeric(match: re.Match[str]) -> Span | None:
    # Twelve letters and two digits without a slash are a name more often than a CNPJ.
    plausible = "/" in match[0] or any(character.isdigit() for character in match[0][:-2])
    return match.span() if plausible and is_cnpj(re.sub("[./-]", "", match[0])) else None


def _cpf(match: re.Match[str]) -> Span | None:
    return match.span() if is_cpf(_NOT_DIGITS.sub("", match[0])) else None


def _card(match: re.Match[str]) -> Span | None:
    return match.span() if is_card(_NOT_DIGITS.sub("", match[0])) else None


def _number(match: re.Match[str]) -> Span:
    return match.span("number")


def _whole(match: re.Match[str]) -> Span:
    return match.span()


def _phone_in_brazil(match: re.Match[str]) -> Span | None:
    if match["mobile"] or match["country"] or not match[0].isdecimal():
        return match.span()
    # Ten bare digits are an order number as easily as a landline. No mobile has been so short since 2016.
    subscriber = match[0][-8:]
    if subscriber[0] in "6789" or _OTHER_NUMBER_CUE.search(match.string, max(0, match.start() - 32), match.start()):
        return None
    return match.span()


def _phone_abroad(match: re.Match[str]) -> Span | None:
    if re.fullmatch(r"\+ ?[0-9]{1,3}(?:\.[0-9]{3})+", match[0]):  # an amount with its thousands
        return None
    start, end = match.span()
    # E.164 allows 15 digits: the groups beyond belong to another number.
    while len(_NOT_DIGITS.sub("", match.string[start:end])) > 15:
        end = start + len(re.sub(r"[ .()-]+[0-9]+\Z", "", match.string[start:end]))
    return (start, end) if len(_NOT_DIGITS.sub("", match.string[start:end])) >= 9 else None


#: In order of precedence: the proof of a check digit comes before the shape of a telephone.
_DETECTORS: Final = (
    (_CNPJ, _cnpj, CNPJ),
    (_CNPJ_ALPHANUMERIC, _cnpj_alphanumeric, CNPJ),
    (_MENTION, _number, PHONE),
    (_LINK, _number, PHONE),
    (_CPF, _cpf, CPF),
    (_CARD_OF_19, _card, CARD),
    (_CARD, _card, CARD),
    (_PHONE_IN_BRAZIL, _phone_in_brazil, PHONE),
    (_PHONE_ABROAD, _phone_abroad, PHONE),
    (_PHONE_WITHOUT_AREA, _whole, PHONE),
    (_PHONE_AFTER_CUE, _number, PHONE),
)


def _blank(folded: str, spans: list[Span]) -> str:
    """Return the text, of the same length, with the spans made unreadable to every pattern."""
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces += (folded[at:start], "\0" * (end - start))
        at = end
    return "".join((*pieces, folded[at:]))


def _find(folded: str) -> list[tuple[int, int, str]]:
    folded = _blank(folded, [match.span() for match in _PROTECTED.finditer(folded)])
    spans = _emails(folded)
    found = [(start, end, EMAIL) for start, end in spans]
    for pattern, accept, token in _DETECTORS:
        folded = _blank(folded, spans) if spans else folded
        spans = _accepted(pattern, accept, folded)
        found += ((start, end, token) for start, end in spans)
    return sorted(found)


# -------------------------------------------------------------------------------------------------- folding


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


_FOLDING: Final = _Folding()


def mask(text: str) -> str:
    """Return the text with personal numbers and addresses replaced by their tokens; `mask(mask(x)) == mask(x)`."""
    while True:
        folded = text if text.isascii() else text.translate(_FOLDING)
        found = _find(folded) if _WORTH_A_LOOK.search(folded) else []
        if not found:
            return text
        # Where invisible characters were dropped, say which character of the text each folded one was.
        index = range(len(text)) if len(folded) == len(text) else [at for at, c in enumerate(text) if _FOLDING[ord(c)]]
        pieces: list[str] = []
        at = 0
        for start, end, token in found:
            last = index[end - 1] + 1
            while last < len(text) and unicodedata.category(text[last]) in ("Mn", "Me"):
                last += 1  # it is drawn on the digit that goes
            pieces += (text[at : index[start]], token)
            at = last
        text = "".join((*pieces, text[at:]))
