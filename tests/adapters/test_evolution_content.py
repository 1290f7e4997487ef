"""Which words are found in a message, and of which kind it is."""

from typing import Any

import pytest

from adapters.evolution import CUT_MARK, MAX_TEXT_BYTES, Ignored, fitted
from domain.masking import mask
from tests.support.evolution import one, refused, row


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
        # Places where text lives that the kinds above do not show.
        ({"reactionMessage": {"text": "👍", "key": {"id": "3A00"}}}, "reaction", "👍"),
        ({"contactMessage": {"displayName": "Marina", "vcard": "BEGIN:VCARD"}}, "contact", "Marina"),
        (
            {"contactsArrayMessage": {"displayName": "Marina e mais 2", "contacts": []}},
            "contactsArray",
            "Marina e mais 2",
        ),
        (
            {"locationMessage": {"name": "Casa", "address": "Rua Azul, 1", "comment": "portão"}},
            "location",
            "Casa\nRua Azul, 1\nportão",
        ),
        ({"locationMessage": {"name": 7, "address": "Rua Azul, 1"}}, "location", "Rua Azul, 1"),
        ({"pollCreationMessageV4": {"name": "Quando?", "options": []}}, "pollCreation", "Quando?"),
        (
            {"pollCreationMessageV6": {"message": {"pollCreationMessage": {"name": "Quando?"}}}},
            "pollCreation",
            "Quando?",
        ),
        (
            {"pollResultSnapshotMessage": {"name": "Quando?", "pollVotes": [{"optionName": "Hoje"}]}},
            "pollResultSnapshot",
            "Quando?\nHoje",
        ),
        ({"ptvMessage": {"caption": "oi"}}, "ptv", "oi"),
        ({"groupInviteMessage": {"caption": "entra aí"}}, "groupInvite", "entra aí"),
        ({"newsletterAdminInviteMessage": {"caption": "oi"}}, "newsletterAdminInvite", "oi"),
        ({"sendPaymentMessage": {"noteMessage": {"conversation": "pix da entrega"}}}, "sendPayment", "pix da entrega"),
        ({"orderMessage": {"text": "quero dois", "product_items": []}}, "order", "quero dois"),
        (
            {"interactiveResponseMessage": {"nativeFlowResponseMessage": {"paramsJson": '{"title": "Sim"}'}}},
            "interactiveResponse",
            "Sim",
        ),
        ({"templateMessage": {"interactiveMessageTemplate": {"body": {"text": "Olá"}}}}, "template", "Olá"),
        (
            {"highlyStructuredMessage": {"hydratedHsm": {"hydratedTemplate": {"hydratedContentText": "Olá"}}}},
            "highlyStructured",
            "Olá",
        ),
        ({"richResponseMessage": {"submessages": [{"messageText": "Olá"}, {}]}}, "richResponse", "Olá"),
        (
            {"botForwardedMessage": {"message": {"richResponseMessage": {"submessages": [{"messageText": "Olá"}]}}}},
            "richResponse",
            "Olá",
        ),
        ({"conversation": "oi", "contextInfo": {"stanzaId": "x"}}, "conversation", "oi"),
        ({"conversation": "oi", "newThing": {"message": {"conversation": "tchau"}}}, "conversation", "oi"),
        ({"newThing": {"message": {"conversation": "tchau"}}}, "conversation", "tchau"),
        ({"audioMessage": {"speechToText": "[audio] dentro"}}, "audio", "dentro"),
        ({"ephemeralMessage": {"message": {"audioMessage": {}}}, "speechToText": "[audio] fora"}, "audio", "fora"),
        ({"audioMessage": {}, "speechToText": "[audio] linha\ndois"}, "audio", "linha\ndois"),
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
        ({"conversation": 7}, Ignored("conversation", "text is not a string")),
        ({"conversation": {"0": 111, "1": 105}}, Ignored("conversation", "text is not a string")),
        ({"extendedTextMessage": {"text": ["oi"]}}, Ignored("extendedText", "text is not a string")),
        (
            {"pollCreationMessage": {"name": 7, "options": [{"optionName": 8}]}},
            Ignored("pollCreation", "text is not a string"),
        ),
        ({"conversation": "\u200b \u200e\n"}, Ignored("conversation", "no text")),
        ({"reactionMessage": {"text": ""}}, Ignored("reaction", "reaction withdrawn")),
        ({"reactionMessage": {"key": {"id": "3A00"}}}, Ignored("reaction", "reaction withdrawn")),
        ({"audioMessage": {}, "speechToText": "[audio]"}, Ignored("audio", "no text")),
        ({"audioMessage": {}, "speechToText": "[audio] [object Object]"}, Ignored("audio", "no text")),
        ({"audioMessage": {}, "speechToText": {"text": "oi"}}, Ignored("audio", "no text")),
        ({"documentMessage": {"caption": "a.pdf", "fileName": "a.pdf"}}, Ignored("document", "no text")),
        ({"documentMessage": {"title": "a.pdf"}}, Ignored("document", "no text")),
        ({"lottieStickerMessage": {"message": {"stickerMessage": {}}}}, Ignored("lottieSticker", "no text")),
        ({"albumMessage": {"expectedImageCount": 2}}, Ignored("album", "no text")),
        ({"pollUpdateMessage": {"vote": {"encPayload": {"0": 1}}}}, Ignored("pollUpdate", "no text")),
        ({"pollUpdateMessage": {"vote": {"selectedOptions": [{"0": 1}]}}}, Ignored("pollUpdate", "no text")),
        ({"encReactionMessage": {}}, Ignored("encReaction", "encrypted")),
        ({"keepInChatMessage": {"keepType": 1}}, Ignored("keepInChat", "system message")),
        ({"pinInChatMessage": {"type": 1}}, Ignored("pinInChat", "system message")),
        ({"callLogMesssage": {}}, Ignored("callLogMesssage", "system message")),
        ({"mediaType": "x", "stickerMessage": {}}, Ignored("sticker", "no text")),
        ({"hologramMessage": {"message": 7}}, Ignored("hologram", "unknown")),
        ({"hologramMessage": {"message": {"message": {}}}}, Ignored("message", "unknown")),
        ({"imageMessage": {"caption": ""}}, Ignored("image", "no text")),
        ({"imageMessage": "x"}, Ignored("image", "no text")),
        ({"audioMessage": {}, "speechToText": "[audio] undefined"}, Ignored("audio", "no text")),
        ({"stickerMessage": {}}, Ignored("sticker", "no text")),
        ({"ptvMessage": {}}, Ignored("ptv", "no text")),
        (
            {"interactiveResponseMessage": {"nativeFlowResponseMessage": {"paramsJson": '{"a": "b"}'}}},
            Ignored("interactiveResponse", "no text"),
        ),
        ({"contactsArrayMessage": {}}, Ignored("contactsArray", "no text")),
        ({"contactMessage": {"vcard": "BEGIN:VCARD"}}, Ignored("contact", "no text")),
        ({"locationMessage": {"degreesLatitude": -23.5}}, Ignored("location", "no text")),
        ({"protocolMessage": {}}, Ignored("protocol", "system message")),
        ({"protocolMessage": "x"}, Ignored("protocol", "system message")),
        ({"protocolMessage": {"type": 3}}, Ignored("protocol", "system message")),
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


