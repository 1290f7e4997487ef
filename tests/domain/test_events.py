"""An event is for ever: no type changes without a new version, and every version ever shipped can still be read."""

import base64
from typing import Annotated, Any, Final

import msgspec
import pytest

from adapters.event_store import BrokenSeal, UndecodableEvent, UnknownEventType
from domain.event import SEALED, Event, _is_sealed, event_type, event_types
from domain.upcasting import upcast, upcaster
from tests.support import golden

ENTRIES = golden.load()
TYPES = sorted(event_types().values(), key=lambda cls: cls.type_name)
by_name = pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.topic())
by_topic = pytest.mark.parametrize("topic", sorted(ENTRIES))


@by_name
def test_a_type_stands_in_the_golden_file_as_it_is(cls: type[Event]) -> None:
    assert cls.topic() in ENTRIES, "a new type or version: enter it with `python -m tests.support.golden`"
    assert golden.shape(cls) == ENTRIES[cls.topic()]["fields"], (
        f"{cls.topic()} is in somebody's log like this: give the changed one the next version, and an upcaster"
    )


@by_name
def test_it_is_still_written_as_it_was(cls: type[Event]) -> None:
    written = golden.entry(cls)
    assert written["open"] == ENTRIES[cls.topic()]["open"]
    assert len(written["state"]) == len(ENTRIES[cls.topic()]["state"]), "the sealed part has another size"


@by_topic
def test_every_version_ever_shipped_is_read(topic: str) -> None:
    entry = ENTRIES[topic]
    event = golden.mapper().to_domain_event(golden.stored(entry, topic))
    assert event.topic().rpartition(":")[0] == topic.rpartition(":")[0]
    if event.topic() == topic:
        assert event == golden.sample(type(event))
        assert msgspec.json.decode(msgspec.json.encode(event)) == entry["values"]


@by_topic
def test_the_open_part_is_what_it_was_and_holds_nothing_personal(topic: str) -> None:
    entry = ENTRIES[topic]
    state = base64.b64decode(entry["state"])
    assert golden.open_part(state) == entry["open"]
    sealed = [field for field, kind in entry["fields"].items() if kind.endswith(" sealed")]
    for field in sealed:
        assert field not in entry["open"]
        value = golden._SAMPLES[bytes] if field == "vector" else str(entry["values"][field]).encode()
        assert value not in state


def test_personal_fields_are_the_ones_that_rule_6_names() -> None:
    # Written out by hand: whoever adds a field decides here whether it is personal.
    sealed = {cls.type_name: set(cls.sealed_fields) for cls in TYPES if cls.sealed_fields}
    assert sealed == {
        "tenancy.TenantRegistered": {"name"},
        "tenancy.TenantRenamed": {"name"},
        "tenancy.TenantSuspended": {"reason"},
        "authn.UserRegistered": {"username", "password_hash", "email", "first_name", "last_name"},
        "authn.PasswordChanged": {"password_hash"},
        "connections.ConnectionRegistered": {"sealed_token"},
        "connections.TokenRotated": {"sealed_token"},
        "messages.MessageReceived": {"external_id", "text"},
        "messages.MessageAnalyzed": {"summary"},
        "messages.MessageEmbedded": {"vector"},
        "messages.MessageEdited": {"text"},
        "amendments.EditAnnounced": {"external_id", "text"},
        "amendments.DeletionAnnounced": {"external_id"},
        "prompts.PromptTemplateCreated": {"description", "created_by"},
    }


def test_names_are_stable_and_contain_no_module_path() -> None:
    for cls in TYPES:
        context, _, name = cls.type_name.partition(".")
        assert (context, name) == (cls.__module__.removeprefix("domain."), cls.__name__)


def test_a_changed_class_does_not_have_the_golden_shape() -> None:
    class Renamed(Event, frozen=True, kw_only=True):
        title: Annotated[str, SEALED]

    class Opened(Event, frozen=True, kw_only=True):
        name: str

    for changed in (Renamed, Opened):
        assert golden.shape(changed) != ENTRIES["tenancy.TenantRenamed:1"]["fields"]


