"""A connection that falls silent: said once, shown until a message comes; by a clock that the test turns."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from adapters.settings import Settings
from api.known_connections import known_connections
from api.silence import Silence
from api.sweeps import ConnectionSweep, enrol, sweeps
from api.wiring import ReadSide, WriteSide
from domain.connections import (
    ActivateConnection,
    DeactivateConnection,
    RegisterConnection,
    connection,
    connection_id,
)
from domain.messages import ReceiveMessage, message, message_id
from domain.tenancy import RegisterTenant, tenant
from tests.api.test_monitor import monitor
from tests.support.http import utc_now
from tests.support.systems import drain

HOUR = timedelta(hours=1)


class Shop:
    """A connection that had three messages in each hour of three weeks, up to `last`."""

    def __init__(self, write: WriteSide, read: ReadSide) -> None:
        self._write, self._read = write, read
        self.tenant, self.name = uuid4(), f"loja-{uuid4().hex[:6]}"
        self.id = connection_id(self.tenant, self.name)
        self.last = utc_now().replace(minute=30, second=0, microsecond=0) - 3 * HOUR
        self.now = self.last + HOUR / 2
        write.vault.create(self.tenant)
        early = self.last - timedelta(days=60)
        write.commands.handle(tenant(self.tenant), RegisterTenant(at=early, name="Loja Aurora", plan="pro"), new=True)
        register = RegisterConnection(
            at=early,
            tenant_id=self.tenant,
            name=self.name,
            evo_ws_url="https://evo.example.com",
            sealed_token="c2VsYWRv",
            company_sender="f" * 64,
        )
        write.commands.handle(connection(self.id), register, new=True)
        self.receives(*(self.last - n * HOUR for n in range(21 * 24)))
        self.silence = Silence(write, lambda: self.now)

    def receives(self, *moments: datetime) -> None:
        """A message was sent at each of the moments."""
        for moment in moments:
            chat, key = uuid4().hex, uuid4().hex
            command = ReceiveMessage(
                at=utc_now(),
                tenant_id=self.tenant,
                connection_id=self.id,
                chat_id=chat,
                sender=chat,
                from_me=False,
                is_group=False,
                kind="text",
                sent_at=moment,
                external_id=key,
                text="bom dia",
            )
            self._write.log.append([message(message_id(self.id, chat, False, key)).decide(command)])
        drain(self._read.engine)

    def look(self, silence: Silence | None = None) -> ConnectionSweep:
        """Look now, whenever it was looked last."""
        silence = silence or self.silence
        silence._looked = float("-inf")
        found = known_connections(self._write)
        enrol(self._write, found)
        silence.look(found)
        (found,) = [one for one in sweeps(self._write, self.tenant) if one.connection_id == self.id]
        return found


@pytest.fixture
def shop(write: WriteSide, read: ReadSide) -> Iterator[Shop]:
    shop = Shop(write, read)
    yield shop
    write.commands.handle(connection(shop.id), DeactivateConnection(at=utc_now()))


def warnings(capfd: pytest.CaptureFixture[str]) -> int:
    shown = capfd.readouterr()
    return (shown.out + shown.err).count("is silent for longer than its habit")


def test_silence_is_raised_once_and_lifted_by_a_message(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    calm = shop.look()
    assert (calm.silent_since, calm.expected_gap_seconds, calm.troubles()) == (None, 5400, [])
    shop.now = shop.last + timedelta(seconds=5400)
    assert shop.look().silent_since is None
    assert warnings(capfd) == 0
    shop.now += timedelta(seconds=1)
    silent = shop.look()
    assert (silent.silent_since, silent.warned_at) == (shop.last, shop.now)
    assert warnings(capfd) == 1
    (trouble,) = silent.troubles()
    assert "MESSAGES_UPSERT" in trouble
    shop.now += 5 * HOUR
    # Said once, whichever process looks.
    assert shop.look(Silence(shop._write, lambda: shop.now)).silent_since == shop.last
    assert warnings(capfd) == 0
    back = shop.now - HOUR / 4
    shop.receives(back)
    assert (shop.look().silent_since, shop.look().last_message_at) == (None, back)
    shop.now += 2 * HOUR
    assert shop.look().silent_since == back
    assert warnings(capfd) == 1


def test_a_silence_of_weeks_does_not_end_by_itself(shop: Shop) -> None:
    shop.now = shop.last + 2 * HOUR
    assert shop.look().silent_since == shop.last
    for weeks in (1, 3, 9):
        shop.now = shop.last + timedelta(weeks=weeks)
        assert shop.look().silent_since == shop.last


def test_who_is_deactivated_is_not_silent(shop: Shop, write: WriteSide) -> None:
    shop.look()
    write.commands.handle(connection(shop.id), DeactivateConnection(at=utc_now()))
    shop.now = shop.last + 9 * HOUR
    assert shop.look().silent_since is None
    write.commands.handle(connection(shop.id), ActivateConnection(at=utc_now()))
    drain(shop._read.engine)
    assert shop.look().silent_since == shop.last


def test_a_projector_that_stands_still_makes_nobody_silent(shop: Shop, write: WriteSide) -> None:
    shop.look()
    shop.now = shop.last + 9 * HOUR
    behind = uuid4()
    write.vault.create(behind)
    for _ in range(2):
        write.commands.handle(tenant(behind), RegisterTenant(at=utc_now(), name="x", plan="pro"), new=True)
        behind = uuid4()
        write.vault.create(behind)
        # At the first of these looks, the read models lack what the log has; at the second, what it had at the first.
        silence = Silence(write, lambda: shop.now)
        assert shop.look(silence).silent_since is None
        assert shop.look(silence).silent_since is None
    drain(shop._read.engine)
    assert shop.look().silent_since == shop.last


def test_it_looks_no_more_often_than_is_worth_while(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.look()
    shop.now = shop.last + 9 * HOUR
    shop.silence.look(known_connections(shop._write))
    assert sweeps(shop._write, shop.tenant)[0].silent_since is None


def test_monitor_shows_who_is_silent(shop: Shop, settings: Settings) -> None:
    shop.look()
    shown = monitor(settings, "connection_silence", "--json")
    assert shown.returncode == 0, shown.stderr
    assert f'"connection": "{shop.name}"' in shown.stdout
    # By the clock of the real world the last message is between 2.5 and 3.5 hours old, and 1.5 are expected.
    assert '"silent": true' in shown.stdout


def test_a_new_connection_is_swept_from_its_registration_on(shop: Shop, write: WriteSide) -> None:
    shop.look()
    with write.datastore.get_connection() as conn:
        row = conn.execute(
            "SELECT not_before FROM evosense_ops.connection_sweeps WHERE connection_id = %s", (shop.id,)
        ).fetchone()
    assert row is not None
    assert row["not_before"] == shop.last - timedelta(days=60)
