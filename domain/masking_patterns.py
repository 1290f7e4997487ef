"""The patterns by which `domain.masking` finds personal numbers in folded text.

Every pattern is bounded and tried at the beginning of a run alone, so that masking takes time linear in the text: what
may be long is said with a greatest number, never with `*` or `+`. A test asks each pattern for its greatest width.
"""

import re
from typing import Final

from domain.identity import AREA_CODES

NOT_DIGITS: Final = re.compile("[^0-9]")
DIGIT: Final = re.compile("[0-9]")
#: What no text with a number to mask lacks: eight digits, the end of an alphanumeric CNPJ, or of a UUID's first group.
WORTH_A_LOOK: Final = re.compile("[0-9](?:[^0-9]*[0-9]){7}|[0-9A-Za-z]{4} ?-? ?[0-9]{2}(?![0-9A-Za-z])|[0-9A-Fa-f]{8}")
START, END = r"(?<![0-9])", r"(?![0-9])"
_AREA = "(?:" + "|".join(sorted(AREA_CODES)) + ")"
_GAP = "[ .,_-]{0,3}"

# Long payment and tax numbers, identifiers and coordinates, whose parts may look like something shorter.
PROTECTED: Final = re.compile(
    rf"{START}(?:"
    r"[0-9]{5}\.?[0-9]{5} ?[0-9]{5}\.?[0-9]{6} ?[0-9]{5}\.?[0-9]{6} ?[0-9] ?[0-9]{14}"  # bank boleto: 47
    r"|[0-9]{11}[- ]?[0-9](?: ?[0-9]{11}[- ]?[0-9]){3}"  # utilities' and taxes' boleto: 48
    r"|[0-9]{4}(?: [0-9]{4}){10}"  # access key of an electronic invoice: 44
    r"|[0-9]{1,3}\.[0-9]{5,17}, ?-?[0-9]{1,3}\.[0-9]{5,17}"  # latitude and longitude
    rf"){END}"
    r"|(?<![0-9A-Za-z])(?:"
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"  # a UUID that is no Pix key
    r"|[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}"  # digests
    r"|E[0-9]{20}[0-9A-Za-z]{11}"  # a Pix transfer's end-to-end id
    r"|[A-Z]{2}[0-9]{9}[A-Z]{2}"  # tracking code of the postal union (S10)
    r")(?![0-9A-Za-z])"
)

# --------------------------------------------------------------------------------------------------- e-mail

DOMAIN: Final = re.compile(
    # All in lower case first, so that a sentence glued to the address ("x@gmail.com.Obrigado") is not its end.
    r"@{1,2}(?:(?:[a-z0-9à-öø-ÿ-]{1,63}\.){1,8}[a-zà-öø-ÿ]{2,24}|(?:[\w-]{1,63}\.){1,8}(?:[^\W\d_]{2,24}|xn--[\w-]{2,59}))"
    r"(?!\w)(?:(?<=\.com),br(?!\w))?"
)
_PROVIDER = (
    "(?:gmail|hotmail|outlook|yahoo|icloud|uol|bol|terra|live|msn|ig|globo|globomail|protonmail)"
    r"(?:(?![^\W_])|(?=com(?![^\W_])))"
)
_DOT = r"(?: ?[.,]{1,3} ?| ?[(\[]?ponto[)\]]? ?)"
_DOT_COM = rf"{_DOT}?com(?![^\W_])(?:{_DOT}br(?![^\W_]))?"
#: What Brazilians mistype or spell, at the providers that nearly all of them have their address with.
DOMAIN_TYPED_OTHERWISE: Final = re.compile(
    rf"@{{1,2}}{_PROVIDER}(?:{_DOT_COM})?|(?: ?@ ?| arroba | ?[(\[] ?arroba ?[)\]] ?){_PROVIDER}{_DOT_COM}",
    re.IGNORECASE,
)
LOCAL_PART: Final = re.compile(r"[\w.%+'-]")

# ------------------------------------------------------------------------------------------ with check digits

CNPJ: Final = re.compile(
    rf"{START}[0-9]{{2}}{_GAP}[0-9]{{3}}{_GAP}[0-9]{{3}} {{0,2}}[/\\.,_-]? ?[0-9]{{4}}[ ._-]{{0,3}}[0-9]{{2}}{END}"
)
CNPJ_ALPHANUMERIC: Final = re.compile(
    r"(?:(?<![^\W_])|(?<=CNPJ))[A-Z0-9]{2}[ .-]?[A-Z0-9]{3}[ .-]?[A-Z0-9]{3}(?: ?[/.-] ?| )?[A-Z0-9]{4}(?: ?- ?| )?"
    r"[0-9]{2}(?![^\W_])",
    re.IGNORECASE | re.ASCII,
)
CNPJ_CUE: Final = re.compile(r"(?<!\[)cnpj[^0-9\[\n\0]{0,24}$", re.IGNORECASE)
CPF: Final = re.compile(
    rf"{START}[0-9]{{3}}{_GAP}[0-9]{{3}}{_GAP}[0-9]{{3}} ?[-./,_ ]? ?[0-9]{{2}}{END}",
)
_CPF_CUE = r"(?<!\[)(?<![^\W\d_])c\.?p\.?f(?![^\W\d_])[^0-9\n\[\0]{0,32}"
#: In whatever groups: only where the customer says that it is one.
CPF_AFTER_CUE: Final = re.compile(rf"{_CPF_CUE}(?P<number>[0-9](?:[ .,/_-]{{0,3}}[0-9]){{10}}){END}", re.IGNORECASE)
#: A spreadsheet, or the customer, dropped the zeros in front.
CPF_WITHOUT_ZEROS: Final = re.compile(rf"{_CPF_CUE}(?P<number>[0-9]{{9,10}}){END}", re.IGNORECASE)

