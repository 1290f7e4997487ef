"""The formulas: shares with their intervals, F1, calibration, places of answers."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Final

import msgspec

#: The normal distribution's quantile for an interval of 95 %.
Z: Final = 1.959964
#: Bins of the calibration, of equal width.
BINS: Final = 10


class Share(msgspec.Struct, frozen=True):
    """So many of so many, with the 95 % interval of E. B. Wilson (JASA 22, 1927)."""

    right: int
    number: int

    @property
    def value(self) -> float:
        """0 to 1; 0 of none."""
        return self.right / self.number if self.number else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """What the true share may be; anything, of none."""
        if not self.number:
            return 0.0, 1.0
        spread = Z * math.sqrt(self.value * (1 - self.value) / self.number + Z**2 / (4 * self.number**2))
        middle, scale = self.value + Z**2 / (2 * self.number), 1 + Z**2 / self.number
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def agreement(said: Sequence[str], true: Sequence[str]) -> Share:
    """How often both say the same."""
    return Share(sum(one == other for one, other in zip(said, true, strict=True)), len(true))


def f1(said: Sequence[str], true: Sequence[str], label: str) -> float:
    """The harmonic mean of a label's precision and recall, 2 TP / (2 TP + FP + FN); 0 where it is nowhere."""
    both = sum(one == other == label for one, other in zip(said, true, strict=True))
    of_all = sum(one == label for one in said) + sum(one == label for one in true)
    return 2 * both / of_all if of_all else 0.0


def macro_f1(said: Sequence[str], true: Sequence[str], labels: Sequence[str]) -> float:
    """The mean of the labels' F1, each counting the same, however rare it is."""
    return mean(f1(said, true, label) for label in labels)


def confusion(said: Sequence[str], true: Sequence[str]) -> Counter[tuple[str, str]]:
    """How often each (true, said) is."""
    return Counter(zip(true, said, strict=True))


def mean_absolute_error(said: Sequence[float], true: Sequence[float]) -> float:
    """In the unit of the values."""
    return mean(abs(one - other) for one, other in zip(said, true, strict=True))


def correlation(said: Sequence[float], true: Sequence[float]) -> float:
    """Pearson's; 0 where one of both never changes."""
    mean_said, mean_true = mean(said), mean(true)
    pairs = [(one - mean_said, other - mean_true) for one, other in zip(said, true, strict=True)]
    spread = math.sqrt(sum(one**2 for one, _ in pairs) * sum(other**2 for _, other in pairs))
    return sum(one * other for one, other in pairs) / spread if spread else 0.0


class Bin(msgspec.Struct, frozen=True):
    """Answers given with about the same confidence, and how many of them are right."""

    low: float
    high: float
    confidence: float
    right: Share


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """The bins that are not empty, `BINS` of equal width from 0 to 1; a bin has its upper end, and not its lower."""
    filled: dict[int, list[tuple[float, bool]]] = {}
    for confidence, is_right in zip(confidences, right, strict=True):
        filled.setdefault(max(0, math.ceil(confidence * BINS) - 1), []).append((confidence, is_right))
    return [
        Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            confidence=mean(confidence for confidence, _ in answers),
            right=Share(sum(is_right for _, is_right in answers), len(answers)),
        )
        for place, answers in sorted(filled.items())
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the mean of |share of right answers - mean confidence|, by size of bin.

    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    number = sum(each.right.number for each in bins)
    return sum(each.right.number * abs(each.right.value - each.confidence) for each in bins) / number if number else 0.0


def recall_at(places: Sequence[int | None], depth: int) -> Share:
    """Of questions with one right answer each: how many have it among the first `depth`. Places count from 1."""
    return Share(sum(place is not None and place <= depth for place in places), len(places))


def mean_reciprocal_rank(places: Sequence[int | None]) -> float:
    """The mean of 1 / place, 0 for what was not found."""
    return mean(1 / place if place else 0.0 for place in places)
