"""Commit order without gaps in sight: what a tailing reader has passed never grows behind it (DESIGN rule 2)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from benchmarks.commit_order import Installation, Soak


@pytest.fixture
def installation() -> Iterator[Installation]:
    """A PostgreSQL of this test's own, which it may kill."""
    home = Path(tempfile.mkdtemp(prefix="evosense-tests-"))
    home.chmod(0o755)
    place = Installation(home)
    yield place
    place.stop()
    shutil.rmtree(home, ignore_errors=True)


def test_a_tailing_reader_misses_nothing_through_roll_backs_stalls_and_a_killed_server(
    installation: Installation,
) -> None:
    soak = Soak(installation.settings, events=30_000)
    report = soak.run(restarts=1, restart=installation.crash, deadline=50)
    assert report.wrong == []
    assert report.seen >= report.appended >= 30_000
    # It was no idyll.
    assert report.restarts == 1
    assert min(report.rollbacks, report.stalls, report.lost_answers) > 0


def test_without_the_turn_the_same_reader_misses_events(installation: Installation) -> None:
    """The proof can fail: with a lock that locks nothing the run above finds the fault."""
    with psycopg.connect(installation.settings.admin_dsn, autocommit=True) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION evosense_log.lock_for_append() RETURNS void LANGUAGE sql VOLATILE AS ''"
        )
    report = Soak(installation.settings, events=30_000).run(deadline=50)
    assert [fault for fault in report.wrong if fault.endswith("events were missed by the reader")]
