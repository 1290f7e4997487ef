"""`evosense reembed`: move a tenant to another embedding model."""

import asyncio
import time
from collections import defaultdict
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from eventsourcing.persistence import PersistenceError
from rich.markup import escape
from rich.table import Table

from adapters.settings import Settings
from api.cli.projecting import bar, projecting
from api.cli.screen import CommandError, console
from api.commands import Contended
from api.model_catalogue import Catalogue
from api.reembedding import Moved, Progress, move
from api.wiring import ReadSide, WriteSide, write_side
from domain.embedding_models import EmbeddingModels, embedding_models
from domain.errors import DomainError
from domain.ports import Embedder, ModelUnavailable, Usage
from sql import queries

_REEMBED: Final = queries("reembed")
_AGAIN: Final = "start the same command again and it goes on where it was"


def reembed(
    tenant: Annotated[str | None, typer.Option(help="The tenant's UUID, or its name where only one has it.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to move to.")] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Show the models there are, and which vectors each tenant has.")
    ] = False,
) -> None:
    """Move a tenant's search by meaning to another embedding model; without options, show what there is.

    The old model answers until every message has a vector of the new one. The system may be up meanwhile or not. Can be
    stopped and started again at any time.
    """
    listed = listed or (tenant is None and model is None)
    if not listed and (tenant is None or model is None):
        raise CommandError("give both --tenant and --model, or neither to see what there is")
    if listed and (tenant is not None or model is not None):
        raise CommandError("--list shows everything: give it alone")
    # Before anything is opened: a wrong name costs nothing.
    catalogue = Catalogue.of(Settings.load())
    embedder = None if model is None else _embedder(catalogue, model)
    with projecting() as (settings, side):
        write = write_side(settings)
        try:
            if embedder is None or tenant is None:
                console.print(_models(catalogue))
                console.print(_tenants(side, write))
            else:
                _move(side, write, tenant, catalogue, embedder)
        except PersistenceError as error:
            raise CommandError(f"the database can't be worked with ({type(error).__name__}): {_AGAIN}") from None
        except ModelUnavailable as error:
            raise CommandError(
                f"the model server can't be asked ({error}); the old model still answers: {_AGAIN}"
            ) from None
        except (DomainError, Contended) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            console.print(f"stopped: the old model still answers; {_AGAIN}")
            raise
        finally:
            write.close()


def _move(side: ReadSide, write: WriteSide, wanted: str, catalogue: Catalogue, embedder: Embedder) -> None:
    found = _tenant(side, wanted)
    tenant_id, name = found["id"], embedder.model_name
    state = write.log.load(embedding_models(tenant_id))
    old = state.answering or found["model"] or catalogue.embedders.default.model_name
    if state.moving_to == name:
        console.print(f"going on with the move to {name}", soft_wrap=True)
    elif state.moving_to is not None:
        console.print(f"this takes the place of an unfinished move to {state.moving_to}", soft_wrap=True)
    started = time.monotonic()
    with bar() as progress:
        task = progress.add_task("reading the log", total=None, rate="")

        def show(now: Progress) -> None:
            rate = round(now.embedded / max(0.001, time.monotonic() - started))
            doing = "reading the log" if now.waiting is None else f"waiting for the model server: {escape(now.waiting)}"
            progress.update(task, total=now.head, completed=now.position, rate=f"{rate:,} vectors/s", description=doing)

        async def moving() -> Moved:
            try:
                return await move(write, tenant_id, embedder, old, on_progress=show)
            finally:
                await catalogue.close()

        done = asyncio.run(moving())
    took = f"{time.monotonic() - started:.1f} s"
    if not done.adopted and not done.embedded:
        console.print(f"nothing to do: {name} answers for {found['name']}, with {done.messages:,} messages ({took})")
        return
    console.print(
        f"{done.embedded:,} of {found['name']}'s {done.messages:,} messages were embedded by this run ({took}). "
        f"From position {done.position:,} on {name} answers"
        + (f", instead of {old}" if done.adopted and old != name else "")
        + _cost(done.usage),
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def _cost(usage: Usage) -> str:
    if not usage.calls:
        return ""
    dollars = f", {usage.cost / 1_000_000:,.4f} US dollars by the configured prices" if usage.cost else ""
    return f". It took {usage.calls:,} calls and {usage.input_tokens:,} tokens{dollars}"


def _embedder(catalogue: Catalogue, name: str) -> Embedder:
    embedders = catalogue.embedders
    found = embedders.get(name)
    if found is None:
        there = ", ".join(embedder.model_name for embedder in embedders)
        raise CommandError(f"there is no model {name!r}; there are: {there}")
    return found


def _tenant(side: ReadSide, wanted: str) -> dict[str, Any]:
    with side.connect() as conn:
        found = list(_REEMBED.tenants(conn, wanted=wanted))
        if len(found) == 1:
            return dict(found[0])
        if found:
            ids = ", ".join(str(row["id"]) for row in found)
            raise CommandError(f"{len(found)} tenants are called {wanted!r}: give the id of one of them ({ids})")
        if not _is_uuid(wanted):
            raise CommandError(f"no tenant is called {wanted!r}: `evosense reembed --list` shows the tenants")
    raise CommandError(f"there is no tenant {wanted}: `evosense reembed --list` shows the tenants")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _models(catalogue: Catalogue) -> Table:
    embedders = catalogue.embedders
    servers = {embedder.model_name: embedder.name for embedder in catalogue.served_embedders}
    table = Table("model", "server", "", title="models of this installation")
    for embedder in embedders:
        name = embedder.model_name
        table.add_row(escape(name), servers.get(name, "-"), "default" if embedder is embedders.default else "")
    return table


def _tenants(side: ReadSide, write: WriteSide) -> Table:
    with side.connect() as conn:
        tenants = list(_REEMBED.tenants(conn, wanted=None))
        counts: defaultdict[UUID, list[dict[str, Any]]] = defaultdict(list)
        for row in _REEMBED.vectors(conn):
            counts[row["tenant_id"]].append(row)
    states = {state.id: state for state in write.log.load_many([embedding_models(row["id"]) for row in tenants])}
    table = Table("tenant", "id", "model", "vectors", "messages", "", title="vectors")
    for column in table.columns[1:3]:  # what one would copy
        column.overflow = "fold"
    for tenant in tenants:
        state = states[embedding_models(tenant["id"]).id]
        rows = counts[tenant["id"]] or [{"model": None, "vectors": 0, "messages": 0}]
        for row in rows:
            table.add_row(
                tenant["name"],
                str(tenant["id"]),
                row["model"] or "-",
                f"{row['vectors']:,}",
                f"{row['messages']:,}",
                _role(row["model"], tenant["model"], state),
            )
    return table


def _role(model: str | None, answering: str | None, state: EmbeddingModels) -> str:
    if model is None:
        return ""
    if model == answering:
        return "answers"
    return "is being moved to" if model == state.moving_to else "not read"
