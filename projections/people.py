"""Under whose hash a message stands: the person's, also where it was received under the LID alone (docs/people.md)."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

from domain.messages import MessageReceived
from domain.people import LidLinked

#: A tenant, by the number of its UUID, and a hash of somebody there.
_Name = tuple[int, str]


class People:
    """The part of the messages projection that knows whose a LID is, in `messages_person`."""

    def __init__(self, queries: Any, *, bare: bool) -> None:
        self._queries = queries
        self._bare = bare

    def link(self, conn: Connection[Any], links: Sequence[tuple[int, LidLinked]]) -> None:
        """Note the links of a batch, and put what stands under these LIDs under their persons' hashes.

        Bare tables have no index to find such rows by: there that is left to `settle`.
        """
        if not links:
            return
        columns = {
            "tenant_ids": [event.tenant_id for _, event in links],
            "aliases": [event.alias for _, event in links],
        }
        self._queries.put_persons(
            conn,
            **columns,
            positions=[position for position, _ in links],
            persons=[event.person for _, event in links],
        )
        if not self._bare:
            self._queries.rename_people(conn, **columns)

    def names(
        self, conn: Connection[Any], received: Sequence[tuple[int, MessageReceived]]
    ) -> tuple[list[str], list[str]]:
        """The chats and the senders of new messages. The links of their batch have been noted already."""
        tenants: dict[int, UUID] = {}
        wanted: dict[_Name, None] = {}
        for _, event in received:
            tenant = event.tenant_id.int
            tenants[tenant] = event.tenant_id
            wanted[tenant, event.chat_id] = None
            wanted[tenant, event.sender] = None
        rows = self._queries.persons_of(
            conn, tenant_ids=[tenants[tenant] for tenant, _ in wanted], names=[name for _, name in wanted]
        )
        links: dict[_Name, list[tuple[int, str]]] = {}
        for row in rows:
            links.setdefault((row["tenant_id"].int, row["alias"]), []).append((row["position"], row["person"]))
        if not links:
            return [event.chat_id for _, event in received], [event.sender for _, event in received]
        return (
            [_whose(links, event.tenant_id, event.chat_id, position) for position, event in received],
            [_whose(links, event.tenant_id, event.sender, position) for position, event in received],
        )

    def settle(self, conn: Connection[Any]) -> None:
        """Put everything that stands under a LID under the person's hash."""
        self._queries.rename_all_people(conn)


def _whose(links: dict[_Name, list[tuple[int, str]]], tenant_id: UUID, name: str, position: int) -> str:
    of_name = links.get((tenant_id.int, name))
    if of_name is None:
        return name
    before = bisect_left(of_name, (position, ""))
    return of_name[max(0, before - 1)][1]
