"""Payloads that are almost right: samples of JSON with a few things changed, the same ones for the same seed."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

Node = dict[str, Any] | list[Any]
#: A container and the key or index of one value in it.
Place = tuple[Any, Any]

_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 14, 7.5, 1e308, -0.0, 2**31, 2**53 + 1, 2**64, 10**40, 1761136200, "1761136200",
    "", " ", "0", "REVOKE", "MESSAGE_EDIT", "\0", "\ud83d", "é" * 300, "x" * 70_000, "[audio] undefined", "{", "null",
    "5511987650001@s.whatsapp.net", "551187650001:9@s.whatsapp.net", "118273645546372@lid", "120363298765432109@g.us",
    "status@broadcast", "1@newsletter", "@", "undefined", [], {}, [[]], [{}], {"message": {}}, {"message": None},
    {"low": 1, "high": 2, "unsigned": True}, {"low": -1, "high": "x"}, {"0": 1, "1": 255}, {"": ""},
    {"type": "Buffer", "data": [1, 2]},
)  # fmt: skip
_NAMES: Final = (
    "", "0", "key", "id", "keyId", "message", "messages", "data", "event", "instance", "sender", "type", "text",
    "caption", "fromMe", "remoteJid", "remoteJidAlt", "participant", "senderPn", "messageTimestamp", "timestampMs",
    "status", "update", "messageStubType", "conversation", "extendedTextMessage", "editedMessage",
    "protocolMessage", "ephemeralMessage", "viewOnceMessageV2", "audioMessage", "speechToText", "reactionMessage",
    "unheardOfMessage", "state", "statusReason",
)  # fmt: skip
_SPOILERS: Final = ("\0", "\ud83d", "\u200b", " ", "\n", "@", ":", "9", "é" * 40_000)
_WRAPPERS: Final = ("ephemeralMessage", "editedMessage", "deviceSentMessage", "protocolMessage", "unheardOfMessage")
_MOST_CHANGES: Final = 4


def mutations(samples: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` bodies, each made of one of the samples (JSON in UTF-8) by one to four changes.

    Values are replaced, deleted, doubled, swapped, renamed, wrapped, given another type, spoilt by a character, or
    taken from another sample; some bodies are then cut or damaged as bytes, so that they are no JSON any more. Equal
    arguments give equal bodies.
    """
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    trees = [json.loads(sample) for sample in samples]
    for _ in range(count):
        root = {"": _copy(rng.choice(trees))}
        for _ in range(rng.randint(1, _MOST_CHANGES)):
            places = _places(root)
            if places:
                rng.choice(_CHANGES)(rng, _chosen(rng, places), places, trees)
        body = _encoded(rng, root.get(""))
        yield rng.choice(_DAMAGES)(rng, body) if rng.random() < 0.15 else body


def _copy(value: Any) -> Any:
    # `copy.deepcopy` calls itself three times a level, which is too much for what is wrapped sixty times.
    return json.loads(json.dumps(value))


def _places(root: Node) -> list[Place]:
    """All values in it, but not the single bytes of what is bytes."""
    found: list[Place] = []
    pending: list[Node] = [root]
    while pending:
        node = pending.pop()
        for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
            found.append((node, key))
            if isinstance(value, list) or (isinstance(value, dict) and "0" not in value):
                pending.append(value)
    return found


def _chosen(rng: random.Random, places: list[Place]) -> Place:
    """One of the places: as often one that a reader looks at as any."""
    read = [place for place in places if place[1] in _NAMES]
    return rng.choice(read if read and rng.random() < 0.5 else places)


def _encoded(rng: random.Random, value: Any) -> bytes:
    if rng.random() < 0.5:
        return json.dumps(value).encode()
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


# ------------------------------------------------------------------------------------------------- in the tree


def _any(rng: random.Random, trees: list[Any]) -> Any:
    """An odd value, or a piece of a sample."""
    if rng.random() < 0.6:
        return _copy(rng.choice(_ODD))
    node, key = rng.choice(_places({"": rng.choice(trees)}))
    return _copy(node[key])


