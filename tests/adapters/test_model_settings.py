"""Which model servers there are: by settings, by a file; every mistake is named, and no secret is."""

import os
from pathlib import Path

import pytest

from adapters.model_server import AnalyserServer, EmbedderServer
from adapters.model_settings import ModelConfig, model_config
from adapters.settings import Settings, SettingsError

URL = "http://127.0.0.1:11434/v1"
KEY = "sk-segredo-123"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("EVOSENSE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> "Given":
    return Given(monkeypatch)


class Given:
    """Sets variables, and reads what they come to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch

    def __call__(self, **variables: str) -> ModelConfig:
        for name, value in variables.items():
            self.patch.setenv(f"EVOSENSE_{name}", value)
        return model_config(Settings.load())

    def refused(self, **variables: str) -> str:
        with pytest.raises(SettingsError) as wrong:
            self(**variables)
        assert "segredo" not in str(wrong.value)
        return str(wrong.value)


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return str(path)


def test_with_nothing_set_everything_is_offline(given: Given) -> None:
    assert given() == ModelConfig((), (), ("offline",))


def test_two_settings_are_enough(given: Given) -> None:
    found = given(MODEL_URL=f"{URL}/", MODEL="qwen2.5:3b")
    assert found.analysers == (AnalyserServer(name="model", url=URL, model="qwen2.5:3b"),)
    assert found.embedders == ()
    assert found.chain == ("model",)


def test_a_chain_a_key_and_an_embedder(given: Given, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    found = given(
        MODEL_URL=URL,
        MODEL="m",
        MODEL_API_KEY_FILE=str(key),
        EMBEDDING_MODEL="nomic-embed-text",
        ANALYSERS=" model , offline ",
    )
    (analyser,), (embedder,) = found.analysers, found.embedders
    assert analyser.api_key is not None
    assert analyser.api_key.get_secret_value() == KEY
    assert (embedder.name, embedder.url, embedder.model) == ("embedding", URL, "nomic-embed-text")
    assert embedder.api_key == analyser.api_key
    assert found.chain == ("model", "offline")
    assert "segredo" not in repr(found) + repr(Settings.load())


def test_a_key_is_for_one_server_alone(given: Given) -> None:
    found = given(
        MODEL_URL=URL, MODEL="m", MODEL_API_KEY=KEY, EMBEDDING_MODEL="e", EMBEDDING_URL="https://other.example/v1"
    )
    assert found.embedders[0].api_key is None
    assert given(EMBEDDING_URL="http://127.0.0.1:11434/other/v1").embedders[0].api_key is not None


def test_embeddings_alone(given: Given) -> None:
    found = given(EMBEDDING_URL=URL, EMBEDDING_MODEL="e", MODEL_API_KEY=KEY)
    assert found.chain == ("offline",)
    assert found.analysers == ()
    assert found.embedders[0].api_key is not None


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"MODEL_URL": URL}, "EVOSENSE_MODEL_URL is set and EVOSENSE_MODEL is not"),
        ({"MODEL": "m"}, "EVOSENSE_MODEL is set and EVOSENSE_MODEL_URL is not: .*/v1"),
        ({"MODEL_API_KEY": KEY}, "EVOSENSE_MODEL_API_KEY is set, and no server"),
        ({"EMBEDDING_MODEL": "e"}, "EVOSENSE_EMBEDDING_MODEL is set, and no address"),
        ({"EMBEDDING_URL": URL}, "EVOSENSE_EMBEDDING_URL is set and EVOSENSE_EMBEDDING_MODEL is not"),
        ({"MODEL_URL": "127.0.0.1:11434/v1", "MODEL": "m"}, "EVOSENSE_MODEL_URL: it has to begin with http://"),
        ({"MODEL_URL": "ftp://host/v1", "MODEL": "m"}, "EVOSENSE_MODEL_URL: it has to begin with http://"),
        ({"MODEL_URL": "http:///v1", "MODEL": "m"}, "EVOSENSE_MODEL_URL: it is no address"),
        ({"MODEL_URL": "http://host:99999/v1", "MODEL": "m"}, "EVOSENSE_MODEL_URL: it is no address"),
        ({"MODEL_URL": "http://[::1/v1", "MODEL": "m"}, "EVOSENSE_MODEL_URL: it is no address"),
        ({"MODEL_URL": "http://u:segredo@host/v1", "MODEL": "m"}, "EVOSENSE_MODEL_URL: leave user and password out"),
        ({"MODEL_URL": "http://h/v1?key=segredo", "MODEL": "m"}, r"EVOSENSE_MODEL_URL: leave out what is behind \?"),
        ({"MODEL_URL": f"{URL}/chat/completions", "MODEL": "m"}, "EVOSENSE_MODEL_URL: leave out /chat/completions"),
        ({"MODEL_URL": URL, "MODEL": "m" * 65}, "EVOSENSE_MODEL: the name has 65 characters, and 64"),
        ({"MODEL_URL": URL, "MODEL": "evosense-offline-3"}, "EVOSENSE_MODEL: .*names of the offline models begin"),
        ({"MODEL_URL": URL, "MODEL": "m", "MODEL_API_KEY": "segredo é"}, "EVOSENSE_MODEL_API_KEY: a key has no blanks"),
        ({"MODEL_URL": URL, "MODEL": "m", "MODEL_API_KEY_FILE": "/nowhere"}, "MODEL_API_KEY_FILE: /nowhere can't be"),
        ({"MODEL_URL": URL, "MODEL": "m", "MODEL_API_KEY": KEY, "MODEL_API_KEY_FILE": "/x"}, "are both set"),
        ({"ANALYSERS": "model"}, "EVOSENSE_ANALYSERS: there is no analyser 'model'; there are: offline"),
        ({"ANALYSERS": "offline,offline"}, "EVOSENSE_ANALYSERS: 'offline' is there 2 times"),
        ({"ANALYSERS": ","}, "EVOSENSE_ANALYSERS names nobody"),
        ({"MODEL_URL": URL, "MODEL": "m", "ANALYSERS": "offline,model"}, "model would never be asked: put it last"),
        ({"MODELS_FILE": "/nowhere/models.toml"}, "EVOSENSE_MODELS_FILE: /nowhere/models.toml can't be read: No such"),
    ],
)
def test_mistakes_in_the_settings_are_named(given: Given, variables: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        given(**variables)
    given.refused(**variables)


# ---------------------------------------------------------------------------------------------------------- the file

SEVERAL = """
[analysers.small]
url = "http://127.0.0.1:8000/v1"
model = "qwen2.5:3b"
timeout = 60
concurrency = 2
answers = "json_object"

[analysers.n8n]
kind = "webhook"
url = "https://n8n.example.com/webhook/analisar?fila=1"
model = "n8n-analise"
api_key_env = "N8N_KEY"
call_price = 0.0004
earlier = 3

[embedders.big]
url = "https://models.example.com/v1"
model = "text-embedding-3-small"
dimensions = 768
api_key_file = "keys/models"
input_price = 0.02
"""


def test_several_servers_by_a_file(given: Given, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "models").write_text(f"{KEY}\n")
    given.patch.setenv("N8N_KEY", "n8n-segredo")
    found = given(MODELS_FILE=file(tmp_path, SEVERAL), ANALYSERS="n8n,small,offline")
    small, n8n = found.analysers
    assert small == AnalyserServer(
        name="small",
        url="http://127.0.0.1:8000/v1",
        model="qwen2.5:3b",
        timeout=60,
        concurrency=2,
        answers="json_object",
    )
    assert (n8n.kind, n8n.earlier, n8n.call_price) == ("webhook", 3, 0.0004)
    assert n8n.url.endswith("?fila=1")
    assert n8n.api_key is not None
    assert n8n.api_key.get_secret_value() == "n8n-segredo"
    (big,) = found.embedders
    assert isinstance(big, EmbedderServer)
    assert big.api_key is not None
    assert (big.api_key.get_secret_value(), big.dimensions) == (KEY, 768)
    assert found.chain == ("n8n", "small", "offline")
    assert "segredo" not in repr(found)


def test_who_is_asked_where_nobody_says(given: Given, tmp_path: Path) -> None:
    one = '[analysers.small]\nurl = "http://h/v1"\nmodel = "m"\n'
    assert given(MODELS_FILE=file(tmp_path, one)).chain == ("small",)
    two = file(tmp_path, one + one.replace("small", "large"))
    assert "set it to those that are asked" in given.refused(MODELS_FILE=two)
    assert given(MODELS_FILE=two, MODEL_URL=URL, MODEL="m").chain == ("model",)
    assert given(MODELS_FILE=two, ANALYSERS="large").chain == ("large",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[analysers.a", "models.toml is not TOML: .*table declaration"),
        ("[others.a]\n", "'others' means nothing"),
        ("analysers = 3", "analysers: give each server a table"),
        ("[analysers]\nurl = 'http://h/v1'", "analysers: give each server a table"),
        ("[analysers.offline]\nurl='http://h/v1'\nmodel='m'", r"\[analysers.offline\]: offline is the name of"),
        ("[embedders.offline]\nurl='http://h/v1'\nmodel='m'", r"\[embedders.offline\]: offline is the name of"),
        ("[analysers.'A b']\nurl='http://h/v1'\nmodel='m'", r"\[analysers.A b\]: a name has small letters"),
        ("[analysers.a]\nmodel='m'", r"\[analysers.a\]: url is missing"),
        ("[analysers.a]\nurl='http://h/v1'", r"\[analysers.a\]: model is missing"),
        ("[analysers.a]\nurl='h'\nmodel='m'", r"\[analysers.a\]: url: it has to begin with http"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\napi_key='segredo'", "keys don't belong into this file"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\nbatch=3", "there is no field 'batch'; there are: url, model"),
        ("[embedders.a]\nurl='http://h/v1'\nmodel='m'\nearlier=3", "there is no field 'earlier'"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel=3", "model: it has to be a text"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\ntimeout='30'", "timeout: it has to be a number from 1 to 600"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\ntimeout=nan", "timeout: it has to be a number"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\nconcurrency=0", "concurrency: .*whole number from 1 to 256"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\nconcurrency=true", "concurrency: .*whole number"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\nkind='grpc'", "kind: it has to be one of openai, webhook"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\ninput_price=-1", "input_price: it has to be a number from 0"),
        ("[embedders.a]\nurl='http://h/v1'\nmodel='m'\ndimensions=1024", "dimensions: .*from 1 to 768"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\napi_key_env='NOT_SET'", "'NOT_SET' is not set"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\napi_key_file='gone'", "gone can't be read: No such file"),
        ("[analysers.a]\nurl='http://h/v1'\nmodel='m'\napi_key_file='x'\napi_key_env='y'", "give one of them"),
        (
            "[embedders.a]\nurl='http://h/v1'\nmodel='m'\n[embedders.b]\nurl='http://i/v1'\nmodel='m'",
            "the embedders a, b have one model, 'm'",
        ),
        (
            f"[embedders.a]\nurl='http://h/v1'\nmodel='{'m' * 62}'\ndimensions=256",
            "the embedder a would be recorded as 'm+@256', which has 66 characters",
        ),
    ],
)
def test_mistakes_in_the_file_are_named(given: Given, tmp_path: Path, text: str, told: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(SettingsError, match=told):
        given(MODELS_FILE=path)
    given.refused(MODELS_FILE=path)


def test_a_name_that_the_settings_have_taken(given: Given, tmp_path: Path) -> None:
    path = file(tmp_path, "[analysers.model]\nurl='http://h/v1'\nmodel='m'")
    assert "'model' is there 2 times" in given.refused(MODELS_FILE=path, MODEL_URL=URL, MODEL="m")


def test_one_model_may_embed_in_two_sizes(given: Given, tmp_path: Path) -> None:
    one = "[embedders.a]\nurl='http://h/v1'\nmodel='m'\ndimensions=256\n"
    found = given(MODELS_FILE=file(tmp_path, one + one.replace("[embedders.a]", "[embedders.b]").replace("256", "512")))
    assert [server.dimensions for server in found.embedders] == [256, 512]
