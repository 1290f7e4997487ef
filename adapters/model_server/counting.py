"""What answers cost, as far as the server says what it counted."""

import math
from fractions import Fraction
from typing import Any, Final

from adapters.model_server.config import AnalyserServer, EmbedderServer
from domain.ports import Usage

#: What a count is stored in.
_MAX_COUNT: Final = 2**31 - 1


def counted(tokens: Any) -> int:
    """The tokens that a server counted; 0 for what is no count."""
    return tokens if type(tokens) is int and 0 <= tokens <= _MAX_COUNT else 0


def usage_of(server: AnalyserServer | EmbedderServer, input_tokens: int, output_tokens: int = 0) -> Usage:
    """What one call took. Its cost is rounded up; a dollar for a million tokens is a millionth of a dollar for one."""
    # From the decimals that were configured: in binary fractions, rounding up would add one now and then.
    cost = Fraction(str(server.call_price)) * 1_000_000 + Fraction(str(server.input_price)) * input_tokens
    if isinstance(server, AnalyserServer):
        cost += Fraction(str(server.output_price)) * output_tokens
    return Usage(calls=1, input_tokens=input_tokens, output_tokens=output_tokens, cost=math.ceil(cost))