@pytest.mark.parametrize(
    "hint",
    [
        Annotated[str, SEALED],
        Annotated[str | None, SEALED],
        Annotated[str, SEALED] | None,
        list[Annotated[str, SEALED]],
    ],
    ids=str,
)
def test_the_mark_of_a_personal_field_is_found_at_any_depth(hint: Any) -> None:
    assert _is_sealed(hint)
    assert not _is_sealed(Annotated[str, msgspec.Meta(max_length=3)])


def test_two_types_can_not_share_a_name() -> None:
    with pytest.raises(ValueError, match="registered twice"):

        @event_type("tenancy.TenantRenamed")
        class Other(Event, frozen=True, kw_only=True):
            pass


def test_old_versions_go_through_every_step() -> None:
    @upcaster("test.Upcast", 1)
    def _(fields: dict[str, Any]) -> dict[str, Any]:
        return {"text": fields["txt"]}

    @upcaster("test.Upcast", 2)
    def _(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "language": "pt"}

    assert upcast("test.Upcast", 1, {"txt": "oi"}) == {"text": "oi", "language": "pt"}
    assert upcast("test.Upcast", 2, {"text": "oi"}) == {"text": "oi", "language": "pt"}
    assert upcast("test.Upcast", 3, {"text": "oi", "language": "en"}) == {"text": "oi", "language": "en"}
    with pytest.raises(ValueError, match="two upcasters from version 1"):
        upcaster("test.Upcast", 1)(lambda fields: fields)


@pytest.mark.parametrize("topic", ["tenancy.TenantRenamed:2", "tenancy.TenantRenamed:0", "tenancy.Gone:1", "x", "x:²"])
def test_a_type_or_version_of_the_future_is_named_and_not_guessed(topic: str) -> None:
    entry = ENTRIES["tenancy.TenantRenamed:1"]
    with pytest.raises(UnknownEventType, match="does not know that type and version"):
        golden.mapper().to_domain_event(golden.stored(entry, topic))


_AS_IT_WAS: Final = object()


def _repacked(topic: str, seal: Any = _AS_IT_WAS, **changes: Any) -> dict[str, Any]:
    readable, sealed = msgspec.msgpack.decode(base64.b64decode(ENTRIES[topic]["state"]))
    if changes:
        readable = msgspec.msgpack.encode({**msgspec.msgpack.decode(readable), **changes})
    state = msgspec.msgpack.encode((readable, sealed if seal is _AS_IT_WAS else seal))
    return {"state": base64.b64encode(state).decode()}


@by_topic
def test_no_open_field_can_be_changed_unnoticed(topic: str) -> None:
    for field, value in ENTRIES[topic]["open"].items():
        if field == "tenant_id":
            continue  # another tenant's key would be asked for
        changed = _repacked(topic, **{field: 1 - value if isinstance(value, (bool, int)) else "another"})
        with pytest.raises(BrokenSeal, match="does not fit"):
            golden.mapper().to_domain_event(golden.stored(changed, topic))


@pytest.mark.parametrize(
    "entry",
    [
        {"state": base64.b64encode(b"\xc1 segredo").decode()},
        {"state": base64.b64encode(b"").decode()},
        {"state": base64.b64encode(msgspec.msgpack.encode(["segredo"])).decode()},
        _repacked("tenancy.TenantSuspended:1", tenant_id="segredo"),
        _repacked("tenancy.TenantSuspended:1", tenant_id=5),
        _repacked("tenancy.TenantSuspended:1", seal="segredo"),
        _repacked("tenancy.TenantSuspended:1", seal=5),
        _repacked("tenancy.TenantSuspended:1", seal=None),
    ],
    ids=[
        "no msgpack",
        "empty",
        "a list",
        "no uuid",
        "a number",
        "seal is text",
        "seal is a number",
        "no seal",
    ],
)
def test_bytes_that_do_not_decode_are_named_without_their_content(entry: dict[str, Any]) -> None:
    with pytest.raises(UndecodableEvent) as wrong:
        golden.mapper().to_domain_event(golden.stored(entry, "tenancy.TenantSuspended:1"))
    assert str(golden.STREAM) in str(wrong.value)
    assert "segredo" not in str(wrong.value)
    assert wrong.value.__suppress_context__, "a traceback would show the decoder's own message"
