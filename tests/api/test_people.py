"""One person, one hash, each message once: whichever names deliveries give somebody, and in whichever order."""

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from adapters.evolution import Envelope, InboundMessage
from adapters.settings import Settings
from api.importing import Report, import_source, open_source
from api.receiving import Origin, Received, record
from api.wiring import WriteSide, write_side
from domain.connections import Connection, RegisterConnection, connection, connection_id
from domain.messages import MessageReceived
from domain.people import LidLinked, lid
from tests.support.http import Account, System, envelope, utc_now

SAMPLES = Path(__file__).parents[1] / "samples" / "evolution"
AT = 1_761_134_400
LID, PHONE = "204511987733120", "5511987654321"

SAMPLE_NAMES = ("21-lid-remoteJidAlt.json", "44-lid-older-server-senderPn.json", "45-lid-without-phone.json")

#: Ways in which a delivery names the other side of a 1:1 chat.
ALONE = {"remoteJid": f"{LID}@lid"}
ALONE_ON_A_DEVICE = {"remoteJid": f"{LID}:4@lid"}
BOTH = {"remoteJid": f"{LID}@lid", "remoteJidAlt": f"{PHONE}@s.whatsapp.net"}
BOTH_TURNED_ROUND = {"remoteJid": f"{PHONE[:4]}{PHONE[5:]}@s.whatsapp.net", "remoteJidAlt": f"{LID}:2@lid"}
OLDER_SERVER = {"remoteJid": f"{LID}@lid", "senderPn": f"{PHONE}:23@s.whatsapp.net"}
PHONE_ALONE = {"remoteJid": f"{PHONE[:4]}{PHONE[5:]}:7@s.whatsapp.net"}
NAMES = {"alone": ALONE, "both": BOTH, "phone": PHONE_ALONE}
ORDERS = sorted(set(itertools.permutations([*NAMES, "alone"])))


def named(name: dict[str, str], key: str, *, at: int = AT, text: str = "Oi", from_me: bool = False) -> dict[str, Any]:
    body = envelope(text, key, at, from_me=from_me)
    body["data"]["key"].update(name)
    return body


