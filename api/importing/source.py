"""What is imported: a file of lines or JSON files, read piece by piece, with a position to go on from.

A position is where a piece ended: a byte of a file of lines, or a number of files. It is known again by the SHA-256 of
everything before it, so that going on skips what was read before and nothing else, whatever the source's name is now
and whatever was written behind that position since.
"""

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

import msgspec

from api.receiving import MAX_DOCUMENT

#: Bytes of lines that are taken together.
_BLOCK: Final = 2**20
#: Bytes at the beginning of a source that name it.
_HEAD: Final = 2**16

LINES: Final = (".jsonl", ".ndjson")
TOO_LONG: Final = f"longer than {MAX_DOCUMENT // 2**20} MiB"
UNREADABLE: Final = "the file can't be read"


class SourceError(Exception):
    """The source can't be read; the message says why."""


class Position(msgspec.Struct, frozen=True):
    """So many bytes (of lines) or files are done, the last line's number, and the SHA-256 of all that, in hex."""

    offset: int = 0
    line: int = 0
    digest: str = ""


class Piece(msgspec.Struct, frozen=True):
    """A part of a source that is imported as one.

    `data` is whole lines, of which the first is number `line`, or a JSON file as a whole, whose `line` is 0. Where
    `fault` is not empty, the line or file has no data and is refused for that reason. `size` is how much was read.
    """

    file: int
    line: int
    data: bytes
    size: int
    after: Position
    fault: str = ""


class Source(Protocol):
    """Something that can be imported."""

    @property
    def size(self) -> int:
        """Bytes in it."""

    def identity(self) -> str:
        """SHA-256 of its first 64 KiB: under this name its progress is kept. Raises `SourceError`."""

    def name(self, file: int) -> str:
        """The name of the file of that index."""

    def done(self, after: Position) -> int | None:
        """Bytes before a position; None where what stands before it is not what stood there. Raises `SourceError`."""

    def pieces(self, after: Position) -> Iterator[Piece]:
        """The pieces behind a position for which `done` gave bytes, in order. Raises `SourceError`."""


def open_source(path: Path) -> Source:
    """The source at a path. Raises `SourceError`."""
    try:
        if path.is_dir():
            return JsonFiles(sorted(file for file in path.iterdir() if file.suffix == ".json" and file.is_file()), path)
        if not path.is_file():
            raise SourceError(f"there is no file or directory {_shown(path)}")
    except OSError as error:
        raise SourceError(f"{_shown(path)} can't be read: {error.strerror}") from None
    if path.suffix in LINES:
        return Lines(path)
    if path.suffix == ".json":
        return JsonFiles([path], path)
    raise SourceError(f"{_shown(path)} is neither a .jsonl or .json file nor a directory of .json files")


class Lines:
    """A file with one JSON document a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = sha256()
        try:
            self.size = path.stat().st_size
            path.open("rb").close()
        except OSError as error:
            raise SourceError(f"{_shown(path)} can't be read: {error.strerror}") from None

    def identity(self) -> str:
        """See `Source.identity`."""
        with self._path.open("rb") as file:
            return sha256(file.read(_HEAD)).hexdigest()

    def name(self, file: int) -> str:
        """See `Source.name`."""
        return _shown(Path(self._path.name))

    def done(self, after: Position) -> int | None:
        """See `Source.done`. A last line without an end that went on growing was another line then."""
        digest, left, block = sha256(), after.offset, b"\n"
        with self._path.open("rb") as file:
            while left and (read := file.read(min(left, _BLOCK))):
                block = read
                digest.update(block)
                left -= len(block)
            whole = block.endswith(b"\n") or not file.read(1)
        if left or not whole or (after.offset and digest.hexdigest() != after.digest):
            return None
        self._before = digest
        return after.offset

    def pieces(self, after: Position) -> Iterator[Piece]:
        """See `Source.pieces`."""
        digest, offset, line = self._before.copy(), after.offset, after.line
        with self._path.open("rb") as file:
            file.seek(offset)
            rest = b""
            while block := file.read(_BLOCK) or rest:
                if block is rest:
                    data, rest = rest, b""  # a last line without an end
                else:
                    end = block.rfind(b"\n") + 1
                    data, rest = (rest + block[:end], block[end:]) if end else (b"", rest + block)
                fault, size = "", len(data)
                if len(rest) > MAX_DOCUMENT:
                    # Let it pass by without keeping it.
                    fault, size = TOO_LONG, len(rest)
                    digest.update(rest)
                    rest = b""
                    while skipped := file.readline(_BLOCK):
                        digest.update(skipped)
                        size += len(skipped)
                        if skipped.endswith(b"\n"):
                            break
                digest.update(data)
                if size:
                    first, offset = line + 1, offset + size
                    line += 1 if fault else data.count(b"\n") + (not data.endswith(b"\n"))
                    yield Piece(0, first, data, size, Position(offset, line, digest.hexdigest()), fault)


class JsonFiles:
    """Files with one JSON document each."""

    def __init__(self, paths: Sequence[Path], where: Path) -> None:
        if not paths:
            raise SourceError(
                f"there are no .json files in {_shown(where)} (directories inside it are not looked into)"
            )
        self._paths = paths
        self._sizes = [path.stat().st_size for path in paths]
        self.size = sum(self._sizes)

    def identity(self) -> str:
        """See `Source.identity`; the first file's."""
        try:
            with self._paths[0].open("rb") as file:
                return sha256(file.read(_HEAD)).hexdigest()
        except OSError:
            return sha256(UNREADABLE.encode()).hexdigest()

    def name(self, file: int) -> str:
        """See `Source.name`."""
        return _shown(Path(self._paths[file].name))

    def done(self, after: Position) -> int | None:
        """See `Source.done`."""
        if after.offset > len(self._paths):
            return None
        digest = ""
        for path in self._paths[: after.offset]:
            digest = _chained(digest, path)[0]
        return sum(self._sizes[: after.offset]) if digest == after.digest else None

    def pieces(self, after: Position) -> Iterator[Piece]:
        """See `Source.pieces`."""
        digest = after.digest
        for file in range(after.offset, len(self._paths)):
            digest, data, fault = _chained(digest, self._paths[file])
            yield Piece(file, 0, data, self._sizes[file], Position(file + 1, 0, digest), fault)


def _chained(before: str, path: Path) -> tuple[str, bytes, str]:
    """The digest of the files so far with this one, its content, and the fault for which it has none."""
    digest, data, fault = sha256(), b"", ""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
            digest.update(data)
            if len(data) > MAX_DOCUMENT:
                data, fault = b"", TOO_LONG
                while block := file.read(_BLOCK):
                    digest.update(block)
    except OSError:
        digest, data, fault = sha256(UNREADABLE.encode()), b"", UNREADABLE
    return sha256(before.encode() + digest.digest()).hexdigest(), data, fault


def _shown(path: Path) -> str:
    """The path as text that any terminal takes: a name need not be valid UTF-8."""
    return os.fsencode(path).decode(errors="replace")
