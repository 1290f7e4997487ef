"""Vectors on their way to pgvector, in its binary form: a header and big-endian floats.

Source of the form: pgvector's `vector_send`/`vector_recv` (dimensions and a reserved zero, 16 bits each).
"""

import array
import struct
import sys
from typing import Any

from psycopg import Connection
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo


class Vector:
    """A vector as little-endian 32-bit floats, as events hold it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vector) -> Buffer:
        """See `psycopg.adapt.Dumper`."""
        floats = array.array("f", obj.data)
        if sys.byteorder == "little":
            floats.byteswap()
        return struct.pack(">HH", len(floats), 0) + floats.tobytes()


def register(conn: Connection[Any]) -> None:
    """Teach a connection to send `Vector`. Raises `LookupError` where the extension is missing."""
    info = TypeInfo.fetch(conn, "vector")
    if info is None:
        raise LookupError("the database has no type vector: run `evosense migrate`")
    info.register(conn)
    dumper = type("VectorDumper", (_VectorDumper,), {"oid": info.oid})
    conn.adapters.register_dumper(Vector, dumper)
