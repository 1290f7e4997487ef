"""Histograms of latencies: which bucket a latency falls into, and what a bucket stands for.

Below 32 ms each millisecond has a bucket; above, each doubling has sixteen. The middle of a bucket lies within 1/32
(3.2 %) of every latency in it. Whole numbers alone, so that SQL (`evosense.latency_bucket`) and Python agree on every
one.
"""

from collections.abc import Sequence
from typing import Final

#: How far a percentile read from a histogram may lie from the true one, relatively.
RELATIVE_ERROR: Final = 1 / 32


def bucket_of(latency_ms: int) -> int:
    """The bucket of a latency in milliseconds; 447 is that of the greatest `integer`."""
    if latency_ms < 32:
        return max(latency_ms, 0)
    places = latency_ms.bit_length() - 5
    return (places << 4) + (latency_ms >> places)


def middle_of(bucket: int) -> float:
    """The middle, in milliseconds, of the latencies that a bucket holds."""
    if bucket < 32:
        return float(bucket)
    places = (bucket >> 4) - 1
    return ((16 + (bucket & 15)) << places) + ((1 << places) - 1) / 2


def percentile(histogram: Sequence[tuple[int, int]], share: float) -> float | None:
    """The latency in milliseconds that a share (0 to 1) of the inferences does not exceed; None where there are none.

    `histogram`: buckets, ascending, and how many inferences each holds. It is the middle of the bucket that holds the
    inference which `percentile_disc(share)` would give.
    """
    wanted = share * sum(count for _, count in histogram)
    seen = 0
    for bucket, count in histogram:
        seen += count
        if seen >= wanted:
            return middle_of(bucket)
    return None
