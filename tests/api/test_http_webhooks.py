"""Evolution's webhook over real HTTP: every sample gives the documented result, and the sender understands the answer.

`test_http_faults.py` has what happens while the database is away.
"""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.support.http import TOKEN, Account, System, envelope, utc_now

SAMPLES = Path(__file__).parent.parent / "samples" / "evolution"

#: What a message is expected to become: text, whose chat, whose words, seconds since 1970.
Row = tuple[str, str, str, int]

#: Each sample in the order it is sent: how many messages are received, duplicates and ignored, and the rows.
EXPECTED: dict[str, tuple[int, int, int, list[Row]]] = {
    "01-text-conversation": (
        1,
        0,
        0,
        [
            (
                "Bom dia! Meu pedido 48213 ainda não chegou, o prazo era ontem. Podem verificar?",
                "juliana",
                "juliana",
                1761134400,
            )
        ],
    ),
    "03-image-caption": (1, 0, 0, [("Olha como a caixa chegou toda amassada", "rafael", "rafael", 1761134520)]),
    "06-audio-ptt": (0, 0, 1, []),
    "10-reaction": (1, 0, 0, [("👍", "juliana", "juliana", 1761134940)]),
    "12-button-reply": (1, 0, 0, [("Falar com atendente", "rafael", "rafael", 1761135060)]),
    "15-edited-message": (0, 0, 0, []),
    "16-deleted-revoked": (0, 0, 0, []),
    "17-ephemeral-wrapped": (1, 0, 0, [("Pode deixar com o porteiro, obrigado!", "antonio", "antonio", 1761135360)]),
    "19-group-participant-lid": (
        1,
        0,
        0,
        [("Pessoal, o cimento chegou faltando 10 sacos. Quem resolve isso?", "obra", "pedreiro", 1761135480)],
    ),
    "21-lid-remoteJidAlt": (
        1,
        0,
        0,
        [("Chegou! Muito obrigada pelo atendimento, vocês foram ótimos 😍", "juliana", "juliana", 1761135600)],
    ),
    "22-messages-set-history": (
        3,
        0,
        0,
        [
            ("Boa tarde, vocês fazem orçamento para condomínio?", "síndico", "síndico", 1760270400),
            ("Boa tarde! Fazemos sim, pode me passar a metragem?", "síndico", "company", 1760270500),
            ("Foto da fachada", "obra", "antonio", 1760434400),
        ],
    ),
    "23-connection-update-open": (0, 0, 0, []),
    "25-duplicate-redelivery": (0, 1, 0, []),
    "30-websocket-nats-rabbit-envelope": (0, 1, 0, []),
    "40-document-with-caption-nested": (
        1,
        0,
        0,
        [("Segue a nota fiscal, o valor veio errado", "rafael", "rafael", 1761136200)],
    ),
    "41-list-reply": (1, 0, 0, [("Segunda via do boleto\nReceber por e-mail", "rafael", "rafael", 1761136260)]),
    "42-view-once-v2-image": (1, 0, 0, [("Essa é a etiqueta rasgada", "rafael", "rafael", 1761136200)]),
    "43-audio-with-transcript": (
        1,
        0,
        0,
        [("Oi, queria saber se vocês abrem no sábado.", "rafael", "rafael", 1761136200)],
    ),
    "44-lid-older-server-senderPn": (
        1,
        0,
        0,
        [("Ainda não recebi o código de rastreio.", "juliana", "juliana", 1761136200)],
    ),
    "45-lid-without-phone": (1, 0, 0, [("Vocês entregam em Santos?", "só lid", "só lid", 1761136200)]),
    "46-send-message": (
        1,
        0,
        0,
        [("Bom dia, Juliana! Seu pedido sai hoje às 14h.", "juliana", "company", 1761136200)],
    ),
    "47-unknown-kind": (0, 0, 1, []),
    "48-unknown-event": (0, 0, 1, []),
    "49-history-with-broken-rows": (
        2,
        0,
        5,
        [
            ("Primeira mensagem do histórico", "rafael", "rafael", 1761136200),
            ("Última mensagem do histórico", "rafael", "rafael", 1761136320),
        ],
    ),
    "50-status-broadcast": (0, 0, 1, []),
    "51-newsletter": (0, 0, 1, []),
    "52-contact-card": (1, 0, 0, [("Marina Teles", "rafael", "rafael", 1761136200)]),
    "53-poll": (1, 0, 0, [("Qual horário de entrega?\nManhã\nTarde", "rafael", "rafael", 1761136200)]),
    "54-meta-cloud": (1, 0, 0, [("Quero cancelar minha assinatura", "rafael", "rafael", 1761136200)]),
    "55-edit-inside-upsert": (0, 0, 0, []),
}


