"""`evosense demo`: a week of a shop's conversations through the whole system, and what it makes of them."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import httpx
import typer
from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from adapters.settings import Settings
from api.accounts import ADMIN
from api.cli.demo_models import Said, first_answer, same_models, shown_first_answer, who_answered
from api.cli.installation import Installation
from api.cli.screen import CommandError, console
from api.cli.up import addresses
from api.demo_data import SEARCHES, envelopes
from api.model_catalogue import Catalogue

#: Seconds for which the system may take to start, and for which nothing may happen while messages wait for a model.
_SECONDS: Final = 120.0
_SENDERS: Final = 8
_INSTANCE: Final = "loja-centro"
_COLOURS: Final = {
    "alegria": "green",
    "gratidão": "green",
    "confiança": "green",
    "neutro": "white",
    "ansiedade": "yellow",
    "tristeza": "blue",
    "frustração": "red",
    "raiva": "red",
}


def demo(
    messages: Annotated[
        int | None, typer.Option(min=1, help="Send the last so many webhook calls alone: for a slow model.")
    ] = None,
) -> None:
    """Show the whole system at work on a week of a shop's WhatsApp conversations (invented, in Portuguese).

    Starts the system in the background where it is not up, and leaves it running for you to look around. With
    EVOSENSE_MODEL_URL and EVOSENSE_MODEL a model server analyses (docs/models.md).
    """
    settings = Settings.load()
    catalogue = Catalogue.of(settings)
    installation = Installation.of(settings)
    same_models(installation, catalogue)
    started = time.monotonic()
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        said = shown_first_answer(settings, catalogue, progress)
        step = progress.add_task("starting PostgreSQL, NATS and the roles", total=1)
        address = _started(installation)
        progress.update(step, completed=1)
        shown = asyncio.run(_show(installation, address, progress, settings, said, messages))
    console.print(shown)
    console.print(f"[dim]{time.monotonic() - started:.0f} s. All of it is invented, and all figures are computed.[/]")


def _started(installation: Installation) -> str:
    """Where the API is, once it is; starts the system in the background where nothing runs."""
    process = None
    if not installation.is_up():
        installation.prepare()
        installation.forget_state()
        environment = {**os.environ, "EVOSENSE_HOME": str(installation.home)}
        with installation.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "api.cli", "up"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    deadline = time.monotonic() + _SECONDS
    while (state := installation.state()) is None:
        if process is not None and process.poll() is not None:
            raise CommandError(f"the system can't start: {_last_line(installation)}")
        if time.monotonic() > deadline:
            raise CommandError(f"the system did not start within {_SECONDS:g} s: {installation.log_file} says why")
        time.sleep(0.1)
    return str(state["api"])


def _last_line(installation: Installation) -> str:
    lines = [line for line in installation.log_file.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else f"see {installation.log_file}"


async def _show(
    installation: Installation,
    address: str,
    progress: Progress,
    settings: Settings,
    said: Said | None,
    messages: int | None,
) -> Group:
    async with httpx.AsyncClient(base_url=address, timeout=60.0) as client:
        account = await _account(client, installation)
        me = await _login(client, account["username"], account["password"])
        hook = await _connection(client, me, account["token"])
        bodies = list(envelopes(datetime.now(UTC), instance=_INSTANCE))[-messages if messages else 0 :]
        results = await _send(client, hook, account["token"], bodies, progress)
        position = max(result["position"] for result in results)
        total = (await _get(client, me, "/api/v1/metrics", wait_for=position))["total_messages"]
        await _understood(client, me, total, progress, settings)
        answered = [who_answered(await _get(client, me, "/api/v1/metrics/latency"), said)] if said else []
        return Group(
            _received(bodies, results),
            Columns([await _metrics(client, me), await _emotions(client, me)]),
            *answered,
            *[await _search(client, me, words) for words in SEARCHES],
            Panel(
                addresses(
                    address,
                    installation,
                    more={"the shop's admin": f"{account['username']} / {account['password']}"},
                ),
                title="Look around",
                border_style="green",
                expand=False,
            ),
        )


async def _understood(
    client: httpx.AsyncClient, me: dict[str, str], total: int, progress: Progress, settings: Settings
) -> None:
    """Wait until all messages are analysed, for as long as something moves."""
    analysed = progress.add_task("analysing and embedding", total=total)
    most, deadline = -1, 0.0
    while (done := await _analysed(client, me)) < total:
        progress.update(analysed, completed=done)
        if done > most:
            most, deadline = done, time.monotonic() + _SECONDS
        elif time.monotonic() > deadline:
            said = await first_answer(settings)
            waiting = f"{total - done} messages are not analysed yet, and for {_SECONDS:g} s none was: "
            if said is not None and said.fault is None and done:
                progress.console.print(
                    f"[yellow]{waiting}the model answers, so they may be parked (`evosense parked list`)[/]",
                    soft_wrap=True,
                )
                break
            why = said.fault if said and said.fault else "`evosense status` may say why"
            raise CommandError(f"{waiting}{why}. They wait, and `evosense demo` goes on where it was")
        await asyncio.sleep(0.3)
    progress.update(analysed, completed=done)


async def _account(client: httpx.AsyncClient, installation: Installation) -> dict[str, str]:
    """The demo tenant's log-in: registered over the API on the first run, as an operator would."""
    made = json.loads(
        installation.secret(
            "demo.json",
            lambda: json.dumps(
                {
                    "username": "loja@demo",
                    "password": secrets.token_urlsafe(12),
                    "token": secrets.token_hex(24),
                }
            ),
        )
    )
    account: dict[str, str] = dict(made)
    if (await client.post("/api/v1/login", json=_credentials(account))).status_code == 200:
        return account
    admin = await _login(client, ADMIN, installation.admin_password())
    tenant = await _post(client, admin, "/api/v1/tenants", {"name": "Loja Centro", "plan": "pro"})
    await _post(client, admin, "/api/v1/users", {**_credentials(account), "role": "admin", "tenant_id": tenant["id"]})
    return account


