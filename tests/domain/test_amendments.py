"""What is announced of a message, and which message it changes in the end, in whatever order things come."""

from datetime import timedelta
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.aggregate import derived_id
from domain.amendments import (
    AnnounceDeletion,
    AnnounceEdit,
    DeletionAnnounced,
    EditAnnounced,
    MessageKey,
    addressed,
    amend,
    meant,
    message_key,
)
from domain.errors import Invalid
from domain.message_keys import message_key_id
from domain.messages import (
    MAX_TEXT_BYTES,
    DeleteMessage,
    EditMessage,
    Message,
    ReceiveMessage,
    message,
    message_id,
)
from tests.support.spec import NOW, TENANT, fact, given

CONNECTION = UUID("22222222-2222-4222-8222-222222222222")
EXTERNAL = "3EB0A1"
EMPTY = message_key(message_key_id(CONNECTION, EXTERNAL))
HINTS = {"connection_id": CONNECTION, "chat_id": "c" * 64, "from_me": False, "external_id": EXTERNAL}
EDIT = {**HINTS, "edited_at": NOW, "text": "Já chegou."}
DELETION = {**HINTS, "deleted_at": NOW}


def edit(**fields: object) -> AnnounceEdit:
    return AnnounceEdit(at=NOW, tenant_id=TENANT, **{**EDIT, **fields})


def deletion(**fields: object) -> AnnounceDeletion:
    return AnnounceDeletion(at=NOW, tenant_id=TENANT, **{**DELETION, **fields})


def edit_announced(version: int = 1, **fields: object) -> EditAnnounced:
    return fact(EditAnnounced, EMPTY, version, **{**EDIT, **fields})


def deletion_announced(version: int = 1, **fields: object) -> DeletionAnnounced:
    return fact(DeletionAnnounced, EMPTY, version, **{**DELETION, **fields})


def received(chat_id: str = "c" * 64, from_me: bool = False, *, seconds: int = 0) -> Message:
    empty = message(message_id(CONNECTION, chat_id, from_me, EXTERNAL))
    command = ReceiveMessage(
        at=NOW,
        tenant_id=TENANT,
        connection_id=CONNECTION,
        chat_id=chat_id,
        sender="d" * 64,
        from_me=from_me,
        is_group=False,
        kind="text",
        sent_at=NOW + timedelta(seconds=seconds),
        external_id=EXTERNAL,
        text="Não chegou.",
    )
    return empty.replay(empty.decide(command))


@for_all(connection=st.uuids(), external_id=st.text(max_size=40))
def test_a_key_has_a_derived_id(connection: UUID, external_id: str) -> None:
    assert message_key_id(connection, external_id) == derived_id("message key", connection, external_id)


def test_an_edit_is_announced_once() -> None:
    given(EMPTY).when(edit()).then(edit_announced())
    given(EMPTY, edit_announced()).when(edit()).then()


@pytest.mark.parametrize("other", [{"text": "Outro texto."}, {"edited_at": NOW + timedelta(milliseconds=1)}], ids=str)
def test_another_text_or_time_is_another_edit(other: dict[str, object]) -> None:
    given(EMPTY, edit_announced()).when(edit(**other)).then(edit_announced(2, **other))


def test_without_a_time_the_same_text_is_the_same_edit() -> None:
    given(EMPTY, edit_announced(edited_at=None)).when(edit(edited_at=None)).then()


def test_a_deletion_is_announced_once_whatever_time_it_tells() -> None:
    given(EMPTY).when(deletion()).then(deletion_announced())
    given(EMPTY, deletion_announced()).when(deletion(deleted_at=None)).then()
    given(EMPTY, deletion_announced()).when(deletion(chat_id="")).then(deletion_announced(2, chat_id=""))


def test_no_text_is_recorded_of_what_was_deleted() -> None:
    given(EMPTY, deletion_announced()).when(edit()).then()
    given(EMPTY, edit_announced(), deletion_announced(2)).when(edit(text="Outro texto.")).then()


