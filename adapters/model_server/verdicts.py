"""What an HTTP answer, or the lack of one, says of a server, in words for an operator. Bodies are never quoted."""

import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from socket import gaierror
from typing import Final
from urllib.parse import urlsplit

import httpx

from adapters.causes import causes
from adapters.model_server.faults import About, Fault

#: Codes and words by which servers say that a message is too long for the model...
_LENGTH: Final = re.compile(
    rb"context_length|string_above_max_length|context length|context size|context window|exceed_context"
    rb"|too (?:long|many tokens|large)|maximum (?:number of )?tokens|must have less than \d+ tokens",
    re.IGNORECASE,
)
#: ...that a filter will not have its content...
_CONTENT: Final = re.compile(
    rb"content_filter|content_policy|content management policy|responsible\s?ai|moderation|safety", re.IGNORECASE
)
#: ...and that it does not know the form of answer that was asked for, or a parameter.
_FORM: Final = re.compile(rb"response_format|json_schema|json_object|structured output|guided|grammar", re.IGNORECASE)
_PARAMETER: Final = re.compile(rb"\b(max_tokens|temperature|seed|encoding_format|dimensions)\b")
#: A 429 that no waiting cures.
_QUOTA: Final = re.compile(rb"insufficient_quota|billing|credit balance", re.IGNORECASE)


def host_of(url: str) -> str:
    """Host and port of an address, without what it may hold of names and passwords."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


def of_answer(status: int, headers: Mapping[str, str], body: bytes, *, host: str, absent: str, has_key: bool) -> Fault:
    """The fault that an answer is whose status is not 2xx. `absent`: what to check where nothing was found."""
    server = f"the server at {host}"
    retry_after = seconds_of(headers)
    match status:
        case 401 | 403:
            advice = "check" if has_key else "set"
            wants = "refuses the key" if has_key else "wants a key"
            return Fault(
                "denied",
                f"{server} {wants} ({status}): {advice} EVOSENSE_MODEL_API_KEY, or its `api_key` in the models file",
            )
        case 402:
            return Fault("denied", f"{server} wants to be paid (402): check the account")
        case 404:
            return Fault("denied", f"{server} does not have it (404): {absent}")
        case 429 if _QUOTA.search(body):
            return Fault("denied", f"{server} says that the quota is used up (429): check the account")
        case 429:
            return Fault("overload", f"{server} gets too many requests (429)", retry_after=retry_after)
        case 503 | 529:
            return Fault("overload", f"{server} is overloaded or not ready ({status})", retry_after=retry_after)
        case 408:
            return Fault("failed", f"{server} waited too long for the request (408)", retry_after=retry_after)
        case 400 | 413 | 422:
            return _rejected(status, body, server)
        case _ if 300 <= status < 400:
            return Fault(
                "denied",
                f"{server} answers with a redirect ({status}), which is not followed: enter the address it leads to",
            )
        case _ if status >= 500:
            return Fault("failed", f"{server}, or a proxy before it, answers with {status}", retry_after=retry_after)
    return Fault("denied", f"{server} answers with {status}: {absent}")


def _rejected(status: int, body: bytes, server: str) -> Fault:
    about: About = "unknown"
    parameter = None
    why = "does not accept the request"
    if status == 413 or _LENGTH.search(body):
        about, why = "length", "finds the message too long for the model"
    elif _FORM.search(body):
        about, why = "form", "does not know the form of answer that it is asked for: check `answers`"
    elif found := _PARAMETER.search(body):
        about, parameter = "parameter", found[1].decode()
        why = f"does not accept the parameter {parameter}"
    elif _CONTENT.search(body):
        about, why = "content", "refuses the message's content"
    return Fault("rejected", f"{server} {why} ({status})", about=about, parameter=parameter)


def of_error(error: Exception, *, host: str) -> Fault:
    """The fault that an exception of httpx is."""
    server = f"the server at {host}"
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Fault("timeout", f"{server} does not answer in time")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Fault("denied", "the model server's address can't be used: it looks like http://127.0.0.1:11434/v1")
    if isinstance(error, httpx.LocalProtocolError | UnicodeError):
        return Fault("denied", f"the key for {host} holds characters that no header can carry")
    found = list(causes(error))
    if any(isinstance(cause, gaierror) for cause in found):
        return Fault("connect", f"the name of the server at {host} is not known here: check the address, or the DNS")
    if any(isinstance(cause, ssl.SSLError) for cause in found):
        return Fault("connect", f"no encrypted connection can be made to {host}: check its certificate, http or https")
    if any(isinstance(cause, ConnectionRefusedError) for cause in found):
        return Fault("connect", f"nothing listens at {host}: is the model server running?")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return Fault("connect", f"{server} can't be reached from here")
    return Fault("connect", f"{server} ended the connection before its answer was whole")


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """What a Retry-After asks for: seconds, or an HTTP date; None where there is none, or nothing to be made of it."""
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", said, re.ASCII):
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
