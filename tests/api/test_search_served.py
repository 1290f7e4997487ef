"""Search where a model server embeds: it is asked for what is looked for, and a search never depends on it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from adapters.embeddings import OfflineEmbedder
from adapters.embeddings.openai import OpenAIEmbedder
from adapters.model_server import EmbedderServer
from adapters.settings import Settings
from api import search
from tests.support.http import Account, System, analysis, envelope, running_system
from tests.support.model_faults import one_vector_less, status
from tests.support.openai_server import ModelServer, embedding, openai_server

START = 1761134400
TEXTS = ("Não consigo entrar na minha conta", "O entregador não apareceu", "Vocês fazem orçamento para piscina?")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with openai_server() as running:
        yield running


@pytest.fixture(scope="module")
def system(settings: Settings, server: ModelServer) -> Iterator[System]:
    embedder = OpenAIEmbedder(EmbedderServer(name="embedding", url=server.url, model="nomic", timeout=5))
    with running_system(settings, embedder, OfflineEmbedder()) as running:
        yield running


@pytest.fixture(scope="module")
def shop(system: System) -> Account:
    """A tenant with those messages, embedded by the server's model."""
    who = system.new_user(system.new_tenant())
    _, path = system.new_connection(who)
    for number, text in enumerate(TEXTS):
        system.deliver(path, envelope(text, f"S{number}", START + number))
    system.projected()
    for row in system.messages_of(who.tenant_id):
        vector = np.array(embedding(row["text"]))
        unit = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
        system.analyse(row["id"], analysis(0.0), vector=unit)
    system.projected()
    return who


@pytest.fixture(autouse=True)
def _well(server: ModelServer) -> Iterator[None]:
    server.reset()
    yield
    server.reset()


def asked(system: System, who: Account, mode: str, words: str = "orçamento piscina") -> Any:
    query = {"q": words, "mode": mode, "threshold": -1}
    return system.client.get("/api/v1/search", params=query, headers=who.headers)


def test_what_is_looked_for_is_embedded_by_the_server(system: System, shop: Account, server: ModelServer) -> None:
    answer = asked(system, shop, "semantic", TEXTS[0])
    assert answer.json()[0]["text"] == TEXTS[0]
    assert answer.json()[0]["similarity_score"] == pytest.approx(1, abs=1e-3)
    assert search.NOTICE not in answer.headers
    assert len(server.requests) == 1
    # By words nobody is asked, nor for a tenant that has no vectors.
    assert len(asked(system, shop, "text").json()) == 1
    assert asked(system, system.new_user(system.new_tenant()), "hybrid").json() == []
    assert len(server.requests) == 1


def test_what_is_personal_is_masked_before_it_leaves(system: System, shop: Account, server: ModelServer) -> None:
    asked(system, shop, "semantic", "conta do CPF 529.982.247-25")
    assert "529" not in server.texts
    assert "[CPF]" in server.texts


def by_words_alone(answer: Any) -> None:
    assert answer.status_code == 200
    assert [hit["text"] for hit in answer.json()] == [TEXTS[2]]
    assert {tuple(hit["found_by"]) for hit in answer.json()} == {("text",)}
    assert "words alone" in answer.headers[search.NOTICE]


def test_a_server_that_is_slow_does_not_hold_a_search_up(
    system: System, shop: Account, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Through `find`: its default was bound when it was defined.
    monkeypatch.setattr(search.find, "__kwdefaults__", {**(search.find.__kwdefaults__ or {}), "patience": 0.2})
    server.hold()
    by_words_alone(asked(system, shop, "hybrid"))
    told = asked(system, shop, "semantic")
    assert told.status_code == 503
    assert int(told.headers["retry-after"]) >= 1
    assert "mode=text" in told.json()["detail"]
    assert search.PATIENCE_S <= 2


def test_a_server_whose_answers_are_of_no_use(system: System, shop: Account, server: ModelServer) -> None:
    server.always(one_vector_less())
    by_words_alone(asked(system, shop, "hybrid"))
    assert asked(system, shop, "semantic").status_code == 503


def test_a_server_that_fails(system: System, shop: Account, server: ModelServer) -> None:
    server.always(status(500))
    by_words_alone(asked(system, shop, "hybrid"))
    assert asked(system, shop, "semantic").status_code == 503


def test_the_notice_is_documented(system: System) -> None:
    told = system.client.get("/docs/openapi.json").json()["paths"]["/api/v1/search"]["get"]["responses"]
    assert search.NOTICE in told["200"]["headers"]
    assert {"409", "503"} <= set(told)
