"""What comes out of the samples of everything Evolution API sends."""

import json

import pytest

from adapters.evolution import Envelope, Ignored, InboundState, parse, parse_object
from tests.support.evolution import (
    ANTONIO,
    GROUP,
    JULIANA,
    NOW,
    RAFAEL,
    SAMPLES,
    SECRET,
    deletion,
    edit,
    holding,
    message,
)

LATE_ORDER = message(
    "1F00AAA9107DAEBFC534DA16A3367E19",
    JULIANA,
    "conversation",
    "Bom dia! Meu pedido 48213 ainda não chegou, o prazo era ontem. Podem verificar?",
    1761134400,
    lid="lid:118273645546372",
)

#: What is in each sample; those from `60` on, in a directory of their own, are one for each kind.
EXPECTED: dict[str, Envelope] = {
    "01-text-conversation": holding("messages.upsert", LATE_ORDER),
    "03-image-caption": holding(
        "messages.upsert",
        message("3A8F5B36F3AD831B49C2", RAFAEL, "image", "Olha como a caixa chegou toda amassada", 1761134520),
    ),
    "06-audio-ptt": holding("messages.upsert", Ignored("audio", "no text")),
    "10-reaction": holding(
        "messages.upsert",
        message("718294D24E84AA3F70F778133DDCE3DB", JULIANA, "reaction", "👍", 1761134940, lid="lid:118273645546372"),
    ),
    "12-button-reply": holding(
        "messages.upsert", message("3ACADD0BD20C654E72EF", RAFAEL, "buttonsResponse", "Falar com atendente", 1761135060)
    ),
    "15-edited-message": holding(
        "messages.edited",
        edit(
            "1F00AAA9107DAEBFC534DA16A3367E19",
            None,
            "Bom dia! Meu pedido 48231 ainda não chegou, o prazo era ontem. Podem verificar?",
            1761135240.53,
        ),
    ),
    "16-deleted-revoked": holding("messages.delete", deletion("3AD3F0AEFA5EB182A17D", RAFAEL)),
    "17-ephemeral-wrapped": holding(
        "messages.upsert",
        message(
            "464107587F37FCD12B94DCC1DC099D79",
            ANTONIO,
            "extendedText",
            "Pode deixar com o porteiro, obrigado!",
            1761135360,
        ),
    ),
    "19-group-participant-lid": holding(
        "messages.upsert",
        message(
            "62B1B80568A9056E025D6B62C5A7E7BF",
            GROUP,
            "conversation",
            "Pessoal, o cimento chegou faltando 10 sacos. Quem resolve isso?",
            1761135480,
            author="5531977660019",
            lid="lid:77310298456123",
        ),
    ),
    "21-lid-remoteJidAlt": holding(
        "messages.upsert",
        message(
            "E5CB14E04B349E5B746879444396A279",
            JULIANA,
            "conversation",
            "Chegou! Muito obrigada pelo atendimento, vocês foram ótimos 😍",
            1761135600,
            lid="lid:118273645546372",
        ),
    ),
    "22-messages-set-history": holding(
        "messages.set",
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
    ),
    "23-connection-update-open": holding("connection.update", InboundState(state="open", reason=200)),
    "25-duplicate-redelivery": holding("messages.upsert", LATE_ORDER),
    "30-websocket-nats-rabbit-envelope": holding("messages.upsert", LATE_ORDER),
    "40-document-with-caption-nested": holding(
        "messages.upsert",
        message("3A40AA01", RAFAEL, "document", "Segue a nota fiscal, o valor veio errado", 1761136200),
    ),
    "41-list-reply": holding(
        "messages.upsert",
        message("3A41AA01", RAFAEL, "listResponse", "Segunda via do boleto\nReceber por e-mail", 1761136260),
    ),
    "42-view-once-v2-image": holding(
        "messages.upsert", message("3A42AA01", RAFAEL, "image", "Essa é a etiqueta rasgada", 1761136200)
    ),
    "43-audio-with-transcript": holding(
        "messages.upsert",
        message("3A43AA01", RAFAEL, "audio", "Oi, queria saber se vocês abrem no sábado.", 1761136200),
    ),
    "44-lid-older-server-senderPn": holding(
        "messages.upsert",
        message(
            "3A44AA01",
            JULIANA,
            "conversation",
            "Ainda não recebi o código de rastreio.",
            1761136200,
            lid="lid:118273645546372",
        ),
    ),
    "45-lid-without-phone": holding(
        "messages.upsert",
        message(
            "3A45AA01",
            "lid:204511987733120",
            "conversation",
            "Vocês entregam em Santos?",
            1761136200,
            lid="lid:204511987733120",
        ),
    ),
    "46-send-message": holding(
        "send.message",
        message(
            "3EB046AA01",
            JULIANA,
            "extendedText",
            "Bom dia, Juliana! Seu pedido sai hoje às 14h.",
            1761136200,
            from_me=True,
        ),
    ),
    "47-unknown-kind": holding("messages.upsert", Ignored("hologram", "unknown")),
    "48-unknown-event": holding("planets.aligned", Ignored("planets.aligned", "unknown")),
    "49-history-with-broken-rows": holding(
        "messages.set",
        message("3A49AA01", RAFAEL, "conversation", "Primeira mensagem do histórico", 1761136200),
        message("3A49AA07", RAFAEL, "conversation", "Última mensagem do histórico", 1761136320),
        Ignored("conversation", "no key.id"),
        Ignored("conversation", "bad timestamp"),
        Ignored("conversation", "timestamp more than 24 hours ahead"),
        Ignored("conversation", "no address of a person in key"),
        Ignored("other", "not an object"),
    ),
    "50-status-broadcast": holding("messages.upsert", Ignored("extendedText", "status or broadcast list")),
    "51-newsletter": holding("messages.upsert", Ignored("conversation", "channel")),
    "52-contact-card": holding("messages.upsert", message("3A52AA01", RAFAEL, "contact", "Marina Teles", 1761136200)),
    "53-poll": holding(
        "messages.upsert",
        message("3A53AA01", RAFAEL, "pollCreation", "Qual horário de entrega?\nManhã\nTarde", 1761136200),
    ),
    "54-meta-cloud": holding(
        "messages.upsert",
        message(
            "wamid.HBgMNTUyMTk5ODc2MDAwMhUCABIYFDNBNTQ=",
            RAFAEL,
            "conversation",
            "Quero cancelar minha assinatura",
            1761136200,
        ),
    ),
    "55-edit-inside-upsert": holding(
        "messages.upsert", edit("3ACADD0BD20C654E72EF", RAFAEL, "Falar com gerente", 1761136200.53)
    ),
    # Below `kinds`.
    "60-location": holding(
        "messages.upsert",
        message("3A60AA01", RAFAEL, "location", "Padaria Estrela\nRua das Flores, 120, São Paulo", 1761136200),
    ),
    "61-contacts": holding(
        "messages.upsert", message("3A61AA01", RAFAEL, "contactsArray", "Marina Teles\nOficina do Beto", 1761136200)
    ),
    "62-reaction-withdrawn": holding("messages.upsert", Ignored("reaction", "reaction withdrawn")),
    "63-flow-reply": holding(
        "messages.upsert", message("3A63AA01", RAFAEL, "interactiveResponse", "Quero trocar o produto", 1761136200)
    ),
    "64-poll-v4-wrapped": holding(
        "messages.upsert",
        message("3A64AA01", RAFAEL, "pollCreation", "Onde retiramos?\nNa loja\nNo shopping", 1761136200),
    ),
    "65-poll-vote": holding("messages.upsert", message("3A65AA01", RAFAEL, "pollUpdate", "Na loja", 1761136200)),
    "66-event": holding(
        "messages.upsert",
        message("3A66AA01", RAFAEL, "event", "Entrega do sofá\nAlguém precisa estar em casa", 1761136200),
    ),
    "67-order": holding(
        "messages.upsert",
        message("3A67AA01", RAFAEL, "order", "Pedido do catálogo\nPode entregar hoje ainda?", 1761136200),
    ),
    "68-product": holding(
        "messages.upsert",
        message(
            "3A68AA01",
            RAFAEL,
            "product",
            "Luminária de mesa\nBivolt, base de madeira\nAinda tem essa em estoque?",
            1761136200,
        ),
    ),
    "69-group-invite": holding(
        "messages.upsert",
        message("3A69AA01", RAFAEL, "groupInvite", "Obra da Rua Azul\nEntra no grupo para acompanhar", 1761136200),
    ),
    "70-payment-request": holding(
        "messages.upsert",
        message("3A70AA01", RAFAEL, "requestPayment", "Reembolso do frete que paguei a mais", 1761136200),
    ),
    "71-video-note": holding(
        "messages.upsert", message("3A71AA01", RAFAEL, "ptv", "Olha o barulho que o motor faz", 1761136200)
    ),
    "72-comment": holding(
        "messages.upsert",
        message(
            "3A72AA01",
            GROUP,
            "extendedText",
            "Também estou esperando resposta",
            1761136200,
            author="5531977660019",
            lid="lid:77001122334455",
        ),
    ),
    "73-file-name-as-caption": holding("messages.upsert", Ignored("document", "no text")),
    "74-edit-in-ephemeral": holding(
        "messages.upsert", edit("3A71AA01", RAFAEL, "Olha o barulho que o motor está fazendo", 1761136200.89)
    ),
    "75-revoke-in-upsert": holding("messages.upsert", deletion("3A60AA01", RAFAEL, seconds=1761136200)),
    "76-revoke-by-administrator": holding(
        "messages.upsert", deletion("3A72AA01", GROUP, from_me=None, seconds=1761136200)
    ),
    "77-edited-by-the-company": holding(
        "messages.edited",
        edit("3EB046AA01", JULIANA, "Bom dia, Juliana! Seu pedido sai hoje às 16h.", 1761136300.53, from_me=True),
    ),
    "78-edited-says-revoke": holding("messages.edited", deletion("3A41AA01", None)),
    "79-delete-whole-row": holding("messages.delete", deletion("3A79AA01", JULIANA, from_me=True)),
    "80-delete-list": holding(
        "messages.delete",
        deletion("464107587F37FCD12B94DCC1DC099D79", ANTONIO),
        deletion("3A45AA01", "lid:204511987733120"),
        Ignored("deleted", "no key.id"),
    ),
    "81-delivery-status": holding("messages.update", Ignored("status", "delivery status")),
    "82-update-with-edit": holding(
        "messages.update", edit("3A44AA01", JULIANA, "Ainda não recebi o código de rastreio do pedido.", None)
    ),
    "83-update-with-deletion": holding("messages.update", deletion("3A53AA01", RAFAEL), deletion("3A40AA01", RAFAEL)),
    "84-send-message-update": holding(
        "send.message.update", edit("3EB084AA01", RAFAEL, "Rafael, a troca foi aprovada.", 1761136400, from_me=True)
    ),
    "85-history-changed": holding(
        "messages.set",
        message("3A85AA01", RAFAEL, "conversation", "Quero devolver a geladeira", 1761136200),
        message("3A85AA02", RAFAEL, "conversation", "A entrega atrasou dois dias", 1761136200),
        edit("3A85AA01", RAFAEL, "Quero devolver a geladeira", 1761136260),
        edit("3A85AA02", RAFAEL, "A entrega atrasou dois dias", 1761136200),
        deletion("3A85AA03", RAFAEL),
        deletion("3A85AA04", RAFAEL),
    ),
    "86-connection-closed": holding("connection.update", InboundState(state="close", reason=428)),
    "87-logged-out": holding("logout.instance", InboundState(state="close", reason=None)),
    "88-status-closed": holding("status.instance", InboundState(state="close", reason=401)),
    "89-secret-encrypted": holding("messages.upsert", Ignored("secretEncrypted", "encrypted")),
    "90-album": holding("messages.upsert", Ignored("album", "no text")),
    "91-meta-image": holding(
        "messages.upsert",
        message("wamid.HBgMNTUyMTk5ODc2MDAwMhUCABIYFDNBOTE=", RAFAEL, "image", "Veio com defeito", 1761136200),
    ),
    "92-meta-reaction": holding(
        "messages.upsert", message("wamid.HBgMNTUyMTk5ODc2MDAwMhUCABIYFDNBOTI=", RAFAEL, "reaction", "❤️", 1761136200)
    ),
    "93-group-status": holding("messages.upsert", Ignored("groupStatus", "status or broadcast list")),
    "94-wrapper-of-tomorrow": holding(
        "messages.upsert", message("3A94AA01", RAFAEL, "extendedText", "O holograma chegou quebrado", 1761136200)
    ),
    "95-live-location": holding(
        "messages.upsert", message("3A95AA01", RAFAEL, "liveLocation", "Estou chegando na loja", 1761136200)
    ),
    "96-channel-invite": holding(
        "messages.upsert",
        message("3A96AA01", RAFAEL, "newsletterFollowerInvite", "Siga nosso canal de ofertas", 1761136200),
    ),
    "97-template-sent": holding(
        "send.message",
        message("3A97AA01", JULIANA, "template", "Pesquisa\nComo foi seu atendimento?", 1761136200, from_me=True),
    ),
    "98-carousel-sent": holding(
        "send.message",
        message(
            "3A98AA01",
            JULIANA,
            "interactive",
            "Novidades\nEscolha um modelo\nSofá retrátil\nPoltrona",
            1761136200,
            from_me=True,
        ),
    ),
    "99-transcript-beside-wrapper": holding(
        "messages.upsert",
        message(
            "3A99AA01", JULIANA, "audio", "Boa tarde, o técnico não apareceu.", 1761136200, lid="lid:118273645546372"
        ),
    ),
    "9a-bytes-for-text": holding("messages.upsert", Ignored("extendedText", "text is not a string")),
}


def test_every_sample_is_in_the_table() -> None:
    assert {path.stem for path in SAMPLES.rglob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_sample(name: str) -> None:
    (path,) = SAMPLES.rglob(f"{name}.json")
    body = path.read_bytes()
    envelope = parse(body, now=NOW)
    assert envelope == EXPECTED[name]
    assert parse_object(json.loads(body), now=NOW) == envelope
    assert SECRET not in repr(envelope)
