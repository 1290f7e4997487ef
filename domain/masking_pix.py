"""Random Pix keys and Pix "copia e cola" in folded text.

A random key is a UUID of version 4 (Banco Central, Manual Operacional do DICT: "EVP", endereço virtual de pagamento).
Shops number orders with such UUIDs as well, and nothing in the digits tells one from the other, so the words around
decide; where they say nothing it is masked, because an order can be found otherwise and a key that was stored cannot be
taken back.
"""

import re
from typing import Final

from domain.masking_patterns import OTHER_NUMBER_CUE

_GAP = r"[\s-]{0,3}"
KEY: Final = re.compile(
    rf"(?<![0-9A-F])[0-9A-F]{{8}}(?:{_GAP}[0-9A-F]{{4}}){{3}}{_GAP}[0-9A-F]{{12}}(?![0-9A-F])", re.IGNORECASE | re.ASCII
)
CUE: Final = re.compile(
    r"(?<![^\W\d_])(?P<what>chaves?(?! (?:de acesso|da n))|evp|pix)(?![^\W\d_])|aleat[oó]ria", re.IGNORECASE
)
# ISPB of the bank, then minute: the id of a transfer, which leads to nobody without the bank's help.
_TRANSFER: Final = re.compile(r"E[0-9]{8}20[0-9]{10}", re.IGNORECASE)
_FILE_NAME_ENDS: Final = re.compile(r"\.[a-z0-9]{2,4}(?![^\W_])", re.IGNORECASE)

#: A BR Code begins with the tag 00, and names the arrangement in its account information.
PAYLOAD: Final = re.compile(r"(?:(?<![0-9])000201[^\n\0]{0,80}?)?br\.gov\.bcb\.pix(?=[0-9]{4})", re.IGNORECASE)
#: A payload that is not well formed: to its checksum if there is one, or to the next space.
PAYLOAD_END: Final = re.compile(
    r"(?:(?!000201)[^\0]){0,450}?6304[0-9A-F]{4}(?![\w-])|[^\s\0]{0,450}", re.IGNORECASE | re.ASCII
)
_CHECKSUM: Final = re.compile("[0-9A-F]{4}", re.IGNORECASE)
# EMV allows 512 characters.
_PAYLOAD_MAX = 512


def _well_formed(text: str, start: int) -> int | None:
    """Return where the payload ends whose tags, lengths and values lead to a checksum (tag 63)."""
    at = start
    while at - start < _PAYLOAD_MAX:
        header = text[at : at + 4]
        if len(header) < 4 or not (header.isascii() and header.isdecimal()):
            return None
        at += 4 + int(header[2:])
        if header == "6304":
            return at if _CHECKSUM.fullmatch(text, at - 4, at) else None
    return None


def payload(match: re.Match[str]) -> tuple[int, int]:
    """Return the whole payload: beside the key it has its owner's name and town."""
    end = _well_formed(match.string, match.start()) if match[0].startswith("0") else None
    if end is None:
        rest = PAYLOAD_END.match(match.string, match.end())
        end = rest.end() if rest is not None else match.end()
    return (match.start(), end)


def in_address(match: re.Match[str]) -> bool:
    """Tell whether the match is a part of a web address."""
    before = re.split(r"\s", match.string[max(0, match.start() - 200) : match.start()])[-1]
    return "://" in before or before.startswith("www.") or before.count("/") > 1 or ("/" in before and "." in before)


def key(match: re.Match[str]) -> tuple[int, int] | None:
    """Return the span of a UUID that the words around call a Pix key, or of version 4 and called nothing else."""
    text, (start, end) = match.string, match.span()
    compact = re.sub(r"[\s-]", "", match[0])
    random = compact[12] == "4" and compact[16] in "89abAB"
    bare = len(match[0]) == len(compact)
    if bare and (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum() or _TRANSFER.match(compact)):
        return None
    if compact.isdecimal() and "-" not in match[0]:
        return None
    # A token, or what this pass has masked, ends what the words speak of.
    before = re.split(r"[\]\0]", text[max(0, start - 40) : start])[-1]
    after = re.split(r"[\[\0]", text[end : end + 30])[0]
    cues = [cue["what"] or "chave" for cue in CUE.finditer(before)]
    called_other = OTHER_NUMBER_CUE.search(text, max(0, start - 40), start) is not None
    if called_other and not any(cue.lower().startswith("chave") for cue in cues):
        return None
    if cues or CUE.search(after):
        return (start, end) if random or not bare else None
    # Files have such names.
    if bare or not random or in_address(match) or text[start - 1 : start] == "_" or _FILE_NAME_ENDS.match(text, end):
        return None
    return (start, end)
