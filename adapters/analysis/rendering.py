"""Renders a prompt: its template with the vocabularies in it, and the rules that stand in every prompt."""

from importlib import resources
from typing import Final

import msgspec

from domain.errors import Invalid
from domain.ports import Prompt


class PromptError(Invalid):
    """A prompt's template can't be used; the text says in which line, and why."""


class Rendered(msgspec.Struct, frozen=True):
    """A version of the prompt as a model gets it. It is the same for every message."""

    version: str
    system: str


def _packed(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


#: What is used where no prompt was ever activated.
BUILT_IN: Final = Prompt("evosense-1", _packed("prompt.txt"))


def render(prompt: Prompt) -> Rendered:
    """The prompt as it is sent, without any message. Raises `PromptError`."""
    return Rendered(prompt.version, prompt.body)
