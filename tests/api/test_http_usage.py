"""What a tenant is told of its models' cost, and that its budget is spent."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from adapters.settings import Settings
from api.usage import today
from domain.ports import Usage as Used
from tests.support.http import Account, System, running_system
from tests.support.systems import administrator

ONE = Used(calls=1, input_tokens=1000, output_tokens=50, cost=1_500_000)


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[System]:
    """An installation with a model server, and two dollars a day for each tenant."""
    configuration = {"model_url": SecretStr("http://127.0.0.1:9/v1"), "model": "modelo-1", "daily_budget": 2}
    with running_system(Settings(**{**dict(settings), **configuration})) as running:
        yield running


@pytest.fixture
def owner(served: System) -> Account:
    return served.new_user(served.new_tenant())


def spend(system: System, tenant_id: UUID, *used: Used, **more: Any) -> None:
    for one in used:
        system.write.usage.count(tenant_id, "modelo-1", one, **more)
    system.write.usage.flush()


def spent_before(system: System, tenant_id: UUID, days: int) -> None:
    with administrator(system.settings) as admin:
        admin.execute(
            "INSERT INTO evosense_ops.model_usage (tenant_id, day, model_name, purpose, calls, cost) "
            "VALUES (%s, %s, 'modelo-0', 'analysis', 3, 250000)",
            (tenant_id, today() - timedelta(days=days)),
        )


def test_nothing_was_asked_yet(served: System, owner: Account) -> None:
    told = served.get(owner, "/usage")
    assert told == {
        "tenant_id": str(owner.tenant_id),
        "since": str(today() - timedelta(days=30)),
        "until": str(today()),
        "today": {
            "day": str(today()),
            "cost_usd": 0.0,
            "daily_budget_usd": 2.0,
            "budget_spent": False,
            "analysers": ["model"],
            "analysed_by": "model",
        },
        "cost_usd": 0.0,
        "items": [],
    }


def test_days_and_models_are_told(served: System, owner: Account) -> None:
    spend(served, owner.tenant_id, ONE)
    spend(served, owner.tenant_id, Used(), outcome="cached")
    spend(served, owner.tenant_id, Used(calls=2, cost=7), outcome="refused")
    spend(served, owner.tenant_id, Used(calls=1, input_tokens=9, cost=3), purpose="embedding")
    spent_before(served, owner.tenant_id, 2)
    spent_before(served, owner.tenant_id, 40)
    told = served.get(owner, "/usage")
    common = {"day": str(today()), "model_name": "modelo-1"}
    assert told["items"] == [
        {
            **common,
            "purpose": "analysis",
            **{"calls": 3, "cached": 1, "refused": 1, "input_tokens": 1000, "output_tokens": 50, "cost_usd": 1.500007},
        },
        {
            **common,
            "purpose": "embedding",
            **{"calls": 1, "cached": 0, "refused": 0, "input_tokens": 9, "output_tokens": 0, "cost_usd": 0.000003},
        },
        {
            "day": str(today() - timedelta(days=2)),
            **{"model_name": "modelo-0", "purpose": "analysis", "calls": 3, "cached": 0, "refused": 0},
            **{"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.25},
        },
    ]
    assert told["cost_usd"] == 1.75001
    assert told["today"]["cost_usd"] == 1.50001


def test_a_period_is_of_whole_days(served: System, owner: Account) -> None:
    for days in range(4):
        spent_before(served, owner.tenant_id, days)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    two_days = {"since": midnight - timedelta(days=2, hours=-5), "until": midnight}
    told = served.get(owner, "/usage", **{name: moment.isoformat() for name, moment in two_days.items()})
    assert [row["day"] for row in told["items"]] == [str(today() - timedelta(days=days)) for days in (1, 2)]
    assert (told["since"], told["until"]) == (str(today() - timedelta(days=2)), str(today() - timedelta(days=1)))
    assert told["today"]["cost_usd"] == 0.25, "today is today, whatever the period"
    for query in ({"since": "2026-01-01T00:00:00"}, {"since": "2020-01-01T00:00:00Z"}):
        served.get(owner, "/usage", expect=400, **query)


def test_a_spent_budget_is_said(served: System, owner: Account) -> None:
    spend(served, owner.tenant_id, ONE)
    assert served.get(owner, "/usage")["today"]["analysed_by"] == "model"
    spend(served, owner.tenant_id, Used(calls=1, cost=500_000))
    now = served.get(owner, "/usage")["today"]
    assert (now["cost_usd"], now["daily_budget_usd"]) == (2.0, 2.0)
    assert (now["budget_spent"], now["analysed_by"], now["analysers"]) == (True, "offline", ["model"])
    # More for this one: it goes on at once.
    superuser = served.new_user(owner.tenant_id, superuser=True)
    served.send(superuser, "PUT", f"/tenants/{owner.tenant_id}/models", {"daily_budget_usd": 2.01})
    now = served.get(owner, "/usage")["today"]
    assert (now["budget_spent"], now["analysed_by"], now["daily_budget_usd"]) == (False, "model", 2.01)


def test_who_may_ask(served: System, owner: Account) -> None:
    other = served.new_user(served.new_tenant())
    spend(served, owner.tenant_id, ONE)
    operator = served.new_user(owner.tenant_id, role="operator")
    assert served.get(operator, "/usage")["cost_usd"] == 1.5
    assert served.get(other, "/usage")["items"] == []
    assert served.get(owner, "/usage", tenant_id=owner.tenant_id)["cost_usd"] == 1.5
    # Somebody else's, and nobody's, look the same.
    for whose in (owner.tenant_id, uuid4()):
        refused = served.get(other, "/usage", tenant_id=whose, expect=403)
        assert str(whose) not in str(refused)
    superuser = served.new_user(other.tenant_id, superuser=True)
    told = served.get(superuser, "/usage", tenant_id=owner.tenant_id)
    assert (told["tenant_id"], told["cost_usd"]) == (str(owner.tenant_id), 1.5)
    assert served.get(superuser, "/usage")["cost_usd"] == 0
    served.get(superuser, "/usage", tenant_id=uuid4(), expect=404)
