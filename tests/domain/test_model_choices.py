"""What a tenant's choice of models does with its commands."""

import pytest

from domain.errors import Invalid
from domain.model_choices import (
    MAX_BUDGET,
    ChooseModels,
    ClearChoice,
    ModelsChoiceCleared,
    ModelsChosen,
    model_choice,
)
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

EMPTY = model_choice(TENANT)
CHOSEN = fact(ModelsChosen, EMPTY, analysers=("main", "offline"), daily_budget=2_500_000)
CLEARED = fact(ModelsChoiceCleared, EMPTY, 2)
CLEAR = ClearChoice(at=NOW)


def choose(*analysers: str, budget: int | None = None) -> ChooseModels:
    return ChooseModels(at=NOW, tenant_id=TENANT, analysers=analysers, daily_budget=budget)


def test_a_choice_is_made_once() -> None:
    given(EMPTY).when(choose("main", "offline", budget=2_500_000)).then(CHOSEN)
    given(EMPTY, CHOSEN).when(choose("main", "offline", budget=2_500_000)).then()
    state = EMPTY.replay([CHOSEN])
    assert (state.analysers, state.daily_budget) == (("main", "offline"), 2_500_000)


def test_another_choice_takes_its_place_whole() -> None:
    other = fact(ModelsChosen, EMPTY, 2, analysers=("offline", "main"), daily_budget=None)
    given(EMPTY, CHOSEN).when(choose("offline", "main")).then(other)
    state = EMPTY.replay([CHOSEN, other])
    assert (state.analysers, state.daily_budget) == (("offline", "main"), None)


def test_a_budget_alone_is_a_choice() -> None:
    given(EMPTY).when(choose(budget=0)).then(fact(ModelsChosen, EMPTY, analysers=(), daily_budget=0))


@pytest.mark.parametrize("command", [CLEAR, choose()])
def test_it_is_undone(command: ClearChoice | ChooseModels) -> None:
    given(EMPTY, CHOSEN).when(command).then(CLEARED)
    given(EMPTY, CHOSEN, CLEARED).when(command).then()
    given(EMPTY).when(command).then()
    state = EMPTY.replay([CHOSEN, CLEARED])
    assert (state.analysers, state.daily_budget, state.tenant_id) == ((), None, TENANT)


@pytest.mark.parametrize(
    ("command", "saying"),
    [
        (choose("main", "other", "main"), "named twice"),
        (choose(*map(str, range(9))), "at most 8"),
        (choose(""), "1 to 64 characters"),
        (choose("x" * 65), "1 to 64 characters"),
        (choose("a\0b"), "NUL"),
        (choose(budget=-1), "between 0 and"),
        (choose(budget=MAX_BUDGET + 1), "1,000,000,000 US dollars"),
        (ReactivateTenant(at=NOW), "does not understand ReactivateTenant"),
    ],
)
def test_what_can_t_be_chosen(command: ChooseModels, saying: str) -> None:
    given(EMPTY, CHOSEN).when(command).refused(Invalid, saying)


def test_each_tenant_has_its_own_stream() -> None:
    assert model_choice(TENANT).id == EMPTY.id
    assert model_choice(EMPTY.id).id != EMPTY.id != TENANT
