"""`python -m tests.support.crew_process SIZE BATCH`: a rebuild by a crew, however small the log is.

Prints the crew's process ids, and at the end the number of events; exits with 1 and a sentence where it can't go on.
"""

import sys

from adapters.settings import Settings
from api import crew as crews
from api.wiring import read_side
from projections.builds import BuildError
from projections.catalog import all_projections
from projections.rebuild import Unwatched, rebuild

if __name__ == "__main__":
    size, batch = int(sys.argv[1]), int(sys.argv[2])

    def small(settings: Settings) -> object:
        side = read_side(settings)
        side.builder._batch = batch
        return side

    # Before the fork, so that each process has it.
    crews.read_side = small
    with crews.ProcessCrew(size, worth_from=1) as crew:
        sys.stdout.write(" ".join(str(worker.pid) for worker in crew._workers.values()) + "\n")
        sys.stdout.flush()
        settings = Settings.load()
        crew.enlist(settings)
        side = read_side(settings)
        try:
            report = rebuild(side.builder, [p.name for p in all_projections()], Unwatched(), crew=crew)
        except BuildError as error:
            sys.stderr.write(str(error))
            sys.exit(1)
        finally:
            side.close()
        sys.stdout.write(str(report.events))
