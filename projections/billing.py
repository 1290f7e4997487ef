"""The documented billing tables. They exist and are owned here; no event of the log fills them yet."""

from typing import Any

from psycopg import Connection

from projections.batch import Batch


class BillingProjection:
    """See `Projection`. Payment events come with billing itself; until then a rebuild leaves these tables empty."""

    name = "billing"
    tables = ("billing_paymentaccount", "billing_billingevent")

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
