"""How the listener stands: `evosense listener --status`, and a line of `evosense status`."""

from collections import Counter
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from adapters.migrations import require_current_schema
from adapters.postgres import connect
from adapters.settings import Settings
from api.cli.screen import console
from api.known_connections import names_of
from api.links import all_links


def show_links(settings: Settings) -> None:
    """Print the processes of the listener and every link."""
    require_current_schema(settings.runtime_dsn)
    with connect(settings.runtime_dsn, "evosense_writer") as conn:
        links, listeners = all_links(conn)
        names = names_of(conn)
    processes = Table("process", "last heard of", "NATS", "since it started", title="listener")
    for row in listeners:
        nats = f"{row['nats']}: {row['nats_error']}" if row["nats_error"] else row["nats"]
        counted = ", ".join(f"{name} {number:,}" for name, number in sorted(row["counted"].items()))
        processes.add_row(escape(row["holder"]), _time(row["seen_at"]), escape(nats), escape(counted))
    console.print(processes if listeners else "[yellow]no process of the listener runs[/]")
    if not links:
        console.print(
            "no connection is listened to by socket.io: that takes an address that begins with ws:// or wss://"
        )
        return
    table = Table(title="links", show_lines=True)
    for title in ("connection", "state", "since", "last event"):
        table.add_column(title, no_wrap=title == "state")
    for row in links:
        held = f"\n[dim]held by {escape(row['holder'] or '')}[/]" if row["held"] else ""
        why = f"\n{escape(row['error'])}" if row["error"] else ""
        vain = f"\n{row['attempts']:,} attempts" if row["attempts"] else ""
        table.add_row(
            escape(names.get(row["connection_id"], str(row["connection_id"]))) + held,
            _state(row) + why,
            _time(row["since"]) + vain,
            _time(row["last_event_at"]),
        )
    console.print(table)


def told_of(links: list[dict[str, Any]], listeners: list[dict[str, Any]]) -> str:
    """The listener in one line."""
    if not listeners:
        return "[yellow]does not run[/]"
    states = Counter(row["state"] if row["held"] else "unattended" for row in links)
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "no links"
    nats = sorted({row["nats"] for row in listeners} - {"off"})
    return f"{len(listeners)} running; {told}" + (f"; NATS {', '.join(nats)}" if nats else "")


def _state(row: dict[str, Any]) -> str:
    if not row["held"]:
        return "[dim]unattended[/]"
    return (
        f"[green]{row['state']}[/]" if row["state"] == "linked" and not row["error"] else f"[yellow]{row['state']}[/]"
    )


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}" if moment else ""
