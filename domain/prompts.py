"""Prompt templates: the versions of the instructions that a served model is given, and which one is active.

They are the installation's, not a tenant's. All versions share one stream: that exactly one of them is active is a rule
about all of them, and a stream is what decides at one point in time (docs/adr/0039).
"""

import re
from typing import Annotated, Final, Self
from uuid import UUID

import msgspec
from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id
from domain.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from domain.event import SEALED, Event, event_type
from domain.limits import fitting, storable

#: Whose the prompts' events are: no tenant's, so that no tenant's erasure takes them along. It has a key, and no row.
INSTALLATION: Final = derived_id("tenant", "installation")
#: Beginnings of the versions of prompts that come with the program, and of the rules of the offline analyser.
RESERVED: Final = ("evosense-", "offline-")
MAX_BODY_BYTES: Final = 16 * 1024
MAX_LINES: Final = 1000
MAX_DESCRIPTION: Final = 1000
#: The documented column `experiments_prompttemplate.created_by`.
MAX_CREATED_BY: Final = 100
# It stands in addresses, where `.` and `..` would be places: so it begins with a letter or a digit.
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@event_type("prompts.PromptTemplateCreated")
class PromptTemplateCreated(Event, frozen=True, kw_only=True):
    """There is another version. `created_by` is a user name. The body is open: an auditor without keys can read it."""

    version: str
    body: str
    description: Annotated[str | None, SEALED]
    created_by: Annotated[str | None, SEALED]


@event_type("prompts.PromptTemplateActivated")
class PromptTemplateActivated(Event, frozen=True, kw_only=True):
    """From here on `version` is the one that models are given; `replaces` was until now, None: the built-in one."""

    version: str
    replaces: str | None


@event_type("prompts.PromptTemplateRetired")
class PromptTemplateRetired(Event, frozen=True, kw_only=True):
    """The version is never to be activated again."""

    version: str


class CreatePrompt(Command, frozen=True, kw_only=True):
    """Make a version. It is not active by that."""

    version: str
    body: str
    description: str | None = None
    created_by: str | None = None


class ActivatePrompt(Command, frozen=True, kw_only=True):
    """Give models this version from now on."""

    version: str


class RetirePrompt(Command, frozen=True, kw_only=True):
    """See to it that a version is never activated again."""

    version: str


class PromptTemplate(msgspec.Struct, frozen=True):
    """A version as it was created, and whether it was retired since."""

    body: str
    description: str | None
    retired: bool = False


class PromptTemplates(Aggregate, frozen=True, kw_only=True):
    """State of all versions. `active` is None until one was activated for the first time: then the built-in one is."""

    templates: dict[str, PromptTemplate] = msgspec.field(default_factory=dict)
    active: str | None = None

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case PromptTemplateCreated():
                return replace(after, templates=self.templates | {event.version: _template(event)})
            case PromptTemplateActivated():
                return replace(after, active=event.version)
            case PromptTemplateRetired():
                retired = replace(self.templates[event.version], retired=True)
                return replace(after, templates=self.templates | {event.version: retired})
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. What is already so needs no event."""
        match command:
            case CreatePrompt():
                return self._create(command)
            case ActivatePrompt():
                return self._activate(command)
            case RetirePrompt():
                return self._retire(command)
        raise Invalid(f"prompts do not understand {type(command).__name__}")

    def named(self, version: str) -> PromptTemplate:
        """A version. Raises `NotFound`, and `NotAllowed` for one that is no template: it comes with the program."""
        found = self.templates.get(version)
        if found is not None:
            return found
        if _reserved(version):
            raise NotAllowed(
                f"{RESERVED[0]}… and {RESERVED[1]}… come with the program and can't be activated or retired: "
                "create a version with the same body"
            )
        raise NotFound("there is no prompt of that version")

    def _create(self, command: CreatePrompt) -> tuple[Event, ...]:
        if not is_version(command.version):
            raise Invalid(
                "a prompt's version has 1 to 64 characters: letters a to z, digits and . _ -, "
                "the first a letter or a digit"
            )
        if _reserved(command.version):
            raise Invalid(
                f"versions that begin with {RESERVED[0]} or {RESERVED[1]} come with the program: take another one"
            )
        _check_body(command.body)
        description = (command.description or "").strip() or None
        if description is not None:
            fitting("a prompt's description", description, MAX_DESCRIPTION)
        if command.created_by is not None:
            fitting("created_by", command.created_by, MAX_CREATED_BY, least=1)
        found = self.templates.get(command.version)
        if found is not None:
            if (found.body, found.description) == (command.body, description):
                return ()
            raise AlreadyExists(
                f"there is a prompt {command.version} already, with another body or description: "
                "versions never change, take another one"
            )
        return (
            self._event(
                PromptTemplateCreated,
                command,
                INSTALLATION,
                version=command.version,
                body=command.body,
                description=description,
                created_by=command.created_by,
            ),
        )

    def _activate(self, command: ActivatePrompt) -> tuple[Event, ...]:
        if self.named(command.version).retired:
            raise NotAllowed(f"the prompt {command.version} is retired: create another version with its body")
        if command.version == self.active:
            return ()
        return (
            self._event(PromptTemplateActivated, command, INSTALLATION, version=command.version, replaces=self.active),
        )

    def _retire(self, command: RetirePrompt) -> tuple[Event, ...]:
        if self.named(command.version).retired:
            return ()
        if command.version == self.active:
            raise NotAllowed(f"the prompt {command.version} is active: activate another one before it is retired")
        return (self._event(PromptTemplateRetired, command, INSTALLATION, version=command.version),)


def prompt_templates() -> PromptTemplates:
    """The installation's prompts before anything has happened."""
    return PromptTemplates(id=_STREAM)


_STREAM: Final[UUID] = derived_id("prompt templates", INSTALLATION)


def _template(event: PromptTemplateCreated) -> PromptTemplate:
    return PromptTemplate(event.body, event.description)


def is_version(text: str) -> bool:
    """Whether a version may be called so, one that comes with the program as well."""
    return _VERSION.fullmatch(text) is not None


def _reserved(version: str) -> bool:
    return version.lower().startswith(RESERVED)


def _check_body(body: str) -> None:
    size = len(storable("a prompt's body", body))
    if not body.strip():
        raise Invalid("a prompt's body is empty")
    if size > MAX_BODY_BYTES:
        raise Invalid(f"a prompt's body has at most {MAX_BODY_BYTES} bytes in UTF-8; this one has {size}")
    # What is compared line by line, for a user who waits, is kept short.
    if (lines := body.count("\n") + 1) > MAX_LINES:
        raise Invalid(f"a prompt's body has at most {MAX_LINES} lines; this one has {lines}")
