"""Histories for measuring projections: messages of some tenants with what models said of them, the same each time.

Twenty tenants of very different size (Zipf); Portuguese texts of some 80 characters with common and rare words, so that
the full-text index grows as it does in life; a chat has some twenty messages. In the order `live` some hundred messages
are received and then analysed, as the worker does it; in the order `import` all are received first.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from random import Random
from typing import Final, Literal
from uuid import UUID

import msgspec
import numpy as np

from adapters.event_store import Appended
from api.wiring import WriteSide
from domain.connections import RegisterConnection, connection, connection_id
from domain.event import Event
from domain.experiments import LIVE_RUN, InferenceRecorded, inference_id
from domain.messages import MessageAnalyzed, MessageEmbedded, MessageReceived, message_id
from domain.ports import DIMENSIONS, EMOTIONS, TONES
from domain.tenancy import RegisterTenant, tenant

Order = Literal["live", "import"]
Unit = Sequence[Event]

TENANTS: Final = 20
#: Messages that are received before the first of them is analysed, in the order `live`.
TOGETHER: Final = 300
_UNITS_AT_ONCE: Final = 1000
_IN_A_CHAT: Final = 20
_RARE_WORDS: Final = 20_000
#: Vectors lie around so many centres, as texts lie around subjects.
_SUBJECTS: Final = 50
_BEGINNING: Final = datetime(2026, 8, 1, 12, tzinfo=UTC)
_DAYS: Final = 90
_MODEL, _PROMPT, _TEMPLATE, _EMBEDDER = "bench-1", "p-1", "f" * 64, "bench-e-1"
_PHRASES: Final = (
    "Bom dia! Meu pedido ainda não chegou, podem verificar?",
    "Obrigada pelo atendimento, chegou tudo certinho",
    "Quanto custa o frete para",
    "A caixa veio amassada e o produto não liga",
    "Boa tarde, vocês têm esse modelo em",
    "Quero trocar o tamanho, como faço para devolver",
    "O boleto venceu, pode me mandar outro?",
    "Vocês abrem no domingo? Queria passar na loja",
    "Já paguei faz três dias e nada de confirmação",
    "Adorei o presente, a embalagem estava linda",
    "Qual o prazo de entrega para",
    "Pode cancelar a compra, por favor",
)
_COMMON: Final = (
    *("não", "que", "para", "com", "pedido", "ainda", "hoje", "obrigado", "entrega", "loja", "amanhã", "preço"),
    *("cor", "azul", "rua", "casa", "senhora", "favor", "troca", "nota", "caixa", "produto", "semana", "cartão"),
)
_SYLLABLES: Final = ("ba", "ca", "den", "fi", "go", "jar", "lu", "mon", "no", "pi", "quei", "ra", "sil", "to", "va")


class History:
    """One history. `messages`: how many; `vectors`: whether each is embedded as well."""

    def __init__(self, messages: int, *, seed: int, order: Order = "live", vectors: bool = False) -> None:
        self.messages = messages
        self._order = order
        self._vectors = vectors
        self._random = Random(seed)  # noqa: S311 - nothing secret comes of it
        self._numpy = np.random.default_rng(seed)
        self._centres = self._numpy.normal(size=(_SUBJECTS, DIMENSIONS)).astype("<f4")
        self.tenants = [UUID(int=self._random.getrandbits(128), version=4) for _ in range(TENANTS)]
        self._shares = list(accumulate(1 / (place + 1) for place in range(TENANTS)))
        self._words, self._frequencies = self._vocabulary()
        self._companies = {tenant_id: f"{self._random.getrandbits(256):064x}" for tenant_id in self.tenants}
        self._connections = {tenant_id: connection_id(tenant_id, "balcão") for tenant_id in self.tenants}
        self._chats = {
            tenant_id: [f"{self._random.getrandbits(256):064x}" for _ in range(1 + messages // TENANTS // _IN_A_CHAT)]
            for tenant_id in self.tenants
        }
        self._number = 0

    @property
    def connections(self) -> tuple[UUID, ...]:
        """The tenants' connections, one each."""
        return tuple(self._connections.values())

    def begin(self, write: WriteSide) -> int:
        """Make keys, tenants and connections; returns the last position."""
        units: list[Unit] = []
        for number, tenant_id in enumerate(self.tenants):
            write.vault.create(tenant_id)
            units.append(tenant(tenant_id).decide(RegisterTenant(at=_BEGINNING, name=f"Loja {number}")))
            command = RegisterConnection(
                at=_BEGINNING,
                tenant_id=tenant_id,
                name="balcão",
                evo_ws_url="https://evolution.example.com",
                sealed_token="c2VsYWRv",
                company_sender=self._companies[tenant_id],
            )
            units.append(connection(self._connections[tenant_id]).decide(command))
        return append(write, units)

    def record(self, write: WriteSide) -> int:
        """Append all messages and what was said of them; returns the last position. Raises `RuntimeError`."""
        last = 0
        units = self.units()
        while some := list(islice(units, _UNITS_AT_ONCE)):
            last = append(write, some)
        return last

    def units(self) -> Iterator[Unit]:
        """What happens, in order: a message that comes, or what a model said of one and the record of it."""
        together = TOGETHER if self._order == "live" else self.messages
        for first in range(0, self.messages, together):
            received = [self.received() for _ in range(min(together, self.messages - first))]
            yield from ([event] for event in received)
            yield from (self.said_of(event) for event in received)

    def received(self) -> MessageReceived:
        """The next message."""
        number, chance = self._number, self._random.random()
        self._number += 1
        tenant_id = self._random.choices(self.tenants, cum_weights=self._shares)[0]
        chat, key, from_me = self._random.choice(self._chats[tenant_id]), f"3EB0{number:016X}", chance < 0.3
        sent_at = _BEGINNING + timedelta(seconds=number % self.messages * _DAYS * 86400 // self.messages)
        return MessageReceived(
            originator_id=message_id(self._connections[tenant_id], chat, from_me, key),
            originator_version=1,
            tenant_id=tenant_id,
            at=sent_at + timedelta(seconds=1),
            connection_id=self._connections[tenant_id],
            chat_id=chat,
            sender=self._companies[tenant_id] if from_me else chat,
            from_me=from_me,
            is_group=False,
            kind="text",
            sent_at=sent_at,
            external_id=key,
            text=self._text(),
        )

    def said_of(self, event: MessageReceived) -> Unit:
        """The analysis of a message, its vector where the history has vectors, and the record of the inference."""
        chance, at = self._random, event.at + timedelta(seconds=2)
        sentiment, satisfaction = round(chance.uniform(-1, 1), 3), chance.randrange(101)
        emotion = chance.choice(EMOTIONS)
        analyzed = MessageAnalyzed(
            originator_id=event.originator_id,
            originator_version=2,
            tenant_id=event.tenant_id,
            at=at,
            model_name=_MODEL,
            prompt_version=_PROMPT,
            sentiment=sentiment,
            emotion=emotion,
            satisfaction=satisfaction,
            tone=chance.choice(TONES),
            summary=event.text[:60],
        )
        inference = InferenceRecorded(
            originator_id=inference_id(event.originator_id, LIVE_RUN, _PROMPT, _MODEL),
            originator_version=1,
            tenant_id=event.tenant_id,
            at=at,
            message_id=event.originator_id,
            model_name=_MODEL,
            prompt_version=_PROMPT,
            template_hash=_TEMPLATE,
            latency_ms=chance.randrange(20, 3000),
            sentiment=sentiment,
            emotion=emotion,
            satisfaction=satisfaction,
            is_shadow=False,
            run_id=LIVE_RUN,
        )
        if not self._vectors:
            return analyzed, inference
        embedded = MessageEmbedded(
            originator_id=event.originator_id,
            originator_version=3,
            tenant_id=event.tenant_id,
            at=at,
            model_name=_EMBEDDER,
            vector=self._vector(),
        )
        return analyzed, embedded, inference

    def _text(self) -> str:
        some = self._random.choices(self._words, cum_weights=self._frequencies, k=5)
        return " ".join((self._random.choice(_PHRASES), *some))

    def _vector(self) -> bytes:
        centre = self._centres[self._random.randrange(_SUBJECTS)]
        vector = centre + self._numpy.normal(scale=0.6, size=DIMENSIONS).astype("<f4")
        return bytes((vector / np.linalg.norm(vector)).astype("<f4").tobytes())

    def _vocabulary(self) -> tuple[list[str], list[float]]:
        """Words from the commonest to the rarest, and how often they come, added up: Zipf's law."""
        rare = ("".join(self._random.choices(_SYLLABLES, k=self._random.randint(2, 4))) for _ in range(_RARE_WORDS))
        words = [*_COMMON, *rare]
        return words, list(accumulate(1 / (place + 1) for place in range(len(words))))


class Recorded(msgspec.Struct, frozen=True):
    """A history in the log: its first and last position (behind tenants and connections), and what is in it."""

    first: int
    last: int
    messages: int
    connections: tuple[UUID, ...]

    @property
    def events(self) -> int:
        """How many events."""
        return self.last - self.first + 1


def recorded(write: WriteSide, history: History) -> Recorded:
    """Append a whole history. Raises `RuntimeError` where an event is refused."""
    first = history.begin(write) + 1
    return Recorded(first, history.record(write), history.messages, history.connections)


def append(write: WriteSide, units: Sequence[Unit]) -> int:
    """Append units; returns the last position. Raises `RuntimeError` where one is refused."""
    outcomes = write.log.append(units)
    if not all(isinstance(outcome, Appended) for outcome in outcomes):
        raise RuntimeError("an event was refused")
    last = outcomes[-1]
    assert isinstance(last, Appended)
    return last.positions[-1]
