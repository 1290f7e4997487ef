"""`evosense models`: which models there are, who has chosen which, what they cost today, and whether one answers."""

import asyncio
import time
from typing import Annotated, Any, Final, cast
from urllib.parse import urlsplit
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from adapters.migrations import SchemaTooOld, require_current_schema
from adapters.model_server import AnalyserServer
from adapters.postgres import connect
from adapters.settings import Settings
from api.chains import OFFLINE, chain_of, is_served
from api.cli.installation import configured
from api.cli.screen import CommandError, console
from api.model_catalogue import Catalogue
from api.usage import today
from api.wiring import write_side
from domain.errors import DomainError
from domain.masking import mask
from domain.model_choices import ModelChoice, model_choice
from domain.ports import Analyser, Analysis, AnswerRefused, ModelUnavailable, Prompt, Question, Usage
from sql import queries

app = typer.Typer(help="The models that analyse and embed: list, test.", invoke_without_command=True)

_USAGE: Final = queries("usage")
_REEMBED: Final = queries("reembed")
_SAMPLE: Final = "Bom dia! O bolo chegou amassado e ninguém me respondeu, quero meu dinheiro de volta."
_NOBODY: Final = UUID(int=0)


@app.callback()
def models(context: typer.Context) -> None:
    """Show the configured models, each tenant's choice, and what its models cost today.

    Keys are never shown, and of addresses the host alone.
    """
    if context.invoked_subcommand is not None:
        return
    with configured(start=False) as settings:
        catalogue = Catalogue.of(settings)
        require_current_schema(settings.runtime_dsn)
        console.print(_servers(catalogue))
        default = " → ".join(catalogue.chain)
        console.print(f"asked where a tenant chose nothing: [bold]{escape(default)}[/]", soft_wrap=True)
        console.print(f"daily budget of a tenant: {_usd(settings.daily_budget_in_millionths) or 'no limit'}")
        console.print(_tenants(settings, catalogue))


@app.command("test")
def try_(
    name: Annotated[str | None, typer.Argument(help="The analyser; the first of the chain without it.")] = None,
    text: Annotated[str, typer.Option(help="What to ask it about. It is masked first.")] = _SAMPLE,
) -> None:
    """Ask an analyser about one message, and show its answer and what it took, or what is wrong.

    Counts for no tenant's budget, and asks with the prompt that is active; with the built-in one where no system runs.
    Exits with 1 where there is no valid answer.
    """
    catalogue = Catalogue.of(Settings.load())
    known = [*(one.name for one in catalogue.served_analysers), OFFLINE]
    wanted = name or catalogue.chain[0]
    if wanted not in known:
        raise CommandError(f"there is no analyser {wanted!r}: there are {', '.join(known)}")
    masked = mask(text)
    console.print(f"asking [bold]{escape(wanted)}[/] about: {escape(masked)}", soft_wrap=True)
    try:
        rows = asyncio.run(_asked(catalogue, wanted, masked, _prompt()))
    except ModelUnavailable as error:
        retry = f" (try again in {error.retry_after:.0f} s)" if error.retry_after else ""
        raise CommandError(f"the analyser {wanted!r} can't be asked: {error}{retry}") from None
    except AnswerRefused as error:
        raise CommandError(
            f"the analyser {wanted!r} answers, and not as it was asked to: {error} ({_took(error.usage)})"
        ) from None
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    for title, value in rows:
        grid.add_row(title, escape(value))
    console.print(grid)


def _prompt() -> Prompt:
    # Here, as their template engine is for this alone.
    from adapters.analysis.rendering import BUILT_IN  # noqa: PLC0415
    from api.active_prompt import ActivePrompt  # noqa: PLC0415

    try:
        with configured(start=False) as settings:
            require_current_schema(settings.runtime_dsn)
            write = write_side(settings)
            try:
                return ActivePrompt(write.log).current()
            finally:
                write.close()
    except (CommandError, SchemaTooOld):
        return BUILT_IN  # a model can be tried before there is a system


