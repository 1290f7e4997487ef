"""`evosense monitor`: the monitoring queries of `sql/monitoring`, run and shown."""

import json
from importlib.resources import files
from typing import Annotated, Any, Final

import psycopg
import typer
from psycopg.rows import dict_row
from rich.markup import escape
from rich.table import Table

from adapters.migrations import require_current_schema
from adapters.postgres import connect
from api.cli.installation import configured
from api.cli.screen import CommandError, console
from sql import text

_FOLDER: Final = "monitoring"


def monitor(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which ones, such as tenant_usage. All of them where none is named.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: the rows by the query's name.")] = False,
) -> None:
    """Show usage by tenant, the projections' lag, the vector index and the vectors' coverage.

    These are the queries in sql/monitoring, over all tenants; numbers and names only, no personal data.
    """
    known = _known()
    if unknown := [name for name in names or () if name not in known]:
        raise CommandError(f"there is no query {', '.join(unknown)}: there are {', '.join(known)}")
    with configured(start=True) as settings:
        require_current_schema(settings.runtime_dsn)
        # The projector sees every tenant's rows; read only, since nothing here has to write.
        with connect(settings.runtime_dsn, "evosense_projector") as conn, conn.transaction(force_rollback=True):
            conn.execute("SET TRANSACTION READ ONLY")
            found = {name: _run(conn, name) for name in names or known}
    if as_json:
        console.print_json(json.dumps({name: rows for name, (_, rows) in found.items()}, default=str))
        return
    for name, (columns, rows) in found.items():
        console.print(_table(name, columns, rows))


def _known() -> list[str]:
    folder = files("sql").joinpath(_FOLDER)
    return sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))


def _run(conn: psycopg.Connection[Any], name: str) -> tuple[list[str], list[dict[str, Any]]]:
    # Bytes, because the text is a file's and not a literal.
    cursor = conn.cursor(row_factory=dict_row).execute(text(f"{_FOLDER}/{name}.sql").encode())
    return [column.name for column in cursor.description or ()], cursor.fetchall()


def _table(name: str, columns: list[str], rows: list[dict[str, Any]]) -> Table:
    table = Table(title=name.replace("_", " "), caption=None if rows else "nothing to show")
    for column in columns:
        numbers = [row[column] for row in rows if row[column] is not None]
        right = bool(numbers) and all(isinstance(value, int | float) for value in numbers)
        table.add_column(column.replace("_", " "), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))
