"""Seeds for histories that share a log."""


class Seeds:
    """Gives no seed twice: hypothesis repeats itself, and a history can be appended to a log once."""

    def __init__(self) -> None:
        self._used: set[int] = set()

    def __call__(self, seed: int) -> int:
        """The seed, or the next one that was not given yet."""
        while seed in self._used:
            seed += 1
        self._used.add(seed)
        return seed
