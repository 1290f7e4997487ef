"""All projections, in the order in which their tables depend on one another."""

from typing import Final

from projections.authn import AuthnProjection
from projections.batch import Projection
from projections.billing import BillingProjection
from projections.connections import ConnectionsProjection
from projections.experiments import ExperimentsProjection
from projections.messages import MessagesProjection
from projections.metrics import MetricsProjection
from projections.tenancy import TenancyProjection
from sql import LIVE

_CLASSES: Final = (
    TenancyProjection,
    AuthnProjection,
    ConnectionsProjection,
    MessagesProjection,
    ExperimentsProjection,
    BillingProjection,
    MetricsProjection,
)


def all_projections(schema: str = LIVE, *, bare: bool = False) -> list[Projection]:
    """One of each, over the tables in `schema`; `bare` is explained at `Projection`.

    Raises `ValueError` for a schema name that would have to be quoted.
    """
    return [projection(schema, bare=bare) for projection in _CLASSES]