def test_a_transcript_may_stand_beside_the_message() -> None:
    assert one(row({"audioMessage": {}}, speechToText="[audio] na linha")).text == "na linha"


def test_a_long_text_is_cut_between_characters_and_marked() -> None:
    assert one(row({"conversation": "a" * MAX_TEXT_BYTES})).text == "a" * MAX_TEXT_BYTES
    assert one(row({"conversation": "a" * 70_000})).text == "a" * (MAX_TEXT_BYTES - len(CUT_MARK.encode())) + CUT_MARK
    text = one(row({"conversation": "a" + "é" * 40_000})).text
    assert text == "a" + "é" * 32_764 + CUT_MARK
    assert len(text.encode()) <= MAX_TEXT_BYTES


@pytest.mark.parametrize("personal", ["529.982.247-25", "529 982 247 25", "ana.lima@exemplo.com.br", "(11) 98765-4321"])
def test_a_cut_leaves_no_half_of_a_number_or_address(personal: str) -> None:
    # A mask recognises whole ones alone.
    for shift in range(len(personal) + 8):
        text = one(row({"conversation": "é" * 32_740 + "x" * shift + " meu: " + personal + " é" * 20_000})).text
        assert len(text.encode()) <= MAX_TEXT_BYTES
        said = text.removesuffix(CUT_MARK).rpartition("meu:")[2].strip(" é")
        assert said in ("", personal) or text.endswith("x" * shift + CUT_MARK)


def test_a_masked_text_may_be_longer_and_is_made_to_fit_again() -> None:
    said = one(row({"conversation": "@12345678 " * 6_500})).text
    assert len(said.encode()) <= MAX_TEXT_BYTES < len(mask(said).encode())
    assert len(fitted(mask(said)).encode()) <= MAX_TEXT_BYTES
    assert fitted(mask(said)).endswith(CUT_MARK)
