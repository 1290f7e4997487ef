"""Search over real HTTP: by words, by meaning, by both, with filters; and messages like one that is known."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.http import Account, System, analysis, envelope

START = 1761134400
SAID = {
    "Não consigo entrar na minha conta, a senha não funciona": "problemas para acessar a conta",
    "O entregador não apareceu no horário combinado": "a entrega atrasou",
    "Muito obrigada, o atendimento foi excelente!": "elogio ao atendimento",
    "Vocês fazem orçamento para piscina?": "quanto custa uma piscina",
}
PHONES = ("5511987650001", "5521998760002")
EMOTIONS = ("alegria", "raiva")


@pytest.fixture(scope="module")
def shop(system: System) -> tuple[Account, list[dict[str, Any]]]:
    """A tenant with those four messages, in two chats, the last two the company's; its rows in the order of the log."""
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    for number, text in enumerate(SAID):
        phone = PHONES[number % 2]
        done = system.deliver(path, envelope(text, f"B{number}", START + number, phone=phone, from_me=number > 1))
    system.get(who, "/messages", wait_for=done["position"])
    for number, row in enumerate(system.messages_of(who.tenant_id)):
        vector = asyncio.run(system.services.embedder.embed([row["text"]]))[0]
        system.analyse(row["id"], analysis(-0.5 + number / 4, emotion=EMOTIONS[number // 2]), vector=vector)
    system.projected()
    return who, system.messages_of(who.tenant_id)


def texts(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["text"] for hit in hits]


def test_search_by_meaning(system: System, shop: tuple[Account, list[dict[str, Any]]]) -> None:
    who, _ = shop
    for text, words in SAID.items():
        found = system.get(who, "/search", q=words, mode="semantic", threshold=-1)
        assert found[0]["text"] == text, words
        scores = [hit["similarity_score"] for hit in found]
        assert scores == sorted(scores, reverse=True)
        assert len(found) == len(SAID)
        assert {tuple(hit["found_by"]) for hit in found} == {("meaning",)}
    exact = system.get(who, "/search", q=next(iter(SAID)), mode="semantic", limit=1)
    assert exact[0]["similarity_score"] == pytest.approx(1, abs=1e-3)
    assert len(exact) == 1
    assert exact[0]["snippet"] == [{"text": next(iter(SAID)), "match": False}]
    assert system.get(who, "/search", q="qualquer coisa", mode="semantic", threshold=1) == []
    assert all(row["embedded"] for row in system.get(who, "/messages")["items"])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("nao", [0, 1]),
        ("NÃO", [0, 1]),
        ("nao conta", [0]),
        ("entregadores", [1]),
        ("conta OR piscina", [0, 3]),
        ('"nao funciona"', [0]),
        ('"funciona nao"', []),
        ("nao -senha", [1]),
        ("vocês fazem orcamento", [3]),
        ("jabuticaba", []),
        ("o a de", []),
        ("-nao", []),
    ],
)
def test_search_by_words(
    system: System, shop: tuple[Account, list[dict[str, Any]]], words: str, found: list[int]
) -> None:
    who, rows = shop
    hits = system.get(who, "/search", q=words, mode="text")
    assert sorted(hit["message_id"] for hit in hits) == [rows[index]["id"] for index in found]
    assert all(hit["found_by"] == ["text"] and hit["similarity_score"] is None for hit in hits)


def test_words_that_were_found_are_marked_as_they_were_written(
    system: System, shop: tuple[Account, list[dict[str, Any]]]
) -> None:
    who, _ = shop
    (hit,) = system.get(who, "/search", q="orcamentos", mode="text")
    assert hit["snippet"] == [
        {"text": "Vocês fazem ", "match": False},
        {"text": "orçamento", "match": True},
        {"text": " para piscina?", "match": False},
    ]


def test_what_a_customer_writes_is_no_mark(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    long = f"{'antes ' * 60}<b>bolo</b> \x02amassado\x03 <script>alert(1)</script>{' depois' * 60}"
    done = system.deliver(path, envelope(long, "X1", START))
    (hit,) = system.get(who, "/search", q="bolo amassado", mode="text", wait_for=done["position"])
    assert [piece["text"] for piece in hit["snippet"] if piece["match"]] == ["bolo", "amassado"]
    shown = "".join(piece["text"] for piece in hit["snippet"])
    assert (shown[0], shown[-1]) == ("…", "…")
    assert shown[1:-1] in hit["text"]
    assert len(shown) == 202


def test_both_ways_are_the_default(system: System, shop: tuple[Account, list[dict[str, Any]]]) -> None:
    who, rows = shop
    hits = system.get(who, "/search", q="piscina", threshold=-1)
    assert len(hits) == len(SAID)
    assert (hits[0]["message_id"], hits[0]["found_by"]) == (rows[3]["id"], ["text", "meaning"])
    assert hits[0]["score"] == pytest.approx(1 / 61 + 1 / 61)
    assert {"text": "piscina", "match": True} in hits[0]["snippet"]
    assert hits[0]["similarity_score"] is not None
    assert [tuple(hit["found_by"]) for hit in hits[1:]] == [("meaning",)] * 3
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert system.get(who, "/search", q="piscina", threshold=-1, limit=2) == hits[:2]
    # Nothing means it, and the word is there all the same.
    assert texts(system.get(who, "/search", q="piscina", threshold=1)) == [list(SAID)[3]]


def test_filters(system: System, shop: tuple[Account, list[dict[str, Any]]]) -> None:
    who, rows = shop
    moment = datetime.fromtimestamp(START + 1, UTC).isoformat()
    expected: list[tuple[dict[str, Any], list[int]]] = [
        ({"since": moment}, [1, 2, 3]),
        ({"until": moment}, [0]),
        ({"chat_id": rows[0]["chat_id"]}, [0, 2]),
        ({"connection_id": rows[0]["connection_id"]}, [0, 1, 2, 3]),
        ({"connection_id": 1}, []),
        ({"sentiment_min": 0}, [2, 3]),
        ({"sentiment_max": -0.3}, [0]),
        ({"emotion": "raiva"}, [2, 3]),
        ({"author": "customer"}, [0, 1]),
        ({"author": "company"}, [2, 3]),
        ({"author": "company", "since": moment, "chat_id": rows[0]["chat_id"]}, [2]),
    ]
    for query, passing in expected:
        ids = sorted(rows[index]["id"] for index in passing)
        for mode in ("semantic", "text", "hybrid"):
            hits = system.get(
                who, "/search", q="conta OR entregador OR atendimento OR piscina", mode=mode, threshold=-1, **query
            )
            assert sorted(hit["message_id"] for hit in hits) == ids, (mode, query)
        like = system.get(who, f"/messages/{rows[0]['id']}/similar", threshold=-1, **query)
        assert sorted(hit["message_id"] for hit in like) == [i for i in ids if i != rows[0]["id"]], query


def test_messages_like_one(system: System, shop: tuple[Account, list[dict[str, Any]]]) -> None:
    who, rows = shop
    hits = system.get(who, f"/messages/{rows[0]['id']}/similar", threshold=-1)
    assert sorted(hit["message_id"] for hit in hits) == [row["id"] for row in rows[1:]]
    scores = [hit["similarity_score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert system.get(who, f"/messages/{rows[0]['id']}/similar", threshold=-1, limit=1) == hits[:1]
    for nobodys in (10**15, 10**30, 0):
        system.get(who, f"/messages/{nobodys}/similar", expect=404)


def test_a_message_without_a_vector_is_like_none_yet(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    done = system.deliver(path, envelope("sem vetor", "N1", START))
    identifier = system.get(who, "/messages", wait_for=done["position"])["items"][0]["id"]
    assert "no vector yet" in system.get(who, f"/messages/{identifier}/similar", expect=409)["detail"]
    # By words it is found as soon as it is there.
    assert texts(system.get(who, "/search", q="vetor")) == ["sem vetor"]


def test_filters_and_answers_are_documented(system: System) -> None:
    paths = system.client.get("/docs/openapi.json").json()["paths"]
    filters = {
        "since", "until", "chat_id", "connection_id", "sentiment_min", "sentiment_max", "emotion", "author",
    }  # fmt: skip
    for path in ("/api/v1/search", "/api/v1/messages/{identifier}/similar"):
        told = paths[path]["get"]
        assert filters < {parameter["name"] for parameter in told["parameters"]}
    assert {"404", "409"} < set(told["responses"])


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({}, "q"),
        ({"q": ""}, "q"),
        ({"q": "  "}, "query.q"),
        ({"q": "\0"}, "query.q"),
        ({"q": "x" * 2001}, "q"),
        ({"q": "oi", "limit": 101}, "limit"),
        ({"q": "oi", "threshold": 2}, "threshold"),
        ({"q": "oi", "threshold": "nan"}, "threshold"),
        ({"q": "oi", "mode": "magic"}, "mode"),
        ({"q": "oi", "author": "nobody"}, "author"),
        ({"q": "oi", "since": "2025-10-22T12:00:00"}, "query.since"),
        ({"q": "oi", "chat_id": "a\0b"}, "chat_id"),
        ({"q": "oi", "connection_id": 2**63}, "connection_id"),
    ],
)
def test_a_search_that_can_not_be(system: System, admin: Account, query: dict[str, Any], where: str) -> None:
    assert where in system.get(admin, "/search", expect=400, **query)["detail"]


@pytest.mark.parametrize(
    "words",
    [
        "\0x",
        "😍",
        "a" * 2000,
        "%_'\";--",
        "\u202e\u200b",
        '"',
        "-",
        "OR",
        '-"',
        "'",
        "a:*",
        "!&|()<->",
        '"' * 1999,
        "- OR -",
    ],
)
def test_any_words_can_be_searched_for(system: System, admin: Account, words: str) -> None:
    for mode in ("hybrid", "text"):
        assert system.get(admin, "/search", q=words, mode=mode) == []
