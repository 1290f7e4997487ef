"""Where the SQL is: every statement stands in a `.sql` file of this tree, and is loaded from here by its context."""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import aiosql

#: Where the files put the read models.
LIVE: Final = "evosense"
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# Not the settings ('evosense.tenant_id'), which stand behind a quote, and not evosense_ops or evosense_log.
_QUALIFIER: Final = re.compile(r"(?<![\w'.])evosense\.")


@cache
def queries(context: str, driver: Literal["psycopg", "apsycopg"] = "psycopg", schema: str = LIVE) -> Any:
    """The named queries of `sql/queries/<context>.sql` as functions that take a connection first.

    `psycopg` gives ordinary functions, `apsycopg` coroutine functions. With another `schema`, whatever the text puts
    in `evosense` is looked for there. Raises `FileNotFoundError` for an unknown context and `ValueError` for a schema
    name that would have to be quoted.
    """
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError(
            f"{schema!r} can't be a schema of read models: use up to 63 small letters, digits and underscores, "
            "a letter or an underscore first"
        )
    return aiosql.from_str(_QUALIFIER.sub(f"{schema}.", text(f"queries/{context}.sql")), driver)


@cache
def text(path: str) -> str:
    """The text of one file of the tree, named from its root, such as `tables/messages_message.sql`."""
    return files("sql").joinpath(path).read_text("utf-8")
