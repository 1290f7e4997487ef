"""Whatever happens to messages, in whatever order: the tables say what was announced, live, rebuilt and in the model.

Hypothesis chooses what arrives and when, what a worker takes up next of what it was told, how far the projections are
meanwhile and in batches of which size. The model of the log (tests/support/model.py) folds events as they were when
recorded; what a message has to say in the end is reckoned here once more, from what arrived alone.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import given as for_all
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.event_store import LogRecorder, StructMapper
from adapters.settings import Settings
from api.applying import Amender, Announced, Deleted, NotYet, Task
from api.commands import Done
from api.wiring import ReadSide, WriteSide, read_side
from domain.aggregate import Aggregate, Command
from domain.amendments import AnnounceDeletion, AnnounceEdit, DeletionAnnounced, EditAnnounced, message_key
from domain.connections import RegisterConnection, connection, connection_id
from domain.event import Event
from domain.message_keys import message_key_id
from domain.messages import (
    AnalyzeMessage,
    EmbedMessage,
    MessageDeleted,
    MessageReceived,
    ReceiveMessage,
    message,
    message_id,
)
from domain.ports import EMOTIONS, TONES, Analysis
from domain.tenancy import RegisterTenant, tenant
from projections.audit import Auditor
from projections.build import Builder
from projections.catalog import all_projections
from projections.engine import Engine
from tests.support.amending import said
from tests.support.model import differences, fold, stored
from tests.support.spec import NOW
from tests.support.systems import administrator, forget_read_models, parked
from tests.support.world import repeatable, vector

NAMES = [projection.name for projection in all_projections()]
KEYS = 3

keys = st.integers(0, KEYS - 1)
number = st.integers(0, 2**16)


class Receive(NamedTuple):
    key: int


class Edit(NamedTuple):
    key: int
    text: int
    seconds: int


class Delete(NamedTuple):
    key: int


class Answer(NamedTuple):
    """A model that saw the text as it is now, or as it was before."""

    key: int
    which: int
    late: bool
    vector: bool


class Look(NamedTuple):
    """A worker takes up one of the things that it was told and has not answered."""

    which: int


class Project(NamedTuple):
    size: int


things = st.one_of(
    st.builds(Receive, keys),
    st.builds(Receive, keys),
    st.builds(Edit, keys, st.integers(1, 4), st.integers(0, 3)),
    st.builds(Delete, keys),
    st.builds(Answer, keys, number, st.booleans(), st.booleans()),
    st.builds(Answer, keys, number, st.just(False), st.booleans()),
    st.builds(Look, number),
    st.builds(Look, number),
    st.builds(Project, st.sampled_from([1, 2, 3, 7, 50])),
)


class House:
    """A tenant and a connection on an empty log, whoever works at it, and what has arrived."""

    def __init__(self, write: WriteSide, read: ReadSide, admin: psycopg.Connection[Any]) -> None:
        forget_read_models(admin)
        admin.execute("TRUNCATE evosense_log.stored_events RESTART IDENTITY")
        self.write, self.admin = write, admin
        self.amender = Amender(write)
        self.builder = Builder(LogRecorder(read.datastore), StructMapper(write.vault), read.connect, batch=5)
        self.read = read
        self.log: dict[int, Event] = {}
        self.told: list[int] = []
        self.received: dict[int, str] = {}
        self.edits: dict[int, list[tuple[datetime, int, str]]] = {}
        self.deleted: set[int] = set()
        self.versions: dict[int, list[int]] = {}
        self.tenant, self.at = uuid4(), NOW
        write.vault.create(self.tenant)
        self.connection = connection_id(self.tenant, "balcão")
        self._handle(tenant(self.tenant), RegisterTenant(at=NOW, name="Loja", plan="pro"))
        register = RegisterConnection(
            at=NOW,
            tenant_id=self.tenant,
            name="balcão",
            evo_ws_url="https://evo.example.com",
            sealed_token="c2VsYWRv",
            company_sender="f" * 64,
        )
        self._handle(connection(self.connection), register)

    def stream(self, key: int) -> UUID:
        return message_id(self.connection, "c" * 64, key == 0, f"3EB0A{key}")

    def take(self, thing: Any) -> None:
        self.at += timedelta(seconds=1)
        match thing:
            case Receive(key):
                self._receive(key)
            case Edit(key, text, seconds):
                self._announce_edit(key, f"texto {text}", NOW + timedelta(seconds=seconds))
            case Delete(key):
                announce = AnnounceDeletion(**self._about(key), deleted_at=None)
                self._handle(message_key(message_key_id(self.connection, f"3EB0A{key}")), announce)
                self.deleted.add(key)
            case Answer() if thing.key in self.received:
                self._answer(thing)
            case Look(which) if self.told:
                self._look(self.told[which % len(self.told)])
            case Project(size):
                self.project(size, 1)

    def _about(self, key: int) -> dict[str, Any]:
        hints = {"chat_id": "", "from_me": None, "external_id": f"3EB0A{key}"}
        return {"at": self.at, "tenant_id": self.tenant, "connection_id": self.connection, **hints}

    def _receive(self, key: int) -> None:
        about = {**self._about(key), "chat_id": "c" * 64, "from_me": key == 0}
        command = ReceiveMessage(
            **about, sender="d" * 64, is_group=False, kind="text", sent_at=NOW, text=f"mensagem {key}"
        )
        self._handle(message(self.stream(key)), command)
        self.received[key] = f"mensagem {key}"

    def _announce_edit(self, key: int, text: str, at: datetime) -> None:
        announce = AnnounceEdit(**self._about(key), edited_at=at, text=text)
        positions = self._handle(message_key(message_key_id(self.connection, f"3EB0A{key}")), announce)
        if positions:
            self.edits.setdefault(key, []).append((at, positions[0], text))

    def _answer(self, thing: Answer) -> None:
        state = self.write.log.load(message(self.stream(thing.key)))
        seen = self.versions.setdefault(thing.key, [1])
        version = seen[0] if thing.late else state.text_version
        seen[:] = [state.text_version]
        source = repeatable(thing.which)
        if thing.vector:
            model = f"e-{thing.which % 2}"
            command: Command = EmbedMessage(at=self.at, model_name=model, vector=vector(source), text_version=version)
        else:
            analysis = Analysis(
                sentiment=round(source.uniform(-1, 1), 2),
                emotion=source.choice(EMOTIONS),
                satisfaction=source.randint(0, 100),
                tone=source.choice(TONES),
                summary="resumo",
            )
            command = AnalyzeMessage(
                at=self.at,
                model_name=f"m-{thing.which % 3}",
                prompt_version="p",
                analysis=analysis,
                text_version=version,
            )
        self._handle(message(self.stream(thing.key)), command)

    def _look(self, position: int) -> None:
        task = self._task(position, self.log[position])
        failed = self.amender.carry_out([task]) if task else {}
        self._learn()
        if not failed:
            self.told.remove(position)
        assert all(isinstance(error, NotYet) for error in failed.values())

    def _task(self, position: int, event: Event) -> Task | None:
        match event:
            case EditAnnounced() | DeletionAnnounced():
                return Announced(self.tenant, event.originator_id, position)
            case MessageDeleted():
                return Deleted(self.tenant, event.originator_id, position)
            case MessageReceived():
                state = self.write.log.load(message(event.originator_id))
                found = self.amender.keys_of([state])
                return Announced(self.tenant, found[state.id], position, state.id) if found else None
        return None

    def _handle(self, empty: Aggregate, command: Command) -> tuple[int, ...]:
        done = self.write.commands.handle(empty, command)
        assert isinstance(done, Done)
        self._learn()
        return done.positions if not done.duplicate else ()

    def _learn(self) -> None:
        """Read what is new in the log, before anything of it is sealed away."""
        found, _ = self.builder.reader.page(max(self.log, default=0), 100)
        for one in found:
            event = self.builder._mapper.to_domain_event(one)
            assert isinstance(event, Event)
            self.log[one.id] = event
            self.told.append(one.id)

    def project(self, size: int, times: int) -> None:
        engine = Engine(
            self.builder.reader, self.builder._mapper, self.read.connect, all_projections(), batch=size, first=size
        )
        for _ in range(times):
            if not engine.run_once():
                break
        engine.close()

    def come_to_rest(self) -> None:
        while self.told:
            self.project(50, 1000)
            for position in list(self.told):
                self._look(position)
        self.project(50, 1000)

    def expected(self) -> dict[UUID, str]:
        """What each message has to say, reckoned from what arrived."""
        texts = {}
        for key, text in self.received.items():
            last = max(self.edits.get(key, []), default=(None, None, text))
            texts[self.stream(key)] = "" if key in self.deleted else str(last[2])
        return texts


@pytest.fixture(scope="module")
def admin(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with administrator(settings) as conn:
        yield conn


@examples(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@for_all(course=st.lists(things, min_size=5, max_size=45), size=st.sampled_from([1, 2, 5, 100]))
def test_the_tables_say_what_was_announced(
    settings: Settings, write: WriteSide, admin: psycopg.Connection[Any], course: list[Any], size: int
) -> None:
    read = read_side(settings)
    try:
        house = House(write, read, admin)
        for thing in course:
            house.take(thing)
        house.come_to_rest()
        assert not parked(admin)
        assert differences(stored(admin), fold(house.log)) == []
        births = write.log.births(house.expected())
        rows = dict(admin.execute("SELECT id, text FROM evosense.messages_message").fetchall())
        assert rows == {births[stream]: text for stream, text in house.expected().items()}
        assert Auditor(house.builder, NAMES).audit(lambda *_: None).equal
        # Once more, from the log as it is now that what was deleted is sealed away.
        live = stored(admin)
        forget_read_models(admin)
        house.project(size, 1000)
        assert differences(stored(admin), live) == []
        for key in house.deleted & house.received.keys():
            left = [recorded.event for recorded in write.log.history(house.stream(key))]
            assert said(left) == []
    finally:
        read.close()
