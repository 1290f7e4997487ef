"""What a tenant's embedding models do with their commands."""

import pytest

from domain.embedding_models import (
    AdoptModel,
    BeginMove,
    EmbeddingModelAdopted,
    EmbeddingMoveBegun,
    embedding_models,
)
from domain.errors import Invalid, NotAllowed
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

EMPTY = embedding_models(TENANT)
BEGUN = fact(EmbeddingMoveBegun, EMPTY, 1, model_name="e-2", from_model="e-1")
ADOPTED = fact(EmbeddingModelAdopted, EMPTY, 2, model_name="e-2")


def begin(model: str, *, from_model: str = "e-1") -> BeginMove:
    return BeginMove(at=NOW, tenant_id=TENANT, model_name=model, from_model=from_model)


def adopt(model: str) -> AdoptModel:
    return AdoptModel(at=NOW, model_name=model)


def test_a_move_begins_and_ends_once() -> None:
    given(EMPTY).when(begin("e-2")).then(BEGUN)
    given(EMPTY, BEGUN).when(begin("e-2")).then()
    given(EMPTY, BEGUN).when(adopt("e-2")).then(ADOPTED)
    given(EMPTY, BEGUN, ADOPTED).when(adopt("e-2")).then()
    given(EMPTY, BEGUN, ADOPTED).when(begin("e-2")).then()


def test_the_model_that_was_adopted_answers_whatever_the_next_move_says() -> None:
    back = fact(EmbeddingMoveBegun, EMPTY, 3, model_name="e-1", from_model="e-2")
    given(EMPTY, BEGUN, ADOPTED).when(begin("e-1", from_model="e-9")).then(back)
    assert EMPTY.replay([BEGUN]).answering == "e-1"
    assert EMPTY.replay([BEGUN, ADOPTED]).answering == "e-2"
    assert EMPTY.replay([BEGUN, ADOPTED, back]).answering == "e-2"


def test_a_first_move_may_be_to_the_model_that_answers_already() -> None:
    given(EMPTY).when(begin("e-1")).then(fact(EmbeddingMoveBegun, EMPTY, 1, model_name="e-1", from_model="e-1"))


def test_another_move_takes_the_place_of_an_unfinished_one() -> None:
    other = fact(EmbeddingMoveBegun, EMPTY, 2, model_name="e-3", from_model="e-1")
    given(EMPTY, BEGUN).when(begin("e-3", from_model="e-7")).then(other)
    given(EMPTY, BEGUN, other).when(adopt("e-2")).refused(NotAllowed, "moving to e-3 meanwhile")
    given(EMPTY, BEGUN, other).when(adopt("e-3")).then(fact(EmbeddingModelAdopted, EMPTY, 3, model_name="e-3"))


def test_an_unfinished_move_is_called_off_by_moving_back() -> None:
    again = fact(EmbeddingMoveBegun, EMPTY, 3, model_name="e-3", from_model="e-2")
    back = fact(EmbeddingMoveBegun, EMPTY, 4, model_name="e-2", from_model="e-2")
    given(EMPTY, BEGUN, ADOPTED, again).when(begin("e-2")).then(back)
    given(EMPTY, BEGUN, ADOPTED, again, back).when(adopt("e-2")).then(
        fact(EmbeddingModelAdopted, EMPTY, 5, model_name="e-2")
    )


def test_what_was_not_begun_can_not_end() -> None:
    given(EMPTY).when(adopt("e-2")).refused(NotAllowed, "no move to e-2 is under way")
    given(EMPTY, BEGUN, ADOPTED).when(adopt("e-1")).refused(NotAllowed, "no move to e-1")


@pytest.mark.parametrize(("wrong", "saying"), [("", "has 1 to 64"), ("m" * 65, "has 1 to 64"), ("e\0", "NUL")])
def test_a_model_has_a_name_that_its_column_can_hold(wrong: str, saying: str) -> None:
    given(EMPTY).when(begin(wrong)).refused(Invalid, saying)
    given(EMPTY).when(begin("e-2", from_model=wrong)).refused(Invalid, saying)


def test_a_command_of_another_aggregate_is_refused() -> None:
    given(EMPTY, BEGUN).when(ReactivateTenant(at=NOW)).refused(Invalid, "ReactivateTenant")
