"""What of a batch is left to models behind servers: into the backlog with it, before the batch is acknowledged.

A message that any model has analysed, as its text is now, is not asked about again when its event is delivered once
more: not even where the tenant's model or the prompt is another one by now. An edit is another text.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from adapters.nats import Envelope
from api.asking import Asks
from api.backlog import Backlog, Owed, Wants
from api.models import is_served
from domain.messages import Message
from domain.ports import Embedder


class Deferring:
    """Puts into the backlog what the stream must not wait for."""

    def __init__(self, backlog: Backlog, asks: Asks) -> None:
        self._backlog = backlog
        self._asks = asks

    def served(self, tenants: set[UUID]) -> set[UUID]:
        """Those of whose messages a server is asked first; blocks on the log."""
        return {tenant for tenant in tenants if self._asks.served(tenant)}

    async def defer(
        self,
        envelopes: Sequence[Envelope],
        states: Sequence[Message],
        served: set[UUID],
        embedders: Mapping[UUID, Sequence[Embedder]],
    ) -> None:
        """Put what is owed of these messages; committed when it returns.

        `envelopes` brought them; `served`: tenants whose analyses are asked of a server.
        """
        last: dict[UUID, Envelope] = {}
        for envelope in sorted(envelopes, key=lambda envelope: envelope.position):
            last[envelope.stream] = envelope
        rows: list[Owed] = []
        for state in states:
            envelope = last[state.id]
            if envelope.tenant in served and state.analyzed_by is None:
                rows.append(_owed(envelope, "analysis"))
            if any(is_served(one) and one.model_name not in state.embedded_by for one in embedders[envelope.tenant]):
                rows.append(_owed(envelope, "vectors"))
        if rows:
            await self._backlog.add(rows)


def _owed(envelope: Envelope, wants: Wants) -> Owed:
    return Owed(envelope.stream, wants, envelope.tenant, envelope.position, envelope.topic)
