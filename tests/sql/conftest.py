"""A database to whose live tables a later migration has added all sorts of things, and the functions for builds."""

from collections.abc import Iterator

import psycopg
import pytest

from adapters.postgres import connect
from adapters.settings import Settings
from tests.support.builds import LATER, Builds, structure
from tests.support.systems import administrator


@pytest.fixture(scope="module")
def later(settings: Settings) -> Iterator[psycopg.Connection]:
    """The administrator's connection."""
    with administrator(settings) as conn:
        conn.execute("SET ROLE evosense_owner")
        conn.execute(LATER.encode())
        conn.execute("RESET ROLE")
        yield conn


@pytest.fixture
def builds(settings: Settings, later: psycopg.Connection) -> Iterator[Builds]:
    """Live rows of two tenants say `old`. Afterwards there are no builds and no rows, and the structure is whole."""
    before = structure(later, "evosense")
    with connect(settings.runtime_dsn, "evosense_projector") as conn:
        found = Builds(conn, later)
        found.fill("evosense", "old")
        yield found
        found.clear()
    assert structure(later, "evosense") == before