@pytest.mark.parametrize(
    ("fields", "saying"),
    [
        ({"text": " \n"}, "without text"),
        ({"text": "é" * (MAX_TEXT_BYTES // 2 + 1)}, f"at most {MAX_TEXT_BYTES} bytes"),
        ({"chat_id": "x" * 129}, "chat_id"),
        ({"edited_at": NOW.replace(tzinfo=None)}, "edited_at is a time without a zone"),
        ({"external_id": "another"}, "the stream of its own key"),
    ],
)
def test_what_can_not_be_an_edit_is_refused(fields: dict[str, object], saying: str) -> None:
    given(EMPTY).when(edit(**fields)).refused(Invalid, saying)


def test_a_deletion_needs_a_time_with_a_zone_and_its_own_key() -> None:
    given(EMPTY).when(deletion(deleted_at=NOW.replace(tzinfo=None))).refused(Invalid, "deleted_at is a time without")
    given(EMPTY).when(deletion(external_id="another")).refused(Invalid, "the stream of its own key")
    command = DeleteMessage(at=NOW, key_id=EMPTY.id, announcement=1, deleted_at=NOW)
    given(EMPTY).when(command).refused(Invalid, "DeleteMessage")


def test_hints_choose_among_several_and_never_rule_out_the_only_one() -> None:
    here, there, ours = received(), received("e" * 64, seconds=5), received("c" * 64, from_me=True)
    announced = deletion_announced()
    assert meant(announced, []) == []
    assert meant(announced, [there]) == [there]
    assert meant(announced, [there, here]) == [here]
    assert meant(announced, [ours, here]) == [here]
    assert meant(announced, [ours, there]) == [ours], "the chat counts before the direction"
    blind = replace(announced, chat_id="", from_me=None)
    assert meant(blind, [here, there]) == [here, there], "nothing tells them apart"


def test_one_message_under_two_addresses_is_meant_as_a_whole() -> None:
    by_phone, by_lid = received(), received("e" * 64)
    assert meant(deletion_announced(), [by_phone, by_lid]) == [by_phone, by_lid]
    deleted = by_phone.replay(by_phone.decide(DeleteMessage(at=NOW, key_id=EMPTY.id, announcement=1, deleted_at=NOW)))
    assert meant(deletion_announced(), [deleted, by_lid]) == [deleted, by_lid], "also one that comes after the deletion"
    ours = received("e" * 64, from_me=True)
    assert meant(deletion_announced(), [by_phone, ours]) == [by_phone]


def test_the_latest_edit_is_what_has_to_be_made() -> None:
    target = received()
    first, second = edit_announced(), edit_announced(2, edited_at=NOW + timedelta(seconds=9), text="Chegou mesmo.")
    for events in ((first, second), (replace(second, originator_version=1), replace(first, originator_version=2))):
        (command,) = amend(EMPTY.replay(events), [target], NOW).values()
        assert isinstance(command, EditMessage)
        assert (command.text, command.edited_at) == (second.text, second.edited_at)


def test_a_deletion_comes_before_every_edit() -> None:
    target = received()
    for events in permutations((edit_announced(), deletion_announced(), edit_announced(text="Outro."))):
        placed = [replace(event, originator_version=number) for number, event in enumerate(events, 1)]
        assert isinstance(amend(EMPTY.replay(placed), [target], NOW)[target.id], DeleteMessage)


def test_an_edit_that_was_sealed_away_changes_nothing() -> None:
    key = EMPTY.replay([edit_announced(text="", external_id=""), deletion_announced(2, chat_id="e" * 64)])
    here, there = received(), received("e" * 64, seconds=5)
    assert list(amend(key, [here, there], NOW)) == [there.id]
    assert list(addressed(key)) == [("e" * 64, False, EXTERNAL)]


def test_messages_are_addressed_where_the_hints_are_complete() -> None:
    key = EMPTY.replay([edit_announced(), edit_announced(2, from_me=None), edit_announced(3, chat_id="")])
    assert list(addressed(key)) == [("c" * 64, False, EXTERNAL)]


_announcements = st.lists(
    st.one_of(
        st.builds(
            edit,
            text=st.sampled_from(["um", "dois", "três"]),
            edited_at=st.sampled_from([NOW, NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)]),
        ),
        st.builds(deletion),
    ),
    min_size=1,
    max_size=6,
)


@for_all(commands=_announcements, arrives=st.integers(0, 6))
def test_whenever_the_message_arrives_it_ends_alike(
    commands: list[AnnounceEdit | AnnounceDeletion], arrives: int
) -> None:
    """Amended at each step from its arrival on, or once in the end: the same text."""

    def carry_out(key: MessageKey, target: Message) -> Message:
        for command in amend(key, [target], NOW).values():
            target = target.replay(target.decide(command))
        return target

    key, stepwise = EMPTY, received()
    for number, command in enumerate(commands):
        key = key.replay(key.decide(command))
        if number >= arrives:
            stepwise = carry_out(key, stepwise)
    stepwise, at_once = carry_out(key, stepwise), carry_out(key, received())
    assert (stepwise.text, stepwise.deleted, stepwise.edition) == (at_once.text, at_once.deleted, at_once.edition)
    assert carry_out(key, stepwise) == stepwise, "once more changes nothing"
