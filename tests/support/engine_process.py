"""`python -m tests.support.engine_process BATCH`: an engine in a process of its own, for tests that kill it."""

import sys
import threading

from adapters.settings import Settings
from api.wiring import read_side

if __name__ == "__main__":
    read_side(Settings.load(), batch=int(sys.argv[1])).engine.run(threading.Event())
