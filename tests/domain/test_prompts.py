"""What the versions of the prompt do with their commands."""

from typing import Any

import pytest

from domain.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from domain.prompts import (
    INSTALLATION,
    ActivatePrompt,
    CreatePrompt,
    PromptTemplateActivated,
    PromptTemplateCreated,
    PromptTemplateRetired,
    RetirePrompt,
    is_version,
    prompt_templates,
)
from domain.tenancy import RegisterTenant
from tests.support.spec import NOW, given

EMPTY = prompt_templates()
BODY = "Responda em JSON.\nSeja breve."


# Not by `fact`, whose own `version` is the place in the stream.


def created(version: str, at: int = 1, *, body: str = BODY, description: str | None = "breve") -> PromptTemplateCreated:
    return PromptTemplateCreated(**_place(at), version=version, body=body, description=description, created_by="root")


def activated(version: str, at: int, replaces: str | None = None) -> PromptTemplateActivated:
    return PromptTemplateActivated(**_place(at), version=version, replaces=replaces)


def retired(version: str, at: int) -> PromptTemplateRetired:
    return PromptTemplateRetired(**_place(at), version=version)


def _place(at: int) -> dict[str, Any]:
    return {"originator_id": EMPTY.id, "originator_version": at, "tenant_id": INSTALLATION, "at": NOW}


def create(version: str = "v1", body: str = BODY, description: str | None = "breve") -> CreatePrompt:
    return CreatePrompt(at=NOW, version=version, body=body, description=description, created_by="root")


def activate(version: str) -> ActivatePrompt:
    return ActivatePrompt(at=NOW, version=version)


def retire(version: str) -> RetirePrompt:
    return RetirePrompt(at=NOW, version=version)


def test_a_version_is_created_and_not_active_by_that() -> None:
    given(EMPTY).when(create()).then(created("v1"))
    assert given(EMPTY, created("v1")).state.active is None


def test_the_same_again_is_no_event_whoever_sends_it() -> None:
    again = CreatePrompt(at=NOW, version="v1", body=BODY, description=" breve ", created_by="outro")
    given(EMPTY, created("v1")).when(again).then()
    given(EMPTY, created("v1", description=None)).when(create(description="  ")).then()


@pytest.mark.parametrize("change", [{"body": BODY + "\n"}, {"description": None}, {"description": "outra"}])
def test_a_version_never_changes(change: dict[str, str | None]) -> None:
    fields: dict[str, Any] = {"version": "v1", "body": BODY, "description": "breve", **change}
    other = CreatePrompt(at=NOW, **fields)
    for events in ((created("v1"),), (created("v1"), retired("v1", 2))):
        given(EMPTY, *events).when(other).refused(AlreadyExists, "versions never change")


@pytest.mark.parametrize("version", ["v1", "2026-11-28", "a" * 64, "A.b_c-9", "9", "V1"])
def test_what_a_version_may_be_called(version: str) -> None:
    assert is_version(version)
    given(EMPTY, created("v0")).when(create(version)).then(created(version, 2))


@pytest.mark.parametrize("version", ["", "a" * 65, ".", "..", "-a", "_a", "a b", "a/b", "versão", "a\n", "a\0"])
def test_what_a_version_may_not_be_called(version: str) -> None:
    assert not is_version(version)
    given(EMPTY).when(create(version)).refused(Invalid, "1 to 64 characters")


@pytest.mark.parametrize("version", ["evosense-1", "evosense-", "offline-2", "Evosense-1", "OFFLINE-X"])
def test_names_of_what_comes_with_the_program_are_taken(version: str) -> None:
    given(EMPTY).when(create(version)).refused(Invalid, "take another one")
    given(EMPTY).when(activate(version)).refused(NotAllowed, "come with the program")
    given(EMPTY).when(retire(version)).refused(NotAllowed, "come with the program")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("x" * 16_385, "at most 16384 bytes"),
        ("ã" * 8_193, "this one has 16386"),
        ("x\n" * 1000, "at most 1000 lines; this one has 1001"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
    ],
)
def test_a_body_that_is_none(body: str, says: str) -> None:
    given(EMPTY).when(create(body=body)).refused(Invalid, says)


@pytest.mark.parametrize("body", ["x", "ã" * 8_192, "x\n" * 999])
def test_a_body_as_big_as_it_may_be(body: str) -> None:
    given(EMPTY).when(create(body=body)).then(created("v1", body=body))


def test_description_and_author_fit_what_they_are_kept_in() -> None:
    given(EMPTY).when(create(description="x" * 1001)).refused(Invalid, "at most 1000")
    given(EMPTY).when(create(description="a\0b")).refused(Invalid, "NUL")
    for author in ("x" * 101, ""):
        command = CreatePrompt(at=NOW, version="v1", body=BODY, created_by=author)
        given(EMPTY).when(command).refused(Invalid, "created_by")


def test_one_is_active_and_it_is_told_which_it_replaces() -> None:
    both = (created("v1"), created("v2", 2))
    given(EMPTY, *both).when(activate("v1")).then(activated("v1", 3))
    given(EMPTY, *both, activated("v1", 3)).when(activate("v2")).then(activated("v2", 4, "v1"))
    given(EMPTY, *both, activated("v1", 3)).when(activate("v1")).then()
    back = (*both, activated("v1", 3), activated("v2", 4, "v1"))
    given(EMPTY, *back).when(activate("v1")).then(activated("v1", 5, "v2"))
    assert given(EMPTY, *back).state.active == "v2"


def test_a_retired_one_is_never_activated_again() -> None:
    gone = (created("v1"), created("v2", 2), retired("v1", 3))
    given(EMPTY, *gone).when(activate("v1")).refused(NotAllowed, "is retired")
    given(EMPTY, *gone).when(retire("v1")).then()
    given(EMPTY, *gone).when(retire("v2")).then(retired("v2", 4))


def test_the_active_one_is_not_retired() -> None:
    events = (created("v1"), created("v2", 2), activated("v1", 3))
    given(EMPTY, *events).when(retire("v1")).refused(NotAllowed, "activate another one")
    given(EMPTY, *events, activated("v2", 4, "v1")).when(retire("v1")).then(retired("v1", 5))


def test_what_is_not_there_is_not_found() -> None:
    for version in ("v9", "", "a\0"):
        given(EMPTY, created("v1")).when(activate(version)).refused(NotFound, "no prompt of that version")
        given(EMPTY, created("v1")).when(retire(version)).refused(NotFound, "no prompt of that version")


def test_other_commands_and_times_without_a_zone_are_refused() -> None:
    given(EMPTY).when(RegisterTenant(at=NOW, name="x")).refused(Invalid, "do not understand RegisterTenant")
    naive = CreatePrompt(at=NOW.replace(tzinfo=None), version="v1", body=BODY)
    given(EMPTY).when(naive).refused(Invalid, "without a zone")
