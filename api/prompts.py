"""Prompts: what a served model is told before a message. Superusers make versions, admins may read them."""

import asyncio
import threading
from collections.abc import Collection
from datetime import datetime
from difflib import unified_diff
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import Parameter
from psycopg import AsyncConnection

from adapters.analysis.rendering import BUILT_IN, PromptError, render
from api.commands import Done, Key
from api.common import Accepted, Page, PageSize, WaitFor, accepted, cursor_page, until_reached
from api.problems import ProblemError
from api.security import Principal, admins_only, superusers_only
from api.services import Services, now
from domain.aggregate import Command
from domain.ports import Prompt
from domain.prompts import (
    INSTALLATION,
    MAX_CREATED_BY,
    ActivatePrompt,
    CreatePrompt,
    PromptTemplates,
    RetirePrompt,
    is_version,
    prompt_templates,
)
from sql import queries

_EXPERIMENTS: Final = queries("experiments", "apsycopg")

#: One stream has room for one command at a time: who is let in together would only be outrun there.
_ONE_BY_ONE: Final = threading.Lock()

#: `ready`: can be activated. `retired`: never again; the built-in prompt is retired by the first activation.
State = Literal["active", "ready", "retired"]


class NewPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version to make: its name, its template (docs/prompts.md), and what is to be said of it."""

    version: str
    body: str
    description: str | None = None


class PromptCreated(msgspec.Struct, frozen=True):
    """The version, and the position that queries can wait for."""

    version: str
    position: int
    #: There was this version already, with the same body and description.
    duplicate: bool


class PromptRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version. The built-in one has the id 0, and no time. Who created it is shown to superusers alone."""

    id: int
    version: str
    description: str | None
    state: State
    built_in: bool
    created_at: datetime | None
    created_by: str | None


class PromptDetail(PromptRow, frozen=True, kw_only=True):
    """A version with its template, and as a model gets it; where it can't be rendered, `problem` says why."""

    body: str
    rendered: str | None
    problem: str | None


class PromptDiff(msgspec.Struct, frozen=True):
    """What `version` has that `against` has not: as a unified diff, and line by line."""

    version: str
    against: str
    diff: str
    added: list[str]
    removed: list[str]


Against = Annotated[
    str | None,
    Parameter(required=False, description="the version to compare with; the active one where none is named"),
]


@post("/prompts", guards=[superusers_only])
async def create_prompt(
    data: NewPrompt, services: Services, principal: Principal, key: Key | None
) -> Response[PromptCreated]:
    """Make a version of the prompt, which never changes. It is given to models once it is activated."""
    # A user name may be longer than the documented column.
    author = principal.username
    command = CreatePrompt(
        at=now(),
        version=data.version,
        body=data.body,
        description=data.description,
        created_by=author if len(author) <= MAX_CREATED_BY else f"{author[: MAX_CREATED_BY - 1]}…",
    )
    done = await asyncio.to_thread(_create, services, command, key)
    return accepted(done, PromptCreated(data.version, done.position, done.duplicate))


@get("/prompts", guards=[admins_only])
async def list_prompts(
    services: Services,
    principal: Principal,
    limit: PageSize = 50,
    after: Annotated[int | None, Parameter(ge=0, le=2**63 - 1, required=False)] = None,
    wait_for: WaitFor = None,
) -> Page[PromptRow]:
    """All versions: the built-in one, then the others in the order in which they were created."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [row async for row in _EXPERIMENTS.prompts(conn, after=after or 0, page=limit + 1)]
    if after is None:
        rows.insert(0, _built_in(active=not rows or not rows[0]["replaced"]))
    retired = await _retired(services)
    return cursor_page(rows, [PromptRow(**_shown(row, retired, principal)) for row in rows], limit)


@get("/prompts/{version:str}", guards=[admins_only])
async def get_prompt(version: str, services: Services, principal: Principal, wait_for: WaitFor = None) -> PromptDetail:
    """One version, with its template and what it is rendered to."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _row(conn, version)
    rendered, problem = _rendered(Prompt(version, row["body"]))
    shown = _shown(row, await _retired(services), principal)
    return PromptDetail(**shown, body=row["body"], rendered=rendered, problem=problem)


