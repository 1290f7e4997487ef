"""The first admin: a superuser in a tenant of the operator's own, so that somebody can let the others in."""

from typing import Final

from adapters.passwords import Passwords
from api.services import now
from api.wiring import WriteSide
from domain.aggregate import derived_id
from domain.authn import RegisterUser, user, user_id
from domain.tenancy import RegisterTenant, tenant

#: User name of the first admin.
ADMIN: Final = "admin"
_HOME_TENANT: Final = derived_id("tenant", "operator")


def ensure_first_admin(write: WriteSide, password: str) -> bool:
    """Register the first admin with that password; does nothing, and says False, where there is one already."""
    identifier = user_id(ADMIN)
    if write.log.load(user(identifier)).exists:
        return False
    moment = now()
    if not write.log.load(tenant(_HOME_TENANT)).exists:
        write.vault.create(_HOME_TENANT)
        write.commands.handle(
            tenant(_HOME_TENANT), RegisterTenant(at=moment, name="Operator", plan="enterprise"), new=True
        )
    command = RegisterUser(
        at=moment,
        tenant_id=_HOME_TENANT,
        username=ADMIN,
        password_hash=Passwords().hash(password),
        role="admin",
        is_superuser=True,
    )
    write.commands.handle(user(identifier), command, new=True)
    return True
