"""Superusers choose which models a tenant's messages are given to."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from adapters.settings import Settings
from domain.model_choices import ChooseModels, ModelsChoiceCleared, ModelsChosen, model_choice
from tests.support.http import Account, System, running_system, utc_now


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[System]:
    """An installation with a model server, and two dollars a day for each tenant."""
    configuration = {
        "model_url": SecretStr("http://127.0.0.1:9/v1"),
        "model": "modelo-1",
        "model_api_key": SecretStr("sk-segredo"),
        "daily_budget": 2,
    }
    with running_system(Settings(**{**dict(settings), **configuration})) as running:
        yield running


@pytest.fixture(scope="module")
def superuser(served: System) -> Account:
    return served.new_user(served.new_tenant("Operator"), superuser=True)


@pytest.fixture
def place(served: System) -> str:
    return f"/tenants/{served.new_tenant()}/models"


def shown(system: System, who: Account, place: str) -> dict[str, Any]:
    told: dict[str, Any] = system.get(who, place)
    assert told.pop("tenant_id") in place
    return told


def events(system: System, place: str) -> list[Any]:
    choice = model_choice(UUID(place.split("/")[2]))
    return [entry.event for entry in system.write.log.history(choice.id)]


def test_a_tenant_has_the_installation_s_until_it_chooses(served: System, superuser: Account, place: str) -> None:
    default = {
        "chosen": {"analysers": [], "daily_budget_usd": None},
        "analysers": ["model"],
        "daily_budget_usd": 2.0,
        "configured": ["model", "offline"],
    }
    assert shown(served, superuser, place) == default
    assert events(served, place) == []
    body = {"analysers": ["offline", "model"], "daily_budget_usd": 0.25}
    done = served.send(superuser, "PUT", place, body)
    assert served.send(superuser, "PUT", place, body)["duplicate"] is True
    assert done["duplicate"] is False
    chosen = {**default, "chosen": body, "analysers": ["offline", "model"], "daily_budget_usd": 0.25}
    assert shown(served, superuser, place) == chosen
    (event,) = events(served, place)
    assert isinstance(event, ModelsChosen)
    assert (event.analysers, event.daily_budget) == (("offline", "model"), 250_000)
    served.send(superuser, "DELETE", place)
    assert shown(served, superuser, place) == default
    assert isinstance(events(served, place)[-1], ModelsChoiceCleared)


def test_an_empty_choice_is_the_installation_s(served: System, superuser: Account, place: str) -> None:
    served.send(superuser, "PUT", place, {"daily_budget_usd": 0})
    told = shown(served, superuser, place)
    assert (told["analysers"], told["daily_budget_usd"]) == (["model"], 0.0)
    served.send(superuser, "PUT", place, {})
    assert shown(served, superuser, place)["daily_budget_usd"] == 2.0
    assert [type(event) for event in events(served, place)] == [ModelsChosen, ModelsChoiceCleared]


@pytest.mark.parametrize(
    ("body", "status", "saying"),
    [
        ({"analysers": ["model", "gpt", "x"]}, 422, "there is no analyser 'gpt', 'x': there are model, offline"),
        ({"analysers": ["model", "model"]}, 422, "named twice"),
        ({"analysers": [], "daily_budget_usd": -1}, 400, "daily_budget_usd"),
        ({"analysers": [], "daily_budget_usd": 1e10}, 400, "daily_budget_usd"),
        ({"analyser": "model"}, 400, "analyser"),
        ({"analysers": "model"}, 400, "analysers"),
    ],
)
def test_what_can_t_be_chosen(
    served: System, superuser: Account, place: str, body: dict[str, Any], status: int, saying: str
) -> None:
    assert saying in str(served.send(superuser, "PUT", place, body, expect=status))
    assert events(served, place) == []


def test_there_is_no_such_tenant(served: System, superuser: Account) -> None:
    place = f"/tenants/{uuid4()}/models"
    for method, body in (("GET", None), ("PUT", {"analysers": ["model"]}), ("DELETE", None)):
        served.send(superuser, method, place, body, expect=404)


def test_what_is_configured_no_longer_is_passed_over(system: System, root: Account) -> None:
    """Chosen while there was a model server; now there is none."""
    tenant_id = system.new_tenant()
    place = f"/tenants/{tenant_id}/models"

    command = ChooseModels(at=utc_now(), tenant_id=tenant_id, analysers=("model",))
    system.write.commands.handle(model_choice(tenant_id), command)
    told = shown(system, root, place)
    assert told["chosen"]["analysers"] == ["model"]
    assert told["analysers"] == told["configured"] == ["offline"]


def test_no_key_and_no_address_is_shown(served: System, superuser: Account, place: str) -> None:
    told = str(served.get(superuser, place))
    assert "segredo" not in told
    assert "127.0.0.1" not in told
