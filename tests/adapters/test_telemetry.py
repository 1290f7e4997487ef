"""What is logged: one line an event, in the form and from the level that was asked for, and nothing personal."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
import structlog
from adapters.telemetry import configure_logging

configure_logging(sys.argv[1], sys.argv[2])
ours, theirs = structlog.stdlib.get_logger("ours"), logging.getLogger("theirs")
ours.debug("a detail")
ours.info("a kind arrived", kind="hologram")
theirs.warning("waiting %d s", 3)
def fail():
    raise ValueError("o texto da cliente")
for log in (ours, theirs):
    try:
        fail()
    except ValueError as error:
        log.error("it failed", exc_info=True)
        log.error("it failed", exc_info=error)
"""


def logged(level: str, form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, form], capture_output=True, text=True, check=True, timeout=60
    )
    assert not done.stdout
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_error_is_named_and_never_quoted(form: str) -> None:
    lines = logged("info", form)
    assert len(lines) == 6
    assert not any("cliente" in line for line in lines)
    failures = lines[2:]
    assert all("it failed" in line and "ValueError at <string>:12" in line for line in failures)


def test_all_loggers_speak_alike() -> None:
    entries = [json.loads(line) for line in logged("info", "json")]
    assert {name: entries[0][name] for name in ("event", "kind", "level", "logger")} == {
        "event": "a kind arrived",
        "kind": "hologram",
        "level": "info",
        "logger": "ours",
    }
    assert {name: entries[1][name] for name in ("event", "level", "logger")} == {
        "event": "waiting 3 s",
        "level": "warning",
        "logger": "theirs",
    }
    assert all(entry["timestamp"].endswith("Z") for entry in entries)


def test_the_level_holds_for_all() -> None:
    assert len(logged("warning", "json")) == 5
    assert len(logged("debug", "json")) == 7
