"""Asks our own API, past the environment's proxy: that one leads out, to Evolution's servers."""

from typing import Any
from urllib.request import ProxyHandler, build_opener


def directly(url: str, timeout: float) -> Any:
    """The answer, to be closed. Raises `URLError` and `OSError`; `timeout` in seconds."""
    return build_opener(ProxyHandler({})).open(url, timeout=timeout)
