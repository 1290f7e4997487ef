"""The id of what edits and deletions name: nothing but a connection and WhatsApp's own id of a message."""

import hashlib
from functools import lru_cache
from typing import Any
from uuid import UUID

from domain.aggregate import NAMESPACE


def message_key_id(connection_id: UUID, external_id: str) -> UUID:
    """The id under which edits and deletions speak of a message: (connection, key.id), all that is sure about them.

    `derived_id("message key", connection, key.id)` at half its price: projecting asks for each message.
    """
    connection = _key_of_connection(connection_id.int).copy()
    connection.update(f"{len(external_id)}:{external_id}".encode())
    return UUID(bytes=connection.digest()[:16], version=5)


@lru_cache(maxsize=1024)
def _key_of_connection(number: int) -> Any:
    """What `uuid5` has hashed when it comes to the key.id."""
    begun = f"11:message key36:{UUID(int=number)}".encode()
    return hashlib.sha1(NAMESPACE.bytes + begun, usedforsecurity=False)
