"""An installation on this machine: its home, its secrets and its embedded servers."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO

from pydantic import SecretStr

from adapters.embedded import (
    NatsServer,
    PostgresServer,
    choose_home,
    prepare_home,
    running,
    start_nats,
    start_postgres,
)
from adapters.settings import DEFAULT_HOME, Settings
from adapters.vault import MasterKey
from api.cli.screen import CommandError, errors

#: The running system's log-in to the embedded PostgreSQL.
_RUNTIME: Final = "evosense"


class Installation:
    """Everything below one home directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.secrets = home / "secrets"
        self.log_file = home / "evosense.log"
        self._state_file = home / "up.json"
        self._lock_file = home / "up.lock"

    @classmethod
    def of(cls, settings: Settings) -> "Installation":
        """The installation that the settings name; says so where the default home could not be used."""
        requested = settings.home if "home" in settings.model_fields_set else None
        choice = choose_home(requested, DEFAULT_HOME)
        if choice.notice:
            errors.print(f"[dim]{choice.notice}[/]")
        return cls(choice.path)

    @property
    def is_set_up(self) -> bool:
        """Whether the system was ever brought up here."""
        return (self.secrets / "runtime-password").exists()

    def prepare(self) -> None:
        """Make the home where it is missing, reachable for the servers' account. Raises `EmbeddedError`."""
        prepare_home(self.home)

    # ------------------------------------------------------------------------------------------------ secrets

    def secret(self, name: str, make: Any) -> str:
        """The secret of that name, made by `make` on first use; readable by its owner alone."""
        path = self.secrets / name
        with suppress(FileNotFoundError):
            return path.read_text("utf-8").strip()
        self.prepare()
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        value = str(make())
        # Exclusive: of two that come at once, one makes it and the other reads it.
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text("utf-8").strip()
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(value + "\n")
        return value

    def admin_password(self) -> str:
        """The first admin's password, as it was made at the first start."""
        return self.secret("first-admin", lambda: secrets.token_urlsafe(12))

    # --------------------------------------------------------------------------------------------- master key
    #
    # `master.key` holds it. While it is being changed, `master.key.next` holds the new one: from the moment at which
    # that file is there, what is new is wrapped with it, and both are accepted.

    def begin_key_change(self) -> None:
        """Make the next master key, unless a change that was interrupted has made it already."""
        self.secret("master.key", MasterKey.generate_text)
        complete, partial = self._next_key, self.secrets / "master.key.partial"
        if complete.exists():
            return
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(MasterKey.generate_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # On the disk under its name, and whole, before it wraps the first key.
        partial.rename(complete)
        _sync_directory(self.secrets)

    def end_key_change(self, retired_id: str) -> Path:
        """Put the next master key in the place of the old one, which wraps nothing any more; where that is kept now."""
        current, retired = self.secrets / "master.key", self.secrets / f"master.key.retired-{retired_id}"
        # A second name first: there is no moment at which the old key has none.
        with suppress(FileExistsError):
            os.link(current, retired)
        _sync_directory(self.secrets)
        self._next_key.replace(current)
        _sync_directory(self.secrets)
        return retired

    @property
    def _next_key(self) -> Path:
        return self.secrets / "master.key.next"

    def _master_key_files(self) -> dict[str, Path]:
        self.secret("master.key", MasterKey.generate_text)
        current = self.secrets / "master.key"
        if self._next_key.exists():
            return {"master_key_file": self._next_key, "previous_master_key_file": current}
        return {"master_key_file": current}

    # ------------------------------------------------------------------------------------------------ servers

    def start_servers(self) -> tuple[PostgresServer, NatsServer]:
        """Start both servers, or attach to them. Raises `EmbeddedError`."""
        return start_postgres(self.home), start_nats(self.home)

    def settings_for(self, base: Settings, postgres: PostgresServer, nats: NatsServer | None) -> Settings:
        """`base` with the embedded servers' addresses and this installation's secrets filled in."""
        runtime = self.secret("runtime-password", lambda: secrets.token_hex(24))
        master: dict[str, Path] = {}
        if base.master_key is None and base.master_key_file is None:
            master = self._master_key_files()
        return base.model_copy(
            update={
                "home": self.home,
                "database_url": SecretStr(postgres.dsn_for("evosense", _RUNTIME, runtime)),
                "admin_database_url": SecretStr(postgres.dsn),
                **({"nats_url": SecretStr(nats.url)} if nats else {}),
                **master,
            }
        )

    # ------------------------------------------------------------------------------------------------ up or not

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Hold the installation while it is up. Raises `CommandError` where another process does."""
        self.prepare()
        with self._lock_file.open("a+") as lock:
            if not _locked(lock):
                state = self.state()
                where = f" at {state['api']}" if state else ""
                raise CommandError(f"EvoSense is up already{where}: `evosense down` stops it")
            self.forget_state()
            try:
                yield
            finally:
                self.forget_state()

    def is_up(self) -> bool:
        """Whether a process holds it."""
        try:
            with self._lock_file.open("a+") as lock:
                return not _locked(lock)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise CommandError(f"{self._lock_file} can't be opened: {error.strerror}. Is it another user's?") from None

    def state(self) -> dict[str, Any] | None:
        """Addresses of the running system, once it is ready; None where it is not."""
        try:
            state = json.loads(self._state_file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return state if isinstance(state, dict) else None

    def forget_state(self) -> None:
        """Nothing is up: what a killed process left behind names a process that may be another one by now."""
        self._state_file.unlink(missing_ok=True)

    def write_state(self, state: dict[str, Any]) -> None:
        """Tell other commands where the system is."""
        partial = self._state_file.with_suffix(".tmp")
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(self._state_file)


def _sync_directory(directory: Path) -> None:
    """A name is on the disk when its directory is."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def require_installation() -> None:
    """Without one, an empty database would be made, and then nobody could log in to it. Raises `CommandError`."""
    settings = Settings.load()
    if settings.database_url is None and not (home := Installation.of(settings)).is_set_up:
        raise CommandError(
            f"there is no installation below {home.home}: `evosense up` makes one, or set EVOSENSE_DATABASE_URL to a "
            "database elsewhere"
        )


@contextmanager
def configured(*, start: bool, make: bool = False) -> Iterator[Settings]:
    """Settings with a database: the configured one, or this machine's embedded one.

    With `start` an embedded server that does not run is started for the time of the command; without it a
    `CommandError` says how to. Where there is no installation, `make` begins one; a `CommandError` without it.
    """
    settings = Settings.load()
    if settings.database_url is not None:
        yield settings
        return
    installation = Installation.of(settings)
    servers = running(installation.home)
    if servers is not None:
        yield installation.settings_for(settings, servers.postgres, servers.nats)
    elif start:
        if not make:
            require_installation()
        with start_postgres(installation.home) as postgres:
            yield installation.settings_for(settings, postgres, None)
    else:
        raise CommandError(
            f"no system is running below {installation.home}: start it with `evosense up`, "
            "or set EVOSENSE_DATABASE_URL to a database elsewhere"
        )
