"""What tells one version of the projectors from another."""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

#: What decides which rows an event becomes: the projectors, the events and their upcasters, the statements.
_SOURCES: Final = (("projections", ".py"), ("domain", ".py"), ("sql", ".sql"))
_ONLY: Final = ("queries",)


@cache
def fingerprint() -> str:
    """A short digest over the source of everything that projecting depends on.

    A build that was interrupted is continued only by the same program: half its rows would be another one's.
    """
    digest = hashlib.sha256()
    for package, suffix in _SOURCES:
        root = files(package) if package != "sql" else files(package).joinpath(*_ONLY)
        for file in sorted(_below(root, suffix), key=lambda found: found.name):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _below(directory: Traversable, suffix: str) -> list[Traversable]:
    return [entry for entry in directory.iterdir() if entry.is_file() and entry.name.endswith(suffix)]
