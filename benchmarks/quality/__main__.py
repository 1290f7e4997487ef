"""How good the configured models are, on messages and pairs that they were not made from.

    python -m benchmarks.quality [--analyser offline] [--embedder offline] [--output docs/quality.md]

Prints tables, writes the page, and ends with one line of JSON: figures of the held-out halves.
"""

import argparse
import asyncio
import json
from pathlib import Path

from rich.table import Table

from benchmarks.common import console, installation
from benchmarks.quality import report
from benchmarks.quality.data import distractors, messages, pairs
from benchmarks.quality.models import ANALYSERS, EMBEDDERS
from benchmarks.quality.retrieval import retrieve
from benchmarks.quality.sentiment import by_lexicon, judge
from benchmarks.quality.speed import speed

#: Different texts that the speed is measured with, in each round.
TEXTS = 500


async def measure(analyser_name: str, embedder_name: str, *, texts: int = TEXTS) -> report.Measured:
    """Everything, with servers of its own."""
    analyser_maker, embedder_maker = ANALYSERS[analyser_name], EMBEDDERS[embedder_name]
    analyser, embedder = analyser_maker.make(), embedder_maker.make()
    halves = await judge(analyser, messages())
    with installation() as settings:
        found = await retrieve(settings, embedder, pairs(), distractors())
    different = [message.text for message in messages()] + list(distractors())
    measured = await speed(analyser, embedder, different[:texts])
    in_process = analyser_maker.in_process and embedder_maker.in_process
    return report.Measured(
        analyser=analyser,
        embedder=embedder,
        halves=halves,
        lexicon={half: by_lexicon([each.message for each in halves[half].judged]) for half in halves},
        found=found,
        candidates=len(pairs()) + len(distractors()),
        speed=measured,
        per_second=measured.processor if in_process else measured.clock,
    )


def show(title: str, table: report.Table) -> None:
    """A table for people."""
    columns, rows = table
    shown = Table(*columns, title=title)
    for row in rows:
        shown.add_row(*(cell.replace("**", "") for cell in row))
    console.print(shown)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="How good the models are.")
    parser.add_argument("--analyser", choices=ANALYSERS, default="offline")
    parser.add_argument("--embedder", choices=EMBEDDERS, default="offline")
    parser.add_argument("--output", type=Path, default=Path("docs/quality.md"))
    given = parser.parse_args()
    measured = asyncio.run(measure(given.analyser, given.embedder))
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
    given.output.write_text(report.written(measured), "utf-8")
    console.print(f"written to {given.output}")
    print(json.dumps(measured.summary()))


if __name__ == "__main__":
    main()
