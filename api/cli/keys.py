"""`evosense keys`: which master key wraps the tenants' keys, and putting another one in its place."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import typer
from rich.table import Table

from adapters.event_store import PostgresKeyStore
from adapters.key_rotation import rotate as rotate_keys
from adapters.master_keys import MasterKeys, master_keys
from adapters.migrations import require_current_schema
from adapters.settings import Settings, SettingsError
from adapters.vault import MasterKey, MasterKeyError
from api.cli.installation import Installation, configured
from api.cli.screen import CommandError, console
from api.wiring import key_store

app = typer.Typer(help="The master key: which one wraps the tenants' keys, and changing it.", no_args_is_help=True)

_PAGE: Final = 1000


@app.command()
def status() -> None:
    """Show which master key wraps how many tenants' keys, and whether the configured ones open them.

    Exits with 1 where any key can't be opened.
    """
    with _existing() as settings:
        require_current_schema(settings.runtime_dsn)
        with key_store(settings) as store:
            try:
                keys = master_keys(settings)
            except (SettingsError, MasterKeyError) as error:
                console.print(_table(store.census(), Counter(), {}))
                raise CommandError(f"the configured master key can't be used: {error}") from None
            wrapped, broken = _tried(store, keys)
    names = {keys.master.id: "master key"}
    if keys.previous is not None:
        names[keys.previous.id] = "previous master key"
    console.print(_table(wrapped, broken, names))
    if broken:
        raise CommandError(f"{broken.total():,} tenants' keys can't be opened with the configured master key")
    if keys.previous is not None:
        console.print(
            "a rotation is not finished: run `evosense keys rotate`"
            if wrapped[keys.previous.id]
            else "nothing is wrapped with the previous master key: it can be removed from the configuration"
        )


@app.command()
def rotate() -> None:
    """Wrap every tenant's key with a new master key. No event is touched; safe to stop, and to run again.

    The new key is [bold]EVOSENSE_MASTER_KEY[/] (or _FILE), the old one [bold]EVOSENSE_PREVIOUS_MASTER_KEY[/] (or
    _FILE): give both to all running roles first. An installation of `evosense up` that made its own key makes the new
    one by itself, while it is down.
    """
    settings = Settings.load()
    if settings.database_url is None and not _given(settings):
        _rotate_own(Installation.of(settings))
        return
    with _existing() as ready:
        _rotate(ready)
    console.print(
        "the previous master key wraps nothing any more. When all roles run with the new one, remove the previous one; "
        "keep a copy for as long as you keep backups from before"
    )


def _rotate_own(installation: Installation) -> None:
    """Change the key that the installation has made for itself. Nothing else is up meanwhile."""
    _require_installation(installation)
    with installation.only_one():
        installation.begin_key_change()
        with configured(start=True) as ready:
            previous = _rotate(ready)
        retired = installation.end_key_change(previous.id)
    console.print(
        f"the master key is in {installation.secrets / 'master.key'}: keep a copy elsewhere. The old one is kept in "
        f"{retired}, for backups from before; delete it when there are none. Everybody has to log in again"
    )


@contextmanager
def _existing() -> Iterator[Settings]:
    """The configured database or this machine's; one is not made only to look into it."""
    settings = Settings.load()
    if settings.database_url is None:
        _require_installation(Installation.of(settings))
    with configured(start=True) as ready:
        yield ready


def _require_installation(installation: Installation) -> None:
    if not installation.secrets.is_dir():
        raise CommandError(
            f"there is no installation below {installation.home}: set EVOSENSE_HOME to where it is, "
            "or EVOSENSE_DATABASE_URL to a database elsewhere"
        )


def _rotate(settings: Settings) -> MasterKey:
    """Change all keys; the master key that was replaced."""
    require_current_schema(settings.runtime_dsn)
    keys = master_keys(settings)
    if keys.previous is None:
        raise CommandError(
            "no previous master key: set EVOSENSE_MASTER_KEY (or _FILE) to the new key and "
            "EVOSENSE_PREVIOUS_MASTER_KEY (or _FILE) to the one that it replaces"
        )
    with key_store(settings) as store, console.status("wrapping the tenants' keys") as line:
        done = rotate_keys(
            store, keys.master, keys.previous, on_batch=lambda moved: line.update(f"{moved:,} tenants' keys")
        )
    console.print(
        f"wrapped {done.moved:,} tenants' keys anew; master key {keys.master.id} wraps all {done.tenants:,} of them now"
    )
    return keys.previous


def _given(settings: Settings) -> bool:
    return any(
        value is not None
        for value in (
            settings.master_key,
            settings.master_key_file,
            settings.previous_master_key,
            settings.previous_master_key_file,
        )
    )


def _tried(store: PostgresKeyStore, keys: MasterKeys) -> tuple[Counter[str], Counter[str]]:
    """How many keys each master key wraps, and how many of them do not open."""
    masters = {key.id: key for key in keys if key is not None}
    wrapped: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    after: UUID | None = None
    while page := store.page(after, _PAGE):
        for tenant_id, key, master_key_id in page:
            wrapped[master_key_id] += 1
            try:
                masters[master_key_id].unwrap(tenant_id, key)
            except (KeyError, MasterKeyError):
                broken[master_key_id] += 1
        after = page[-1][0]
    return wrapped, broken


def _table(wrapped: dict[str, int], broken: Counter[str], names: dict[str, str]) -> Table:
    table = Table("master key", "configured as", "tenants", "opens them")
    table.columns[2].justify = "right"
    for identifier in {**names, **wrapped}:
        number, bad = wrapped.get(identifier, 0), broken[identifier]
        opens = "-" if not number else "yes"
        if identifier not in names:
            opens = "not tried"
        elif bad:
            opens = f"[red]not {bad:,} of them[/]"
        table.add_row(identifier, names.get(identifier, "[red]not configured[/]"), f"{number:,}", opens)
    return table
