"""Connection: one instance of Evolution API that speaks to us, and the secret it proves itself with."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Self
from urllib.parse import urlsplit
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id, with_zone
from domain.errors import AlreadyExists, Invalid, NotFound
from domain.event import SEALED, Event, event_type
from domain.limits import fitting, storable

#: The documented column is `varchar(255)` and holds the token encrypted.
MAX_SEALED_TOKEN: Final = 255
#: The documented column `messages_message.sender`.
MAX_SENDER: Final = 64
#: What an instance may be.
STATES: Final = ("open", "connecting", "close")
#: Larger reasons are none.
MAX_REASON: Final = 999_999
#: WhatsApp's numbers for an end that Evolution does not try to get over: logged out, forbidden, and the like.
FINAL_REASONS: Final = frozenset({401, 402, 403, 406})
#: For so long after an end, yet another passing reason for it is no change.
QUIET: Final = timedelta(minutes=15)
#: Evolution retries a delivery for 20 minutes: what its clock puts so far before the last state is a late one.
_LATE: Final = timedelta(minutes=30)


@event_type("connections.ConnectionRegistered")
class ConnectionRegistered(Event, frozen=True, kw_only=True):
    """An Evolution instance may send us messages.

    `sealed_token` is the token encrypted with the tenant's key when it was given: the read model copies it, so a
    rebuild gives the same bytes. `company_sender` is the keyed hash that stands as the sender of what the company
    itself writes on this connection.
    """

    name: str
    evo_ws_url: str
    sealed_token: Annotated[str, SEALED]
    company_sender: str


@event_type("connections.TokenRotated")
class TokenRotated(Event, frozen=True, kw_only=True):
    """The instance proves itself with another token from now on."""

    sealed_token: Annotated[str, SEALED]


@event_type("connections.ConnectionActivated")
class ConnectionActivated(Event, frozen=True, kw_only=True):
    """Messages of this connection are accepted again."""


@event_type("connections.ConnectionDeactivated")
class ConnectionDeactivated(Event, frozen=True, kw_only=True):
    """Messages of this connection are refused."""


@event_type("connections.ConnectionStateChanged")
class ConnectionStateChanged(Event, frozen=True, kw_only=True):
    """The instance told that it is in another state: `open`, `connecting` or `close`, with WhatsApp's number for why.

    `told_at` is the Evolution server's own clock, whose zone can't be relied on: it is good for nothing but to be
    compared with another one of the same server. `connections.md` says which changes are recorded.
    """

    state: str
    reason: int | None
    told_at: datetime | None


class RegisterConnection(Command, frozen=True, kw_only=True):
    """Let an Evolution instance send us messages."""

    tenant_id: UUID
    name: str
    evo_ws_url: str
    sealed_token: str
    company_sender: str


class RotateToken(Command, frozen=True, kw_only=True):
    """Set another token."""

    sealed_token: str


class ActivateConnection(Command, frozen=True, kw_only=True):
    """Accept messages again."""


class DeactivateConnection(Command, frozen=True, kw_only=True):
    """Refuse messages from now on."""


class ReportState(Command, frozen=True, kw_only=True):
    """The instance tells its state; see `ConnectionStateChanged`."""

    state: str
    reason: int | None = None
    told_at: datetime | None = None


class Connection(Aggregate, frozen=True, kw_only=True):
    """State of a connection. Its stream id is derived from tenant and name, which makes names unique in a tenant.

    `instance` is the last recorded state of the Evolution instance; None where it never told one.
    """

    tenant_id: UUID | None = None
    name: str = ""
    evo_ws_url: str = ""
    sealed_token: str = ""
    company_sender: str = ""
    is_active: bool = False
    instance: ConnectionStateChanged | None = None

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case ConnectionRegistered():
                return replace(
                    after,
                    tenant_id=event.tenant_id,
                    name=event.name,
                    evo_ws_url=event.evo_ws_url,
                    sealed_token=event.sealed_token,
                    company_sender=event.company_sender,
                    is_active=True,
                )
            case TokenRotated():
                return replace(after, sealed_token=event.sealed_token)
            case ConnectionActivated():
                return replace(after, is_active=True)
            case ConnectionDeactivated():
                return replace(after, is_active=False)
            case ConnectionStateChanged():
                return replace(after, instance=event)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`."""
        if isinstance(command, RegisterConnection):
            return self._register(command)
        if self.tenant_id is None:
            raise NotFound("there is no such connection")
        match command:
            case RotateToken():
                _check_token(command.sealed_token)
                return (self._event(TokenRotated, command, self.tenant_id, sealed_token=command.sealed_token),)
            case ActivateConnection():
                return () if self.is_active else (self._event(ConnectionActivated, command, self.tenant_id),)
            case DeactivateConnection():
                return (self._event(ConnectionDeactivated, command, self.tenant_id),) if self.is_active else ()
            case ReportState():
                return self._report(command, self.tenant_id)
        raise Invalid(f"a connection does not understand {type(command).__name__}")

    def _report(self, command: ReportState, tenant_id: UUID) -> tuple[Event, ...]:
        if command.state not in STATES:
            raise Invalid(f"a connection's state is one of {', '.join(STATES)}")
        if command.reason is not None and not 0 <= command.reason <= MAX_REASON:
            raise Invalid(f"the reason of a state is a number up to {MAX_REASON}")
        with_zone("at", command.at)
        told_at = None if command.told_at is None else with_zone("told_at", command.told_at)
        if not self._is_change(command):
            return ()
        return (
            self._event(
                ConnectionStateChanged,
                command,
                tenant_id,
                state=command.state,
                reason=command.reason,
                told_at=told_at,
            ),
        )

    def _is_change(self, told: ReportState) -> bool:
        """Whether it is worth an event: an instance that can't connect tells `connecting` and `close` without end."""
        last = self.instance
        if last is None:
            return True
        if told.told_at and last.told_at and timedelta(0) < last.told_at - told.told_at <= _LATE:
            return False
        match told.state:
            case "open":
                return last.state != "open"
            case "connecting":
                # An attempt after an end is not recorded, its outcome is.
                return last.state == "open"
        if last.state != "close":
            return True
        return told.reason != last.reason and (told.reason in FINAL_REASONS or told.at - last.at >= QUIET)

    def _register(self, command: RegisterConnection) -> tuple[Event, ...]:
        if self.exists:
            raise AlreadyExists(f"the tenant has a connection of the name {command.name!r} already")
        name = connection_name(command.name)
        if self.id != connection_id(command.tenant_id, name):
            raise Invalid("the connection's id does not belong to that tenant and name")
        _check_url(command.evo_ws_url)
        _check_token(command.sealed_token)
        fitting("company_sender", command.company_sender, MAX_SENDER, least=1)
        return (
            self._event(
                ConnectionRegistered,
                command,
                command.tenant_id,
                name=name,
                evo_ws_url=command.evo_ws_url,
                sealed_token=command.sealed_token,
                company_sender=command.company_sender,
            ),
        )


def connection_name(name: str) -> str:
    """The name as it is kept: trimmed. Raises `Invalid` if it can't be one."""
    return fitting("a connection's name", name.strip(), 80, least=1)


def connection_id(tenant_id: UUID, name: str) -> UUID:
    """The stream id of a tenant's connection of that name."""
    return derived_id("connection", tenant_id, connection_name(name))


def connection(identifier: UUID) -> Connection:
    """The connection of that id before anything has happened."""
    return Connection(id=identifier)


def _check_url(evo_ws_url: str) -> None:
    storable("evo_ws_url", evo_ws_url)
    try:
        url = urlsplit(evo_ws_url)
        usable = url.scheme in ("http", "https", "ws", "wss") and bool(url.hostname) and url.port != 0
    except ValueError:  # brackets or a port that are none
        usable = False
    if not usable:
        raise Invalid("evo_ws_url is the address of the Evolution server, such as https://evo.example.com")
    if url.username or url.password:
        raise Invalid("evo_ws_url must not hold a user name or password: the token has a field of its own")


def _check_token(sealed_token: str) -> None:
    if len(sealed_token) > MAX_SEALED_TOKEN:
        raise Invalid("the token is too long: at most 160 characters fit the documented column once encrypted")
