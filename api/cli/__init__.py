"""The command line: `evosense`."""

from api.cli.main import main

__all__ = ["main"]
