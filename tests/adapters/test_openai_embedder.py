"""Embeddings by OpenAI's protocol, against a real server that misbehaves."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import SecretStr

from adapters.embeddings.openai import MIN_CHARACTERS, OpenAIEmbedder, VectorsDoNotFit
from adapters.model_server import EmbedderServer
from domain.answers import VECTOR_BYTES
from domain.ports import AnswerRefused, ModelUnavailable
from tests.support import model_faults as faults
from tests.support.model_faults import Fault
from tests.support.openai_server import ModelServer, embedding, openai_server

TEXTS = ["bom dia", "cadê meu pedido?", "obrigada"]


@pytest.fixture(scope="module")
def running() -> Iterator[ModelServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
def server(running: ModelServer) -> ModelServer:
    running.reset()
    running.key, running.dimensions, running.can_shorten, running.floats_only = None, 768, True, False
    return running


def made(server: ModelServer, **more: Any) -> OpenAIEmbedder:
    given = {"name": "vetores", "url": server.url, "model": "modelo", "timeout": 10.0, "input_price": 2.0} | more
    return OpenAIEmbedder(EmbedderServer(**given))


async def embedded(embedder: OpenAIEmbedder, texts: list[str]) -> npt.NDArray[np.float64]:
    try:
        vectors = await embedder.embed(texts)
    finally:
        await embedder.close()
    assert {len(vector) for vector in vectors} <= {VECTOR_BYTES}
    return np.array([np.frombuffer(vector, "<f4") for vector in vectors], dtype=np.float64)


def expected(texts: list[str], size: int = 768) -> npt.NDArray[np.float64]:
    rows = np.array([embedding(text, size) for text in texts])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("floats_only", [False, True])
async def test_vectors_of_length_one_in_the_order_of_the_texts(server: ModelServer, floats_only: bool) -> None:
    server.floats_only = floats_only
    server.script(faults.shuffled())
    vectors = await embedded(made(server), TEXTS)
    assert vectors == pytest.approx(expected(TEXTS), abs=1e-6)


async def test_batches_and_what_they_cost(server: ModelServer) -> None:
    embedder = made(server, batch=2)
    answer = await embedder.embed_counted(TEXTS)
    await embedder.close()
    assert [request.json["input"] for request in server.requests] == [TEXTS[:2], TEXTS[2:]]
    assert (len(answer.vectors), answer.usage.calls, answer.usage.input_tokens, answer.usage.cost) == (3, 2, 6, 12)
    assert "dimensions" not in server.requests[0].json


async def test_nothing_is_asked_for_nothing(server: ModelServer) -> None:
    assert len(await embedded(made(server), [])) == 0
    assert server.requests == []


async def test_smaller_vectors_are_filled_up_and_keep_their_cosines(server: ModelServer) -> None:
    server.dimensions = 384
    vectors = await embedded(made(server), TEXTS)
    assert not vectors[:, 384:].any()
    small = expected(TEXTS, 384)
    assert vectors @ vectors.T == pytest.approx(small @ small.T, abs=1e-6)


async def test_larger_vectors_are_refused_with_the_reason(server: ModelServer) -> None:
    server.dimensions = 1024
    for use in (OpenAIEmbedder.probe, lambda embedder: embedder.embed(TEXTS)):
        embedder = made(server)
        with pytest.raises(VectorsDoNotFit, match=r"modelo have 1024 numbers, and 768 .* `dimensions` to 768"):
            await use(embedder)
        await embedder.close()


async def test_a_probe_of_a_model_that_fits(server: ModelServer) -> None:
    embedder = made(server)
    await embedder.probe()
    await embedder.close()


async def test_a_model_that_can_shorten_is_asked_to(server: ModelServer) -> None:
    server.dimensions = 1536
    embedder = made(server, dimensions=256)
    assert embedder.model_name == "modelo@256"
    vectors = await embedded(embedder, TEXTS)
    assert server.requests[0].json["dimensions"] == 256
    assert vectors[:, :256] == pytest.approx(expected(TEXTS, 256), abs=1e-6)


async def test_a_model_that_cannot_shorten_says_so(server: ModelServer) -> None:
    server.can_shorten = False
    with pytest.raises(ModelUnavailable, match="leave out `dimensions`"):
        await embedded(made(server, dimensions=256), TEXTS)


async def test_a_server_that_passes_over_dimensions_is_found_out(server: ModelServer) -> None:
    server.script(faults.vectors(lambda data: [{**one, "embedding": [1.0] * 512} for one in data]))
    with pytest.raises(VectorsDoNotFit, match=r"asked for vectors of 256 numbers .* gives 512"):
        await embedded(made(server, dimensions=256), TEXTS)


def test_a_name_too_long_to_be_recorded_is_refused(server: ModelServer) -> None:
    with pytest.raises(ValueError, match="longer than the 64"):
        made(server, model="m" * 61, dimensions=256)


@pytest.mark.parametrize(
    "fault",
    [
        faults.one_vector_less(),
        faults.vectors(lambda data: [{**one, "index": 0} for one in data]),
        faults.nan_vectors(),
        faults.zero_vectors(),
        faults.vectors(lambda data: [{**one, "embedding": []} for one in data]),
        faults.vectors(lambda data: [{**one, "embedding": "não é base64"} for one in data]),
        faults.vectors(lambda data: [{**one, "embedding": [None] * 768} for one in data]),
        faults.vectors(lambda data: [*data[:-1], {**data[-1], "embedding": [1.0] * 384}]),
    ],
)
async def test_vectors_of_no_use_are_refused_and_counted(server: ModelServer, fault: Fault) -> None:
    server.script(fault)
    with pytest.raises(AnswerRefused) as caught:
        await embedded(made(server), TEXTS)
    assert (caught.value.usage.calls, caught.value.usage.input_tokens) == (1, 6)
    assert not isinstance(caught.value, VectorsDoNotFit)


async def test_what_is_no_number_as_text_is_refused_too(server: ModelServer) -> None:
    server.floats_only = True
    server.script(faults.nan_vectors())
    with pytest.raises(AnswerRefused, match="no number"):
        await embedded(made(server), TEXTS)


async def test_a_model_that_changes_its_size_is_refused(server: ModelServer) -> None:
    embedder = made(server)
    await embedder.embed(TEXTS)
    server.dimensions = 384
    with pytest.raises(AnswerRefused, match="different sizes"):
        await embedded(embedder, TEXTS)


async def test_enormous_and_tiny_numbers_keep_their_direction(server: ModelServer) -> None:
    server.script(faults.vectors(lambda data: [{**one, "embedding": [1e-300, 1e-300]} for one in data[:1]]))
    server.script(faults.vectors(lambda data: [{**one, "embedding": [1e300, 1e300]} for one in data[:1]]))
    embedder = made(server, batch=1)
    vectors = await embedded(embedder, TEXTS[:2])
    assert vectors[:, :2] == pytest.approx(np.full((2, 2), 0.5**0.5), abs=1e-6)


async def test_a_long_text_is_halved_until_it_fits_and_spares_its_neighbours(server: ModelServer) -> None:
    long = "a" * (4 * MIN_CHARACTERS)
    server.script(faults.too_long(), faults.good(), faults.too_long())
    vectors = await embedded(made(server), ["bom dia", long])
    assert [request.json["input"] for request in server.requests] == [
        ["bom dia", long], ["bom dia"], [long], [long[: len(long) // 2]]
    ]  # fmt: skip
    assert vectors == pytest.approx(expected(["bom dia", long[: len(long) // 2]]), abs=1e-6)


async def test_a_short_text_that_does_not_fit_is_refused(server: ModelServer) -> None:
    server.always(faults.too_long())
    with pytest.raises(AnswerRefused, match="too long"):
        await embedded(made(server), ["bom dia"])
    assert len(server.requests) == 1


async def test_an_empty_text_is_sent_as_something(server: ModelServer) -> None:
    await embedded(made(server), ["", " "])
    assert server.requests[0].json["input"] == [".", "."]


async def test_a_server_without_base64_is_asked_for_numbers(server: ModelServer) -> None:
    server.script(faults.status(400, message="Unknown.", param="encoding_format"))
    embedder = made(server)
    await embedder.embed(TEXTS)
    await embedded(embedder, TEXTS)
    assert [request.json["encoding_format"] for request in server.requests] == ["base64", "float", "float"]


async def test_an_unreachable_server_is_unavailable_and_its_key_stays_secret(server: ModelServer) -> None:
    server.key = "outro"
    embedder = made(server, api_key=SecretStr("segredo"))
    with pytest.raises(ModelUnavailable, match="refuses the key") as caught:
        await embedded(embedder, TEXTS)
    assert embedder.wait() > 0
    assert "segredo" not in repr(caught.value) + repr(vars(embedder)) + str(embedder.state())


async def test_an_error_that_quotes_a_message_shuts_nobody_out(server: ModelServer) -> None:
    embedder = made(server)
    await embedder.embed(TEXTS)
    server.script(faults.status(400, message="input: as dimensions da caixa"))
    with pytest.raises(AnswerRefused):
        await embedder.embed(["quais as dimensions da caixa?"])
    assert embedder.wait() == 0
    await embedded(embedder, TEXTS)
