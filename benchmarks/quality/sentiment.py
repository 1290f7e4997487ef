"""What an analyser says of the labelled messages, beside the labels, and beside a plain lexicon."""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from benchmarks.quality.data import POLARITIES, Half, LabelledMessage, Polarity
from benchmarks.quality.metrics import (
    Bin,
    Share,
    agreement,
    calibration_error,
    correlation,
    macro_f1,
    mean_absolute_error,
    reliability,
)
from benchmarks.quality.served import REFUSED
from domain.ports import EMOTIONS, Analyser, Analysis

#: A message counts as good above it and as bad below its negative: the bound of the documented view...
BOUND: Final = 0.1
#: ...and that of VADER, from which LeIA comes.
LEXICON_BOUND: Final = 0.05


class Judged(msgspec.Struct, frozen=True):
    """A labelled message, and what was said of it."""

    message: LabelledMessage
    analysis: Analysis

    @property
    def answered(self) -> bool:
        """Whether there was an answer that could be stored; one that was refused is wrong in every figure."""
        return self.analysis is not REFUSED

    @property
    def polarity(self) -> Polarity | Literal["refused"]:
        """As the dashboards count it."""
        return "refused" if not self.answered else polarity(self.analysis.sentiment, BOUND)

    @property
    def right(self) -> bool:
        """Whether the polarity is."""
        return self.polarity == self.message.polarity


class Judgement:
    """Everything that is measured of the answers to some messages."""

    def __init__(self, judged: Sequence[Judged]) -> None:
        self.judged = judged
        self.said = [each.polarity for each in judged]
        self.true = [each.message.polarity for each in judged]
        self.said_emotions = [each.analysis.emotion for each in judged]
        self.true_emotions = [each.message.emotion for each in judged]

    def polarity(self) -> Share:
        """How often it is right."""
        return agreement(self.said, self.true)

    def polarity_f1(self) -> float:
        """The macro-F1 of the three."""
        return macro_f1(self.said, self.true, POLARITIES)

    def emotion(self) -> Share:
        """How often it is right."""
        return agreement(self.said_emotions, self.true_emotions)

    def emotion_f1(self) -> float:
        """The macro-F1 of the eight."""
        return macro_f1(self.said_emotions, self.true_emotions, EMOTIONS)

    def satisfaction_error(self) -> float:
        """The mean absolute error, of 100, of what was answered; not a number where nothing was."""
        said, true = self._satisfactions()
        return mean_absolute_error(said, true) if said else math.nan

    def satisfaction_correlation(self) -> float:
        """Pearson's correlation, of what was answered."""
        said, true = self._satisfactions()
        return correlation(said, true) if said else math.nan

    def reliability(self) -> list[Bin]:
        """|sentiment| of the messages that are called good or bad, beside whether they are."""
        felt = [each for each in self.judged if each.polarity not in ("neutral", "refused")]
        return reliability([abs(each.analysis.sentiment) for each in felt], [each.right for each in felt])

    def calibration_error(self) -> float:
        """The expected calibration error of those bins."""
        return calibration_error(self.reliability())

    def grouped(self, groups: Callable[[LabelledMessage], Sequence[str]]) -> dict[str, "Judgement"]:
        """The same for each group of messages, in the order in which groups turn up; a message may be in several."""
        found: dict[str, list[Judged]] = {}
        for each in self.judged:
            for group in groups(each.message):
                found.setdefault(group, []).append(each)
        return {group: Judgement(members) for group, members in found.items()}

    def _satisfactions(self) -> tuple[list[float], list[float]]:
        answered = [each for each in self.judged if each.answered]
        said = [float(each.analysis.satisfaction) for each in answered]
        return said, [float(each.message.satisfaction) for each in answered]


async def judge(analyser: Analyser, messages: Sequence[LabelledMessage]) -> dict[Half, Judgement]:
    """Have the messages analysed; what came of each half."""
    analyses = await analyser.analyse([message.text for message in messages])
    judged = [Judged(message, analysis) for message, analysis in zip(messages, analyses, strict=True)]
    halves: tuple[Half, ...] = ("tuning", "held-out")
    return {half: Judgement([each for each in judged if each.message.half == half]) for half in halves}


def by_lexicon(messages: Sequence[LabelledMessage]) -> Share:
    """How often LeIA alone, as it comes, has the polarity right."""
    from LeIA import SentimentIntensityAnalyzer  # noqa: PLC0415 - its import reads files

    lexicon = SentimentIntensityAnalyzer()
    said = [polarity(lexicon.polarity_scores(message.text)["compound"], LEXICON_BOUND) for message in messages]
    return agreement(said, [message.polarity for message in messages])


def polarity(sentiment: float, bound: float) -> Polarity:
    """The polarity of a sentiment."""
    return "positive" if sentiment > bound else "negative" if sentiment < -bound else "neutral"
