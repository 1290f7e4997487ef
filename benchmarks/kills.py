"""Two hundred kills: projectors, rebuilds, backends and the server with SIGKILL, and not one row is wrong afterwards.

`make soak` runs it; tests/projections/test_kills.py with few seeds. tests/support/killing.py says what happens with a
seed. It prints a line for every ten seeds and stops at the first one after which the tables do not say what the log
says. `--first` goes on where an earlier run was stopped.
"""

import argparse
import time
import traceback
from collections import Counter

from tests.support.killing import Ground, Report, ground, run


def main() -> None:
    """Run the seeds and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seconds", type=float, default=2400, help="no seed is begun after that time")
    parser.add_argument("--verbose", action="store_true", help="a line for every seed")
    arguments = parser.parse_args()
    began = time.monotonic()
    done: list[Report] = []
    with ground() as place:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            if time.monotonic() - began > arguments.seconds:
                print(f"stopped after {arguments.seconds:.0f} s; go on with --first {seed}", flush=True)
                break
            report = _played(place, seed)
            done.append(report)
            if arguments.verbose:
                print(report, flush=True)
            if report.wrong:
                print(report, flush=True)
                raise SystemExit(f"seed {seed}: the tables do not say what the log says")
            if len(done) % 10 == 0:
                _tell(done, time.monotonic() - began)
    if len(done) % 10:
        _tell(done, time.monotonic() - began)


def _played(place: Ground, seed: int) -> Report:
    try:
        return run(place, seed)
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(f"seed {seed}: {type(error).__name__}: {error}") from None


def _tell(done: list[Report], seconds: float) -> None:
    kills = Counter(victim for report in done for victim in report.kills)
    print(
        f"{len(done)} seeds, the last {done[-1].seed}; {seconds:.0f} s; killed: "
        f"{', '.join(f'{number} {victim}' for victim, number in sorted(kills.items()))}; "
        f"{sum(report.resumed for report in done)} rebuilds went on where they were; "
        f"{sum(report.events for report in done):,} events; nothing wrong",
        flush=True,
    )


if __name__ == "__main__":
    main()
