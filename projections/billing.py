"""The documented billing tables. They exist and are owned here; no event of the log fills them yet."""

from typing import Any

from psycopg import Connection

from domain.event import Event
from projections.batch import Batch
from sql import LIVE


class BillingProjection:
    """See `Projection`. Payment events come with billing itself; until then a rebuild leaves these tables empty."""

    name = "billing"
    tables = ("billing_paymentaccount", "billing_billingevent")
    events: tuple[type[Event], ...] = ()

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        pass

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
