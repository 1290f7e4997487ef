"""Which answers of a model may be stored: a schema-valid one is not yet a valid one."""

import array
import math
import sys
from typing import Final

from msgspec.structs import replace

from domain.errors import Invalid
from domain.limits import fitting
from domain.ports import DIMENSIONS, EMOTIONS, TONES, Analysis

VECTOR_BYTES: Final = DIMENSIONS * 4
#: Limit of the documented column.
MAX_SUMMARY: Final = 200
#: What pgvector's `halfvec`, which the search reads, can hold.
_LARGEST_COMPONENT: Final = 65504


def checked(analysis: Analysis) -> Analysis:
    """The analysis as it may be stored: `sentiment` rounded to 6 decimals, so that sums of it are exact.

    Raises `Invalid` where a value is out of range or vocabulary: a schema-valid answer of a model is not yet a valid
    one.
    """
    check_scores(analysis.sentiment, analysis.satisfaction)
    if analysis.emotion not in EMOTIONS:
        raise Invalid(f"the emotion is none of {', '.join(EMOTIONS)}")
    if analysis.tone not in TONES:
        raise Invalid(f"the tone is none of {', '.join(TONES)}")
    fitting("a summary", analysis.summary, MAX_SUMMARY)
    return replace(analysis, sentiment=round(analysis.sentiment, 6) + 0.0)


def check_scores(sentiment: float, satisfaction: int) -> None:
    """Raises `Invalid` where a score is out of its range (documented) or no number."""
    if not math.isfinite(sentiment) or not -1 <= sentiment <= 1:
        raise Invalid(f"sentiment lies between -1 and 1, not at {sentiment}")
    if not 0 <= satisfaction <= 100:
        raise Invalid(f"satisfaction lies between 0 and 100, not at {satisfaction}")


def check_vector(vector: bytes) -> None:
    """Raises `Invalid` where it is not 768 little-endian 32-bit floats that point somewhere."""
    if len(vector) != VECTOR_BYTES:
        raise Invalid(f"a vector has {VECTOR_BYTES} bytes ({DIMENSIONS} floats); this one has {len(vector)}")
    floats = array.array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    if not all(abs(component) <= _LARGEST_COMPONENT for component in floats):
        raise Invalid(f"a vector's components are numbers between -{_LARGEST_COMPONENT} and {_LARGEST_COMPONENT}")
    if not any(floats):
        raise Invalid("a vector of zeros points nowhere: it has no cosine distance to anything")
