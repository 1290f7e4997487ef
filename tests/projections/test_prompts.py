"""Prompts in their documented table: one is active at most, however the log was cut into batches."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from adapters.embedded import PostgresServer
from api.wiring import read_side
from domain.prompts import PromptTemplateActivated, PromptTemplates, prompt_templates
from projections.audit import Auditor
from tests.support.model import differences, fold, stored
from tests.support.projectors import System, a_system
from tests.support.systems import drain, forget_read_models


@pytest.fixture(scope="module")
def system(postgres: PostgresServer) -> Iterator[System]:
    """A database with a history in which many prompts were activated."""
    with a_system(postgres) as system:
        system.grow(900)
        yield system


@pytest.fixture(scope="module")
def state(system: System) -> PromptTemplates:
    """All versions as the aggregate sees them."""
    state = system.write.log.load(prompt_templates())
    assert sum(template.retired for template in state.templates.values()) > 3
    assert len(state.templates) > 10
    return state


def rows(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    found = conn.execute(
        "SELECT version, body, description, is_active, created_by FROM evosense.experiments_prompttemplate ORDER BY id"
    )
    return found.fetchall()


@pytest.mark.parametrize("batch", [1, 3, 40, 5000])
def test_the_rows_are_what_the_aggregate_sees(system: System, state: PromptTemplates, batch: int) -> None:
    forget_read_models(system.admin)
    side = read_side(system.settings, batch=batch)
    drain(side.engine)
    side.close()
    said = [
        (version, template.body, template.description, version == state.active, "ana")
        for version, template in state.templates.items()
    ]
    assert rows(system.admin) == said
    history = system.write.log.history(prompt_templates().id)
    log = {one.position: one.event for one in history}
    table = "experiments_prompttemplate"
    wanted = fold(log)[table]
    assert differences({table: stored(system.admin)[table]}, {table: wanted}) == []


def test_after_every_event_one_is_active_from_the_first_activation_on(system: System) -> None:
    forget_read_models(system.admin)
    history = system.write.log.history(prompt_templates().id)
    activated = [one.position for one in history if isinstance(one.event, PromptTemplateActivated)]
    assert len(activated) > 5
    side = read_side(system.settings, batch=1)
    numbers: list[int] = []
    at = 0
    while moved := side.engine.run_once():
        at += moved
        active = system.one("SELECT count(*) FROM evosense.experiments_prompttemplate WHERE is_active")
        numbers.append(active)
        if at > activated[3]:
            break
    side.close()
    assert set(numbers) == {0, 1}
    assert all(before <= after for before, after in pairwise(numbers)), "never none again"


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_and_an_audit_agree(system: System, shards: int) -> None:
    """The installation is no tenant, and belongs to one shard as tenants do."""
    system.project()
    system.lay_out(shards)
    system.grow(300)
    system.project()
    report = Auditor(system.read.builder, ["experiments"]).audit(lambda *_: None)
    assert report.equal, report
    assert report.rows["experiments_prompttemplate"] > 10
    one = Auditor(system.read.builder, ["experiments"], tenant_id=system.world.tenants[0])
    assert one.audit(lambda *_: None).equal
