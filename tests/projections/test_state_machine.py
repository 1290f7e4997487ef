"""Whatever is done to the projections, and in whatever order: the tables say what the log says.

Hypothesis chooses what happens: events are appended, projected in batches of any size, by any number of shards; events
become poison, are parked, retried and skipped; tables are rebuilt, the rebuild is interrupted, what was kept is brought
back; connections are cut in the middle of a batch. At every moment each row of each table is compared with a model that
folds the log in plain Python (tests/support/model.py), up to where the checkpoints stand and without what is set aside.

What is sealed away in the log is not among it: test_amendments.py has that.

`STATE_MACHINE_EXAMPLES` and `STATE_MACHINE_STEPS` make it longer (`make soak`); it then takes new chances every time.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.sql import SQL, Identifier

from adapters.event_store import Appended, Conflict, LogRecorder, StructMapper
from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide, read_side
from domain import authn, tenancy
from domain.errors import DomainError
from domain.event import Event
from projections import engine as engine_module
from projections.audit import Auditor
from projections.build import Builder
from projections.builds import BuildError
from projections.catalog import all_projections
from projections.engine import Engine
from projections.faults import PoisonEvent
from projections.rebuild import rebuild, rollback
from projections.replay import forget, replay
from projections.sharding import NotLevel, lay_out
from projections.swap import StillInUse
from tests.support.chaos import Interrupted, Interrupting, not_aside, severed, standing
from tests.support.model import differences, fold, stored
from tests.support.systems import administrator, drain, parked, positions, tables
from tests.support.world import World, record, tampered

_EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))
_STEPS = int(os.environ.get("STATE_MACHINE_STEPS", "15"))
_NAMES = [projection.name for projection in all_projections()]
_CONSTRAINT = "no_such_row"

some_contexts = st.one_of(st.just(_NAMES), st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3, unique=True))
chance = st.integers(0, 2**32)


class Projections(RuleBasedStateMachine):
    """One database; each example begins with an empty log."""

    system: ClassVar[Settings]
    write: ClassVar[WriteSide]
    admin: ClassVar[psycopg.Connection[Any]]

    def __init__(self) -> None:
        super().__init__()
        _empty(self.admin)
        self.read: ReadSide = read_side(self.system)
        self.builder = Builder(
            LogRecorder(self.read.datastore), StructMapper(self.write.vault), self.read.connect, batch=23
        )
        self.log: dict[int, Event] = {}
        self.units: list[Any] = []
        self.tampered: set[int] = set()
        self.refused: int | None = None  # a row that a constraint forbids

    def teardown(self) -> None:
        """Come to rest, and look once more."""
        try:
            if self.log:
                self._drain()
                self.tables_say_what_the_log_says()
        finally:
            self.read.close()

    # ------------------------------------------------------------------------------------------------ the log

    @initialize(seed=st.integers(0, 9), steps=st.integers(0, 40))
    def begin(self, seed: int, steps: int) -> None:
        self.world = World(seed)
        self.world.rewrites = self.world.prompts = True
        self._record([*self.world.births(), *self.world.happen(steps)])

    @rule(steps=st.integers(1, 40))
    def append(self, steps: int) -> None:
        self._record(self.world.happen(steps))

    @rule(which=chance, kind=st.integers(0, 3), value=chance)
    def append_what_is_rare(self, which: int, kind: int, value: int) -> None:
        """What `World` leaves out: roles, passwords, deactivated users, plans."""
        at = max(event.at for event in self.log.values())
        users = [e for e in self.log.values() if isinstance(e, authn.UserRegistered)]
        user = authn.user(users[which % len(users)].originator_id)
        tenant_id = self.world.tenants[which % len(self.world.tenants)]
        name = f"zoe.{len(self.log)}"
        with suppress(DomainError):  # a suspended tenant keeps its plan
            match kind:
                case 0:
                    unit = self.world.carry_out(user, authn.ChangeRole(at=at, role=authn.ROLES[value % 2]))
                case 1:
                    unit = self.world.carry_out(user, authn.ChangePassword(at=at, password_hash=f"hash {value}"))
                case 2:
                    registered = authn.RegisterUser(at=at, tenant_id=tenant_id, username=name, password_hash="hash")
                    unit = self.world.carry_out(
                        authn.user(authn.user_id(name)), registered, authn.DeactivateUser(at=at)
                    )
                case _:
                    day = at.date() if value % 2 else None
                    plan, status = tenancy.PLANS[value % 4], ("active", "trial")[value % 2]
                    unit = self.world.carry_out(
                        tenancy.tenant(tenant_id),
                        tenancy.ChangeSubscription(at=at, plan=plan, status=status, next_billing_date=day),
                    )
            self._record([unit] if unit else [])

    @rule(which=chance)
    def append_again(self, which: int) -> None:
        """A unit that is in the log already: refused, or answered with where it stands; the log is as before."""
        head = self.builder.head()
        (outcome,) = self.write.log.append([self.units[which % len(self.units)]])
        assert isinstance(outcome, Conflict) or outcome.positions[-1] <= head
        assert self.builder.head() == head

    # ------------------------------------------------------------------------------------------------ projecting

    @rule(batch=st.sampled_from([1, 2, 7, 40, 500]), times=st.integers(1, 4))
    def project(self, batch: int, times: int) -> None:
        with self._engine(batch) as engine:
            for _ in range(times):
                engine.run_once()

    @rule()
    def rest(self) -> None:
        self._drain()

    @rule(batch=st.sampled_from([1, 9, 500]))
    def cut_off_in_the_middle_of_a_batch(self, batch: int) -> None:
        """The connection is ended when the rows are written and the checkpoint has not moved."""
        with self._engine(batch) as engine, severed(engine, self.admin) as cuts, suppress(psycopg.OperationalError):
            engine.run_once()
        self._leases_are_over()
        assert len(cuts) <= 1

    @rule(shards=st.sampled_from([1, 2, 3, 5]))
    def change_the_number_of_shards(self, shards: int) -> None:
        found = self._checkpoints()
        # A rebuild of some contexts makes checkpoints for these alone; the others then stand at the beginning.
        level = len({position for _, _, position in found}) <= 1 and len({name for name, _, _ in found}) in {0, 7}
        try:
            lay_out(self.builder, shards, patience=0.05)
        except NotLevel:
            assert not level
        else:
            rows = self.admin.execute("SELECT DISTINCT shards FROM evosense_ops.projection_checkpoints").fetchall()
            assert rows == [(shards,)]

    # ------------------------------------------------------------------------------------------------ poison

    @rule(which=chance)
    def damage_an_event(self, which: int) -> None:
        """Any, projected already or not."""
        self._damage(sorted(self.log), which)

    @rule(which=chance, steps=st.integers(5, 30), batch=st.sampled_from([1, 7, 500]))
    def meet_a_damaged_event(self, which: int, steps: int, batch: int) -> None:
        """One that is still to be projected and, where there is such a one, has later events in its stream."""
        self._record(self.world.happen(steps))
        reached = min(positions(self.admin), default=0)
        ahead = [(position, event) for position, event in sorted(self.log.items()) if position > reached]
        last = {event.originator_id: position for position, event in ahead}
        followed = [position for position, event in ahead if position < last[event.originator_id]]
        self._damage(followed or [position for position, _ in ahead], which)
        self.project(batch, 4)

    def _damage(self, found: list[int], which: int) -> None:
        if found:
            position = found[which % len(found)]
            tampered(self.admin, position)  # twice is as it was
            self.tampered ^= {position}

    @precondition(lambda self: self.refused is None)
    @rule(which=chance)
    def forbid_a_row(self, which: int) -> None:
        """A constraint refuses a message that may be there already, and any change of it."""
        births = [p for p, event in sorted(self.log.items()) if type(event).type_name == "messages.MessageReceived"]
        if births:
            self.refused = births[which % len(births)]
            self.admin.execute(
                SQL("ALTER TABLE evosense.messages_message ADD CONSTRAINT {} CHECK (id <> {}) NOT VALID").format(
                    Identifier(_CONSTRAINT), self.refused
                )
            )

    @rule()
    def retry(self) -> None:
        with self.read.connect() as conn:
            for position in parked(self.admin):
                self.read.parked.retry(conn, position)

    @precondition(lambda self: self.tampered or self.refused is not None)
    @rule(retried=st.booleans())
    def repair(self, retried: bool) -> None:
        """The causes are gone. Everything parked can then be projected, but for what needs a row that was skipped."""
        for position in self.tampered:
            tampered(self.admin, position)
        self.tampered = set()
        _forbid_nothing(self.admin)
        self.refused = None
        if retried:
            self.retry()
            assert self._skipped() or not parked(self.admin)

    @precondition(lambda self: self.tampered)
    @rule(keep=st.booleans())
    def repair_and_rebuild(self, keep: bool) -> None:
        """What was parked is in the new tables, and no longer parked."""
        self.repair(False)
        self.rebuild(_NAMES, keep)

    @rule(which=chance)
    def skip(self, which: int) -> None:
        # What some have projected already, since they were rebuilt alone, stays in their tables until they are rebuilt.
        found = [position for position, names in self._parked() if len(names) == len(_NAMES)]
        if found:
            with self.read.connect() as conn:
                assert self.read.parked.skip(conn, found[which % len(found)], "by chance")
                assert not self.read.parked.skip(conn, found[which % len(found)], "twice")

    # ------------------------------------------------------------------------------------------------ rebuilding

    @rule(names=some_contexts, keep=st.booleans())
    def rebuild(self, names: list[str], keep: bool) -> None:
        self._try(names, lambda: rebuild(self.builder, names, Interrupting(None), keep=keep, patience=0.1))

    @rule(names=some_contexts, after=st.integers(0, 60))
    def begin_to_rebuild(self, names: list[str], after: int) -> None:
        """Interrupted somewhere on the way; some later rebuild of the same contexts goes on with it."""
        with suppress(Interrupted):
            self._try(names, lambda: rebuild(self.builder, names, Interrupting(after), patience=0.1))

    @rule(keep=st.booleans())
    def roll_back(self, keep: bool) -> None:
        kept = [build for build in self._builds() if build.purpose == "kept"]
        if kept:
            names = kept[-1].projections
            self._try(names, lambda: rollback(self.builder, Interrupting(None), keep=keep, patience=0.1))
        else:
            with pytest.raises(BuildError, match="nothing was kept"):
                rollback(self.builder, Interrupting(None))

    # ------------------------------------------------------------------------------------------------ looking

    @rule(fast=st.booleans())
    def audit(self, fast: bool) -> None:
        """It says equal, at every moment at which the projections stand together."""
        if self._uneven(_NAMES):
            self._drain()
        with self._poison_is_known():
            report = Auditor(self.builder, _NAMES).audit(lambda *_: None, fast=fast)
            assert report.equal, (report.differences, report.digests)

    @rule(which=chance)
    def look_back(self, which: int) -> None:
        """The tables as they were at some position, without what is set aside now."""
        until = [0, *sorted(self.log)][which % (len(self.log) + 1)]
        with self._poison_is_known():
            replay(self.builder, "past", until, lambda *_: None, lambda *_: None)
            should = fold(self.log, not_aside(self.admin, until=until))
            assert differences(stored(self.admin, "past"), should) == []
            forget(self.builder, "past")

    @invariant()
    def tables_say_what_the_log_says(self) -> None:
        if self.log:
            assert differences(stored(self.admin), fold(self.log, standing(self.admin))) == []

    # ------------------------------------------------------------------------------------------------ by hand

    def _record(self, units: list[Any]) -> None:
        for tenant_id in {event.tenant_id for unit in units for event in unit}:
            self.write.vault.create(tenant_id)
        for unit, outcome in zip(units, self.write.log.append(units), strict=True):
            assert isinstance(outcome, Appended)
            self.log.update(zip(outcome.positions, unit, strict=True))
            self.units.append(unit)

    @contextmanager
    def _engine(self, batch: int) -> Iterator[Engine]:
        engine = Engine(
            LogRecorder(self.read.datastore),
            StructMapper(self.write.vault),
            self.read.connect,
            all_projections(),
            batch=batch,
        )
        try:
            yield engine
        finally:
            engine.close()

    def _drain(self) -> None:
        with self._engine(100) as engine:
            while engine.run_once():
                pass
        assert positions(self.admin) == {max(self.log)}

    def _try(self, names: list[str], step: Callable[[], object]) -> None:
        """Rebuild or roll back. Where that does not come to its end, nothing that is live has changed."""
        before, aside = stored(self.admin), self._parked()
        done = False
        try:
            with self._poison_is_known(), self._uneven_is_told(names):
                step()
                done = True
        finally:
            if not done:
                assert stored(self.admin) == before
                assert self._parked() == aside
        if done:
            assert not any(set(names).intersection(of) for _, of in self._parked())

    @contextmanager
    def _poison_is_known(self) -> Iterator[None]:
        """Whatever can't be projected is what we have damaged, or points at what we have skipped or left parked."""
        try:
            yield
        except PoisonEvent as poison:
            # One that is sound itself needs a row that was skipped, or is refused by the constraint.
            known = poison.notification.id in self.tampered or self._skipped() or self.refused is not None
            if not known:
                raise
        except BuildError as error:
            if "point at rows which are not there" not in str(error) or not (self._skipped() or self._parked()):
                raise

    @contextmanager
    def _uneven_is_told(self, names: list[str]) -> Iterator[None]:
        """The rebuild of others has left them apart, and no projector runs that would draw them level."""
        try:
            yield
        except StillInUse:
            if not self._uneven(names):
                raise

    def _uneven(self, names: list[str]) -> bool:
        """Whether these projections stand apart within some shard."""
        reached = {(name, shard): position for name, shard, position in self._checkpoints()}
        shards = {shard for _, shard in reached}
        # One that has never run stands at the beginning.
        return any(len({reached.get((name, shard), 0) for name in names}) > 1 for shard in shards)

    def _checkpoints(self) -> list[tuple[str, int, int]]:
        """Projection, shard and position."""
        return self.admin.execute(
            "SELECT projection, shard, position FROM evosense_ops.projection_checkpoints"
        ).fetchall()

    def _parked(self) -> list[tuple[int, list[str]]]:
        rows = self.admin.execute("SELECT position, projections FROM evosense_ops.parked_events ORDER BY position")
        return [(position, sorted(names)) for position, names in rows]

    def _skipped(self) -> set[int]:
        return {position for (position,) in self.admin.execute("SELECT position FROM evosense_ops.skipped_events")}

    def _builds(self) -> list[Any]:
        with self.read.connect() as conn:
            return self.builder.builds(conn)

    def _leases_are_over(self) -> None:
        self.admin.execute("UPDATE evosense_ops.projection_checkpoints SET holder = NULL, held_until = NULL")
        self.admin.execute("TRUNCATE evosense_ops.projectors")


