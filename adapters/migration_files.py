"""Reads `sql/migrations.toml` and the files it names. Nothing here speaks to a database."""

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: The SQL tree that belongs to this program.
SQL_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "sql"

#: The first line of a file whose statements cannot run inside a transaction.
NO_TRANSACTION: Final = "-- evosense: no-transaction"

# A semicolon, or something inside which a semicolon ends nothing.
_TOKEN: Final = re.compile(
    r"""--[^\n]* | /\*.*?\*/ | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | ;""",
    re.DOTALL | re.VERBOSE,
)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class ManifestError(Exception):
    """`migrations.toml` or a file that it names cannot be used; the message says which and why."""


@dataclass(frozen=True)
class SqlFile:
    """One file under `sql/`: its path relative to that directory, its text, and the text's SHA-256 in hex."""

    path: str
    text: str
    checksum: str

    @property
    def in_transaction(self) -> bool:
        """False where the first line says that the statements cannot run inside a transaction."""
        return not self.text.startswith(NO_TRANSACTION)


@dataclass(frozen=True)
class Migration:
    """Files that are applied once, together, as one version of the schema."""

    version: int
    name: str
    files: tuple[SqlFile, ...]

    @property
    def checksum(self) -> str:
        """SHA-256 over the paths and contents of the files, in their order."""
        return hashlib.sha256("".join(f"{f.path}\0{f.checksum}\0" for f in self.files).encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """False where the statements run one by one, each in a transaction of its own."""
        return all(f.in_transaction for f in self.files)


@dataclass(frozen=True)
class Manifest:
    """Everything that `migrate` applies, in order."""

    bootstrap: tuple[SqlFile, ...]
    bookkeeping: tuple[SqlFile, ...]
    migrations: tuple[Migration, ...]
    repeatable: tuple[SqlFile, ...]

    @property
    def latest(self) -> int:
        """The schema version that this program knows; 0 without a migration."""
        return self.migrations[-1].version if self.migrations else 0


def load_manifest(directory: Path = SQL_DIRECTORY) -> Manifest:
    """Read the manifest and every file that it names. Raises `ManifestError`."""
    try:
        content = tomllib.loads((directory / "migrations.toml").read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{directory / 'migrations.toml'} can't be read: {error}") from error
    bootstrap = content.get("bootstrap", {})
    manifest = Manifest(
        bootstrap=_read(directory, bootstrap.get("files", [])),
        bookkeeping=_read(directory, bootstrap.get("bookkeeping", [])),
        migrations=tuple(_migration(directory, entry) for entry in content.get("migration", [])),
        repeatable=_read(directory, content.get("repeatable", {}).get("files", [])),
    )
    versions = [m.version for m in manifest.migrations]
    if versions != list(range(1, len(versions) + 1)):
        raise ManifestError(f"migrations.toml: versions are {versions}; they have to be 1, 2, 3 … in this order")
    for file in (*manifest.bootstrap, *manifest.bookkeeping, *manifest.repeatable):
        if not file.in_transaction:
            raise ManifestError(f"{file.path}: only a [[migration]] can run outside a transaction")
    return manifest


def split_statements(text: str) -> Iterator[str]:
    """Yield the statements of an SQL text, without their semicolons and without pieces that are only comments.

    Knows quotes, dollar quotes and comments; not nested comments, `E'\\''` or `BEGIN ATOMIC`, which have no place in
    a file that runs outside a transaction.
    """
    start = 0
    ends = [m.start() for m in _TOKEN.finditer(text) if m.group() == ";"]
    for end in (*ends, len(text)):
        statement = text[start:end].strip()
        if _COMMENT.sub("", statement).strip():
            yield statement
        start = end + 1


def _migration(directory: Path, entry: dict[str, Any]) -> Migration:
    try:
        migration = Migration(int(entry["version"]), str(entry["name"]), _read(directory, entry["files"]))
    except KeyError as error:
        raise ManifestError(f"migrations.toml: a [[migration]] lacks {error}: {entry}") from error
    if len({f.in_transaction for f in migration.files}) > 1:
        raise ManifestError(
            f"migration {migration.version} mixes files that run inside and outside a transaction: make two of it"
        )
    return migration


def _read(directory: Path, paths: list[str]) -> tuple[SqlFile, ...]:
    return tuple(_read_file(directory, path) for path in paths)


def _read_file(directory: Path, path: str) -> SqlFile:
    try:
        # Universal newlines: a checkout on another system must not look like another file.
        text = (directory / path).read_text("utf-8")
    except OSError as error:
        raise ManifestError(f"migrations.toml names {path}, which can't be read: {error.strerror}") from error
    return SqlFile(path, text, hashlib.sha256(text.encode()).hexdigest())