#: Edits and deletions, which no row comes of: tests/api/test_amendments.py has what does.
ANNOUNCING = {"15-edited-message", "16-deleted-revoked", "55-edit-inside-upsert"}


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


@pytest.fixture(scope="module")
def hook(system: System, admin: Account) -> str:
    """Path of the connection's webhook."""
    return system.new_connection(admin)[1]


def metric(system: System, series: str) -> float:
    """A counter's value at /metrics; 0 where it was never counted."""
    lines = system.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series)


def test_every_sample_is_here() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == set(EXPECTED)


def test_every_sample_gives_the_documented_result_and_row(
    system: System, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    caplog.set_level("DEBUG")
    last = 0
    for name, (received, duplicates, ignored, _) in EXPECTED.items():
        answer = system.deliver(path, sample(name))
        position = answer.pop("position")
        assert answer == {
            "received": received,
            "duplicates": duplicates,
            "ignored": ignored,
            "refused": 0,
            "announced": int(name in ANNOUNCING),
        }, name
        assert (position > 0) == bool(received or duplicates or name in ANNOUNCING), name
        last = max(last, position)
    # As after a slow answer: everything once more.
    for name, (received, duplicates, ignored, _) in EXPECTED.items():
        answer = system.deliver(path, sample(name))
        known = received + duplicates + (name in ANNOUNCING)
        assert (answer["received"], answer["duplicates"], answer["ignored"]) == (0, known, ignored)

    system.get(who, "/messages", wait_for=last)
    rows = system.messages_of(who.tenant_id)
    expected = [row for *_, of_sample in EXPECTED.values() for row in of_sample]
    assert [(row["text"], int(row["created_at"].timestamp())) for row in rows] == [(row[0], row[3]) for row in expected]
    # One person is one hash, in every spelling of the address; two are two.
    hashes: dict[str, set[str]] = {}
    for row, (_, chat, sender, _) in zip(rows, expected, strict=True):
        hashes.setdefault(chat, set()).add(row["chat_id"])
        hashes.setdefault(sender, set()).add(row["sender"])
        assert row["tenant_id"] == who.tenant_id
        assert row["sentiment"] is None
    assert {name: len(values) for name, values in hashes.items()} == dict.fromkeys(hashes, 1)
    values = [value for of_name in hashes.values() for value in of_name]
    assert len(set(values)) == len(hashes)
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in values)

    shown = caplog.text + "".join(capsys.readouterr())
    for personal in ("5511987650001", "Juliana", "pedido 48213", "9C0B2F7E", "118273645546372", TOKEN):
        assert personal not in shown


PEOPLE = {
    "with the ninth digit": {"remoteJid": "5511987651234@s.whatsapp.net"},
    "without the ninth digit": {"remoteJid": "551187651234@s.whatsapp.net"},
    "of another device": {"remoteJid": "5511987651234:17@s.whatsapp.net"},
    "of the old server": {"remoteJid": "551187651234@c.us"},
    "LID with the phone beside it": {"remoteJid": "99887766@lid", "remoteJidAlt": "5511987651234@s.whatsapp.net"},
    "LID of a device": {"remoteJid": "99887766:3@lid", "remoteJidAlt": "551187651234:2@s.whatsapp.net"},
    "LID of an older server": {"remoteJid": "99887766@lid", "senderPn": "551187651234@s.whatsapp.net"},
}


