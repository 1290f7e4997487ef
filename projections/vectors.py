"""Vectors on their way to pgvector, in its binary form: a header and big-endian floats.

Sources of the forms: pgvector's `vector_recv` (dimensions and a reserved zero, 16 bits each, then the floats) and
PostgreSQL's `array_recv` (dimensions, has-nulls, element type, then size and lower bound, then
length and bytes of each).
"""

import array
import struct
from collections.abc import Iterable
from typing import Final

import psycopg
from psycopg import Connection
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

_NULL: Final = struct.pack(">i", -1)


class Vectors:
    """A column of vectors, each as little-endian 32-bit floats as events hold it, or None; a `vector[]` in SQL."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[bytes | None]) -> None:
        self.items = tuple(items)


def register(conn: Connection[psycopg.rows.DictRow]) -> None:
    """Teach a connection to send `Vectors`. Raises `psycopg.ProgrammingError` where the extension is missing."""
    info = TypeInfo.fetch(conn, "vector")
    if info is None:
        raise psycopg.ProgrammingError("the database has no type vector: run `evosense migrate`")
    element_oid, array_oid = info.oid, info.array_oid

    class VectorsDumper(Dumper):
        format = Format.BINARY
        oid = array_oid

        def dump(self, obj: Vectors) -> Buffer:
            return b"".join(
                (
                    struct.pack(">iiIii", 1, None in obj.items, element_oid, len(obj.items), 1),
                    *(_NULL if item is None else _element(item) for item in obj.items),
                )
            )

    conn.adapters.register_dumper(Vectors, VectorsDumper)


def _element(data: bytes) -> bytes:
    floats = array.array("f", data)
    # Whatever this machine's own order is: little-endian became big-endian once every four bytes are turned round.
    floats.byteswap()
    return struct.pack(">iHH", 4 + len(data), len(floats), 0) + floats.tobytes()
