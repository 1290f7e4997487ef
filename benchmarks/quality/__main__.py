"""How good the configured models are, on messages and pairs that they were not made from.

    python -m benchmarks.quality [--analyser NAME] [--embedder NAME] [--messages N] [--output FILE]

Names are `offline` (and more embedders, see `models.py`) and those of the configured servers; without them, those that
are configured as default. Prints tables, writes the page, and ends with one line of JSON: figures of the held-out
halves.
docs/quality.md is the offline models' page; others get docs/quality-NAME.md, unless --output says otherwise.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rich.table import Table

from adapters.settings import Settings, SettingsError
from api.model_catalogue import Catalogue
from benchmarks.common import console, installation
from benchmarks.quality import report
from benchmarks.quality.data import LabelledMessage, distractors, messages, pairs
from benchmarks.quality.models import Maker, analysers, embedders
from benchmarks.quality.retrieval import retrieve
from benchmarks.quality.sentiment import by_lexicon, judge
from benchmarks.quality.speed import ROUNDS, speed
from domain.ports import Analyser, Embedder, ModelUnavailable

#: Different texts that the speed is measured with, in each round; and of a model behind a server, in one round.
TEXTS = 500
SERVED_TEXTS = 32


async def measure(
    analyser_maker: Maker[Analyser], embedder_maker: Maker[Embedder], some: tuple[LabelledMessage, ...]
) -> report.Measured:
    """Everything, with databases of its own."""
    analyser, embedder = analyser_maker.make(), embedder_maker.make()
    halves = await judge(analyser, some)
    with installation() as settings:
        found = await retrieve(settings, embedder, pairs(), distractors())
    different = [message.text for message in messages()] + list(distractors())
    in_process = analyser_maker.in_process and embedder_maker.in_process
    texts, rounds = (TEXTS, ROUNDS) if in_process else (SERVED_TEXTS, 1)
    measured = await speed(analyser, embedder, different[:texts], rounds=rounds)
    return report.Measured(
        analyser=analyser,
        embedder=embedder,
        halves=halves,
        lexicon={half: by_lexicon([each.message for each in halves[half].judged]) for half in halves},
        found=found,
        candidates=len(pairs()) + len(distractors()),
        speed=measured,
        per_second=measured.processor if in_process else measured.clock,
        in_process=in_process,
    )


async def measured_and_closed(catalogue: Catalogue, given: argparse.Namespace) -> report.Measured:
    """`measure` what is wanted, and let go of the servers."""
    try:
        makers = analysers(catalogue)[given.analyser], embedders(catalogue)[given.embedder]
        return await measure(*makers, some_of(messages(), given.messages))
    finally:
        await catalogue.close()


def some_of(all_of_them: tuple[LabelledMessage, ...], number: int | None) -> tuple[LabelledMessage, ...]:
    """So many of the messages, evenly from all sectors; all of them where no number is given."""
    if number is None or number >= len(all_of_them):
        return all_of_them
    return tuple(all_of_them[place * len(all_of_them) // number] for place in range(number))


def output(analyser: str, embedder: str) -> Path:
    """Where the page goes: that of the offline models is theirs alone."""
    if (analyser, embedder) == ("offline", "offline"):
        return Path("docs/quality.md")
    names = dict.fromkeys((analyser, embedder))
    return Path(f"docs/quality-{'-'.join(name for name in names if name != 'offline')}.md")


def show(title: str, table: report.Table) -> None:
    """A table for people."""
    columns, rows = table
    shown = Table(*columns, title=title)
    for row in rows:
        shown.add_row(*(cell.replace("**", "") for cell in row))
    console.print(shown)


def main() -> None:
    """Measure, print, write."""
    try:
        catalogue = Catalogue.of(Settings.load())
    except SettingsError as error:
        sys.exit(f"error: {error}")
    theirs = [one.name for one in catalogue.served_embedders]
    parser = argparse.ArgumentParser(description="How good the models are.")
    parser.add_argument("--analyser", choices=analysers(catalogue), default=catalogue.chain[0])
    parser.add_argument("--embedder", choices=embedders(catalogue), default=theirs[0] if theirs else "offline")
    parser.add_argument("--messages", type=int, help="labelled messages to ask about, for a slow model; all otherwise")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.messages is not None and given.messages < 24:
        parser.error("--messages: at least 24, or a half has none of some sectors")
    console.print(f"analyser {given.analyser}, embedder {given.embedder}")
    try:
        measured = asyncio.run(measured_and_closed(catalogue, given))
    except* ModelUnavailable as group:
        sys.exit(f"error: the model server can't be asked: {group.exceptions[0]}")
    held_out = measured.halves["held-out"]
    show("sentiment, emotion, satisfaction", report.sentiment(measured))
    show("polarity, held out", report.polarities(held_out))
    show("emotions, held out", report.emotions(held_out))
    show("calibration, held out", report.calibration(held_out))
    show("by style, held out", report.groups(held_out, "style"))
    show("by sector, held out", report.groups(held_out, "sector"))
    show("retrieval", report.retrieval(measured))
    each = measured.speed
    console.print(f"{each.processor:,.0f} messages a second of one core's time, {each.clock:,.0f} by the clock")
    show("targets", report.targets(measured))
    if not measured.in_process:
        console.print(report.served(measured))
    path = given.output or output(given.analyser, given.embedder)
    path.write_text(report.written(measured), "utf-8")
    console.print(f"written to {path}")
    print(json.dumps(measured.summary()))


if __name__ == "__main__":
    main()
