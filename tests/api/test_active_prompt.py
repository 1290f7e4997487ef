"""Which prompt models are given, as the log has it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.analysis.rendering import BUILT_IN
from adapters.embedded import PostgresServer
from api.active_prompt import ActivePrompt
from api.problems import UNAVAILABLE
from api.wiring import WriteSide, write_side
from domain.aggregate import Command
from domain.ports import Prompt
from domain.prompts import INSTALLATION, ActivatePrompt, CreatePrompt, RetirePrompt, prompt_templates
from tests.support.spec import NOW
from tests.support.systems import fresh_system


@pytest.fixture
def write(postgres: PostgresServer) -> Iterator[WriteSide]:
    """The write side of an installation without any prompt."""
    with fresh_system(postgres) as settings:
        side = write_side(settings)
        side.vault.create(INSTALLATION)
        yield side
        side.close()


def carry_out(write: WriteSide, *commands: Command) -> None:
    write.commands.handle(prompt_templates(), *commands)


def create(version: str) -> CreatePrompt:
    return CreatePrompt(at=NOW, version=version, body=f"corpo de {version}")


def test_it_follows_what_is_activated(write: WriteSide) -> None:
    active = ActivePrompt(write.log, seconds=0)
    assert active.current() is BUILT_IN
    carry_out(write, create("v1"), create("v2"))
    assert active.current() is BUILT_IN, "what was created is not active yet"
    carry_out(write, ActivatePrompt(at=NOW, version="v1"))
    first = active.current()
    assert first == Prompt("v1", "corpo de v1")
    carry_out(write, create("v3"))
    assert active.current() is first
    carry_out(write, ActivatePrompt(at=NOW, version="v2"), RetirePrompt(at=NOW, version="v1"))
    assert active.current() == Prompt("v2", "corpo de v2")
    assert ActivePrompt(write.log).current() == Prompt("v2", "corpo de v2"), "one that begins here"


def test_the_log_is_asked_once_in_a_while(write: WriteSide) -> None:
    time = [100.0]
    active = ActivePrompt(write.log, clock=lambda: time[0])
    assert active.current() is BUILT_IN
    carry_out(write, create("v1"), ActivatePrompt(at=NOW, version="v1"))
    time[0] += 0.9
    assert active.current() is BUILT_IN
    time[0] += 0.1
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: active.current(), range(32)))
    assert {prompt.version for prompt in found} == {"v1"}
    assert len({id(prompt) for prompt in found}) == 1


def test_without_a_database_it_does_not_guess(write: WriteSide) -> None:
    time = [100.0]
    active = ActivePrompt(write.log, clock=lambda: time[0])
    assert active.current() is BUILT_IN
    write.datastore.close()
    assert active.current() is BUILT_IN, "as it was asked a moment ago"
    time[0] += 1
    for _ in range(2):
        with pytest.raises(UNAVAILABLE):
            active.current()
