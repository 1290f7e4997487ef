"""What a message does with its commands, and which answers of a model may be stored."""

import array
import math
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.answers import checked
from domain.errors import Invalid, NotFound
from domain.message_keys import message_key_id
from domain.messages import (
    MAX_TEXT_BYTES,
    AnalyzeMessage,
    DeleteMessage,
    EditMessage,
    EmbedMessage,
    MessageAnalyzed,
    MessageDeleted,
    MessageEdited,
    MessageEmbedded,
    MessageReceived,
    ReceiveMessage,
    message,
    message_id,
)
from domain.ports import DIMENSIONS, EMOTIONS, TONES, Analysis
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

CONNECTION = UUID("22222222-2222-4222-8222-222222222222")
EMPTY = message(message_id(CONNECTION, "c" * 64, False, "3EB0A1"))
FIELDS = {
    "connection_id": CONNECTION,
    "chat_id": "c" * 64,
    "sender": "d" * 64,
    "from_me": False,
    "is_group": False,
    "kind": "text",
    "sent_at": NOW,
    "external_id": "3EB0A1",
    "text": "Bom dia, meu pedido não chegou.",
}
RECEIVED = fact(MessageReceived, EMPTY, **FIELDS)
ANALYSIS = Analysis(sentiment=-0.4, emotion="frustração", satisfaction=25, tone="formal", summary="Pedido atrasado.")
SCORES = {
    "sentiment": -0.4,
    "emotion": "frustração",
    "satisfaction": 25,
    "tone": "formal",
    "summary": "Pedido atrasado.",
}
ANALYZED = fact(MessageAnalyzed, EMPTY, 2, model_name="m-1", prompt_version="p-1", **SCORES)
VECTOR = array.array("f", [1.0] + [0.0] * (DIMENSIONS - 1)).tobytes()
EMBEDDED = fact(MessageEmbedded, EMPTY, 2, model_name="e-1", vector=VECTOR)
KEY = message_key_id(CONNECTION, "3EB0A1")
EDIT = EditMessage(at=NOW, key_id=KEY, announcement=1, edited_at=NOW, text="Bom dia, já chegou.")
DELETE = DeleteMessage(at=NOW, key_id=KEY, announcement=2, deleted_at=NOW)


def edited(version: int = 2, **fields: object) -> MessageEdited:
    values = {"key_id": KEY, "announcement": 1, "edited_at": NOW, "text": EDIT.text, **fields}
    return fact(MessageEdited, EMPTY, version, **values)


def deleted(version: int = 2) -> MessageDeleted:
    return fact(MessageDeleted, EMPTY, version, key_id=KEY, announcement=2, deleted_at=NOW)


def receive(**fields: object) -> ReceiveMessage:
    return ReceiveMessage(at=NOW, tenant_id=TENANT, **{**FIELDS, **fields})


def analyze(analysis: Analysis = ANALYSIS, model: str = "m-1", prompt: str = "p-1") -> AnalyzeMessage:
    return AnalyzeMessage(at=NOW, model_name=model, prompt_version=prompt, analysis=analysis)


def test_a_message_is_received_once() -> None:
    given(EMPTY).when(receive()).then(RECEIVED)
    given(EMPTY, RECEIVED).when(receive()).then()
    given(EMPTY, RECEIVED).when(receive(text="chegou de novo, com outro texto")).then()


@pytest.mark.parametrize(
    "other",
    [
        message_id(TENANT, "c" * 64, False, "3EB0A1"),
        message_id(CONNECTION, "e" * 64, False, "3EB0A1"),
        message_id(CONNECTION, "c" * 64, True, "3EB0A1"),
        message_id(CONNECTION, "c" * 64, False, "3EB0A2"),
    ],
)
def test_connection_chat_direction_and_key_make_it_unique(other: UUID) -> None:
    assert other != EMPTY.id
    assert message_id(CONNECTION, "c" * 64, False, "3EB0A1") == EMPTY.id


