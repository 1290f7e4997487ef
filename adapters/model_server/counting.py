"""What answers cost, as far as the server says what it counted."""

from typing import Any, Protocol

from domain.ports import Usage


class Priced(Protocol):
    """A server with its prices in US dollars: per million tokens, and for each call."""

    @property
    def input_price(self) -> float: ...
    @property
    def call_price(self) -> float: ...


def counted(tokens: Any) -> int:
    """The tokens that a server counted; 0 for what is no count."""
    return tokens if type(tokens) is int and 0 <= tokens < 2**31 else 0


def usage_of(server: Priced, input_tokens: int, output_tokens: int = 0, calls: int = 1) -> Usage:
    """What a call, or several, took and cost: a dollar for a million tokens is a millionth of a dollar for one."""
    cost = (
        server.call_price * calls * 1e6
        + server.input_price * input_tokens
        + getattr(server, "output_price", 0.0) * output_tokens
    )
    return Usage(calls=calls, input_tokens=input_tokens, output_tokens=output_tokens, cost=round(cost))
