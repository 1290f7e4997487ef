"""The header `Idempotency-Key`: the same key with the same command is answered as it was the first time.

The outcome is kept in the log, in the same transaction as the command's events, and for as long as the log.
"""

import asyncio
from hashlib import sha256
from typing import Annotated, Any

from litestar import Request
from litestar.params import HeaderParameter

from api.commands import Key
from api.security import Principal
from api.services import Services, now
from domain.receipts import receipt_id

Header = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        required=False,
        description="any text of your own choice: a command that comes again with it is answered as the first time",
    ),
]


async def provide_key(request: Request[Principal, Any, Any], services: Services, text: Header = None) -> Key | None:
    """The key that came with a command, with a keyed hash of method, path and body; None where none came."""
    if text is None:
        return None
    command = sha256(f"{request.method} {request.url.path}\n".encode() + await request.body()).hexdigest()
    user = request.user
    # Keyed with the tenant's own key: a body may hold a password, and the hash stands in the log.
    tenant_key = await asyncio.to_thread(services.write.vault.key, user.tenant_id)
    return Key(user.tenant_id, receipt_id(user.user_id, text), tenant_key.pseudonym(f"command:{command}"), now())
