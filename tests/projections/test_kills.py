"""Killed with -9: projector, rebuild, single backends and the whole server, each while a rebuild is at a known phase.

`make soak` does the same with two hundred seeds (benchmarks/kills.py).
"""

from collections.abc import Iterator

import pytest

from tests.support.killing import SCENES, Ground, ground, run


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    """A PostgreSQL of this module's own, which it may kill."""
    with ground() as found:
        yield found


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5, 7], ids=lambda seed: "{}-while-{}".format(*SCENES[seed % len(SCENES)]))
def test_after_a_kill_every_row_is_what_the_log_says(place: Ground, seed: int) -> None:
    report = run(place, seed)
    assert report.wrong == []
    # It was no idyll.
    assert report.aimed
    assert report.kills[0] == report.scene[0]
    assert report.appended > 0