_CARD_GAP = r"[ \n./,_-]{1,3}"
CARD_OF_19: Final = re.compile(rf"{START}[0-9]{{4}}(?:{_CARD_GAP}[0-9]{{4}}){{3}}{_CARD_GAP}[0-9]{{3}}{END}")
CARD: Final = re.compile(
    rf"{START}(?:[0-9]{{13,19}}|[0-9]{{4}}(?:{_CARD_GAP}[0-9]{{4}}){{2}}{_CARD_GAP}[0-9]{{1,4}}"
    rf"|[0-9]{{4}}{_CARD_GAP}[0-9]{{6}}{_CARD_GAP}[0-9]{{4,5}}|[0-9]{{8}}{_CARD_GAP}[0-9]{{8}}"
    rf"|[0-9]{{4}}{_CARD_GAP}[0-9]{{4}}{_CARD_GAP}[0-9]{{8}}|[0-9]{{8}}{_CARD_GAP}[0-9]{{4}}{_CARD_GAP}[0-9]{{4}}"
    rf"|[0-9]{{4}}{_CARD_GAP}[0-9]{{12}}|[0-9]{{12}}{_CARD_GAP}[0-9]{{4}}){END}"
)
CARD_AFTER_CUE: Final = re.compile(
    r"(?<!\[)(?<![^\W\d_])(?:cart[aã]o|visa|master(?:card)?|elo|hiper(?:card)?|amex)(?![^\W\d_])[^0-9\n\[\0]{0,32}"
    rf"(?P<number>[0-9](?:[ ./_-]{{0,3}}[0-9]){{12,18}}){END}",
    re.IGNORECASE,
)

#: Digits spelled one by one, all of them.
LONE_DIGITS: Final = re.compile(
    r"(?<![0-9])(?<![0-9][ .,_-])(?<![0-9][ .,_-]{2})(?<![0-9][ .,_-]{3})(?:\+ ?55[ .,_-]{1,3})?"
    r"[0-9](?![0-9])(?:[ .,_-]{1,3}[0-9](?![0-9])){10,18}(?![ .,_-]{1,3}[0-9])"
)

# ------------------------------------------------------------------------------------------------ telephones

