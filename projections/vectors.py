"""Vectors on their way to pgvector, in its binary form: a header and big-endian floats.

Sources of the forms: pgvector's `vector_recv` and `halfvec_recv` (dimensions and a reserved zero, 16 bits each, then
the floats, of 32 or 16 bits) and PostgreSQL's `array_recv` (dimensions, has-nulls, element type, then size and lower
bound, then length and bytes of each).
"""

import array
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
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

    def __iter__(self) -> Iterator[bytes | None]:
        """The vectors one by one, as COPY wants them."""
        return iter(self.items)


def register(conn: Connection[psycopg.rows.DictRow]) -> None:
    """Teach a connection to send `Vectors`, and to COPY such vectors into columns `vector` and `halfvec`.

    Raises `psycopg.ProgrammingError` where the extension is missing.
    """
    vector, halfvec = _type(conn, "vector"), _type(conn, "halfvec")

    class VectorsDumper(Dumper):
        format = Format.BINARY
        oid = vector.array_oid

        def dump(self, obj: Vectors) -> Buffer:
            return b"".join(
                (
                    struct.pack(">iiIii", 1, None in obj.items, vector.oid, len(obj.items), 1),
                    *(_NULL if item is None else _element(item) for item in obj.items),
                )
            )

    class VectorDumper(Dumper):
        format = Format.BINARY
        oid = vector.oid

        def dump(self, obj: bytes) -> Buffer:
            return binary_vector(obj)

    class HalfvecDumper(Dumper):
        format = Format.BINARY
        oid = halfvec.oid

        def dump(self, obj: bytes) -> Buffer:
            return binary_halfvec(obj)

    conn.adapters.register_dumper(Vectors, VectorsDumper)
    # By type of column alone: bytes anywhere else stay bytes.
    conn.adapters.register_dumper(None, VectorDumper)
    conn.adapters.register_dumper(None, HalfvecDumper)


def binary_vector(data: bytes) -> bytes:
    """A vector of little-endian 32-bit floats in the binary form of `vector`."""
    floats = array.array("f", data)
    # Whatever this machine's own order is: little-endian became big-endian once every four bytes are turned round.
    floats.byteswap()
    return struct.pack(">HH", len(floats), 0) + floats.tobytes()


def binary_halfvec(data: bytes) -> bytes:
    """A vector of little-endian 32-bit floats in the binary form of `halfvec`.

    Rounded to the nearest half, ties to even, as pgvector's own cast does it.
    """
    halves = np.frombuffer(data, "<f4").astype(">f2")
    return struct.pack(">HH", len(halves), 0) + halves.tobytes()


def _type(conn: Connection[psycopg.rows.DictRow], name: str) -> TypeInfo:
    info = TypeInfo.fetch(conn, name)
    if info is None:
        raise psycopg.ProgrammingError(f"the database has no type {name}: run `evosense migrate`")
    info.register(conn)
    return info


def _element(data: bytes) -> bytes:
    vector = binary_vector(data)
    return struct.pack(">i", len(vector)) + vector
