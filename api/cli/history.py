"""`evosense history`: what the log holds of one thing."""

import os
import pwd
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
import typer
from psycopg import Connection
from rich.text import Text

from adapters.event_store import PostgresKeyStore, RoleDatastore, StructMapper
from adapters.master_keys import master_keys
from adapters.migrations import require_current_schema
from adapters.settings import Settings, SettingsError
from adapters.telemetry import configure_logging
from adapters.vault import MasterKeyError, Vault
from api.cli.installation import configured
from api.cli.screen import CommandError, console
from api.history import BIRTHS, SEALED, SECRET, HistoryEntry, HistoryReader, inferences_of, leave_trace
from sql import queries

_LOG: Final = queries("log")
#: What holds several signs together as one, as a family of emoji is.
_JOINER: Final = "\u200d"

Kind = Literal["message", "tenant", "user", "connection", "inference", "prompt"]


class _Stream(msgspec.Struct, frozen=True):
    """A stream that was found; `position` is that of its first event."""

    id: UUID
    tenant_id: UUID
    position: int


def history(
    kind: Annotated[Kind, typer.Argument(help="What it is.", show_default=False)],
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The id that its row has in SQL, or the UUID of its stream. A tenant's is its UUID.",
            show_default=False,
        ),
    ],
    opened: Annotated[
        bool, typer.Option("--open", help="Show personal fields. Needs the master key, and leaves a line in the log.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for machines.")] = False,
) -> None:
    """Show everything that the log has on one thing, in order.

    Personal fields are shown as (sealed) unless they are opened; passwords and tokens never are. Only opening proves
    the seals: without it, what was changed in the log is shown as it stands there.
    """
    with configured(start=False) as settings:
        require_current_schema(settings.runtime_dsn)
        datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer")
        try:
            opener = _opener(settings, datastore) if opened else None
            stream = _find(datastore, kind, identifier)
            if opened:
                configure_logging(settings.log_level, settings.log_format)
                leave_trace(_account(), kind, stream.id, stream.tenant_id)
            entries = HistoryReader(datastore, opener, whole_vectors=as_json).all(stream.id)
            if as_json:
                console.out(_array(list(entries)), highlight=False)
                return
            _head(kind, stream)
            for entry in entries:
                _show(entry)
        finally:
            datastore.close()
        if kind == "message":
            found = inferences_of(settings.runtime_dsn, stream.tenant_id, stream.position)
            _line(f"\ninferences: {', '.join(map(str, found)) or 'none in the read models'}")


def _opener(settings: Settings, datastore: RoleDatastore) -> StructMapper:
    """What opens events. Raises `CommandError` where the master key is missing, or not the right one."""
    try:
        master, previous = master_keys(settings)
        vault = Vault(master, PostgresKeyStore(datastore), previous=previous)
        vault.verify()
    except (SettingsError, MasterKeyError) as error:
        raise CommandError(f"--open needs the master key, and it can't be used: {error}") from None
    return StructMapper(vault)


# ------------------------------------------------------------------------------------------------ finding the stream


def _find(datastore: RoleDatastore, kind: str, given: str) -> _Stream:
    """The stream that an id means. Raises `CommandError`, which says what stands there instead."""
    stream_id = _uuid(given)
    by_row = kind != "tenant" and re.fullmatch("[0-9]{1,19}", given) is not None
    if stream_id is None and not by_row:
        right = "its UUID" if kind == "tenant" else "the number that its row has in SQL, or the UUID of its stream"
        raise CommandError(f"that is no id of {_a(kind)}: it goes by {right}")
    with datastore.get_connection() as conn:
        position = _birth(conn, stream_id) if stream_id is not None else int(given)
        found = None if position is None else _LOG.stream_at(conn, position=position)
        if found is not None and position is not None and _type(found) == BIRTHS[kind].type_name:
            return _Stream(found["originator_id"], found["tenant_id"], position)
        if found is None:
            why = "nothing stands at that position of the log" if by_row else "the log has no stream of that id"
        elif by_row:
            why = f"that position holds {_a(_type(found))}{_of(conn, kind, found)}"
        else:
            why = f"that stream begins with {_a(_type(found))}"
    raise CommandError(f"no {kind} has id {given}: {why}")


def _birth(conn: Connection[Any], stream_id: UUID) -> int | None:
    return next((row["notification_id"] for row in _LOG.births(conn, stream_ids=[stream_id])), None)


def _of(conn: Connection[Any], kind: str, found: dict[str, Any]) -> str:
    """Which thing of that kind a later event belongs to, if it does to one."""
    position = _birth(conn, found["originator_id"])
    first = None if position is None else _LOG.stream_at(conn, position=position)
    return f" of {kind} {position}" if first is not None and _type(first) == BIRTHS[kind].type_name else ""


def _type(found: dict[str, Any]) -> str:
    name: str = found["topic"].rpartition(":")[0]
    return name


def _a(word: str) -> str:
    return f"an {word}" if word[:1] in "aeio" else f"a {word}"


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# ---------------------------------------------------------------------------------------------------------- showing


def _head(kind: str, stream: _Stream) -> None:
    row = "" if kind == "tenant" else f" {stream.position}: stream {stream.id}, of tenant"
    _line((f"{kind}{row} {stream.tenant_id}", "bold"))


def _show(entry: HistoryEntry) -> None:
    version = "" if entry.type_version is None else f":{entry.type_version}"
    _line()
    _line(f"position {entry.position}, version {entry.version}: ", (_plain(entry.type) + version, "bold cyan"))
    happened = "at a time that can't be read" if entry.at is None else _moment(entry.at)
    _line((f"  happened {happened}, recorded {_moment(entry.recorded_at)}", "dim"))
    if entry.problem is not None:
        _line(("  can't be read as it should be: " + _plain(entry.problem), "red"))
    width = max(map(len, entry.data), default=0)
    for name, value in entry.data.items():
        row_id = entry.links.get(name.removesuffix("_id"))
        link = "" if row_id is None else f" ({name.removesuffix('_id')} {row_id})"
        style = "dim" if value in (SEALED, SECRET) else ""
        _line(f"  {_plain(name).ljust(width)}  ", (_told(value), style), link)


def _array(entries: list[HistoryEntry]) -> str:
    text = msgspec.json.format(msgspec.json.encode(entries), indent=2).decode()
    # The encoder escapes the other characters that a terminal would obey.
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _line(*parts: str | tuple[str, str]) -> None:
    # Not wrapped: an id that is broken in two can't be copied.
    console.print(Text.assemble(*parts), soft_wrap=True, highlight=False)


def _told(value: Any) -> str:
    if value is None:
        return "-"
    return _plain(value) if isinstance(value, str) else _plain(msgspec.json.encode(value).decode())


def _plain(text: str) -> str:
    """The text without what a terminal would obey: a customer wrote it."""
    return "".join(c if c.isprintable() or c == _JOINER else c.encode("unicode_escape").decode() for c in text)


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"


def _account() -> str:
    """The account of this machine that runs the command."""
    try:
        return f"account {pwd.getpwuid(os.getuid()).pw_name} of this machine"
    except KeyError:  # a container's user need not have a name
        return f"account {os.getuid()} of this machine"
