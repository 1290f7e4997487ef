"""Renders a prompt: its template with the vocabularies in it, and behind it the rules that stand in every prompt.

A template is written by an operator and runs in our processes, so it is a small language and no more: text, the
variables of `VARIABLES`, `if`, `for` over a vocabulary, and the filters of `_FILTERS`. What it may hold is checked on
its syntax tree before anything is compiled, by a list of what is allowed; Jinja's sandbox is the second wall. Nothing
in the language makes text out of text, so no template takes long or fills memory. The message is never rendered into
it: it goes its own way (`adapters.analysis.framing`).
"""

from functools import lru_cache
from importlib import resources
from typing import Final

import msgspec
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from domain.answers import MAX_SUMMARY
from domain.errors import Invalid
from domain.limits import fitting
from domain.ports import EMOTIONS, TONES, Prompt

#: Characters of a template, and of what comes out of it.
MAX_BODY: Final = 16_384
MAX_RENDERED: Final = 16_384
MAX_VERSION: Final = 64

#: What a template may name. The lists are those that `for` and `join` take.
VARIABLES: Final[dict[str, tuple[str, ...] | int | str]] = {
    "emotions": EMOTIONS,
    "tones": TONES,
    "summary_limit": MAX_SUMMARY,
    "language": "português",
}
_LISTS: Final = frozenset(name for name, value in VARIABLES.items() if isinstance(value, tuple))
#: Filters, and whether they take a list.
_FILTERS: Final = {"join": True, "length": True, "first": True, "last": True, "upper": False, "lower": False}
#: How deep loops stand in each other, expressions and blocks in each other, and how long the text of a `join` is.
_MAX_LOOPS: Final = 2
_MAX_DEPTH: Final = 24
_MAX_GLUE: Final = 100

_PLAIN: Final = (nodes.Output, nodes.TemplateData, nodes.Not, nodes.And, nodes.Or, nodes.Compare, nodes.Operand)


