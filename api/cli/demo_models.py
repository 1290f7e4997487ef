"""The part of the demo that is about model servers: whether they answer, and who answered in the end."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import msgspec
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table

from adapters.model_server.fields import OFFLINE
from adapters.settings import Settings
from api.cli.installation import Installation
from api.cli.screen import CommandError
from api.model_catalogue import Catalogue
from domain.ports import Answer, AnswerRefused, ModelUnavailable, Question, ServedAnalyser

#: A server that gave no answer so often, in so many seconds, is given up. A local one may be loading its model.
_TRIES: Final = 3
_SECONDS: Final = 10.0
_SAMPLE: Final = "Bom dia! O bolo chegou amassado e ninguém me respondeu, quero meu dinheiro de volta."
_NOBODY: Final = UUID(int=0)


class Said(msgspec.Struct, frozen=True):
    """What the first analyser of the chain did with a sample message: an answer, or what is wrong with it."""

    name: str
    answer: Answer | None = None
    fault: str | None = None


def same_models(installation: Installation, catalogue: Catalogue) -> None:
    """Raises `CommandError` where the system is up with other models than are configured here."""
    state = installation.state() if installation.is_up() else None
    if state is not None and state.get("models", catalogue.labels()) != catalogue.labels():
        raise CommandError(
            f"EvoSense is up already, with other models ({', '.join(state['models'])}): stop it with `make down` or "
            "`evosense down`, and start again"
        )


def shown_first_answer(settings: Settings, catalogue: Catalogue, progress: Progress) -> Said | None:
    """Ask the model server before anything is started, so that what is wrong with it is said at once.

    None where no server is asked. Raises as `first_answer` does.
    """
    if not catalogue.served_first:
        return None
    step = progress.add_task(f"asking {escape(catalogue.labels()[0])}", total=1)

    def waiting(why: str) -> None:
        progress.console.print(f"[dim]waiting: {escape(why)}[/]", soft_wrap=True)

    said = asyncio.run(first_answer(settings, waiting))
    if said is not None and said.fault is not None:
        progress.console.print(f"[yellow]{escape(said.fault)}; the next of the chain answers[/]", soft_wrap=True)
    progress.update(step, completed=1)
    return said


async def first_answer(settings: Settings, on_wait: Callable[[str], None] = lambda _: None) -> Said | None:
    """Have the first analyser of the chain judge a sample message; None where that is the offline one.

    Raises `CommandError` where it can't, and nobody in the chain would stand in.
    """
    catalogue = Catalogue.of(settings)
    first = next((each for each in catalogue.served_analysers if each.name == catalogue.chain[0]), None)
    if first is None:
        return None
    try:
        said = await _asked(first, on_wait)
    finally:
        await catalogue.close()
    if said.fault is not None and OFFLINE not in catalogue.chain:
        chain = ",".join((*catalogue.chain, OFFLINE))
        raise CommandError(
            f"{said.fault} (analyser {said.name!r}, docs/models.md). With EVOSENSE_ANALYSERS={chain} the offline "
            "analyser stands in"
        )
    return said


async def _asked(analyser: ServedAnalyser, on_wait: Callable[[str], None]) -> Said:
    from adapters.analysis.rendering import BUILT_IN  # noqa: PLC0415 - its template engine is for this alone

    began = time.monotonic()
    question = Question(tenant_id=_NOBODY, message_id=_NOBODY, text=_SAMPLE)
    for number in itertools.count(1):
        try:
            return Said(analyser.name, await analyser.ask(question, BUILT_IN))
        except AnswerRefused as error:
            fault = f"the model {analyser.model_name} answers, and not as it was asked to: {error}"
            return Said(analyser.name, fault=fault)
        except ModelUnavailable as error:
            if number >= _TRIES and time.monotonic() > began + _SECONDS:
                return Said(analyser.name, fault=f"the model {analyser.model_name} can't be asked: {error}")
            on_wait(str(error))
            wait = max(2.0, error.retry_after or 0.0, analyser.wait())
        await asyncio.sleep(min(wait, _SECONDS))
    raise AssertionError("it counts for ever")


def who_answered(latencies: dict[str, Any], said: Said | None) -> Panel:
    """The models that analysed the demo's messages, how many, and how long it took them."""
    table = Table("model", "messages", "median", "95 of 100 within", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in latencies["models"]:
        figures = row["latency"]
        if not row["is_shadow"] and figures["inferences"]:
            times = (f"{figures[name]:,.0f} ms" for name in ("p50_ms", "p95_ms"))
            table.add_row(escape(row["model_name"]), f"{figures['inferences']:,}", *times)
    if said is not None and said.fault is not None:
        table.caption = escape(said.fault)
    return Panel(table, title="who answered", border_style="cyan", expand=False)
