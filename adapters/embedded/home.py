"""Where the embedded servers keep their data, and as which user they run there.

PostgreSQL refuses to run as root. Started by root, the servers therefore run as the owner of the home directory,
or as `nobody` when that owner is root. The directories above the home are never changed: when the unprivileged
user cannot pass one of them, the error names it.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adapters.embedded.errors import EmbeddedError

# Enter, but not list: the unprivileged server has to pass through directories that stay root's own.
_PASSABLE = 0o711
_PRIVATE = 0o700


@dataclass(frozen=True)
class Account:
    """The unprivileged user that a server started by root runs as."""

    uid: int
    gid: int
    name: str


class HomeChoice(NamedTuple):
    """A home directory, and a sentence for the user when it is not the one they would look in first."""

    path: Path
    notice: str | None


def choose_home(requested: Path | None, default: Path) -> HomeChoice:
    """Pick the directory that holds everything the embedded servers own.

    `requested` (EVOSENSE_HOME) is taken as it is. `default` is taken unless this process is root and the
    unprivileged user that the servers run as cannot get there (a clone below /root); then a directory below
    /var/lib, or failing that below the temporary directory, named after the default's path, takes its place.

    Raises EmbeddedError when none of these can be used.
    """
    if requested is not None:
        return HomeChoice(_absolute(requested), None)
    default = _absolute(default)
    account = service_account(default)
    barrier = first_barrier(default, account) if account else None
    if account is None or barrier is None:
        return HomeChoice(default, None)
    name = "evosense-" + hashlib.sha256(os.fsencode(default)).hexdigest()[:10]
    for parent in dict.fromkeys((Path("/var/lib"), Path(tempfile.gettempdir()), Path("/tmp"))):  # noqa: S108
        # The last place is world-writable; `_usable_by_root` refuses a directory that somebody else put there.
        candidate = parent.resolve() / name
        if _usable_by_root(candidate):
            return HomeChoice(
                candidate,
                f"PostgreSQL does not run as root, and the user {account.name} cannot enter {barrier}, so the "
                f"data is kept in {candidate} instead of {default}. Set EVOSENSE_HOME to choose another place.",
            )
    raise EmbeddedError(_barrier_message(default, barrier, account))


def prepare_home(home: Path) -> tuple[Path, Account | None]:
    """Create the home when missing; return its absolute path and the account to run servers as (None: our own).

    Raises EmbeddedError when it cannot be created, or when that account cannot get there.
    """
    home = _absolute(home)
    account = service_account(home)
    require_reachable(home, account)  # before anything is made
    with explained(home):
        missing = [path for path in (home, *home.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=_PRIVATE, exist_ok=True)
            if account:
                path.chmod(_PASSABLE)
    return home, account


def require_reachable(path: Path, account: Account | None) -> None:
    """Raise an EmbeddedError that names the directory when one on the way stops the account."""
    if account and (barrier := first_barrier(path, account)):
        raise EmbeddedError(_barrier_message(path, barrier, account))


def existing_home(home: Path) -> tuple[Path, Account | None]:
    """Like `prepare_home`, for looking only: nothing is created and nothing is checked."""
    home = _absolute(home)
    return home, service_account(home)


def service_account(home: Path) -> Account | None:
    """The user to run servers as: None for this process's own, which is right unless it is root."""
    if os.geteuid() != 0:
        return None
    with suppress(OSError):
        status = home.stat()
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid, _user_name(status.st_uid))
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534, "nobody")  # what Linux calls the overflow user, where no name is given to it
    return Account(entry.pw_uid, entry.pw_gid, "nobody")


def first_barrier(path: Path, account: Account) -> Path | None:
    """The topmost existing part of `path` that the account may not enter (a directory) or execute (a file).

    The account itself is asked, since access lists and mount options decide as well as the mode does.

    Raises EmbeddedError when this process cannot become that user.
    """
    parts = [part for part in (*reversed(path.parents), path) if part.exists()]
    question = 'for part do [ -x "$part" ] || { printf %s "$part"; exit 0; }; done'
    try:
        answer = subprocess.run(
            ["/bin/sh", "-c", question, "sh", *map(str, parts)],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and this process may not become the user {account.name} ({error}). "
            "Run EvoSense as an ordinary user, or point it at servers that already run."
        ) from error
    return Path(os.fsdecode(answer)) if answer else None


def make_directory(path: Path, *, account: Account | None = None) -> None:
    """Create a directory inside the home, or leave it as it is when it exists.

    With `account` it is that user's alone. Otherwise it belongs to whoever owns its parent, and what root creates
    can be passed through by others, though not listed.
    """
    try:
        path.mkdir(mode=_PRIVATE)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is in the way: it is not a directory") from None
        return
    if os.geteuid() != 0:
        return
    if account:
        os.chown(path, account.uid, account.gid)
        return
    path.chmod(_PASSABLE)
    above = path.parent.stat()
    os.chown(path, above.st_uid, above.st_gid)


def open_private(path: Path, flags: int) -> int:
    """Open a file for its owner alone (0600), creating it if need be; a symbolic link is refused."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.fchown(descriptor, above.st_uid, above.st_gid)
    return descriptor


def write_private(path: Path, text: str, *, account: Account | None = None) -> None:
    """Replace a file of mode 0600 as a whole, durably: after a power cut there is the old text or the new."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(open_private(partial, os.O_WRONLY | os.O_EXCL), "w", encoding="utf-8") as file:
        if account:
            os.fchown(file.fileno(), account.uid, account.gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_tree(path: Path, account: Account | None) -> None:
    """As root: make an own data directory the account's, all of it, unless it is already."""
    if account is None or path.stat().st_uid == account.uid:
        return
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            os.chown(Path(directory) / name, account.uid, account.gid, follow_symlinks=False)
    os.chown(path, account.uid, account.gid)  # last: an interrupted walk is then done again


@contextmanager
def explained(place: Path) -> Iterator[None]:
    """Turn the file system's refusals into an EmbeddedError that names the place and the way out."""
    try:
        yield
    except OSError as error:
        where = error.filename or place
        hint = "Set EVOSENSE_HOME to a directory that you may write to."
        if isinstance(error, PermissionError):
            with suppress(OSError):
                owner = _user_name(place.stat().st_uid)
                hint = f"{place} belongs to the user {owner}: run as that user, or set EVOSENSE_HOME elsewhere."
        raise EmbeddedError(f"Cannot use {where}: {error.strerror or error}. {hint}") from error


def _usable_by_root(candidate: Path) -> bool:
    try:
        with suppress(FileExistsError):
            candidate.mkdir(mode=_PRIVATE)
            candidate.chmod(_PASSABLE)
        status = candidate.lstat()
        account = service_account(candidate)
        ours = status.st_uid == 0 and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
        return ours and account is not None and first_barrier(candidate, account) is None
    except OSError:
        return False


def _barrier_message(home: Path, barrier: Path, account: Account) -> str:
    status = barrier.stat()
    return (
        f"The servers' directory {home} cannot be reached: PostgreSQL does not run as root, and the user "
        f"{account.name} may not enter {barrier} (owner {_user_name(status.st_uid)}, mode "
        f"{stat.S_IMODE(status.st_mode):o}). Set EVOSENSE_HOME to a directory that every user can pass to, "
        "for example /var/lib/evosense."
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise EmbeddedError(f"{path} is not a usable directory: {error}") from error


def read_text(path: Path) -> str | None:
    """The file's text, or None when there is no such file (yet, or any more)."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
