"""The model server that `make test-llm` asks: the configured one, or an Ollama of this machine."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from adapters.analysis.rendering import BUILT_IN
from adapters.model_server import AnalyserServer
from adapters.model_settings import model_config
from adapters.settings import Settings, SettingsError
from benchmarks.quality.served import Concurrent
from domain.ports import ServedAnalyser

_OLLAMA: Final = "http://127.0.0.1:11434"
_MISSING: Final = """no model server to test:
  - set EVOSENSE_MODEL_URL (such as http://127.0.0.1:11434/v1) and EVOSENSE_MODEL, and EVOSENSE_MODEL_API_KEY where it
    wants one; or
  - install Ollama, and then: ollama serve & ollama pull qwen2.5:3b
Nothing was tested."""


def found() -> AnalyserServer:
    """The first configured server, or an Ollama with a model. Ends the run with exit code 3 where there is none."""
    if "EVOSENSE_MODEL_URL" not in os.environ and "EVOSENSE_MODELS_FILE" not in os.environ and (model := _ollama()):
        os.environ |= {"EVOSENSE_MODEL_URL": f"{_OLLAMA}/v1", "EVOSENSE_MODEL": model}
    try:
        config = model_config(Settings.load())
    except SettingsError as error:
        pytest.exit(str(error), returncode=3)
    for server in config.analysers:
        if server.name == config.chain[0]:
            return server
    pytest.exit(_MISSING, returncode=3)


def _ollama() -> str | None:
    try:
        with urlopen(f"{_OLLAMA}/api/tags", timeout=3) as answer:  # noqa: S310 - an address of ours
            models = json.load(answer)["models"]
    except (URLError, OSError, ValueError, KeyError):
        return None
    names = [one["name"] for one in models if "embed" not in one["name"]]
    return names[0] if names else None


@pytest.fixture(scope="session")
def server() -> AnalyserServer:
    """How it is configured."""
    return found()


@pytest.fixture(scope="session")
async def analyser(server: AnalyserServer) -> AsyncIterator[ServedAnalyser]:
    """The model."""
    from adapters.analysis.served import served_analyser

    made = served_analyser(server)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def asked(analyser: ServedAnalyser, server: AnalyserServer, pytestconfig: Any) -> Iterator[Concurrent]:
    """The same for many texts at once; what it took is printed at the end."""
    asked = Concurrent(analyser, BUILT_IN, server.concurrency)
    yield asked
    times = sorted(asked.latencies_ms) or [0]
    lines = [
        f"{server.model} at {server.name}: {len(asked.latencies_ms)} answers, {len(asked.refused)} refused",
        f"latency: median {times[len(times) // 2]:,} ms, 95 of 100 within {times[int(0.95 * (len(times) - 1))]:,} ms",
        f"tokens: {asked.usage.input_tokens:,} in, {asked.usage.output_tokens:,} out, {asked.usage.calls:,} calls, "
        f"{asked.usage.cost / 1_000_000:.4f} US dollars",
        *(f"refused: {why}" for why in sorted(set(asked.refused))),
    ]
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    for line in ("", *lines):
        reporter.write_line(line)
