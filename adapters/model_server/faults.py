"""What went wrong with one call to a model server: the kind decides what the gate makes of it."""

from typing import Literal

#: `connect`: there was no answer, or not all of it; `failed`: the server says that it failed; `overload`: it has too
#: much to do; `timeout`; `broken`: what came is not of the protocol; `denied`: its "no", which won't pass by itself;
#: `rejected`: it does not accept this request.
Kind = Literal["connect", "failed", "overload", "timeout", "broken", "denied", "rejected"]

#: What a rejected request was rejected for: the message's length or its content, the form of answer that was asked for,
#: a parameter, or nothing that we know.
About = Literal["length", "content", "form", "parameter", "unknown"]


class Fault(Exception):
    """A call failed. The text is fit for an operator: it names the server's host, and quotes nothing that was sent.

    `retry_after`: seconds that the server asked to be left alone for; `about` and `parameter`: of what is `rejected`.
    """

    def __init__(
        self,
        kind: Kind,
        reason: str,
        *,
        retry_after: float | None = None,
        about: About = "unknown",
        parameter: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.reason = reason
        self.retry_after = retry_after
        self.about: About = about
        self.parameter = parameter
