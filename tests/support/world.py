"""Repeatable histories of several tenants: units of events, made by the aggregates themselves, ready to be appended."""

import array
import math
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from adapters.event_store import Appended
from api.wiring import WriteSide
from domain import authn, connections, embedding_models, experiments, messages, people, prompts, tenancy
from domain.aggregate import Aggregate, Command
from domain.event import Event
from domain.message_keys import message_key_id
from domain.ports import DIMENSIONS, EMOTIONS, TONES, Analysis
from tests.support.spec import NOW

Unit = Sequence[Event]


class World:
    """Some tenants to which things happen. The same seed gives the same history."""

    def __init__(self, seed: int = 0, *, tenants: int = 3) -> None:
        self._seed = seed
        self._random = repeatable(seed)
        self._states: dict[UUID, Aggregate] = {}
        self._at = NOW - timedelta(days=3)
        self.tenants = [self._uuid() for _ in range(tenants)]
        self._connections: list[tuple[UUID, UUID, str]] = []
        self._users: list[UUID] = []
        self._messages: list[tuple[UUID, UUID]] = []
        #: Whether tenants move to other embedding models, which makes vectors go.
        self.moves = True
        # LIDs, by a chance of their own; the first of each tenant get a new number now and then.
        self._chance = repeatable(seed + 1_000_003)
        self._lids = {tenant: [self._chance.randbytes(32).hex() for _ in range(6)] for tenant in self.tenants}
        self._linked: set[str] = set()
        #: Whether messages are edited and deleted, after which less is to be seen.
        self.rewrites = False
        #: Whether versions of the prompt are created, activated and retired: by a chance of its own, beside the rest.
        self.prompts = False
        self._fortune = repeatable(seed + 2_000_003)

    def births(self) -> list[Unit]:
        """Each tenant with two users and two connections."""
        units: list[Unit] = []
        for number, tenant_id in enumerate(self.tenants):
            register = tenancy.RegisterTenant(at=self._now(), name=f"Loja {number}", plan="pro")
            units.append(self.carry_out(tenancy.tenant(tenant_id), register))
            for name in (f"ana.{self._seed}.{number}", f"rui.{self._seed}.{number}"):
                user = authn.user(authn.user_id(name))
                self._users.append(user.id)
                command = authn.RegisterUser(at=self._now(), tenant_id=tenant_id, username=name, password_hash="hash")
                units.append(self.carry_out(user, command))
            for name in ("balcão", "delivery"):
                connection = connections.connection(connections.connection_id(tenant_id, name))
                sender = self._random.randbytes(32).hex()
                self._connections.append((tenant_id, connection.id, sender))
                units.append(
                    self.carry_out(
                        connection,
                        connections.RegisterConnection(
                            at=self._now(),
                            tenant_id=tenant_id,
                            name=name,
                            evo_ws_url="https://evo.example.com",
                            sealed_token="c2VsYWRv",
                            company_sender=sender,
                        ),
                    )
                )
        return units

    def happen(self, steps: int) -> list[Unit]:
        """So many things, of every kind, in any order; those that lead to no event leave no unit."""
        kinds = {
            self._receive: 10,
            self._analyze: 12,
            self._embed: 4,
            self._infer: 5,
            self._log_in: 2,
            self._change_connection: 1,
            self._change_tenant: 1,
            self._edit: 2 * int(self.rewrites),
            self._delete: int(self.rewrites),
            self._move: int(self.moves),
        }
        chosen = self._random.choices(list(kinds), list(kinds.values()), k=steps)
        return [unit for step in chosen for unit in (step(), self._link(), self._prompt()) if unit]

    def carry_out(self, empty: Aggregate, *commands: Command) -> Unit:
        """What the commands lead to; the world remembers it."""
        state = self._states.get(empty.id, empty)
        events: list[Event] = []
        for command in commands:
            new = state.decide(command)
            state = state.replay(new)
            events.extend(new)
        self._states[empty.id] = state
        return events

    def analysis(self) -> Analysis:
        """What some model might say."""
        # Few digits or many: sums must come out the same whatever was added and taken away in between.
        sentiment = round(self._random.uniform(-1, 1), self._random.choice([0, 1, 2, 6]))
        return Analysis(
            sentiment=self._random.choice([sentiment, 0.1, 0.100001]),
            emotion=self._random.choice(EMOTIONS),
            satisfaction=self._random.randint(0, 100),
            tone=self._random.choice(TONES),
            summary="resumo",
        )

    def _receive(self) -> Unit:
        tenant_id, connection_id, company = self._random.choice(self._connections)
        from_me = self._random.random() < 0.3
        chat, key = self._random.randbytes(32).hex(), self._random.randbytes(8).hex()
        sender = chat
        is_group = self._chance.random() < 0.2
        if self._chance.random() < 0.4:
            number, sender = self._chance.choice(list(enumerate(self._lids[tenant_id])))
            if number < 2 and sender in self._linked:
                # Who looks before recording finds the link: of a LID with a later one, no message is behind the first.
                sender = chat
            chat = chat if is_group else sender
        empty = messages.message(messages.message_id(connection_id, chat, from_me, key))
        self._messages.append((tenant_id, empty.id))
        return self.carry_out(
            empty,
            messages.ReceiveMessage(
                at=self._now(),
                tenant_id=tenant_id,
                connection_id=connection_id,
                chat_id=chat,
                sender=company if from_me else sender,
                from_me=from_me,
                is_group=is_group,
                kind="text",
                sent_at=self._at - timedelta(seconds=self._random.randint(0, 600)),
                external_id=key,
                text=f"mensagem {key}",
            ),
        )

    def _analyze(self) -> Unit:
        if not self._messages:
            return ()
        _, message_id = self._random.choice(self._messages[-40:])
        command = messages.AnalyzeMessage(
            at=self._now(),
            model_name=f"model-{self._random.randint(1, 3)}",
            prompt_version="p-1",
            analysis=self.analysis(),
            text_version=self._text_version(message_id),
        )
        return self.carry_out(messages.message(message_id), command)

    def _embed(self) -> Unit:
        if not self._messages:
            return ()
        _, message_id = self._random.choice(self._messages[-40:])
        command = messages.EmbedMessage(
            at=self._now(),
            model_name=f"e-{self._random.randint(1, 2)}",
            vector=vector(self._random),
            text_version=self._text_version(message_id),
        )
        return self.carry_out(messages.message(message_id), command)

    def _edit(self) -> Unit:
        if not self._messages:
            return ()
        _, message_id = self._random.choice(self._messages[-40:])
        state, at = self._message(message_id), self._now()
        command = messages.EditMessage(
            at=at,
            key_id=self._key_of(state),
            announcement=self._random.randint(1, 9),
            edited_at=at - timedelta(seconds=self._random.randint(0, 600)),
            text=f"editada {self._random.randint(1, 99)}",
        )
        return self.carry_out(messages.message(message_id), command)

    def _delete(self) -> Unit:
        if not self._messages:
            return ()
        _, message_id = self._random.choice(self._messages[-40:])
        key, at = self._key_of(self._message(message_id)), self._now()
        command = messages.DeleteMessage(at=at, key_id=key, announcement=1, deleted_at=at)
        return self.carry_out(messages.message(message_id), command)

    def _message(self, message_id: UUID) -> messages.Message:
        state = self._states[message_id]
        assert isinstance(state, messages.Message)
        return state

    def _text_version(self, message_id: UUID) -> int:
        return self._message(message_id).text_version

    def _key_of(self, state: messages.Message) -> UUID:
        assert state.connection_id is not None
        return message_key_id(state.connection_id, state.external_id)

    def _move(self) -> Unit:
        tenant_id = self._random.choice(self.tenants)
        empty = embedding_models.embedding_models(tenant_id)
        state = self._states.get(empty.id, empty)
        moving_to = state.moving_to if isinstance(state, embedding_models.EmbeddingModels) else None
        if moving_to is not None and self._random.random() < 0.7:
            return self.carry_out(empty, embedding_models.AdoptModel(at=self._now(), model_name=moving_to))
        name = f"e-{self._random.randint(1, 2)}"
        begin = embedding_models.BeginMove(at=self._now(), tenant_id=tenant_id, model_name=name, from_model="e-1")
        return self.carry_out(empty, begin)

    def _link(self) -> Unit:
        if self._chance.random() > 0.04:
            return ()
        tenant_id = self._chance.choice(self.tenants)
        number, alias = self._chance.choice(list(enumerate(self._lids[tenant_id])))
        self._linked.add(alias)
        phone = f"{alias[:60]}{self._chance.randint(0, int(number < 2)):04}"
        tied = people.LinkLid(at=self._at, tenant_id=tenant_id, alias=alias, person=phone, said_at=self._at)
        noted = people.NoteLid(at=self._at, tenant_id=tenant_id, alias=alias, person=phone)
        return [
            *self.carry_out(people.lid(tenant_id, alias), tied),
            *self.carry_out(people.person(tenant_id, phone), noted),
        ]

    def _infer(self) -> Unit:
        if not self._messages:
            return ()
        tenant_id, message_id = self._random.choice(self._messages)
        model, said = f"model-{self._random.randint(1, 3)}", self.analysis()
        return self.carry_out(
            experiments.inference(experiments.inference_id(message_id, experiments.LIVE_RUN, "p-1", model)),
            experiments.RecordInference(
                at=self._now(),
                tenant_id=tenant_id,
                message_id=message_id,
                model_name=model,
                prompt_version="p-1",
                template_hash="f" * 64,
                latency_ms=self._random.randint(1, 5000),
                sentiment=said.sentiment,
                emotion=said.emotion,
                satisfaction=said.satisfaction,
                is_shadow=self._random.random() < 0.2,
            ),
        )

    def _prompt(self) -> Unit:
        if not self.prompts or self._fortune.random() > 0.05:
            return ()
        empty = prompts.prompt_templates()
        state = self._states.get(empty.id, empty)
        assert isinstance(state, prompts.PromptTemplates)
        usable = [version for version, template in state.templates.items() if not template.retired]
        idle = [version for version in usable if version != state.active]
        chance = self._fortune.random()
        if not idle or chance < 0.4:
            number = len(state.templates) + 1
            command: Command = prompts.CreatePrompt(
                at=self._at, version=f"v{number}", body=f"corpo {number}", description="calorosa", created_by="ana"
            )
        elif chance < 0.8:
            command = prompts.ActivatePrompt(at=self._at, version=self._fortune.choice(usable))
        else:
            command = prompts.RetirePrompt(at=self._at, version=self._fortune.choice(idle))
        return self.carry_out(empty, command)

    def _log_in(self) -> Unit:
        return self.carry_out(authn.user(self._random.choice(self._users)), authn.RecordLogin(at=self._now()))

    def _change_connection(self) -> Unit:
        _, connection_id, _ = self._random.choice(self._connections)
        commands: list[Command] = [
            connections.ActivateConnection(at=self._now()),
            connections.DeactivateConnection(at=self._now()),
            connections.RotateToken(at=self._now(), sealed_token="bm92bw=="),
            connections.ReportState(at=self._now(), state="open", reason=200),
            connections.ReportState(at=self._now(), state="close", reason=self._random.choice([401, 428, None])),
        ]
        return self.carry_out(connections.connection(connection_id), self._random.choice(commands))

    def _change_tenant(self) -> Unit:
        commands: list[Command] = [
            tenancy.RenameTenant(at=self._now(), name=f"Loja {self._random.randint(1, 99)}"),
            tenancy.SuspendTenant(at=self._now(), reason="teste"),
            tenancy.ReactivateTenant(at=self._now()),
        ]
        return self.carry_out(tenancy.tenant(self._random.choice(self.tenants)), self._random.choice(commands))

    def _now(self) -> datetime:
        self._at += timedelta(milliseconds=self._random.randint(1, 60_000))
        return self._at

    def _uuid(self) -> UUID:
        return UUID(bytes=self._random.randbytes(16), version=4)


def repeatable(seed: int) -> random.Random:
    """Chance that can be told again."""
    return random.Random(seed)  # noqa: S311 - nothing secret comes of it


def vector(source: random.Random) -> bytes:
    """A vector of length 1."""
    parts = [source.gauss(0, 1) for _ in range(DIMENSIONS)]
    length = math.sqrt(sum(part * part for part in parts))
    return array.array("f", [part / length for part in parts]).tobytes()


def record(write: WriteSide, units: Sequence[Unit], *, at_once: int = 500) -> int:
    """Append units, none of which may be refused; returns the position of the last event."""
    for tenant_id in {event.tenant_id for unit in units for event in unit}:
        write.vault.create(tenant_id)
    last = 0
    for start in range(0, len(units), at_once):
        for outcome in write.log.append(units[start : start + at_once]):
            assert isinstance(outcome, Appended), outcome
            last = outcome.positions[-1]
    return last


def tampered(conn: Any, position: int) -> None:
    """Turn the last byte of the event at a position, as only a superuser can."""
    conn.execute(
        "UPDATE evosense_log.stored_events "
        "SET state = set_byte(state, length(state) - 1, get_byte(state, length(state) - 1) # 255) "
        "WHERE notification_id = %s",
        (position,),
    )
