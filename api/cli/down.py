"""`evosense down`: stop what `evosense up` or `evosense demo` left running."""

import os
import signal
import time
from typing import Final

from adapters.settings import Settings
from api.cli.installation import Installation
from api.cli.screen import CommandError, console

_SECONDS: Final = 60.0


def down() -> None:
    """Stop the system that runs below EVOSENSE_HOME. Nothing is lost: `evosense up` goes on where it was."""
    installation = Installation.of(Settings.load())
    if not installation.is_up():
        console.print("nothing is running")
        return
    state = installation.state()
    if state is None:
        raise CommandError("the system is just starting or stopping: try again in a moment")
    os.kill(int(state["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS
    while installation.is_up():
        if time.monotonic() > deadline:
            raise CommandError(f"process {state['pid']} did not stop within {_SECONDS:g} s")
        time.sleep(0.1)
    console.print("stopped")