def test_one_person_is_one_sender(system: System) -> None:
    first, second = (system.new_user(system.new_tenant()) for _ in range(2))
    for who in (first, second):
        _, path = system.new_connection(who)
        for number, (name, key) in enumerate(PEOPLE.items()):
            body = envelope(name, f"P{number}", 1761134400 + number)
            body["data"]["key"].update(key)
            last = system.deliver(path, body)["position"]
        body = envelope("somebody else", "P99", 1761134500, phone="5511987651235")
        last = system.deliver(path, body)["position"]
    system.get(second, "/messages", wait_for=last)
    mine, theirs = (system.messages_of(who.tenant_id) for who in (first, second))
    assert len({row["sender"] for row in mine[:-1]}) == 1
    assert {row["sender"] for row in mine} == {row["chat_id"] for row in mine}
    assert len({row["sender"] for row in mine}) == 2
    # The hash is keyed by tenant: who writes to both can't be told from it.
    assert not {row["sender"] for row in mine} & {row["sender"] for row in theirs}


def test_personal_numbers_are_masked_in_rows_and_answers(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    said = (
        "Meu CPF é 529.982.247-25, CNPJ 11.222.333/0001-81, cartão 4111 1111 1111 1111, ligue (11) 98765-4321 "
        "ou escreva para joana.lima@exemplo.com.br. Pedido 48213000111."
    )
    done = system.deliver(path, envelope(said, "M1", 1761134400))
    page = system.get(who, "/messages", wait_for=done["position"])
    masked = (
        "Meu CPF é [CPF], CNPJ [CNPJ], cartão [CARTÃO], ligue [TELEFONE] ou escreva para [EMAIL]. Pedido 48213000111."
    )
    assert [row["text"] for row in page["items"]] == [masked]
    assert [row["text"] for row in system.messages_of(who.tenant_id)] == [masked]
    history = system.get(who, f"/messages/{page['items'][0]['id']}/history")
    assert history[0]["data"]["text"] == masked
    system.analyse_offline(page["items"][0]["id"])
    system.projected()
    found = system.get(who, "/search", q="meu CPF é 529.982.247-25", threshold=-1)
    assert [hit["text"] for hit in found] == [masked]


# --------------------------------------------------------------------------------------------- who may deliver


def evolution(secret: str = TOKEN, **claims: Any) -> str:
    moment = utc_now()
    standard = {
        "iat": moment,
        "exp": moment + timedelta(seconds=600),
        "app": "evolution",
        "action": "webhook",
    }
    return jwt.encode({**standard, **claims}, secret, algorithm="HS256")


AUTHENTIC: dict[str, Callable[[], dict[str, str]]] = {
    "header": lambda: {"X-EvoSense-Token": TOKEN},
    "apikey header": lambda: {"apikey": TOKEN},
    "bearer": lambda: {"Authorization": f"Bearer {TOKEN}"},
    "jwt_key": lambda: {"Authorization": f"Bearer {evolution()}"},
    "scheme in lower case": lambda: {"Authorization": f"bearer {evolution()}"},
    "jwt_key, a retry after 20 minutes": lambda: {
        "Authorization": f"Bearer {evolution(exp=utc_now() - timedelta(minutes=20))}"
    },
    "jwt_key, expired just within the leeway": lambda: {
        "Authorization": f"Bearer {evolution(exp=utc_now() - timedelta(minutes=29, seconds=50))}"
    },
    "right token beside a foreign bearer": lambda: {"X-EvoSense-Token": TOKEN, "Authorization": "Bearer proxy"},
}
NOT_AUTHENTIC: dict[str, Callable[[], dict[str, str]]] = {
    "nothing": dict,
    "wrong": lambda: {"X-EvoSense-Token": TOKEN + "x"},
    "shortened": lambda: {"X-EvoSense-Token": TOKEN[:-1]},
    "empty": lambda: {"X-EvoSense-Token": ""},
    "empty bearer": lambda: {"Authorization": "Bearer"},
    "basic": lambda: {"Authorization": f"Basic {TOKEN}"},
    "bytes beyond ASCII": lambda: {"X-EvoSense-Token": "sécret".encode("latin-1")},  # type: ignore[dict-item]
    "jwt_key of another": lambda: {"Authorization": f"Bearer {evolution(secret='x' * 32)}"},
    "jwt_key, expired beyond the leeway": lambda: {
        "Authorization": f"Bearer {evolution(exp=utc_now() - timedelta(minutes=30, seconds=10))}"
    },
    "jwt_key without exp": lambda: {
        "Authorization": f"Bearer {jwt.encode({'app': 'evolution'}, TOKEN, algorithm='HS256')}"
    },
    "jwt_key, exp no number": lambda: {"Authorization": f"Bearer {evolution(exp='soon')}"},
    "unsigned": lambda: {
        "Authorization": "Bearer " + jwt.encode({"exp": utc_now() + timedelta(hours=1)}, None, algorithm="none")
    },
    "in the query": dict,
}


@pytest.mark.parametrize("how", AUTHENTIC)
def test_right_secrets_are_let_in(system: System, hook: str, how: str) -> None:
    answer = system.client.post(hook, content=sample("48-unknown-event"), headers=AUTHENTIC[how]())
    assert system.checked(answer, 200)["ignored"] == 1


@pytest.mark.parametrize("how", NOT_AUTHENTIC)
def test_wrong_secrets_are_refused(system: System, admin: Account, hook: str, how: str) -> None:
    path = f"{hook}?apikey={TOKEN}" if how == "in the query" else hook
    body = envelope("nie", "N1", 1761134400)
    # The instance's own key stands in the body of every delivery: it proves nothing.
    body["apikey"] = TOKEN
    answer = system.client.post(path, json=body, headers=NOT_AUTHENTIC[how]())
    problem = system.checked(answer, 401)
    assert TOKEN not in str(problem)
    assert "X-EvoSense-Token" in problem["detail"]


def test_a_token_opens_its_own_connection_alone(system: System, hook: str) -> None:
    stranger = system.new_user(system.new_tenant())
    _, other = system.new_connection(stranger, token="another-token-of-another-tenant")
    system.deliver(other, envelope("x", "X1", 1761134400), token=TOKEN, expect=401)
    system.deliver(hook, envelope("x", "X1", 1761134400), token="another-token-of-another-tenant", expect=401)


def test_unknown_connections(system: System) -> None:
    unknown = "/webhooks/evolution/00000000-0000-4000-8000-000000000000"
    assert "no such connection" in system.deliver(unknown, {}, expect=404)["detail"]
    system.deliver("/webhooks/evolution/loja-centro", {}, expect=404)
    assert system.checked(system.client.get(unknown), 405)["detail"]


# --------------------------------------------------------------------------------------------- what is delivered


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"event=messages.upsert", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "JSON object"),
        (b"{}", "`event` is missing"),
        (b'{"event": "messages.upsert"}', "`data` is missing"),
        (b'{"event": "messages.upsert", "data": "segredo"}', "`data` must be"),
    ],
)
def test_no_envelope_at_all(system: System, hook: str, body: bytes, says: str) -> None:
    before = metric(system, 'evosense_webhook_refused_total{status="400"}')
    headers = {"X-EvoSense-Token": TOKEN, "content-type": "application/json"}
    problem = system.checked(system.client.post(hook, content=body, headers=headers), 400)
    assert says in problem["detail"]
    assert "segredo" not in str(problem)
    assert metric(system, 'evosense_webhook_refused_total{status="400"}') == before + 1


