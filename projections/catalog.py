"""All projections, in the order in which their tables depend on one another."""

from projections.authn import AuthnProjection
from projections.batch import Projection
from projections.billing import BillingProjection
from projections.connections import ConnectionsProjection
from projections.experiments import ExperimentsProjection
from projections.messages import MessagesProjection
from projections.metrics import MetricsProjection
from projections.tenancy import TenancyProjection


def all_projections() -> list[Projection]:
    """One of each."""
    return [
        TenancyProjection(),
        AuthnProjection(),
        ConnectionsProjection(),
        MessagesProjection(),
        ExperimentsProjection(),
        BillingProjection(),
        MetricsProjection(),
    ]
