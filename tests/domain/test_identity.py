"""One person, one canonical form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.identity import (
    AREA_CODES,
    NotAJid,
    canonical_chat,
    canonical_group,
    canonical_lid,
    canonical_person,
    is_group,
    is_lid,
    server_of,
    with_ninth_digit,
)

MOBILE = "5511987650001"


def test_brazil_has_67_area_codes_of_two_digits_without_zero() -> None:
    assert len(AREA_CODES) == 67
    assert all(len(code) == 2 and "0" not in code for code in AREA_CODES)


@pytest.mark.parametrize(
    ("jid", "alternates"),
    [
        ("5511987650001@s.whatsapp.net", ()),
        ("551187650001@s.whatsapp.net", ()),
        ("5511987650001@c.us", ()),
        ("551187650001@c.us", ()),
        ("5511987650001:23@s.whatsapp.net", ()),
        ("5511987650001_1:23@s.whatsapp.net", ()),
        ("5511987650001.0:1@s.whatsapp.net", ()),
        ("5511987650001@hosted", ()),
        ("5511987650001@S.WhatsApp.Net", ()),
        ("5511987650001@s.whatsapp.net", ("118273645546372@lid",)),
        ("118273645546372@lid", ("5511987650001@s.whatsapp.net",)),
        ("118273645546372:7@lid", (None, "", "551187650001:2@s.whatsapp.net")),
        ("118273645546372@hosted.lid", ("not an address", "5511987650001@c.us")),
        ("", ("118273645546372@lid", "5511987650001@s.whatsapp.net")),
    ],
)
def test_every_spelling_of_one_person_is_one(jid: str, alternates: tuple[str | None, ...]) -> None:
    assert canonical_person(jid, *alternates) == MOBILE
    assert canonical_chat(jid, *alternates) == MOBILE


@pytest.mark.parametrize(
    ("jid", "canonical"),
    [
        ("558599661004@s.whatsapp.net", "5585999661004"),  # mobile, as WhatsApp still sends it
        ("551132654321@s.whatsapp.net", "551132654321"),  # landline: eight digits, begins with 2 to 5
        ("551152654321@s.whatsapp.net", "551152654321"),
        ("551162654321@s.whatsapp.net", "5511962654321"),
        ("552087654321@s.whatsapp.net", "552087654321"),  # 20 is no area code
        ("351912345678@s.whatsapp.net", "351912345678"),  # Portugal: twelve digits as well
        ("14155552671@s.whatsapp.net", "14155552671"),
        ("118273645546372@lid", "lid:118273645546372"),
        ("118273645546372:5@lid", "lid:118273645546372"),
        ("551187650001@lid", "lid:551187650001"),  # a LID is no phone, whatever it looks like
    ],
)
def test_person(jid: str, canonical: str) -> None:
    assert canonical_person(jid) == canonical


@pytest.mark.parametrize(
    "jid",
    [
        "",
        "5511987650001",
        "@s.whatsapp.net",
        "loja@s.whatsapp.net",
        "0@c.us",
        "0511987650001@s.whatsapp.net",
        "5511987650001234@s.whatsapp.net",
        "120363298765432109@g.us",
        "status@broadcast",
        "120363144038483540@newsletter",
        "867051314767696@bot",
        "5511987650001@s.whatsapp.net\n",
        "5511987650001@s.whatsapp.net@lid",
        "\uff15511987650001@s.whatsapp.net",
    ],
)
def test_what_names_no_person_is_refused_without_being_quoted(jid: str) -> None:
    with pytest.raises(NotAJid) as refusal:
        canonical_person(jid)
    assert isinstance(refusal.value, ValueError)
    assert not any(character.isdigit() for character in str(refusal.value))


def test_groups() -> None:
    assert canonical_chat("120363298765432109@g.us", "5511987650001@s.whatsapp.net") == "group:120363298765432109"
    assert canonical_group("551187650001-1408012345@g.us") == "group:551187650001-1408012345"
    assert is_group("120363298765432109@g.us")
    assert not is_group("5511987650001@s.whatsapp.net")
    for broken in ("abc@g.us", "1-2-3@g.us", "5511987650001@s.whatsapp.net"):
        with pytest.raises(NotAJid):
            canonical_group(broken)


@pytest.mark.parametrize(
    ("jid", "lid"),
    [
        ("118273645546372@lid", "lid:118273645546372"),
        ("118273645546372:12@LID", "lid:118273645546372"),
        ("118273645546372@hosted.lid", "lid:118273645546372"),
        ("5511987650001@s.whatsapp.net", None),
        ("120363298765432109@g.us", None),
        ("x@lid", None),
        ("lid:118273645546372", None),
        ("@lid", None),
        ("", None),
    ],
)
def test_lid(jid: str, lid: str | None) -> None:
    assert canonical_lid(jid) == lid
    assert lid is None or (is_lid(jid) and canonical_person(jid) == lid)


def test_server() -> None:
    assert server_of("a@B.Us") == "b.us"
    assert server_of("nothing") == ""


@given(st.sampled_from(sorted(AREA_CODES)), st.from_regex("[6-9][0-9]{7}", fullmatch=True))
def test_the_ninth_digit_makes_no_difference(area: str, subscriber: str) -> None:
    old, new = f"55{area}{subscriber}", f"55{area}9{subscriber}"
    assert with_ninth_digit(old) == with_ninth_digit(new) == new
    assert canonical_person(f"{old}@s.whatsapp.net") == canonical_person(f"{new}:4@c.us") == new


@given(st.from_regex("[1-9][0-9]{6,14}", fullmatch=True))
def test_canonical_forms_are_canonical(digits: str) -> None:
    once = canonical_person(f"{digits}@s.whatsapp.net")
    assert canonical_person(f"{once}@s.whatsapp.net") == once


@given(st.text())
def test_any_text_gives_a_form_or_the_refusal(text: str) -> None:
    try:
        canonical = canonical_chat(text)
    except NotAJid:
        return
    assert "@" in text
    assert "@" not in canonical
