"""`evosense migrate` and `evosense admin`: prepare a database."""

import getpass
import os
import sys

from adapters import migrations
from adapters.settings import Settings
from api.accounts import ADMIN, ensure_first_admin
from api.cli.installation import configured
from api.cli.screen import CommandError, console, errors
from api.wiring import write_side


def migrate() -> None:
    """Bring the database to this program's schema. Safe to run twice, and twice at once.

    Needs [bold]EVOSENSE_ADMIN_DATABASE_URL[/]; makes the log-in of [bold]EVOSENSE_DATABASE_URL[/]. Without either it
    prepares the embedded database.
    """
    with configured(start=True, make=True) as settings:
        runtime = settings.runtime_dsn
        report = migrations.migrate(
            settings.admin_dsn, runtime_dsn=runtime, on_step=lambda step: console.print(f"- {step}")
        )
    for warning in report.warnings:
        errors.print(f"[yellow]warning:[/] {warning}")
    done = f"applied {', '.join(map(str, report.applied))}" if report.applied else "nothing to do"
    console.print(f"schema version {report.version}: {done}")


def admin() -> None:
    """Register the first admin, a superuser named "admin".

    The password comes from EVOSENSE_ADMIN_PASSWORD, or is asked for.
    """
    settings = Settings.load()
    password = os.environ.get("EVOSENSE_ADMIN_PASSWORD")
    if password is None:
        if not sys.stdin.isatty():
            raise CommandError("set EVOSENSE_ADMIN_PASSWORD, or run this in a terminal to be asked for the password")
        password = getpass.getpass("password for admin: ")
    migrations.require_current_schema(settings.runtime_dsn)
    write = write_side(settings)
    try:
        made = ensure_first_admin(write, password)
    except ValueError as error:
        raise CommandError(str(error)) from None
    finally:
        write.close()
    console.print(
        f"the user {ADMIN} was registered" if made else f"there is a user {ADMIN} already; nothing was changed"
    )