async def _asked(catalogue: Catalogue, name: str, text: str, prompt: Prompt) -> list[tuple[str, str]]:
    analyser = catalogue.analysers[name]
    try:
        if not is_served(analyser):
            return await _computed(cast(Analyser, analyser), text)
        question = Question(tenant_id=_NOBODY, message_id=_NOBODY, text=text)
        answer = await analyser.ask(question, prompt)
    finally:
        await catalogue.close()
    told = _told(answer.model_name, answer.prompt_version, answer.analysis, answer.latency_ms)
    return [*told, ("took", _took(answer.usage))]


async def _computed(analyser: Analyser, text: str) -> list[tuple[str, str]]:
    await analyser.analyse(["bom dia"])  # which loads the model
    started = time.perf_counter()
    try:
        (analysis,) = await analyser.analyse([text])
    except DomainError as error:
        raise AnswerRefused(str(error)) from None
    latency_ms = round(1000 * (time.perf_counter() - started))
    return _told(analyser.model_name, analyser.prompt_version, analysis, latency_ms)


def _told(model: str, prompt: str, said: Analysis, latency_ms: int) -> list[tuple[str, str]]:
    return [
        ("model", model),
        ("prompt", prompt),
        ("sentiment", f"{said.sentiment:+.2f}"),
        ("emotion", said.emotion),
        ("satisfaction", str(said.satisfaction)),
        ("tone", said.tone),
        ("summary", said.summary),
        ("answered in", f"{latency_ms:,} ms"),
    ]


def _took(used: Usage) -> str:
    tokens = f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out"
    return f"{used.calls} call{'s' if used.calls != 1 else ''}, {tokens}, {_usd(used.cost)}"


def _servers(catalogue: Catalogue) -> Table:
    table = Table("name", "what", "model", "server", title="models")
    for server in catalogue.servers:
        what = f"analysis ({server.kind})" if isinstance(server, AnalyserServer) else "embedding (openai)"
        host = urlsplit(server.url).hostname or "?"
        table.add_row(escape(server.name), what, escape(server.model), escape(host))
    table.add_row(OFFLINE, "analysis", "offline", "this process")
    return table


def _tenants(settings: Settings, catalogue: Catalogue) -> Table:
    with connect(settings.runtime_dsn, "evosense_projector") as conn:
        tenants = list(_REEMBED.tenants(conn, wanted=None))
    write = write_side(settings)
    try:
        states = write.log.load_many([model_choice(row["id"]) for row in tenants])
        choices: dict[UUID, ModelChoice] = {one.id: one for one in states}
        with write.datastore.get_connection() as conn_:
            used = {row["tenant_id"]: row for row in _USAGE.of_day(conn_, day=today())}
    finally:
        write.close()
    title = f"tenants, {today()} (UTC)"
    table = Table("tenant", "asked", "calls", "cached", "tokens in", "out", "cost", "budget", title=title)
    for column in table.columns[1:]:
        column.overflow = "fold"  # on a narrow screen a figure goes on below, and is not cut off
    for column in table.columns[2:]:
        column.justify = "right"
    names = [server.name for server in catalogue.servers if isinstance(server, AnalyserServer)]
    for row in tenants:
        choice = choices[model_choice(row["id"]).id]
        chain = chain_of(choice, names, catalogue.chain, settings.daily_budget_in_millionths)
        asked = " → ".join(chain.names) if choice.analysers else "as configured"
        if missing := [name for name in choice.analysers if name not in (*names, OFFLINE)]:
            asked += f"\nno longer configured: {', '.join(missing)}"
        figures: dict[str, Any] = used.get(row["id"], {})
        columns = ("calls", "cached", "input_tokens", "output_tokens")
        cost = figures.get("cost", 0)
        budget = _usd(chain.daily_budget) or "no limit"
        if chain.daily_budget is not None and cost >= chain.daily_budget:
            budget += "\nspent: offline answers"
        numbers = (f"{figures.get(column, 0):,}" for column in columns)
        table.add_row(f"{escape(row['name'])}\n{row['id']}", escape(asked), *numbers, _usd(cost), budget)
    return table


def _usd(millionths: int | None) -> str:
    return "" if millionths is None else f"${millionths / 1_000_000:,.6f}"