class Shop:
    """A tenant with a connection, and what it sees."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.who: Account = system.new_user(system.new_tenant())
        _, self.hook = system.new_connection(self.who)

    def deliver(self, *bodies: dict[str, Any]) -> list[str]:
        """What became of each: one letter a message."""
        answers = [self.system.deliver(self.hook, body) for body in bodies]
        return ["received" if answer["received"] else "duplicate" for answer in answers]

    @property
    def rows(self) -> list[dict[str, Any]]:
        self.system.projected()
        return self.system.messages_of(self.who.tenant_id)

    @property
    def people(self) -> int:
        """How many customers there seem to be; chats and senders agree on that."""
        rows = self.rows
        assert {row["sender"] for row in rows} == {row["chat_id"] for row in rows}
        return len({row["sender"] for row in rows})


@pytest.fixture
def shop(system: System) -> Shop:
    return Shop(system)


# ---------------------------------------------------------------------------------------------------- one person


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_four_messages_are_one_persons_in_every_order(shop: Shop, order: Sequence[str]) -> None:
    bodies = [named(NAMES[name], f"K{number}", at=AT + number) for number, name in enumerate(order)]
    assert shop.deliver(*bodies) == ["received"] * 4
    assert shop.deliver(*bodies) == ["duplicate"] * 4
    assert len(shop.rows) == 4
    assert shop.people == 1
    # Every message once more, as if the server had learned the phone, or lost it.
    for name in NAMES.values():
        again = [named(name, f"K{number}", at=AT + number) for number in range(4)]
        assert shop.deliver(*again) == ["duplicate"] * 4
    assert len(shop.rows) == 4


@pytest.mark.parametrize(
    "order", sorted(set(itertools.permutations(["alone", "both", "phone", "alone"]))), ids="-".join
)
def test_one_message_is_one_row_in_every_order(shop: Shop, order: Sequence[str]) -> None:
    outcomes = shop.deliver(*(named(NAMES[name], "K1") for name in order))
    # What nobody could know: LID and phone by themselves, and nothing yet that says that they are one person.
    apart = {"alone", "phone"} <= set(order[: order.index("both")])
    assert outcomes.count("received") == 1 + apart
    assert len(shop.rows) == 1 + apart
    assert shop.people == 1


@pytest.mark.parametrize("other", [BOTH, BOTH_TURNED_ROUND, OLDER_SERVER], ids=["both", "turned round", "older"])
@pytest.mark.parametrize("first", [ALONE, ALONE_ON_A_DEVICE, PHONE_ALONE], ids=["alone", "on a device", "phone"])
@pytest.mark.parametrize("later", [ALONE, PHONE_ALONE, BOTH], ids=["alone", "phone", "both"])
def test_a_link_that_another_message_brings_counts_for_all(
    shop: Shop, first: dict[str, str], other: dict[str, str], later: dict[str, str]
) -> None:
    assert shop.deliver(named(first, "K1")) == ["received"]
    assert shop.deliver(named(other, "K2", at=AT + 5)) == ["received"]
    assert shop.deliver(named(later, "K1")) == ["duplicate"]
    assert len(shop.rows) == 2
    assert shop.people == 1


def test_the_samples_lead_to_one_person(shop: Shop) -> None:
    bodies = [json.loads((SAMPLES / name).read_bytes()) for name in SAMPLE_NAMES]
    assert shop.deliver(*bodies) == ["received"] * 3
    # Juliana twice, and 45 comes under a LID alone; then somebody names the phone to it.
    assert shop.people == 2
    assert shop.deliver(named(BOTH, "K9", at=AT + 3000)) == ["received"]
    senders = [row["sender"] for row in shop.rows]
    lid_alone = next(row for row in shop.rows if row["text"] == "Vocês entregam em Santos?")
    assert senders.count(lid_alone["sender"]) == 2
    assert lid_alone["chat_id"] == lid_alone["sender"]


def test_what_the_company_writes_stands_in_the_persons_chat(shop: Shop) -> None:
    bodies = [
        named(ALONE, "K1", from_me=True),
        named(ALONE, "K2", at=AT + 1),
        named(BOTH, "K3", at=AT + 2, from_me=True),
        named(PHONE_ALONE, "K4", at=AT + 3),
        named(ALONE, "K5", at=AT + 4, from_me=True),
    ]
    assert shop.deliver(*bodies) == ["received"] * 5
    assert shop.deliver(named(PHONE_ALONE, "K1", from_me=True), named(BOTH, "K5", at=AT + 4, from_me=True)) == [
        "duplicate",
        "duplicate",
    ]
    rows = shop.rows
    assert len({row["chat_id"] for row in rows}) == 1
    assert len({row["sender"] for row in rows if row["sender"] != row["chat_id"]}) == 1
    assert [row["sender"] == row["chat_id"] for row in rows] == [False, True, False, True, False]


GROUP = {"remoteJid": "120363298765432109@g.us"}
MEMBER = {
    "alone": {"participant": f"{LID}:3@lid"},
    "both": {"participant": f"{LID}@lid", "participantAlt": f"{PHONE}@s.whatsapp.net"},
    "phone": {"participant": f"{PHONE[:4]}{PHONE[5:]}@s.whatsapp.net"},
}


@pytest.mark.parametrize("order", list(itertools.permutations(MEMBER)), ids="-".join)
def test_in_groups_the_author_is_the_person_and_the_chat_the_group(shop: Shop, order: Sequence[str]) -> None:
    bodies = [named({**GROUP, **MEMBER[name]}, f"G{number}", at=AT + number) for number, name in enumerate(order)]
    assert shop.deliver(*bodies, named(ALONE, "K1", at=AT + 9)) == ["received"] * 4
    again = [named({**GROUP, **MEMBER[name]}, "G1", at=AT + 1) for name in MEMBER]
    assert shop.deliver(*again) == ["duplicate"] * 3
    *group, private = shop.rows
    assert len({row["sender"] for row in group}) == 1
    assert len({row["chat_id"] for row in group}) == 1
    assert private["sender"] == private["chat_id"] == group[0]["sender"] != group[0]["chat_id"]


def test_a_link_is_an_event_of_hashes_and_happens_once(shop: Shop) -> None:
    shop.deliver(named(BOTH, "K1"), named(OLDER_SERVER, "K2", at=AT + 1), named(BOTH_TURNED_ROUND, "K3", at=AT + 2))
    write, tenant_id = shop.system.write, shop.who.tenant_id
    key = write.vault.key(tenant_id)
    alias, person = key.pseudonym(f"lid:{LID}"), key.pseudonym(PHONE)
    history = write.log.history(lid(tenant_id, alias).id)
    assert [(type(one.event), one.event.alias, one.event.person) for one in history] == [  # type: ignore[attr-defined]
        (LidLinked, alias, person)
    ]


def test_another_tenant_knows_nothing_of_it(system: System, shop: Shop) -> None:
    other = Shop(system)
    shop.deliver(named(BOTH, "K1"))
    assert other.deliver(named(ALONE, "K1"), named(PHONE_ALONE, "K2")) == ["received", "received"]
    assert (shop.people, other.people) == (1, 2)
    assert not {row["sender"] for row in shop.rows} & {row["sender"] for row in other.rows}


def test_two_people_with_the_same_message_id_are_two(shop: Shop) -> None:
    rafael = {"remoteJid": "99887766@lid", "remoteJidAlt": "5521987650002@s.whatsapp.net"}
    assert shop.deliver(named(BOTH, "K1"), named(rafael, "K1"), named(ALONE, "K1")) == [
        "received",
        "received",
        "duplicate",
    ]
    assert shop.people == 2


def test_a_new_number_counts_from_its_first_message_on(shop: Shop) -> None:
    new = {"remoteJid": f"{LID}@lid", "remoteJidAlt": "5531988887777@s.whatsapp.net"}
    assert shop.deliver(named(ALONE, "K1"), named(BOTH, "K2", at=AT + 1)) == ["received"] * 2
    # What the company writes, and what is older than the link, change nothing.
    assert shop.deliver(named(new, "K3", at=AT + 2, from_me=True), named(new, "K4", at=AT)) == ["received"] * 2
    assert shop.deliver(named(ALONE, "K5", at=AT + 3)) == ["received"]
    assert shop.deliver(named(new, "K6", at=AT + 4), named(ALONE, "K7", at=AT + 5)) == ["received"] * 2
    # Whichever number the deliveries name: none is stored twice.
    for name in (ALONE, BOTH, new):
        assert shop.deliver(*(named(name, f"K{n}", at=AT + n - 1) for n in (1, 2, 5, 6, 7))) == ["duplicate"] * 5
    key = shop.system.write.vault.key(shop.who.tenant_id)
    was, now = key.pseudonym(PHONE), key.pseudonym("5531988887777")
    assert [row["chat_id"] for row in shop.rows] == [was, was, was, now, was, now, now]


def test_metrics_search_and_lists_see_one_chat(shop: Shop) -> None:
    moment = int(utc_now().timestamp()) - 60
    shop.deliver(named(ALONE, "K1", at=moment, text="O bolo chegou amassado"))
    before = shop.rows[0]["chat_id"]
    shop.deliver(named(BOTH, "K2", at=moment + 1, text="O bolo veio sem recheio"))
    person = shop.rows[0]["chat_id"]
    system, who = shop.system, shop.who
    assert person != before
    assert [chat["messages"] for chat in system.get(who, "/metrics/chats")["items"]] == [2]
    for chat_id in (person, before):
        # A bookmark of before still finds the chat.
        assert len(system.get(who, "/messages", chat_id=chat_id)["items"]) == 2
        assert len(system.get(who, "/search", q="bolo", mode="text", chat_id=chat_id)) == 2


# ---------------------------------------------------------------------------------------------------- at one moment


@pytest.fixture
def source(write: WriteSide) -> Connection:
    """A registered connection."""
    tenant_id = uuid4()
    write.vault.create(tenant_id)
    empty = connection(connection_id(tenant_id, "balcão"))
    command = RegisterConnection(
        at=utc_now(),
        tenant_id=tenant_id,
        name="balcão",
        evo_ws_url="https://evo.example.com",
        sealed_token="c2VsYWRv",
        company_sender="c" * 64,
    )
    write.commands.handle(empty, command, new=True)
    return write.log.load(empty)


def inbound(name: str, key: str = "K1", *, lid_: str = f"lid:{LID}", phone: str = PHONE) -> InboundMessage:
    person = lid_ if name == "alone" else phone
    known = None if name == "phone" else lid_
    return InboundMessage(
        external_id=key,
        chat=person,
        author=person,
        from_me=False,
        is_group=False,
        kind="conversation",
        text="Oi",
        sent_at=utc_now(),
        chat_lid=known,
        author_lid=known,
    )


def take(write: WriteSide, source: Connection, *messages: InboundMessage) -> Received:
    return record(write, source, Envelope("messages.upsert", "balcão", messages, ()), utc_now())


def meanwhile(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, do: Callable[[], object]) -> None:
    """Let something happen right before the next call."""
    original, left = getattr(target, name), [do]

    def first(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()()
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, first)


@pytest.mark.parametrize("others", ["both", "alone"])
def test_the_phone_comes_while_the_lid_alone_is_being_recorded(
    write: WriteSide, settings: Settings, source: Connection, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    """Another process links, and records the message, after this one has found no link and before it appends."""
    other = write_side(settings)
    try:

        def link() -> None:
            take(other, source, inbound("both", "K1" if others == "both" else "K2"), inbound("alone"))

        meanwhile(monkeypatch, write.commands, "handle_many", link)
        done = take(write, source, inbound("alone"))
        assert (done.received, done.duplicates) == (0, 1)
    finally:
        other.close()


def test_the_lid_alone_comes_while_the_link_is_being_recorded(
    write: WriteSide, settings: Settings, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_side(settings)
    try:
        # First the link is appended, then the log is asked: what another process stored before is found.
        meanwhile(monkeypatch, write.commands, "handle_many", lambda: take(other, source, inbound("alone")))
        done = take(write, source, inbound("both"))
        assert (done.received, done.duplicates) == (0, 1)
        # And behind the link nobody can record it under the LID.
        assert take(other, source, inbound("alone")).duplicates == 1
    finally:
        other.close()


def test_many_deliveries_at_once_from_two_processes(write: WriteSide, settings: Settings, source: Connection) -> None:
    """All but the phone alone, of which nobody can tell before the link whose it is."""
    other = write_side(settings)
    people = [(f"lid:77{number:04}", f"55119876{number:05}") for number in range(12)]
    begin = threading.Barrier(8)

    def deliver(turn: int) -> int:
        side, received = (write, other)[turn % 2], 0
        begin.wait()
        for number, (lid_, phone) in enumerate(people):
            name = ("alone", "both")[(turn // 2 + number) % 2]
            received += take(side, source, inbound(name, f"K{number}", lid_=lid_, phone=phone)).received
        return received

    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(deliver, range(8))) == len(people)
    finally:
        other.close()


def test_an_ordinary_message_asks_nothing_more(
    write: WriteSide, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(write, source, inbound("both"))
    asked: list[str] = []
    for name in ("load_many", "births", "load", "catch_up"):
        monkeypatch.setattr(write.log, name, lambda *_, name=name: asked.append(name))
    # Long behind the link, so that it can't have been received before.
    later = [
        InboundMessage(
            **{f: getattr(m, f) for f in m.__struct_fields__ if f != "sent_at"}, sent_at=m.sent_at + later_by
        )
        for later_by in [timedelta(hours=49)]
        for m in (inbound("both", "K2"), inbound("phone", "K3"))
    ]
    assert take(write, source, *later).received == 2
    assert take(write, source, inbound("phone", "K4", phone="5511911112222")).received == 1
    assert not asked


# ---------------------------------------------------------------------------------------------------- imports


def row(name: dict[str, str], number: int) -> dict[str, Any]:
    return {
        "key": {"fromMe": False, "id": f"H{number}", **name},
        "message": {"conversation": f"mensagem {number}"},
        "messageType": "conversation",
        "messageTimestamp": AT + number,
    }


@pytest.mark.parametrize("processes", [0, 2])
def test_a_history_and_deliveries_lead_to_one_person(
    write: WriteSide, settings: Settings, source: Connection, tmp_path: Path, processes: int
) -> None:
    assert source.tenant_id is not None
    take(write, source, inbound("alone", "H0"))
    rows = [row(NAMES[name], n) for n, name in enumerate(["phone", "alone", "both", "phone", "alone", "both"], 1)]
    path = tmp_path / "história.jsonl"

    def run() -> Report:
        origin = Origin(source.id, source.tenant_id or UUID(int=0), source.company_sender)
        return import_source(write, settings, open_source(path), origin, processes=processes, restart=True)

    path.write_text("".join(f"{json.dumps(one)}\n" for one in rows), "utf-8")
    assert (run().run.stored, run().run.duplicates) == (6, 6)
    # The same messages as another export names them, with the one that was delivered.
    renamed = [row(NAMES[name], n) for n, name in enumerate(["phone", "both", "phone", "alone", "alone", "phone"])]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in [*renamed, row(ALONE, 6)]), "utf-8")
    report = run()
    assert (report.run.stored, report.run.duplicates) == (0, 7)
    assert take(write, source, *(inbound(name, "H3") for name in NAMES)).duplicates == 3
    assert len(streams_of(write, source)) == 7


def streams_of(write: WriteSide, source: Connection) -> list[UUID]:
    assert source.tenant_id is not None
    return [s for _, s in write.log.births_after(0, write.log.head(), source.tenant_id, MessageReceived, 1000)]
