"""The running API for the tests of what it answers: one system for all modules that do it no harm."""

from collections.abc import Iterator

import pytest

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from tests.support.http import Account, System, running_system
from tests.support.systems import fresh_system


@pytest.fixture(scope="session")
def system(postgres: PostgresServer) -> Iterator[System]:
    """An API over a database that several modules share: each works with tenants of its own."""
    with fresh_system(postgres) as settings, running_system(settings) as running:
        yield running


@pytest.fixture(scope="module")
def own_system(settings: Settings) -> Iterator[System]:
    """An API that the module may do harm to: queries wait for a third of a second at most."""
    with running_system(settings.model_copy(update={"wait_timeout": 0.3})) as running:
        yield running


@pytest.fixture(scope="module")
def admin(system: System) -> Account:
    """The admin of the module's tenant."""
    return system.new_user(system.new_tenant())


@pytest.fixture(scope="module")
def operator(system: System, admin: Account) -> Account:
    """An operator of the same tenant."""
    return system.new_user(admin.tenant_id, role="operator")


@pytest.fixture(scope="session")
def root(system: System) -> Account:
    """A superuser, in a tenant of the house."""
    return system.new_user(system.new_tenant("Operator", plan="enterprise"), superuser=True)
