"""A week of a shop's WhatsApp, as Evolution API would have sent it: what `make demo` runs on.

The conversations are invented, in `conversations.jsonl`: a line that has `day` begins a conversation, each line behind
it is a message. All people are fictional; CPFs and CNPJs have true check digits, so that masking has something to do.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import resources
from typing import Any, Final

from api.demo_data.payloads import Author, Chat, Envelopes

#: What to search for by meaning: the best hits say the same in other words.
SEARCHES: Final = (
    "não consigo acessar minha conta",
    "o técnico não veio no horário combinado",
    "muito obrigado pela ajuda",
)

#: Of every so many envelopes one is delivered again, as Evolution does when an answer was slow.
_REDELIVERED: Final = 61
#: Of every so many messages one is followed by a delivery status, which says nothing.
_STATUS: Final = 29
#: The conversations of today lie in the last hours, but never before midnight.
_TODAY: Final = timedelta(hours=9)

_Line = dict[str, Any]


def envelopes(now: datetime, *, instance: str = "loja-centro", seed: int = 7) -> Iterator[dict[str, Any]]:
    """Yield webhook bodies in the order of time: messages of the last six days, the last ones of today.

    The same arguments give the same bodies. Message ids depend on `seed` and on the date alone: sent twice on one day,
    everything of the second time is a duplicate. "Today" is that of `now`'s time zone. Raises `ValueError` where `now`
    has none.
    """
    if now.tzinfo is None:
        raise ValueError("now must have a time zone, such as datetime.now(UTC)")
    make = Envelopes(instance, f"{seed}:{now.date().isoformat()}")
    timed = sorted(_timed(now, _conversations()), key=lambda item: item[0])
    opened = timed[0][0] - timedelta(minutes=1) if timed else now
    yield make.connection_open(opened)
    for number, (at, position, chat, line) in enumerate(timed, start=1):
        envelope = make.message(chat, _author(chat, line), position, at, line)
        yield envelope
        if number % _REDELIVERED == 0:
            yield json.loads(json.dumps(envelope))
        if number % _STATUS == 0:
            yield make.status(envelope, at + timedelta(seconds=1))


def conversation_texts() -> list[str]:
    """Return every text of the conversations, in the file's order, not masked."""
    return [line["text"] for _, lines in _conversations() for line in lines if line["text"]]


def _conversations() -> list[tuple[_Line, list[_Line]]]:
    conversations: list[tuple[_Line, list[_Line]]] = []
    for row in resources.files(__package__).joinpath("conversations.jsonl").read_text("utf-8").splitlines():
        line: _Line = json.loads(row)
        if "day" in line:
            conversations.append((line, []))
        else:
            conversations[-1][1].append(line)
    return conversations


def _timed(
    now: datetime, conversations: list[tuple[_Line, list[_Line]]]
) -> Iterator[tuple[datetime, str, Chat, _Line]]:
    """Yield when each message was sent, and its place in the file."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    window = min(_TODAY, now - midnight)
    slots = sum(head["day"] == 0 for head, _ in conversations)
    for head, lines in conversations:
        chat = Chat(phone=head.get("phone"), lid=head.get("lid"), group=head.get("group"), name=head["name"])
        lasting = timedelta(seconds=sum(line["after"] for line in lines))
        if head["day"] == 0:
            slot = window / slots
            start, pace = now - window + slot * (head["at"] - 1), min(1.0, slot / (lasting + timedelta(seconds=1)))
        else:
            hour, minute = map(int, head["at"].split(":"))
            start, pace = midnight - timedelta(days=head["day"]) + timedelta(hours=hour, minutes=minute), 1.0
        at = start
        for index, line in enumerate(lines):
            at += timedelta(seconds=line["after"]) * pace
            yield at, f"{head['conversation']}.{index}", chat, line


def _author(chat: Chat, line: _Line) -> Author | None:
    """Return who wrote a message of a customer, None for the shop's own."""
    if line["from_me"]:
        return None
    return Author(name=line.get("name", chat.name), phone=line.get("phone", chat.phone or ""))