class PromptError(Invalid):
    """A prompt's template can't be used; the text says in which line, and why."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")


class Rendered(msgspec.Struct, frozen=True):
    """A version of the prompt as a model gets it. It is the same for every message."""

    version: str
    system: str


def _packed(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


#: What is used where no prompt was ever activated.
BUILT_IN: Final = Prompt("evosense-1", _packed("prompt.txt"))


@lru_cache(maxsize=32)
def render(prompt: Prompt) -> Rendered:
    """The prompt as it is sent, without any message: its template, and `frame.txt`. Raises `PromptError`."""
    try:
        fitting("a prompt's version", prompt.version, MAX_VERSION, least=1)
        fitting("a prompt's template", prompt.body, MAX_BODY, least=1)
    except Invalid as error:
        raise PromptError(str(error)) from None
    instructions = _filled(prompt.body).strip()
    if not instructions:
        raise PromptError("the template comes out empty: say what is to be done")
    return Rendered(prompt.version, f"{instructions}\n\n{_filled(_packed('frame.txt')).strip()}\n")


def _filled(body: str) -> str:
    try:
        tree = _ENVIRONMENT.parse(body)
        _Check().block(tree.body)
        rendered: list[str] = []
        size = 0
        for piece in _ENVIRONMENT.from_string(tree).generate(VARIABLES):
            size += len(piece)
            if size > MAX_RENDERED:
                raise PromptError(f"the template comes out longer than {MAX_RENDERED} characters")
            rendered.append(piece)
    except TemplateSyntaxError as error:
        raise PromptError(error.message or "this is no template", error.lineno) from None
    except TemplateError as error:  # nothing that the check lets through is known to raise it
        raise PromptError(error.message or "the template can't be rendered") from None
    except RecursionError:
        raise PromptError("the template nests too deep") from None
    except TypeError:
        raise PromptError("the template compares or counts what can't be: a text with a number, or a list") from None
    except (ValueError, SyntaxError, MemoryError):  # numbers of thousands of digits; Python's own limits
        raise PromptError("the template can't be compiled: it holds a number or a nesting that is too large") from None
    return "".join(rendered)


class _Check:
    """Walks a template's tree and refuses whatever is not on the list."""

    def __init__(self) -> None:
        self._targets: list[str] = []

    def block(self, body: list[nodes.Node], depth: int = 0) -> None:
        for node in body:
            self.node(node, depth + 1)

    def node(self, node: nodes.Node, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise PromptError(f"blocks and expressions nest at most {_MAX_DEPTH} deep", node.lineno)
        match node:
            case nodes.For():
                self._loop(node, depth)
            case nodes.If():
                self.node(node.test, depth + 1)
                for branch in (node.body, node.elif_, node.else_):
                    self.block(list(branch), depth)
            case nodes.Name():
                self._name(node)
            case nodes.Filter():
                self._filter(node, depth)
            case nodes.Const(value=str() | int()):
                pass
            case _ if isinstance(node, _PLAIN):
                self.block(list(node.iter_child_nodes()), depth)
            case _:
                raise PromptError(
                    f"{type(node).__name__} is no part of a prompt's language, which is text, the variables "
                    f"{', '.join(VARIABLES)}, if, for, and the filters {', '.join(_FILTERS)}",
                    node.lineno,
                )

    def _loop(self, loop: nodes.For, depth: int) -> None:
        if not isinstance(loop.iter, nodes.Name) or loop.iter.name not in _LISTS:
            raise PromptError(f"for goes over {' or '.join(sorted(_LISTS))} alone", loop.lineno)
        if not isinstance(loop.target, nodes.Name) or loop.target.name in VARIABLES or loop.target.name == "loop":
            raise PromptError("for needs one name for its item, which no variable has", loop.lineno)
        if loop.recursive or loop.test is not None or loop.else_:
            raise PromptError("for takes neither a condition, nor else, nor recursive", loop.lineno)
        if len(self._targets) >= _MAX_LOOPS:
            raise PromptError(f"loops nest at most {_MAX_LOOPS} deep", loop.lineno)
        self._targets.append(loop.target.name)
        self.block(list(loop.body), depth)
        self._targets.pop()

    def _name(self, name: nodes.Name) -> None:
        if name.ctx != "load" or name.name not in (*VARIABLES, *self._targets):
            raise PromptError(f"there is no such variable here; there are {', '.join(VARIABLES)}", name.lineno)

    def _filter(self, node: nodes.Filter, depth: int) -> None:
        if node.name not in _FILTERS or node.node is None:
            raise PromptError(f"the filters are {', '.join(_FILTERS)}", node.lineno)
        if _FILTERS[node.name] and not (isinstance(node.node, nodes.Name) and node.node.name in _LISTS):
            raise PromptError(f"{node.name} takes {' or '.join(sorted(_LISTS))} alone", node.lineno)
        glue = node.name == "join" and len(node.args) == 1 and isinstance(node.args[0], nodes.Const)
        if node.kwargs or node.dyn_args or node.dyn_kwargs or (node.args and not glue):
            raise PromptError("a filter takes nothing, except join a text to put between", node.lineno)
        if glue:
            text = node.args[0].value  # type: ignore[attr-defined]
            if not isinstance(text, str) or len(text) > _MAX_GLUE:
                raise PromptError(f"join puts a text of at most {_MAX_GLUE} characters between", node.lineno)
        self.node(node.node, depth + 1)


def _environment() -> ImmutableSandboxedEnvironment:
    # Nothing of it is shown in a page: it is text for a model.
    environment = ImmutableSandboxedEnvironment(
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=0,
    )
    environment.globals.clear()
    environment.tests.clear()
    for name in set(environment.filters) - set(_FILTERS):
        del environment.filters[name]
    return environment


_ENVIRONMENT: Final = _environment()