def _empty(admin: psycopg.Connection[Any]) -> None:
    """As if nothing had ever happened; the tenants' keys stay."""
    _forbid_nothing(admin)
    for (schema,) in admin.execute("SELECT schema_name FROM evosense_ops.builds").fetchall():
        admin.execute("SELECT evosense_ops.build_drop(%s)", (schema,))
    names = SQL(", ").join(Identifier("evosense", table) for table in tables(admin))
    admin.execute(SQL("TRUNCATE {}").format(names))
    admin.execute(
        "TRUNCATE evosense_ops.projection_checkpoints, evosense_ops.projectors, evosense_ops.parked_events, "
        "evosense_ops.skipped_events, evosense_ops.builds"
    )
    admin.execute("TRUNCATE evosense_log.stored_events RESTART IDENTITY")


def _forbid_nothing(admin: psycopg.Connection[Any]) -> None:
    """The constraint goes, and any build that was made with it."""
    found = admin.execute(
        "SELECT conrelid::regclass::text FROM pg_constraint WHERE conname = %s", (_CONSTRAINT,)
    ).fetchall()
    for (table,) in found:
        admin.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(SQL(table), Identifier(_CONSTRAINT)))


def _chosen() -> examples:
    return examples(
        max_examples=_EXAMPLES or 20,
        stateful_step_count=_STEPS,
        derandomize=not _EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        # Shrinking would take minutes; the steps of what failed are printed as they are.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_the_tables_say_what_the_log_says(
    settings: Settings, write: WriteSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_PAUSE_S", 0.0)
    with administrator(settings) as admin:
        Projections.system, Projections.write, Projections.admin = settings, write, admin
        run_state_machine_as_test(Projections, settings=_chosen())


# ---------------------------------------------------------------------------------- what was found, and the proof


def test_one_wrong_cell_in_any_table_would_be_seen(settings: Settings, write: WriteSide) -> None:
    """The comparison itself: a sum one place longer, a bit of a vector, a row too many and one too few are told."""
    with administrator(settings) as admin:
        _empty(admin)
        world, log = World(5), {}
        units = [*world.births(), *world.happen(200)]
        record(write, units)
        log = dict(enumerate((event for unit in units for event in unit), start=1))
        side = read_side(settings)
        drain(side.engine)
        side.close()
        assert differences(stored(admin), fold(log)) == []
        for change, told in (
            ("UPDATE metrics_rollup SET sentiment_sum = sentiment_sum + 0.0000000", "differs in sentiment_sum"),
            ("UPDATE messages_message SET sentiment = sentiment + 1e-16 WHERE sentiment = 0.1", "differs in sentiment"),
            (
                "UPDATE messages_message SET embedding = embedding + array_fill(0.1::real, ARRAY[768])::vector",
                "differs in embedding",
            ),
            ("DELETE FROM experiments_inference WHERE id = (SELECT max(id) FROM experiments_inference)", ": missing"),
            ("INSERT INTO metrics_latency SELECT id FROM tenancy_tenant ON CONFLICT DO NOTHING", None),
            ("INSERT INTO experiments_prompttemplate (version, body) VALUES ('1', 'x')", ": too much"),
        ):
            with admin.transaction(force_rollback=True):
                admin.execute("SET LOCAL search_path = evosense, public")
                admin.execute(change)
                found = differences(stored(admin), fold(log))
                assert bool(found) == (told is not None), change
                assert all((told and told in one) or "metrics_" in one for one in found)


def test_what_cannot_be_opened_is_no_poison_to_those_who_do_not_read_it(
    settings: Settings, write: WriteSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is parked and `experiments` is rebuilt alone: an audit then stopped at the message, for that one."""
    monkeypatch.setattr(engine_module, "_PAUSE_S", 0.0)
    with administrator(settings) as admin:
        _empty(admin)
        world = World(6)
        record(write, [*world.births(), *world.happen(120)])
        row = admin.execute(
            "SELECT min(notification_id) FROM evosense_log.stored_events WHERE topic = 'messages.MessageReceived:1'"
        ).fetchone()
        assert row is not None
        tampered(admin, row[0])
        side = read_side(settings)
        drain(side.engine)
        assert row[0] in parked(admin)
        rebuild(side.builder, ["experiments"], Interrupting(None), patience=5)
        assert Auditor(side.builder, _NAMES).audit(lambda *_: None).equal
        side.close()