def test_whatever_the_content_type(system: System, hook: str) -> None:
    headers = {"X-EvoSense-Token": TOKEN, "content-type": "text/plain"}
    answer = system.client.post(hook, content=sample("48-unknown-event"), headers=headers)
    assert system.checked(answer, 200)["ignored"] == 1


def test_texts_that_no_column_can_hold_pass(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    body = json.dumps(envelope("TEXT", "T1", 1761134400)).replace("TEXT", "oi\\u0000 \\ud83d tchau").encode()
    done = system.deliver(path, body)
    assert (done["received"], done["refused"]) == (1, 0)
    page = system.get(who, "/messages", wait_for=done["position"])
    assert page["items"][0]["text"] == "oi \N{REPLACEMENT CHARACTER} tchau"


def test_media_in_the_body_are_no_reason_to_refuse_it(system: System) -> None:
    """Evolution's `webhook_base64` puts whole media into the envelope; 413 would lose the caption for good."""
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    body = json.loads(sample("03-image-caption"))
    body["data"]["message"]["base64"] = "A" * 22_000_000
    assert system.deliver(path, body)["received"] == 1


def test_many_deliveries_of_one_message_at_once_are_stored_once(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    rows = [envelope(f"mensagem {number}", f"D{number}", 1761134400 + number)["data"] for number in range(5)]
    body = {**envelope("", "", 0), "event": "messages.set", "data": {"messages": rows}}
    answers: list[dict[str, Any]] = []
    gate = threading.Barrier(16)

    def send() -> None:
        with httpx.Client(base_url=system.url, timeout=60) as client:
            gate.wait(20)
            answer = client.post(path, json=body, headers={"X-EvoSense-Token": TOKEN})
        answers.append(system.checked(answer, 200))

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 16
    assert sum(answer["received"] for answer in answers) == 5
    assert sum(answer["duplicates"] for answer in answers) == 15 * 5
    # Every answer's position is one at which all five can be read.
    for answer in answers:
        assert len(system.get(who, "/messages", wait_for=answer["position"])["items"]) == 5
    assert len(system.messages_of(who.tenant_id)) == 5


def test_the_same_message_twice_in_one_delivery(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    row = envelope("uma vez só", "E1", 1761134400)["data"]
    body = {**envelope("", "", 0), "event": "messages.set", "data": [row, row, {"broken": True}]}
    done = system.deliver(path, body)
    assert (done["received"], done["duplicates"], done["ignored"]) == (1, 1, 1)


def test_what_is_unknown_is_counted_and_logged_without_content(
    system: System, hook: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    series = 'evosense_webhook_ignored_total{kind="other",reason="unknown"}'
    before = metric(system, series)
    system.deliver(hook, sample("47-unknown-kind"))
    assert metric(system, series) == before + 1
    shown = caplog.text + "".join(capsys.readouterr())
    assert "an unknown kind arrived" in shown
    assert "hologram" in shown
    content = json.loads(sample("47-unknown-kind"))["data"]["message"]
    for value in _strings(content):
        assert value not in shown
        assert value not in system.client.get("/metrics").text
    # A sender that puts a person's number in place of the name of a kind does not get it into log or counters.
    sneaky = envelope("x", "K1", 1761134400)
    sneaky["data"]["message"] = {"5511987650001": {"text": "segredo"}}
    sneaky["event"] = "messages.upsert"
    assert system.deliver(hook, sneaky)["ignored"] == 1
    assert system.deliver(hook, {**sneaky, "event": "ana@exemplo.com.br"})["ignored"] == 1
    shown = caplog.text + "".join(capsys.readouterr()) + system.client.get("/metrics").text
    for value in ("5511987650001", "segredo", "ana@exemplo"):
        assert value not in shown


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _strings(inner)]
    return [value] if isinstance(value, str) else []


def test_time_is_when_it_was_sent(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    for number, written in enumerate((1761134400, "1761134400", {"low": 1761134400, "high": 0, "unsigned": True})):
        body = envelope("na hora", f"H{number}", 0)
        body["data"]["messageTimestamp"] = written
        # Local time, called UTC: not to be believed.
        body["date_time"] = "2025-10-22T09:00:00.412Z"
        last = system.deliver(path, body)["position"]
    page = system.get(who, "/messages", wait_for=last)
    assert {datetime.fromisoformat(row["created_at"]) for row in page["items"]} == {
        datetime(2025, 10, 22, 12, 0, tzinfo=UTC)
    }
    assert len(page["items"]) == 3
