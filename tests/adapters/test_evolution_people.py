"""Who wrote a message, in which chat, and when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.evolution import GROUP, GROUP_JID, JULIANA, NOW, one, refused, row

JULIANAS_LID = "lid:118273645546372"


def test_one_person_is_one_however_addressed() -> None:
    phone, lid = "5511987650001@s.whatsapp.net", "118273645546372@lid"
    keys: list[dict[str, Any]] = [
        {"key__remoteJid": phone},
        {"key__remoteJid": "551187650001:4@s.whatsapp.net", "key__remoteJidAlt": lid},
        {"key__remoteJid": lid, "key__remoteJidAlt": phone},
        {"key__remoteJid": lid, "key__senderPn": "551187650001@s.whatsapp.net"},
        {"key__remoteJid": lid, "key__previousRemoteJid": phone, "key__senderPn": None},
        {"key__remoteJid": phone, "key__previousRemoteJid": lid, "key__senderPn": phone},
        {"key__remoteJid": "5511987650001@c.us"},
    ]
    assert {(one(row(**key)).chat, one(row(**key)).author) for key in keys} == {(JULIANA, JULIANA)}


def test_our_own_number_never_stands_for_the_customer() -> None:
    own = "5511940028922@s.whatsapp.net"
    lid = {"key__remoteJid": "118273645546372@lid", "key__fromMe": True}
    assert one(row(**lid, key__senderPn=own)).chat == "lid:118273645546372"
    assert one(row(**lid, key__remoteJidAlt=own), sender=own).chat == "lid:118273645546372"
    assert one(row(**lid, key__remoteJidAlt="5511987650001@s.whatsapp.net"), sender=own).chat == JULIANA


@pytest.mark.parametrize(
    ("key", "author"),
    [
        ({"key__participant": "5531977660019@s.whatsapp.net"}, "5531977660019"),
        ({"key__participant": "5531977660019:3@s.whatsapp.net", "key__participantAlt": "77@lid"}, "5531977660019"),
        ({"key__participant": "77@lid", "key__participantAlt": "553177660019@s.whatsapp.net"}, "5531977660019"),
        ({"key__participant": "77@lid", "key__participantPn": "553177660019@s.whatsapp.net"}, "5531977660019"),
        ({"key__participant": "77@lid"}, "lid:77"),
        ({"key__participant": ..., "participant": "5531977660019@s.whatsapp.net"}, "5531977660019"),
    ],
)
def test_the_author_in_a_group(key: dict[str, Any], author: str) -> None:
    found = one(row(key__remoteJid="120363298765432109@g.us", **key))
    assert (found.chat, found.author, found.is_group, found.from_me) == (GROUP, author, True, False)


LID = "118273645546372@lid"
PHONE = "5511987650001@s.whatsapp.net"


@pytest.mark.parametrize(
    ("key", "lids"),
    [
        ({}, (None, None)),
        ({"remoteJid": LID}, (JULIANAS_LID, JULIANAS_LID)),
        ({"remoteJid": "118273645546372:7@lid"}, (JULIANAS_LID, JULIANAS_LID)),
        ({"remoteJid": "118273645546372@hosted.lid"}, (JULIANAS_LID, JULIANAS_LID)),
        ({"remoteJid": LID, "remoteJidAlt": PHONE}, (JULIANAS_LID, JULIANAS_LID)),
        ({"remoteJidAlt": LID}, (JULIANAS_LID, JULIANAS_LID)),
        ({"previousRemoteJid": LID}, (JULIANAS_LID, JULIANAS_LID)),
        ({"senderLid": LID}, (JULIANAS_LID, JULIANAS_LID)),
        ({"remoteJidAlt": "x@lid"}, (None, None)),
        ({"remoteJidAlt": 7}, (None, None)),
        # What the company wrote has no author; beside a phone, the LID may be its own.
        ({"remoteJid": LID, "fromMe": True}, (JULIANAS_LID, None)),
        ({"remoteJidAlt": LID, "fromMe": True}, (None, None)),
        ({"remoteJid": GROUP_JID, "participant": LID}, (None, JULIANAS_LID)),
        ({"remoteJid": GROUP_JID, "participant": PHONE, "participantAlt": LID}, (None, JULIANAS_LID)),
        ({"remoteJid": GROUP_JID, "participant": PHONE, "participantLid": LID}, (None, JULIANAS_LID)),
        ({"remoteJid": GROUP_JID, "participant": PHONE, "senderLid": LID}, (None, JULIANAS_LID)),
        ({"remoteJid": GROUP_JID, "participant": PHONE}, (None, None)),
        ({"remoteJid": GROUP_JID, "participant": LID, "fromMe": True}, (None, None)),
    ],
)
def test_the_lids_that_a_delivery_names(key: dict[str, Any], lids: tuple[str | None, str | None]) -> None:
    found = one(row(**{f"key__{name}": value for name, value in key.items()}))
    assert (found.chat_lid, found.author_lid) == lids


def test_the_lid_of_the_instance_itself_is_nobody_elses() -> None:
    found = one(row(key__remoteJidAlt="900100200@lid"), sender="900100200:4@lid")
    assert (found.chat, found.chat_lid, found.author_lid) == (JULIANA, None, None)


def test_what_we_write_in_a_group_has_no_author() -> None:
    found = one(row(key__remoteJid="120363298765432109@g.us", key__fromMe=True, key__participant="x"))
    assert (found.chat, found.author, found.from_me) == (GROUP, None, True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": ...}, "no key"),
        ({"key": []}, "no key"),
        ({"key__remoteJid": ...}, "no key.remoteJid"),
        ({"key__remoteJid": 5511987650001}, "no key.remoteJid"),
        ({"key__remoteJid": "5511987650001"}, "no address of a person in key"),
        ({"key__remoteJid": "0@s.whatsapp.net"}, "no address of a person in key"),
        ({"key__remoteJid": "120363298765432109@g.us"}, "no address of a person in key"),
        ({"key__remoteJid": "x@g.us", "key__fromMe": True}, "no address of a person in key"),
        ({"key__remoteJid": "1234@broadcast"}, "status or broadcast list"),
        ({"key__id": ...}, "no key.id"),
        ({"key__id": ""}, "no key.id"),
        ({"key__id": 7}, "no key.id"),
        ({"key__id": "a b"}, "bad key.id"),
        ({"key__id": "a\x00"}, "bad key.id"),
        ({"key__id": "a" * 257}, "bad key.id"),
        ({"key__fromMe": "true"}, "bad key.fromMe"),
        ({"key__fromMe": []}, "bad key.fromMe"),
    ],
)
def test_a_broken_key_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refused(row(**changes)).reason == reason


# ----------------------------------------------------------------------------------------------- timestamps


@pytest.mark.parametrize(
    "stamp",
    [
        1761134400,
        1761134400.0,
        "1761134400",
        "1761134400000",
        1761134400000,
        {"low": 1761134400, "high": 0, "unsigned": True},
        {"low": 1761134400, "high": 0},
        {"low": 197808640, "high": 410, "unsigned": False},  # milliseconds
    ],
)
def test_timestamp(stamp: Any) -> None:
    assert one(row(messageTimestamp=stamp)).sent_at == datetime(2025, 10, 22, 12, 0, tzinfo=UTC)


EARLY, LATE = "timestamp before 2009", "timestamp more than 24 hours ahead"


def long_of(number: int, *, unsigned: bool) -> dict[str, Any]:
    """Return the Long that long.js writes: both halves signed."""
    low, high = number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF
    return {
        "low": low - 2**32 if low >= 2**31 else low,
        "high": high - 2**32 if high >= 2**31 else high,
        "unsigned": unsigned,
    }


@given(st.integers(1_230_768_000_000, int(NOW.timestamp() * 1000)), st.booleans())
def test_a_long_is_combined_whatever_the_signs_of_its_halves(milliseconds: int, unsigned: bool) -> None:
    stamp = long_of(milliseconds, unsigned=unsigned)
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert abs(one(row(messageTimestamp=stamp)).sent_at - expected) < timedelta(milliseconds=1)


def test_the_negative_low_half_occurs_in_that_range() -> None:
    # Otherwise the test above would prove less than it says.
    assert long_of(1_759_736_000_000, unsigned=False)["low"] < 0


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        (None, "bad timestamp"),
        (True, "bad timestamp"),
        ("", "bad timestamp"),
        ("ontem", "bad timestamp"),
        ("1e9", "bad timestamp"),
        ("１７６１１３４４００", "bad timestamp"),
        ([], "bad timestamp"),
        ({}, "bad timestamp"),
        ({"low": "1", "high": 0}, "bad timestamp"),
        ({"low": 2**40, "high": 0}, "bad timestamp"),
        ({"0": 1, "1": 2}, "bad timestamp"),
        ([1761134400], "bad timestamp"),
        ({"type": "Buffer", "data": [104, 248, 195]}, "bad timestamp"),
        (0, EARLY),
        (-1761134400, EARLY),
        (1230767999, EARLY),  # a second before 2009
        ("1230767999", EARLY),
        ({"low": -1, "high": -1, "unsigned": False}, EARLY),
        (int((NOW + timedelta(hours=25)).timestamp()), LATE),
        (10**400, LATE),
        (9 * 10**13, LATE),
        (9 * 10**14, LATE),
        ({"low": -1, "high": -1, "unsigned": True}, LATE),
    ],
)
def test_a_bad_timestamp_is_refused(stamp: Any, reason: str) -> None:
    assert refused(row(messageTimestamp=stamp)).reason == reason


def test_a_clock_may_be_a_day_fast() -> None:
    assert one(row(messageTimestamp=int((NOW + timedelta(hours=23)).timestamp()))).sent_at > NOW
