"""Which prompt models are given at the moment."""

import threading
import time
from collections.abc import Callable

from adapters.analysis.rendering import BUILT_IN
from adapters.event_store import EventLog
from domain.ports import Prompt
from domain.prompts import PromptTemplates, prompt_templates


class ActivePrompt:
    """The active version as the log has it, asked at most every `seconds`. Safe to share between threads."""

    def __init__(self, log: EventLog, *, seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._state = prompt_templates()
        self._prompt = BUILT_IN
        self._read_at: float | None = None

    def current(self) -> Prompt:
        """The active version, the built-in one where none was ever activated; the same object until it is another one.

        Blocks where it has to ask. Raises what `EventLog.load` does: while the log can't be read, an answer that is
        older than `seconds` is none.
        """
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= self._seconds:
                # What is asked for is what came since: mostly nothing.
                self._note(self._log.catch_up(self._state))
                self._read_at = now
            return self._prompt

    def _note(self, state: PromptTemplates) -> None:
        if state.active is not None and state.active != self._state.active:
            self._prompt = Prompt(state.active, state.templates[state.active].body)
        self._state = state