def _replace(rng: random.Random, place: Place, _: list[Place], trees: list[Any]) -> None:
    node, key = place
    node[key] = _any(rng, trees)


def _delete(_: random.Random, place: Place, __: list[Place], ___: list[Any]) -> None:
    node, key = place
    del node[key]


def _double(rng: random.Random, place: Place, _: list[Place], __: list[Any]) -> None:
    node, key = place
    value = _copy(node[key])
    if isinstance(node, list):
        node.insert(key, value)
    elif isinstance(value, list):
        value.extend(_copy(value))
        node[key] = value
    else:
        node[rng.choice(_NAMES)] = value


def _swap(rng: random.Random, place: Place, places: list[Place], _: list[Any]) -> None:
    (node, key), (other, name) = place, rng.choice(places)
    # Copied: a value must not end up inside itself.
    node[key], other[name] = _copy(other[name]), _copy(node[key])


def _rename(rng: random.Random, place: Place, _: list[Place], __: list[Any]) -> None:
    node, key = place
    if isinstance(node, dict):
        node[rng.choice(_NAMES)] = node.pop(key)


def _add(rng: random.Random, place: Place, _: list[Place], trees: list[Any]) -> None:
    node, key = place
    inside = node[key] if isinstance(node[key], dict | list) else node
    if isinstance(inside, dict):
        inside[rng.choice(_NAMES)] = _any(rng, trees)
    else:
        inside.insert(rng.randint(0, len(inside)), _any(rng, trees))


def _wrap(rng: random.Random, place: Place, _: list[Place], __: list[Any]) -> None:
    node, key = place
    for _times in range(rng.choice((1, 1, 1, 2, 9, 60))):
        shape = rng.random()
        if shape < 0.4:
            node[key] = {rng.choice(_WRAPPERS): {"message": node[key]}}
        elif shape < 0.7:
            node[key] = [node[key]]
        else:
            node[key] = {rng.choice(_NAMES): node[key]}


def _retype(rng: random.Random, place: Place, _: list[Place], __: list[Any]) -> None:
    node, key = place
    value = node[key]
    if isinstance(value, dict):
        node[key] = rng.choice((list(value.values()), [list(pair) for pair in value.items()], json.dumps(value)))
    elif isinstance(value, list):
        node[key] = {str(index): item for index, item in enumerate(value)}
    elif isinstance(value, str):
        number = int(value) if value.isdecimal() and value.isascii() else len(value)
        node[key] = rng.choice((number, [value], {str(i): b for i, b in enumerate(value[:9].encode(errors="ignore"))}))
    else:
        node[key] = rng.choice((str(value), [value], {"low": value, "high": 0}))


def _spoil(rng: random.Random, place: Place, _: list[Place], __: list[Any]) -> None:
    node, key = place
    value = node[key]
    if isinstance(value, str):
        at = rng.randint(0, len(value))
        node[key] = value[:at] + rng.choice(_SPOILERS) + value[at:]
    elif isinstance(value, int | float):
        node[key] = rng.choice((-value, value * 1000, value / 1000, float("nan"), float("inf"), value + 10**9))


_CHANGES: Final[tuple[Callable[[random.Random, Place, list[Place], list[Any]], None], ...]] = (
    _replace, _replace, _spoil, _delete, _double, _swap, _rename, _add, _wrap, _retype,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ in the bytes


def _cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randint(0, len(body))]


def _flip(rng: random.Random, body: bytes) -> bytes:
    damaged = bytearray(body)
    for _ in range(min(len(damaged), rng.randint(1, 8))):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def _insert(rng: random.Random, body: bytes) -> bytes:
    at = rng.randint(0, len(body))
    return body[:at] + rng.choice((b"\xef\xbb\xbf", b"\x00", b"\xff", b",", b'"', b"{", b"]" * 9, b"NaN")) + body[at:]


def _repeat(rng: random.Random, body: bytes) -> bytes:
    start = rng.randint(0, len(body))
    end = rng.randint(start, min(len(body), start + 400))
    return body[:end] + body[start:end] + body[end:]


_DAMAGES: Final = (_cut, _flip, _insert, _repeat)
