"""What comes out of everything Evolution API sends."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from adapters.evolution import Envelope, EnvelopeError, Ignored, InboundMessage, parse, parse_object

SAMPLES = Path(__file__).parent.parent / "samples" / "evolution"
NOW = datetime(2025, 10, 22, 13, 0, tzinfo=UTC)
SECRET = "9C0B2F7E-61D4-4A58-8E33-5D0A7C1E42FA"

JULIANA, RAFAEL, ANTONIO = "5511987650001", "5521998760002", "5585999661004"
GROUP = "group:120363298765432109"


def message(
    external_id: str, chat: str, kind: str, text: str, seconds: float, *, author: str | None = "", from_me: bool = False
) -> InboundMessage:
    return InboundMessage(
        external_id=external_id,
        chat=chat,
        author=None if from_me else author or chat,
        from_me=from_me,
        is_group=chat.startswith("group:"),
        kind=kind,
        text=text,
        sent_at=datetime.fromtimestamp(seconds, UTC),
    )


LATE_ORDER = message(
    "1F00AAA9107DAEBFC534DA16A3367E19",
    JULIANA,
    "conversation",
    "Bom dia! Meu pedido 48213 ainda não chegou, o prazo era ontem. Podem verificar?",
    1761134400,
)

#: file: (event, messages, ignored)
EXPECTED: dict[str, tuple[str, list[InboundMessage], list[Ignored]]] = {
    "01-text-conversation": ("messages.upsert", [LATE_ORDER], []),
    "03-image-caption": (
        "messages.upsert",
        [message("3A8F5B36F3AD831B49C2", RAFAEL, "image", "Olha como a caixa chegou toda amassada", 1761134520)],
        [],
    ),
    "06-audio-ptt": ("messages.upsert", [], [Ignored("audio", "no text")]),
    "10-reaction": ("messages.upsert", [], [Ignored("reaction", "reaction")]),
    "12-button-reply": (
        "messages.upsert",
        [message("3ACADD0BD20C654E72EF", RAFAEL, "buttonsResponse", "Falar com atendente", 1761135060)],
        [],
    ),
    "15-edited-message": ("messages.edited", [], [Ignored("messages.edited", "not handled yet")]),
    "16-deleted-revoked": ("messages.delete", [], [Ignored("messages.delete", "not handled yet")]),
    "17-ephemeral-wrapped": (
        "messages.upsert",
        [
            message(
                "464107587F37FCD12B94DCC1DC099D79",
                ANTONIO,
                "extendedText",
                "Pode deixar com o porteiro, obrigado!",
                1761135360,
            )
        ],
        [],
    ),
    "19-group-participant-lid": (
        "messages.upsert",
        [
            message(
                "62B1B80568A9056E025D6B62C5A7E7BF",
                GROUP,
                "conversation",
                "Pessoal, o cimento chegou faltando 10 sacos. Quem resolve isso?",
                1761135480,
                author="5531977660019",
            )
        ],
        [],
    ),
    "21-lid-remoteJidAlt": (
        "messages.upsert",
        [
            message(
                "E5CB14E04B349E5B746879444396A279",
                JULIANA,
                "conversation",
                "Chegou! Muito obrigada pelo atendimento, vocês foram ótimos 😍",
                1761135600,
            )
        ],
        [],
    ),
    "22-messages-set-history": (
        "messages.set",
        [
            message(
                "A9FAFCBC37B8EAC59F4B2856B90C353B",
                "5531988770003",
                "conversation",
                "Boa tarde, vocês fazem orçamento para condomínio?",
                1760270400,
            ),
            message(
                "3EB0BB308F6B0B594D94CF",
                "5531988770003",
                "conversation",
                "Boa tarde! Fazemos sim, pode me passar a metragem?",
                1760270500,
                from_me=True,
            ),
            message("21CA73874E5925A221B6B748885E3FED", GROUP, "image", "Foto da fachada", 1760434400, author=ANTONIO),
        ],
        [],
    ),
    "23-connection-update-open": ("connection.update", [], [Ignored("connection.update", "not about messages")]),
    "25-duplicate-redelivery": ("messages.upsert", [LATE_ORDER], []),
    "30-websocket-nats-rabbit-envelope": ("messages.upsert", [LATE_ORDER], []),
    "40-document-with-caption-nested": (
        "messages.upsert",
        [message("3A40AA01", RAFAEL, "document", "Segue a nota fiscal, o valor veio errado", 1761136200)],
        [],
    ),
    "41-list-reply": (
        "messages.upsert",
        [message("3A41AA01", RAFAEL, "listResponse", "Segunda via do boleto\nReceber por e-mail", 1761136260)],
        [],
    ),
    "42-view-once-v2-image": (
        "messages.upsert",
        [message("3A42AA01", RAFAEL, "image", "Essa é a etiqueta rasgada", 1761136200)],
        [],
    ),
    "43-audio-with-transcript": (
        "messages.upsert",
        [message("3A43AA01", RAFAEL, "audio", "Oi, queria saber se vocês abrem no sábado.", 1761136200)],
        [],
    ),
    "44-lid-older-server-senderPn": (
        "messages.upsert",
        [message("3A44AA01", JULIANA, "conversation", "Ainda não recebi o código de rastreio.", 1761136200)],
        [],
    ),
    "45-lid-without-phone": (
        "messages.upsert",
        [message("3A45AA01", "lid:204511987733120", "conversation", "Vocês entregam em Santos?", 1761136200)],
        [],
    ),
    "46-send-message": (
        "send.message",
        [
            message(
                "3EB046AA01",
                JULIANA,
                "extendedText",
                "Bom dia, Juliana! Seu pedido sai hoje às 14h.",
                1761136200,
                from_me=True,
            )
        ],
        [],
    ),
    "47-unknown-kind": ("messages.upsert", [], [Ignored("hologram", "unknown")]),
    "48-unknown-event": ("planets.aligned", [], [Ignored("planets.aligned", "unknown")]),
    "49-history-with-broken-rows": (
        "messages.set",
        [
            message("3A49AA01", RAFAEL, "conversation", "Primeira mensagem do histórico", 1761136200),
            message("3A49AA07", RAFAEL, "conversation", "Última mensagem do histórico", 1761136320),
        ],
        [
            Ignored("conversation", "no key.id"),
            Ignored("conversation", "bad timestamp"),
            Ignored("conversation", "timestamp out of range"),
            Ignored("conversation", "no address of a person in key"),
            Ignored("other", "not an object"),
        ],
    ),
    "50-status-broadcast": ("messages.upsert", [], [Ignored("extendedText", "status or broadcast list")]),
    "51-newsletter": ("messages.upsert", [], [Ignored("conversation", "channel")]),
    "52-contact-card": ("messages.upsert", [], [Ignored("contact", "personal data of a third party, not a text")]),
    "53-poll": (
        "messages.upsert",
        [message("3A53AA01", RAFAEL, "pollCreation", "Qual horário de entrega?\nManhã\nTarde", 1761136200)],
        [],
    ),
    "54-meta-cloud": (
        "messages.upsert",
        [
            message(
                "wamid.HBgMNTUyMTk5ODc2MDAwMhUCABIYFDNBNTQ=",
                RAFAEL,
                "conversation",
                "Quero cancelar minha assinatura",
                1761136200,
            )
        ],
        [],
    ),
    "55-edit-inside-upsert": ("messages.upsert", [], [Ignored("edited", "not handled yet")]),
}


#: The LIDs that a sample names, for the chat and for the author.
LIDS = {
    **dict.fromkeys(
        (
            "01-text-conversation",
            "21-lid-remoteJidAlt",
            "25-duplicate-redelivery",
            "30-websocket-nats-rabbit-envelope",
            "44-lid-older-server-senderPn",
        ),
        ("lid:118273645546372", "lid:118273645546372"),
    ),
    "19-group-participant-lid": (None, "lid:77310298456123"),
    "45-lid-without-phone": ("lid:204511987733120", "lid:204511987733120"),
}


def test_every_sample_is_in_the_table() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_sample(name: str) -> None:
    event, messages, ignored = EXPECTED[name]
    body = (SAMPLES / f"{name}.json").read_bytes()
    envelope = parse(body, now=NOW)
    without_lids = tuple(replace(one, chat_lid=None, author_lid=None) for one in envelope.messages)
    assert replace(envelope, messages=without_lids) == Envelope(event, "loja-centro", tuple(messages), tuple(ignored))
    assert {(one.chat_lid, one.author_lid) for one in envelope.messages} <= {LIDS.get(name, (None, None))}
    assert parse_object(json.loads(body), now=NOW) == envelope
    assert SECRET not in repr(envelope)


# ------------------------------------------------------------------------------------------------- builders


def row(content: Any = None, /, **changes: Any) -> dict[str, Any]:
    """Return a row of `messages.upsert`; `key__x=...` changes the key, anything else the row. `...` removes."""
    made: dict[str, Any] = {
        "key": {"remoteJid": "5511987650001@s.whatsapp.net", "fromMe": False, "id": "3A00", "participant": ""},
        "message": {"conversation": "oi"} if content is None else content,
        "messageTimestamp": 1761134400,
    }
    for name, value in changes.items():
        target, field = (made["key"], name.removeprefix("key__")) if name.startswith("key__") else (made, name)
        if value is ...:
            del target[field]
        else:
            target[field] = value
    return made


def read(data: Any, event: str = "messages.upsert", **envelope: Any) -> Envelope:
    body = {"event": event, "instance": "loja", "data": data, "apikey": SECRET, **envelope}
    return parse(json.dumps(body).encode(), now=NOW)


def one(data: Any, **envelope: Any) -> InboundMessage:
    parsed = read(data, **envelope)
    assert parsed.ignored == ()
    (only,) = parsed.messages
    return only


def refused(data: Any) -> Ignored:
    parsed = read(data)
    assert parsed.messages == ()
    (only,) = parsed.ignored
    return only


# -------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        ({"conversation": "oi"}, "conversation", "oi"),
        ({"extendedTextMessage": {"text": "oi"}}, "extendedText", "oi"),
        ({"videoMessage": {"caption": "oi", "mediaKey": {"0": 12}}}, "video", "oi"),
        ({"documentMessage": {"caption": "oi", "fileName": "a.pdf"}}, "document", "oi"),
        ({"listResponseMessage": {"title": "A", "description": None}}, "listResponse", "A"),
        ({"listResponseMessage": {"title": "A", "description": "A"}}, "listResponse", "A"),
        ({"templateButtonReplyMessage": {"selectedDisplayText": "Sim"}}, "templateButtonReply", "Sim"),
        (
            {
                "interactiveResponseMessage": {
                    "body": {"text": "Sim"},
                    "nativeFlowResponseMessage": {"paramsJson": "{}"},
                }
            },
            "interactiveResponse",
            "Sim",
        ),
        (
            {"pollCreationMessage": {"name": "Quando?", "options": [{"optionName": "Hoje"}, 7]}},
            "pollCreation",
            "Quando?\nHoje",
        ),
        ({"pollCreationMessageV5": {"name": "Quando?", "options": None}}, "pollCreation", "Quando?"),
        ({"buttonsMessage": {"contentText": "Como podemos ajudar?"}}, "buttons", "Como podemos ajudar?"),
        ({"templateMessage": {"hydratedTemplate": {"hydratedContentText": "Olá"}}}, "template", "Olá"),
        ({"interactiveMessage": {"body": {"text": "Escolha"}}}, "interactive", "Escolha"),
        ({"viewOnceMessage": {"message": {"imageMessage": {"caption": "oi"}}}}, "image", "oi"),
        ({"viewOnceMessageV2Extension": {"message": {"videoMessage": {"caption": "oi"}}}}, "video", "oi"),
        ({"deviceSentMessage": {"message": {"conversation": "oi"}}}, "conversation", "oi"),
        (
            {"ephemeralMessage": {"message": {"viewOnceMessageV2": {"message": {"imageMessage": {"caption": "oi"}}}}}},
            "image",
            "oi",
        ),
        ({"senderKeyDistributionMessage": {"groupId": "x"}, "conversation": "oi"}, "conversation", "oi"),
        ({"audioMessage": {"seconds": 3}, "speechToText": "sem prefixo"}, "audio", "sem prefixo"),
        ({"conversation": "a\x00b \ud83d"}, "conversation", "ab \ufffd"),
    ],
)
def test_text_is_found(content: dict[str, Any], kind: str, text: str) -> None:
    found = one(row(content))
    assert (found.kind, found.text) == (kind, text)


@pytest.mark.parametrize(
    ("content", "ignored"),
    [
        ({"conversation": "  \n"}, Ignored("conversation", "no text")),
        ({"conversation": 7}, Ignored("conversation", "no text")),
        ({"imageMessage": {"caption": ""}}, Ignored("image", "no text")),
        ({"imageMessage": "x"}, Ignored("image", "no text")),
        ({"audioMessage": {}, "speechToText": "[audio] undefined"}, Ignored("audio", "no text")),
        ({"stickerMessage": {}}, Ignored("sticker", "no text")),
        ({"ptvMessage": {}}, Ignored("ptv", "no text")),
        (
            {"interactiveResponseMessage": {"nativeFlowResponseMessage": {"paramsJson": '{"a": "b"}'}}},
            Ignored("interactiveResponse", "no text"),
        ),
        ({"contactsArrayMessage": {}}, Ignored("contactsArray", "personal data of a third party, not a text")),
        (
            {"locationMessage": {"name": "Casa", "address": "Rua Azul, 1"}},
            Ignored("location", "personal data of a third party, not a text"),
        ),
        ({"protocolMessage": {"type": 0}}, Ignored("revoked", "not handled yet")),
        ({"protocolMessage": {"type": 3}}, Ignored("protocol", "system message")),
        (
            {"protocolMessage": {"type": 14, "editedMessage": {"conversation": "oi"}}},
            Ignored("edited", "not handled yet"),
        ),
        ({"editedMessage": {"message": {"conversation": "oi"}}}, Ignored("edited", "not handled yet")),
        ({"senderKeyDistributionMessage": {"groupId": "x"}}, Ignored("empty", "system message")),
        ({"messageContextInfo": {}}, Ignored("empty", "system message")),
        ({"ephemeralMessage": None}, Ignored("empty", "system message")),
        ({"ephemeralMessage": {}}, Ignored("ephemeral", "empty wrapper")),
        ({"Rua Azul, 1": "x"}, Ignored("other", "unknown")),
        ({"5511987650001": "x"}, Ignored("other", "unknown")),
        ({}, Ignored("empty", "system message")),
        ([], Ignored("other", "no message")),
        ("x", Ignored("other", "no message")),
    ],
)
def test_what_has_no_words_is_ignored(content: Any, ignored: Ignored) -> None:
    assert refused(row(content)) == ignored


def test_wrappers_may_be_nested_but_not_without_end() -> None:
    def wrapped(times: int) -> dict[str, Any]:
        content: dict[str, Any] = {"conversation": "oi"}
        for _ in range(times):
            content = {"ephemeralMessage": {"message": content}}
        return row(content)

    assert one(wrapped(8)).text == "oi"
    assert refused(wrapped(9)) == Ignored("other", "nested too deep")
    assert refused(wrapped(100)) == Ignored("other", "nested too deep")


def test_a_system_stub_is_ignored() -> None:
    assert refused(row(message=..., messageStubType=27)) == Ignored("stub", "system message")
    assert refused(row({}, messageStubType="CIPHERTEXT")) == Ignored("stub", "system message")


def test_a_long_text_is_cut_between_characters() -> None:
    assert one(row({"conversation": "a" * 70_000})).text == "a" * 65_536
    text = one(row({"conversation": "a" + "é" * 40_000})).text
    assert text == "a" + "é" * 32_767


# --------------------------------------------------------------------------------------------------- people


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
        (0, "timestamp out of range"),
        (-1761134400, "timestamp out of range"),
        (1230767999, "timestamp out of range"),  # a second before 2009
        (int((NOW + timedelta(hours=25)).timestamp()), "timestamp out of range"),
        (10**400, "timestamp out of range"),
        (9 * 10**13, "timestamp out of range"),
        (9 * 10**14, "timestamp out of range"),
        ({"low": -1, "high": -1, "unsigned": False}, "timestamp out of range"),
        ({"low": -1, "high": -1, "unsigned": True}, "timestamp out of range"),
    ],
)
def test_a_bad_timestamp_is_refused(stamp: Any, reason: str) -> None:
    assert refused(row(messageTimestamp=stamp)).reason == reason


def test_a_clock_may_be_a_day_fast() -> None:
    assert one(row(messageTimestamp=int((NOW + timedelta(hours=23)).timestamp()))).sent_at > NOW


# ------------------------------------------------------------------------------------------------- envelope


@pytest.mark.parametrize("spelling", ["messages.upsert", "MESSAGES_UPSERT", "messages-upsert"])
@pytest.mark.parametrize("shape", [lambda r: r, lambda r: [r], lambda r: {"messages": [r]}])
def test_spellings_and_shapes(spelling: str, shape: Any) -> None:
    parsed = read(shape(row()), event=spelling)
    assert parsed.event == "messages.upsert"
    assert [m.text for m in parsed.messages] == ["oi"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("messages.update", "not handled yet"),
        ("QRCODE_UPDATED", "not about messages"),
        ("presence.update", "not about messages"),
        ("logout.instance", "not about messages"),
    ],
)
@pytest.mark.parametrize("data", [None, {}, [], 7, row()])
def test_other_events_are_ignored_whatever_they_hold(event: str, reason: str, data: Any) -> None:
    name = event.lower().replace("_", ".")
    assert read(data, event=event) == Envelope(name, "loja", (), (Ignored(name, reason),))


def test_an_event_name_from_outside_is_safe_to_log() -> None:
    assert read({}, event="ligue 11987654321\n").ignored == (Ignored("other", "unknown"),)


def test_an_empty_history_is_empty() -> None:
    assert read([], event="messages.set") == Envelope("messages.set", "loja", (), ())


@pytest.mark.parametrize("instance", [None, 7, {}])
def test_the_instance_may_be_missing(instance: Any) -> None:
    assert read(row(), instance=instance).instance == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense 11987654321 " + SECRET.encode(),
        b'{"event": "messages.upsert", "apikey": "' + SECRET.encode() + b'"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"' + SECRET.encode() + b'"',
        b'{"data": {}, "apikey": "' + SECRET.encode() + b'"}',
        b'{"event": "", "data": {}}',
        b'{"event": 7, "data": {}}',
        b'{"event": "messages.upsert", "apikey": "' + SECRET.encode() + b'"}',
        b'{"event": "messages.upsert", "data": null}',
        b'{"event": "messages.upsert", "data": "' + SECRET.encode() + b'"}',
        b'{"event": "messages.set", "data": 7}',
    ],
)
def test_what_is_no_envelope_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(EnvelopeError) as refusal:
        parse(body, now=NOW)
    assert isinstance(refusal.value, ValueError)
    assert SECRET not in str(refusal.value)
    assert "11987654321" not in str(refusal.value)
    # A decoder's error carries the body; it must not hang on ours.
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


def test_nothing_personal_is_in_a_repr() -> None:
    shown = repr(read([row(), row({"hologramMessage": SECRET})]))
    for personal in (JULIANA, "oi", SECRET, "3A00"):
        assert f"'{personal}'" not in shown
        assert len(personal) < 4 or personal not in shown
    assert one(row()).__rich_repr__() == [("kind", "conversation"), ("from_me", False), ("is_group", False)]


def test_bytes_as_socket_io_delivers_them_are_passed_over() -> None:
    envelope = {
        "event": "messages.upsert",
        "instance": "loja",
        "data": row({"imageMessage": {"caption": "oi", "mediaKey": b"\x00\x01", "jpegThumbnail": {"0": 255}}}),
    }
    assert parse_object(envelope, now=NOW).messages[0].text == "oi"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("key", "message", "messageTimestamp", "messageType", "participant", "messageStubType")
KEY_FIELDS = ("key__remoteJid", "key__fromMe", "key__id", "key__participant", "key__remoteJidAlt", "key__senderPn")
CONTENTS = (
    "conversation", "imageMessage", "listResponseMessage", "pollCreationMessage", "templateMessage", "audioMessage",
    "ephemeralMessage", "editedMessage", "protocolMessage", "speechToText", "interactiveMessage",
)  # fmt: skip


# A busy machine makes the values slowly; that says nothing about what is tried.
@examples(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2)
    | st.dictionaries(st.sampled_from(KEY_FIELDS), json_values, max_size=2)
    | st.dictionaries(st.sampled_from(CONTENTS), json_values, max_size=3).map(lambda content: {"message": content})
)
def test_a_malformed_row_never_harms_its_neighbours(changes: dict[str, Any]) -> None:
    parsed = read([row(), row(**changes), row(key__id="3A01")])
    assert len(parsed.messages) + len(parsed.ignored) == 3
    assert parsed.messages[0].external_id == "3A00"
    assert parsed.messages[-1].external_id == "3A01"


def test_a_history_of_ten_thousand_messages_is_read_in_seconds() -> None:
    sample = json.loads((SAMPLES / "03-image-caption.json").read_bytes())
    sample["event"], sample["data"] = "messages.set", [sample["data"]] * 10_000
    body = json.dumps(sample).encode()
    begun = time.process_time()
    parsed = parse(body, now=NOW)
    # Takes half a second for these 32 MB; the bound leaves room for a busy machine.
    assert time.process_time() - begun < 8
    assert len(parsed.messages) == 10_000