@get("/prompts/{version:str}/diff", guards=[admins_only])
async def diff_prompts(
    version: str, services: Services, principal: Principal, against: Against = None, wait_for: WaitFor = None
) -> PromptDiff:
    """What a version has that another one has not, and the other way round."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        new = await _row(conn, version)
        old = await _row(conn, against) if against is not None else await _EXPERIMENTS.active_prompt(conn)
    old = old or _built_in(active=True)
    return await asyncio.to_thread(_diff, Prompt(version, new["body"]), Prompt(old["version"], old["body"]))


@post("/prompts/{version:str}/activate", guards=[superusers_only], status_code=200)
async def activate_prompt(version: str, services: Services, key: Key | None) -> Response[Accepted]:
    """Give models this version from now on. What was analysed before stays as it is."""
    done = await asyncio.to_thread(_activate, services, ActivatePrompt(at=now(), version=version), key)
    return accepted(done, Accepted(done.position, done.duplicate))


@post("/prompts/{version:str}/retire", guards=[superusers_only], status_code=200)
async def retire_prompt(version: str, services: Services, key: Key | None) -> Response[Accepted]:
    """See to it that a version is never activated again; the active one can't be retired."""
    done = await asyncio.to_thread(_handle, services, RetirePrompt(at=now(), version=version), key)
    return accepted(done, Accepted(done.position, done.duplicate))


# ------------------------------------------------------------------------------------------------ commands


def _create(services: Services, command: CreatePrompt, key: Key | None) -> Done:
    """Blocks. Raises `PromptError` where the template is none."""
    state = services.aggregates.load(prompt_templates())
    state.decide(command)  # refused before a key is made
    render(Prompt(command.version, command.body))
    if not state.exists:
        services.write.vault.create(INSTALLATION)
    return _handle(services, command, key)


def _activate(services: Services, command: ActivatePrompt, key: Key | None) -> Done:
    """Blocks. Raises `PromptError` where this program can't render what an earlier one could."""
    template = services.aggregates.load(prompt_templates()).named(command.version)
    render(Prompt(command.version, template.body))
    return _handle(services, command, key)


def _handle(services: Services, command: Command, key: Key | None) -> Done:
    with _ONE_BY_ONE:
        return services.write.commands.handle(prompt_templates(), command, key=key)


# ------------------------------------------------------------------------------------------------ queries


async def _retired(services: Services) -> Collection[str]:
    """The versions that can't be activated any more, as the log has it: the documented table has no column for it."""
    state: PromptTemplates = await asyncio.to_thread(services.aggregates.load, prompt_templates())
    return {version for version, template in state.templates.items() if template.retired}


async def _row(conn: AsyncConnection[Any], version: str) -> dict[str, Any]:
    """Raises `ProblemError` 404."""
    if version == BUILT_IN.version:
        return _built_in(active=await _EXPERIMENTS.active_prompt(conn) is None)
    # What is no version at all may hold what PostgreSQL can't take.
    row: dict[str, Any] | None = await _EXPERIMENTS.prompt(conn, version=version) if is_version(version) else None
    if row is None:
        raise ProblemError(404, "there is no prompt of that version")
    return row


def _built_in(*, active: bool) -> dict[str, Any]:
    """The prompt that comes with the program, as if it had a row."""
    return {
        "id": 0,
        "version": BUILT_IN.version,
        "body": BUILT_IN.body,
        "description": "comes with the program",
        "is_active": active,
        "created_at": None,
        "created_by": None,
    }


def _shown(row: dict[str, Any], retired: Collection[str], principal: Principal) -> dict[str, Any]:
    built_in = row["id"] == 0
    state: State = "ready"
    if row["is_active"]:
        state = "active"
    elif built_in or row["version"] in retired:
        state = "retired"
    return {
        "id": row["id"],
        "version": row["version"],
        "description": row["description"],
        "state": state,
        "built_in": built_in,
        "created_at": row["created_at"],
        # A superuser's name is none of the tenants' business.
        "created_by": row["created_by"] if principal.is_superuser else None,
    }


def _rendered(prompt: Prompt) -> tuple[str | None, str | None]:
    """As a model gets it, or why it can't be: this program may be a later one than that which took it in."""
    try:
        return render(prompt).system, None
    except PromptError as error:
        return None, str(error)


def _diff(new: Prompt, old: Prompt) -> PromptDiff:
    # Not `splitlines`: a form feed ends no line of a template.
    lines = list(unified_diff(old.body.split("\n"), new.body.split("\n"), old.version, new.version, lineterm=""))
    # The first two name the versions.
    changed = lines[2:]
    return PromptDiff(
        new.version,
        old.version,
        "".join(f"{line}\n" for line in lines),
        [line[1:] for line in changed if line.startswith("+")],
        [line[1:] for line in changed if line.startswith("-")],
    )


HANDLERS: list[Any] = [create_prompt, list_prompts, get_prompt, diff_prompts, activate_prompt, retire_prompt]
