"""Reads compose.yaml, Dockerfile, .dockerignore and .env.example as the container tools do, as far as we use them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]

#: `$$`, `${NAME}`, `${NAME:-default}`, `${NAME:?what is wrong}`.
_VARIABLE: Final = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\})")


@dataclass(frozen=True)
class Variable:
    """A reference to a variable in compose.yaml; `kind` is "?" where it is required, "-" where it has a default."""

    name: str
    kind: str | None
    text: str


def variables(text: str) -> Iterator[Variable]:
    """The references in a text. Fails on a `$` that is none."""
    assert "$" not in _VARIABLE.sub("", text), f"not a variable of a kind we use: {text}"
    for found in _VARIABLE.finditer(text):
        if found["name"]:
            yield Variable(found["name"], found["kind"], found["text"] or "")


def interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    """Fill variables in, at any depth. Raises `KeyError` with compose's message where a required one is missing."""
    if isinstance(value, dict):
        return {key: interpolate(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if not found["name"]:
            return "$"
        given = environment.get(found["name"])
        if given:
            return given
        if found["kind"] == "?":
            raise KeyError(f"{found['name']}: {found['text']}")
        return found["text"] or ""

    return _VARIABLE.sub(fill, value)


@cache
def compose() -> dict[str, Any]:
    """compose.yaml with its anchors resolved and its variables as they stand."""
    parsed = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    assert isinstance(parsed, dict)
    return parsed


@cache
def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in services().items() if service["image"].startswith("evosense:")}


def strings(value: Any) -> Iterator[str]:
    """All texts within a value, at any depth, keys not included."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def environment_of(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """What a container of this service finds in its environment: the image's variables and compose's own."""
    result = dict(image_environment())
    for name, value in services()[service].get("environment", {}).items():
        if value is not None:
            result[name] = interpolate(value, given)
        elif name in given:  # without a value it is handed through
            result[name] = given[name]
    return result


def seconds(duration: str) -> float:
    """A duration such as `30s`."""
    assert duration.endswith("s"), duration
    return float(duration[:-1])


# --------------------------------------------------------------------------------------------------- .env.example


def env_example() -> tuple[dict[str, str], dict[str, str]]:
    """(what is to be filled in, what is commented out with its default)."""
    needed, optional = {}, {}
    for line in (ROOT / ".env.example").read_text("utf-8").splitlines():
        if found := re.fullmatch(r"(#?)([A-Z][A-Z0-9_]*)=(.*)", line):
            (optional if found[1] else needed)[found[2]] = found[3]
    return needed, optional


# ----------------------------------------------------------------------------------------------------- Dockerfile


@dataclass
class Stage:
    """One FROM and what follows it, as (INSTRUCTION, arguments)."""

    base: str
    name: str | None
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every instruction of this name."""
        return [arguments for name, arguments in self.instructions if name == instruction]

    def one(self, instruction: str) -> str:
        """The arguments of the only instruction of this name."""
        (arguments,) = self.all(instruction)
        return arguments


@cache
def dockerfile() -> list[Stage]:
    """The stages, the last one being the image."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, arguments = line.split(maxsplit=1)
        if instruction == "FROM":
            words = arguments.split()
            stages.append(Stage(words[0], words[2] if len(words) == 3 else None))
        else:
            stages[-1].instructions.append((instruction, arguments))
    return stages


def image_environment() -> dict[str, str]:
    """The ENV of the image."""
    pairs = (word.partition("=") for line in dockerfile()[-1].all("ENV") for word in shlex.split(line))
    return {name: value for name, _, value in pairs}


def copied() -> list[tuple[Stage, list[str], str]]:
    """Every COPY from the build context: (stage, sources, destination)."""
    found = []
    for stage in dockerfile():
        for arguments in stage.all("COPY"):
            *sources, destination = arguments.split()
            if not sources[0].startswith("--from="):
                found.append((stage, sources, destination))
    return found


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a path (relative to the root, with slashes) into the build."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    parts = path.split("/")
    # A rule for a directory holds for what is in it.
    prefixes = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    kept = True
    for line in lines:
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!")
        if any(_matches(prefix, pattern) for prefix in prefixes):
            kept = rule.startswith("!")  # the last rule that matches decides
    return kept


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