@pytest.mark.parametrize(
    ("fields", "saying"),
    [
        ({"text": ""}, "without text"),
        ({"text": " \n "}, "without text"),
        ({"text": "é" * (MAX_TEXT_BYTES // 2 + 1)}, f"at most {MAX_TEXT_BYTES} bytes"),
        ({"text": "oi\0"}, "NUL"),
        ({"text": "oi \ud83d"}, "surrogate"),
        ({"chat_id": "x" * 129}, "chat_id"),
        ({"sender": "x" * 65}, "sender"),
        ({"sender": ""}, "sender"),
        ({"sent_at": NOW.replace(tzinfo=None)}, "sent_at is a time without a zone"),
    ],
)
def test_what_no_row_can_hold_is_refused(fields: dict[str, object], saying: str) -> None:
    given(EMPTY).when(receive(**fields)).refused(Invalid, saying)


def test_the_longest_text_is_taken() -> None:
    text = "é" * (MAX_TEXT_BYTES // 2)
    given(EMPTY).when(receive(text=text)).then(replace(RECEIVED, text=text))


def test_a_model_says_the_same_thing_once() -> None:
    given(EMPTY, RECEIVED).when(analyze()).then(ANALYZED)
    given(EMPTY, RECEIVED, ANALYZED).when(analyze()).then()


def test_another_model_or_prompt_is_heard_and_replaces_it() -> None:
    for model, prompt in (("m-2", "p-1"), ("m-1", "p-2")):
        expected = fact(MessageAnalyzed, EMPTY, 3, model_name=model, prompt_version=prompt, **SCORES)
        given(EMPTY, RECEIVED, ANALYZED).when(analyze(model=model, prompt=prompt)).then(expected)


def test_a_model_places_it_once() -> None:
    command = EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR)
    given(EMPTY, RECEIVED).when(command).then(EMBEDDED)
    given(EMPTY, RECEIVED, EMBEDDED).when(command).then()
    given(EMPTY, RECEIVED, EMBEDDED).when(replace(command, model_name="e-2")).then(
        fact(MessageEmbedded, EMPTY, 3, model_name="e-2", vector=VECTOR)
    )


def test_two_models_place_it_side_by_side() -> None:
    command = EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR)
    other = fact(MessageEmbedded, EMPTY, 3, model_name="e-2", vector=VECTOR)
    given(EMPTY, RECEIVED, EMBEDDED, other).when(command).then()
    given(EMPTY, RECEIVED, EMBEDDED, other).when(replace(command, model_name="e-2")).then()


def test_a_vector_that_is_no_longer_read_is_replaced_once() -> None:
    command = EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR, replaces=2)
    anew = fact(MessageEmbedded, EMPTY, 3, model_name="e-1", vector=VECTOR)
    given(EMPTY, RECEIVED, EMBEDDED).when(command).then(anew)
    given(EMPTY, RECEIVED, EMBEDDED, anew).when(command).then()


@pytest.mark.parametrize(
    ("components", "saying"),
    [
        ([1.0] * (DIMENSIONS - 1), f"{DIMENSIONS} floats"),
        ([0.0] * DIMENSIONS, "vector of zeros"),
        ([math.nan] + [0.0] * (DIMENSIONS - 1), "components"),
        ([math.inf] + [0.0] * (DIMENSIONS - 1), "components"),
        ([70000.0] + [0.0] * (DIMENSIONS - 1), "components"),
    ],
    ids=["short", "zeros", "nan", "infinite", "beyond halfvec"],
)
def test_what_pgvector_would_refuse_is_refused(components: list[float], saying: str) -> None:
    vector = array.array("f", components).tobytes()
    given(EMPTY, RECEIVED).when(EmbedMessage(at=NOW, model_name="e-1", vector=vector)).refused(Invalid, saying)


def test_a_model_has_a_name_that_its_column_can_hold() -> None:
    given(EMPTY, RECEIVED).when(analyze(model="m" * 65)).refused(Invalid, "model_name has 1 to 64")
    embed = EmbedMessage(at=NOW, model_name="", vector=VECTOR)
    given(EMPTY, RECEIVED).when(embed).refused(Invalid, "model_name has 1 to 64")


def test_a_message_that_was_never_received_is_not_found() -> None:
    given(EMPTY).when(analyze()).refused(NotFound, "no such message")
    given(EMPTY).when(EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR)).refused(NotFound, "no such message")
    given(EMPTY).when(EDIT).refused(NotFound, "no such message")
    given(EMPTY).when(DELETE).refused(NotFound, "no such message")


def test_an_announced_edit_is_made_once() -> None:
    given(EMPTY, RECEIVED).when(EDIT).then(edited())
    given(EMPTY, RECEIVED, edited()).when(EDIT).then()


def test_the_later_edit_wins_in_whatever_order_they_come() -> None:
    later = replace(EDIT, announcement=2, edited_at=NOW + timedelta(seconds=1), text="Chegou, obrigada!")
    fields = {"announcement": 2, "edited_at": later.edited_at, "text": later.text}
    given(EMPTY, RECEIVED, edited()).when(later).then(edited(3, **fields))
    given(EMPTY, RECEIVED, edited(**fields)).when(EDIT).then()