MENTION: Final = re.compile(rf"(?<![^\W\d])@(?P<number>[0-9]{{8,20}}){END}")
LINK: Final = re.compile(rf"(?:wa\.me/|phone=)(?P<number>(?:\+|%2B)?[0-9]{{8,15}}){END}", re.IGNORECASE)
# A number with cents is a price.
_CARRIER = "(?:1[2457]|21|25|31|4[13])"
_NO_CENTS = r"(?!,[0-9]{2}(?![0-9]|[ .()-]{1,6}[0-9]))"
PHONE_IN_BRAZIL: Final = re.compile(
    rf"(?:{START}|(?=[+(]))(?<!R\$)(?<!R\$ )"
    r"(?P<country>(?:\( ?(?:\+ ?)?55 ?\)|(?:\+ ?|00 ?)?55)[ ._-]{0,3})?"
    # The trunk 0 may stand before the area code, alone or with a carrier's code (0 15 11, 01511, 0xx11, 0**11).
    rf"(?:\( ?(?:0(?:xx|\*\*|[0-9]{{2}})?)? ?{_AREA} ?\)"
    rf"|(?:\(0\) ?|0 ?(?:xx|\*\*|[0-9]{{2}}[ -]|{_CARRIER}(?={_AREA}9))?[ -]?)?{_AREA}\)?)"
    r"(?:[ ._-]{0,5}|(?P<slash> ?/ ?))"
    r"(?:(?P<mobile>9(?:[ ._-]{0,2}[0-9]{4}[ ._-]{0,3}[0-9]{4}|[0-9]{3}[ .-][0-9]{5}|[0-9]{2}[ -][0-9]{3}[ -][0-9]{3}"
    r"|[0-9]{2}(?:[ .-][0-9]{2}){3}))"
    # "NF 11/2025-1234" is no telephone.
    rf"|(?(slash)(?!)|[2-9][0-9]{{3}}[ ._-]{{0,3}}[0-9]{{4}})){END}{_NO_CENTS}",
    re.IGNORECASE,
)
#: In whatever groups: only where brackets or the country code say that a telephone begins.
PHONE_IN_GROUPS: Final = re.compile(
    rf"(?:\+ ?55[ ._-]{{0,3}}\(?{_AREA}\)?|\({_AREA}\))[ ._-]{{0,3}}9(?:[ ._-]{{0,2}}[0-9]){{8}}{END}{_NO_CENTS}"
)
#: Dialled with 00, to where Brazilians live or which borders on Brazil, and in groups.
PHONE_ABROAD_DIALLED: Final = re.compile(
    rf"{START}00 ?(?:351|595|598|591|5[478]|3[349]|4[149]|81)(?:[ .-][0-9]{{2,5}}){{2,4}}{END}"
)
PHONE_ABROAD: Final = re.compile(
    rf"\+ ?(?:1[ .-]?\(?[0-9]{{3}}\)?[ .-]{{0,2}}[0-9]{{3}}[ .-]?[0-9]{{4}}"
    rf"|[1-9][0-9]{{0,14}}(?:[ .()-]{{1,2}}[0-9]){{0,2}}(?:[ .()-]{{1,2}}[0-9]{{2,15}}){{0,6}}){END}"
)
PHONE_WITHOUT_AREA: Final = re.compile(rf"{START}9 ?[0-9]{{4}}-[0-9]{{4}}{END}")
_MOBILE = r"9[ .-]{0,2}[0-9]{4}[ .-]{0,3}[0-9]{4}"
# Neither two years nor one of the numbers of companies that are the same in the whole country.
_NOT_ELSE = r"(?!(?:19|20)[0-9]{2}[ -]{1,3}(?:19|20)[0-9]{2}|(?:300[34]|400[0-9]|4020)[ .-])"
_NO_PRICE = r"(?<!R\$)(?<!R\$ )"
_CUE_BEGINS, _CUE_ENDS = r"(?<!\[)(?<![^\W\d])", r"(?![^\W\d_])"
PHONE_AFTER_CUE: Final = re.compile(
    rf"{_CUE_BEGINS}(?:tel(?:efone)?|fone|fixo|cel(?:ular)?|zap(?:zap)?|wh?ats(?:app)?|wpp)s?{_CUE_ENDS}[^0-9\n\[\0]{{0,24}}"
    rf"{_NO_PRICE}(?P<number>{_MOBILE}|{_NOT_ELSE}[2-9][0-9]{{3}}[ .-]{{0,3}}[0-9]{{4}}){END}{_NO_CENTS}",
    re.IGNORECASE,
)
#: Words that announce other numbers too: what follows has to look more like a telephone.
PHONE_AFTER_WEAK_CUE: Final = re.compile(
    rf"{_CUE_BEGINS}(?:contatos?|recados?|privado|pv|lig(?:a|ar|ue|uem)|cham(?:a|ar|e|em)|anot[ae]"
    rf"|(?:meu|seu|novo|outro) n[uú]mero|n[uú]mero (?:novo|del[ea]|d[oa] m(?:eu|inha))){_CUE_ENDS}"
    rf"(?:[^0-9\n\[\0]{{0,16}}{_NO_PRICE}(?P<mobile>{_MOBILE})"
    rf"|[^0-9\n\[\0]{{1,6}}{_NO_PRICE}(?P<landline>{_NOT_ELSE}[2-5][0-9]{{3}}-[0-9]{{4}})){END}{_NO_CENTS}",
    re.IGNORECASE,
)
#: "(11) 98765-0001 e 98765-0002", right after a telephone.
PHONE_JOINED: Final = re.compile(
    rf" ?(?:ou|e|/|,) ?(?P<number>{_MOBILE}|{_NOT_ELSE}[2-5][0-9]{{3}}-[0-9]{{4}}){END}{_NO_CENTS}", re.IGNORECASE
)

#: At the end of what precedes a number: it is called something else than a telephone or a Pix key.
OTHER_NUMBER_CUE: Final = re.compile(
    r"(?<![^\W\d_])(?:ped(?:ido)?|order|prot(?:ocolo)?|nota|nf-?e?|danfe|c[oó]d(?:igo)?|rastre(?:io|amento)|ordem|chamado|ticket|fatura"
    r"|boleto|contrato|matr[ií]cula|lote|s[eé]rie|serial|sku|ref(?:er[eê]ncia)?|compra|reserva|processo|or[cç]amento"
    r"|instala[cç][aã]o|imei|ean|txid|transa[cç][aã]o|o\.s)"
    r"(?:[ _](?:[eé]|eh|foi|o|id|(?:de )?n[uú]m(?:ero)?|de(?= n[º°.])|fiscal)(?![^\W\d_])){0,3}"
    r"(?P<gap>[ :.#º°n(=-]{0,6})$",
    re.IGNORECASE,
)
