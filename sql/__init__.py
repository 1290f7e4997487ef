"""Where the SQL is: every statement stands in a `.sql` file of this tree, and is loaded from here by its context."""

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import aiosql


@cache
def queries(context: str, driver: Literal["psycopg", "apsycopg"] = "psycopg") -> Any:
    """The named queries of `sql/queries/<context>.sql` as functions that take a connection first.

    `psycopg` gives ordinary functions, `apsycopg` coroutine functions. Raises `FileNotFoundError` for an unknown
    context.
    """
    return aiosql.from_str(text(f"queries/{context}.sql"), driver)


@cache
def text(path: str) -> str:
    """The text of one file of the tree, named from its root, such as `tables/messages_message.sql`."""
    return files("sql").joinpath(path).read_text("utf-8")