def test_of_two_edits_of_one_moment_the_one_announced_later_wins() -> None:
    other = replace(EDIT, announcement=2, text="Outro texto")
    given(EMPTY, RECEIVED, edited()).when(other).then(edited(3, announcement=2, text="Outro texto"))
    given(EMPTY, RECEIVED, edited(announcement=2, text="Outro texto")).when(EDIT).then()


def test_nothing_happens_to_a_deleted_message_any_more() -> None:
    given(EMPTY, RECEIVED).when(DELETE).then(deleted())
    for command in (DELETE, EDIT, analyze(), EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR), receive()):
        given(EMPTY, RECEIVED, deleted()).when(command).then()
    state = given(EMPTY, RECEIVED, ANALYZED, deleted(3)).state
    assert (state.deleted, state.text, state.analyzed_by, state.embedded_by) == (True, "", None, {})


def test_what_a_model_says_of_an_old_text_is_not_recorded() -> None:
    embed = EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR)
    for stale in (analyze(), embed, replace(embed, replaces=2)):
        given(EMPTY, RECEIVED, edited()).when(stale).then()
    for early in (analyze(), embed):
        given(EMPTY, RECEIVED).when(replace(early, text_version=2)).then()


def test_an_edited_message_is_analysed_and_placed_anew() -> None:
    before = (RECEIVED, ANALYZED, fact(MessageEmbedded, EMPTY, 3, model_name="e-1", vector=VECTOR), edited(4))
    embed = EmbedMessage(at=NOW, model_name="e-1", vector=VECTOR, text_version=4)
    given(EMPTY, *before).when(replace(analyze(), text_version=4)).then(
        fact(MessageAnalyzed, EMPTY, 5, model_name="m-1", prompt_version="p-1", **SCORES)
    )
    given(EMPTY, *before).when(embed).then(fact(MessageEmbedded, EMPTY, 5, model_name="e-1", vector=VECTOR))


@pytest.mark.parametrize(
    ("fields", "saying"),
    [({"text": " "}, "without text"), ({"edited_at": NOW.replace(tzinfo=None)}, "edited_at is a time without a zone")],
)
def test_an_edit_that_no_row_can_hold_is_refused(fields: dict[str, object], saying: str) -> None:
    given(EMPTY, RECEIVED).when(replace(EDIT, **fields)).refused(Invalid, saying)


def test_a_command_of_another_aggregate_is_refused() -> None:
    given(EMPTY, RECEIVED).when(ReactivateTenant(at=NOW)).refused(Invalid, "ReactivateTenant")


@pytest.mark.parametrize(
    ("wrong", "saying"),
    [
        ({"sentiment": 1.01}, "between -1 and 1"),
        ({"sentiment": -2.0}, "between -1 and 1"),
        ({"sentiment": math.nan}, "between -1 and 1"),
        ({"sentiment": math.inf}, "between -1 and 1"),
        ({"satisfaction": 200}, "between 0 and 100"),
        ({"satisfaction": -1}, "between 0 and 100"),
        ({"emotion": "happy"}, "alegria"),
        ({"emotion": "Alegria"}, "alegria"),
        ({"tone": "rude"}, "cordial"),
        ({"summary": "x" * 201}, "a summary has at most 200"),
        ({"summary": "re\0sumo"}, "NUL"),
    ],
)
def test_a_models_answer_is_not_yet_a_valid_one(wrong: dict[str, object], saying: str) -> None:
    given(EMPTY, RECEIVED).when(analyze(replace(ANALYSIS, **wrong))).refused(Invalid, saying)


def test_a_refusal_does_not_quote_the_model() -> None:
    secret = "o cliente Fulano disse"
    for wrong in ({"emotion": secret}, {"tone": secret}, {"summary": secret * 20}):
        with pytest.raises(Invalid) as refusal:
            checked(replace(ANALYSIS, **wrong))
        assert secret not in str(refusal.value)


@for_all(
    sentiment=st.floats(-1, 1),
    satisfaction=st.integers(0, 100),
    emotion=st.sampled_from(EMOTIONS),
    tone=st.sampled_from(TONES),
    summary=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=200),
)
def test_every_answer_within_the_rules_is_taken_and_rounded(
    sentiment: float, satisfaction: int, emotion: str, tone: str, summary: str
) -> None:
    said = Analysis(sentiment=sentiment, emotion=emotion, satisfaction=satisfaction, tone=tone, summary=summary)
    stored = checked(said)
    assert replace(stored, sentiment=sentiment) == said
    assert abs(stored.sentiment - sentiment) <= 5e-7
    assert stored.sentiment == round(stored.sentiment, 6)
    assert -1 <= stored.sentiment <= 1
    assert math.copysign(1, stored.sentiment) == 1 or stored.sentiment < 0, "no negative zero"
    assert checked(stored) == stored
