"""Canonical forms of WhatsApp addresses (JIDs), so that one person has one name, whichever way it arrives.

A JID is `user[_agent][:device]@server`. People come as phone numbers (`s.whatsapp.net`, legacy `c.us`, `hosted`) or as
LIDs (`lid`, `hosted.lid`: a number of WhatsApp's own that hides the phone); groups come as `g.us`.

Canonical forms (plain text: hash them before they are stored, DESIGN rule 6):

- a person with a known phone: the E.164 digits without the plus, `5511987650001`;
- a person known by LID alone: `lid:118273645546372`;
- a group: `group:120363298765432109`.
"""

import re
from typing import Final

#: The 67 Brazilian area codes ("Códigos Nacionais") in use, from Anatel's numbering plan.
AREA_CODES: Final = frozenset(
    {"11", "12", "13", "14", "15", "16", "17", "18", "19"}  # SP
    | {"21", "22", "24", "27", "28"}  # RJ, ES
    | {"31", "32", "33", "34", "35", "37", "38"}  # MG
    | {"41", "42", "43", "44", "45", "46", "47", "48", "49"}  # PR, SC
    | {"51", "53", "54", "55"}  # RS
    | {"61", "62", "63", "64", "65", "66", "67", "68", "69"}  # DF, GO, TO, MT, MS, AC, RO
    | {"71", "73", "74", "75", "77", "79"}  # BA, SE
    | {"81", "82", "83", "84", "85", "86", "87", "88", "89"}  # PE, AL, PB, RN, CE, PI
    | {"91", "92", "93", "94", "95", "96", "97", "98", "99"}  # PA, AM, RR, AP, MA
)

_PHONE_SERVERS: Final = frozenset({"s.whatsapp.net", "c.us", "hosted"})
_LID_SERVERS: Final = frozenset({"lid", "hosted.lid"})
_GROUP_SERVER: Final = "g.us"

_JID: Final = re.compile(r"([0-9]{1,32})(?:[._][0-9]{1,8})?(?::[0-9]{1,8})?@([a-z.]{1,32})", re.ASCII)
# Before 2020 a group's id was its founder's phone, a dash and a time.
_GROUP: Final = re.compile(r"([0-9]{1,32}(?:-[0-9]{1,32})?)@g\.us", re.ASCII)


class NotAJid(ValueError):
    """The address is none that names a person or a group. The message never contains the address."""


def server_of(jid: str) -> str:
    """Return the part after the last `@` in lower case (`g.us`, `broadcast`, ...), or an empty string."""
    return jid.rpartition("@")[2].lower() if "@" in jid else ""


def is_group(jid: str) -> bool:
    """Tell whether the JID is a group's."""
    return server_of(jid) == _GROUP_SERVER


def is_lid(jid: str) -> bool:
    """Tell whether the JID is a LID: a number of WhatsApp's own that hides the phone."""
    return server_of(jid) in _LID_SERVERS


def canonical_lid(jid: str) -> str | None:
    """Return `lid:<number>` if the JID is a LID, else None."""
    match = _JID.fullmatch(jid.lower()) if is_lid(jid) else None
    return None if match is None else f"lid:{match[1]}"


def with_ninth_digit(digits: str) -> str:
    """Return a Brazilian mobile number (`55`, area code, subscriber) with its ninth digit; all others unchanged.

    Rule: Anatel's Resolução 553 of 2010 put a 9 before the eight digits of every mobile number, area after area from
    2012-07-29 (area 11) to 2016-11-06 (areas 41 to 55). Eight digits that begin with 6 to 9 were mobile; those that
    begin with 2 to 5 are landlines and kept eight digits. WhatsApp still addresses accounts opened before the change
    without the digit.
    """
    if len(digits) == 12 and digits.startswith("55") and digits[2:4] in AREA_CODES and digits[4] in "6789":
        return f"{digits[:4]}9{digits[4:]}"
    return digits


def _phone(user: str) -> str | None:
    # E.164: at most 15 digits, no country code begins with 0. Shorter than 7 are WhatsApp's own senders (`0@c.us`).
    if 7 <= len(user) <= 15 and user[0] != "0":
        return with_ninth_digit(user)
    return None


def canonical_person(jid: str, *alternates: str | None) -> str:
    """Return the canonical form of a person known by `jid` and perhaps by others (`remoteJidAlt`, `senderPn`, ...).

    The first address that is a phone wins, then the first that is a LID; device, agent and server are dropped.
    Empty, missing and unreadable alternates are passed over.

    Raises:
        NotAJid: none of them names a person.
    """
    lid: str | None = None
    for candidate in (jid, *alternates):
        match = _JID.fullmatch(candidate.lower()) if candidate else None
        if match is None:
            continue
        user, server = match.groups()
        if server in _PHONE_SERVERS and (phone := _phone(user)) is not None:
            return phone
        if server in _LID_SERVERS and lid is None:
            lid = f"lid:{user}"
    if lid is None:
        raise NotAJid("not the address of a person: expected digits@s.whatsapp.net, digits@c.us or digits@lid")
    return lid


def canonical_group(jid: str) -> str:
    """Return `group:<id>` for a JID on `g.us`.

    Raises:
        NotAJid: it is no group's address.
    """
    match = _GROUP.fullmatch(jid.lower())
    if match is None:
        raise NotAJid("not the address of a group: expected digits@g.us")
    return f"group:{match[1]}"


def canonical_chat(jid: str, *alternates: str | None) -> str:
    """Return the canonical form of a conversation: the group, or the other person in it.

    Raises:
        NotAJid: the address names neither (broadcasts, channels, calls, broken addresses).
    """
    if is_group(jid):
        return canonical_group(jid)
    return canonical_person(jid, *alternates)
