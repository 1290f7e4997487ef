"""What the commands write on: results to standard output, troubles to standard error."""

from rich.console import Console

console = Console()
errors = Console(stderr=True)


class CommandError(Exception):
    """The command can't do what was asked; the message says why and what would help."""