def _credentials(account: dict[str, str]) -> dict[str, str]:
    return {"username": account["username"], "password": account["password"]}


async def _login(client: httpx.AsyncClient, username: str, password: str) -> dict[str, str]:
    answer = await client.post("/api/v1/login", json={"username": username, "password": password})
    return {"authorization": f"Bearer {_checked(answer)['access_token']}"}


async def _connection(client: httpx.AsyncClient, me: dict[str, str], token: str) -> str:
    """The webhook address of the demo's connection, which is registered where it is missing."""
    body = {"name": _INSTANCE, "evo_ws_url": "https://evolution.example.com", "evo_token": token}
    answer = await client.post("/api/v1/connections", json=body, headers=me)
    if answer.status_code == 409:
        for row in (await _get(client, me, "/api/v1/connections"))["items"]:
            if row["name"] == _INSTANCE:
                return str(row["webhook_url"])
    return str(_checked(answer)["webhook_url"])


async def _send(
    client: httpx.AsyncClient, hook: str, token: str, bodies: list[dict[str, Any]], progress: Progress
) -> list[dict[str, int]]:
    sending = progress.add_task("webhooks: receiving and masking", total=len(bodies))
    waiting = iter(bodies)
    results: list[dict[str, int]] = []

    async def sender() -> None:
        for body in waiting:
            answer = await client.post(hook, json=body, headers={"X-EvoSense-Token": token})
            results.append(_checked(answer))
            progress.advance(sending)

    async with asyncio.TaskGroup() as group:
        for _ in range(_SENDERS):
            group.create_task(sender())
    return results


async def _analysed(client: httpx.AsyncClient, me: dict[str, str]) -> int:
    metrics = await _get(client, me, "/api/v1/metrics")
    return sum(row["messages"] for row in metrics["emotions"])


async def _metrics(client: httpx.AsyncClient, me: dict[str, str]) -> Panel:
    metrics = await _get(client, me, "/api/v1/metrics")
    table = Table("", "customers", "company", "all", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    sides = {row["author"]: row for row in metrics["by_author"]}
    customer, company = sides.get("customer", {}), sides.get("company", {})
    for label, name, form in (
        ("messages", "total_messages", "{:,}"),
        ("sentiment, -1 to 1", "avg_sentiment", "{:+.2f}"),
        ("satisfaction, 0 to 100", "avg_satisfaction", "{:.0f}"),
        ("positive", "positive_pct", "{:.0f} %"),
    ):
        table.add_row(label, *(_figure(side.get(name), form) for side in (customer, company, metrics)))
    table.add_row("today", "", "", f"{metrics['messages_today']:,}")
    table.add_row("model latency", "", "", _figure(metrics["avg_latency_ms"], "{:.1f} ms"))
    return Panel(table, title=f"{metrics['tenant_name']} ({metrics['plan']})", border_style="cyan", expand=False)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


async def _emotions(client: httpx.AsyncClient, me: dict[str, str]) -> Panel:
    metrics = await _get(client, me, "/api/v1/metrics")
    counts = {row["emotion"]: row["messages"] for row in metrics["emotions"] if row["author"] == "customer"}
    total, most = sum(counts.values()) or 1, max(counts.values(), default=1)
    table = Table(box=None, show_header=False, pad_edge=False)
    for emotion, number in counts.items():
        bar = Text("█" * max(1, round(28 * number / most)), style=_COLOURS.get(emotion, "white"))
        table.add_row(emotion, bar, f"{number:,}", f"{100 * number / total:.0f} %")
    return Panel(table, title="how the customers feel", border_style="cyan", expand=False)


async def _search(client: httpx.AsyncClient, me: dict[str, str], words: str) -> Panel:
    table = Table(box=None, show_header=False, pad_edge=False)
    answer = await client.get("/api/v1/search", params={"q": words, "mode": "semantic", "limit": 3}, headers=me)
    if answer.status_code == 503:
        table.add_row(Text(answer.json()["detail"]))
    for hit in [] if answer.status_code == 503 else _checked(answer):
        table.add_row(f"[bold]{hit['similarity_score']:.2f}[/]", Text(hit["text"]))
    return Panel(table, title=f"search by meaning: “{words}”", title_align="left", border_style="blue", expand=False)


def _received(bodies: list[dict[str, Any]], results: list[dict[str, int]]) -> str:
    total = {name: sum(result[name] for result in results) for name in ("received", "duplicates", "ignored")}
    return (
        f"{len(bodies):,} webhook calls: {total['received']:,} messages stored, {total['duplicates']:,} duplicates "
        f"recognised, {total['ignored']:,} events of no interest (audio, delivery status)"
    )


async def _get(client: httpx.AsyncClient, me: dict[str, str], path: str, **params: Any) -> Any:
    return _checked(await client.get(path, params=params, headers=me))


async def _post(client: httpx.AsyncClient, me: dict[str, str], path: str, body: dict[str, Any]) -> Any:
    return _checked(await client.post(path, json=body, headers=me))


def _checked(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json()
    problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    raise CommandError(f"{answer.request.url.path} answered {answer.status_code}: {problem.get('detail', answer.text)}")
