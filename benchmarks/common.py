"""What the benchmarks share: servers of their own, medians, and how results are shown."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from adapters.embedded import start_nats, start_postgres
from adapters.migrations import migrate
from adapters.settings import Settings
from api.cli.installation import Installation

console = Console()


@contextmanager
def installation() -> Iterator[Settings]:
    """A migrated installation on servers of its own, with fsync on, gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="evosense-bench-"))
    home.chmod(0o755)
    try:
        with start_postgres(home) as postgres, start_nats(home) as nats:
            settings = Installation(home).settings_for(Settings(), postgres, nats)
            migrate(settings.admin_dsn, runtime_dsn=settings.runtime_dsn)
            yield settings
    finally:
        shutil.rmtree(home, ignore_errors=True)


def machine() -> str:
    """What this was measured on, without its name."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def show(title: str, unit: str, results: Mapping[str, list[float]], ratios: Mapping[str, float], **more: Any) -> None:
    """Print a table of medians for people and, last, one line of JSON with the ratios."""
    table = Table("", f"median, {unit}", "runs", title=title)
    table.columns[1].justify = "right"
    for name, runs in results.items():
        table.add_row(name, f"{median(runs):,.0f}", " ".join(f"{run:,.0f}" for run in runs))
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}: [bold]{ratio:.2f}[/]")
    medians = {name: round(median(runs), 1) for name, runs in results.items()}
    line = {"benchmark": title, "ratios": {name: round(value, 4) for name, value in ratios.items()}, "medians": medians}
    print(json.dumps({**line, **more, "machine": machine()}, ensure_ascii=False))
