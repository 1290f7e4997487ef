"""`POST /connections/{id}/test`: what it finds, what it says is wrong, and what it must not tell."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.evolution_server import EvolutionServer, Instance, evolution_server, free_port
from tests.support.http import TOKEN, Account, System

SECRET = "http://169.254.169.254/segredo-interno"


@pytest.fixture
def evolution() -> Iterator[EvolutionServer]:
    """An Evolution server."""
    with evolution_server() as server:
        yield server


class Connected:
    """A connection of a tenant of its own, and what its test says."""

    def __init__(self, system: System, url: str, name: str = "balcao") -> None:
        self.system, self.who = system, system.new_user(system.new_tenant())
        body = {"name": name, "evo_ws_url": url, "evo_token": TOKEN}
        self.made = system.send(self.who, "POST", "/connections", body, expect=201)
        self.path = f"/connections/{self.made['id']}"

    def tested(self) -> dict[str, Any]:
        """The answer, after a look that it gives nothing away."""
        answer: dict[str, Any] = self.system.send(self.who, "POST", f"{self.path}/test")
        for secret in (TOKEN, SECRET):
            assert secret not in str(answer)
        return answer


def test_all_is_well(system: System, evolution: EvolutionServer) -> None:
    there = Connected(system, evolution.url)
    hook = there.made["webhook_url"]
    webhook = {"enabled": True, "url": hook, "events": [], "headers": {"authorization": SECRET}}
    evolution.add("balcao", TOKEN, webhook=webhook)
    head = system.write.log.head()
    answer = there.tested()
    assert answer.pop("latency_ms") >= 0
    assert answer == {
        "ok": True,
        "reached": True,
        "version": "2.3.7",
        "token_ok": True,
        "instance_found": True,
        "state": "open",
        "webhook": "ok",
        "events_missing": [],
        "problem": None,
        "detail": None,
    }
    assert system.write.log.head() == head, "a test records nothing"
    assert {method for method, _, _ in evolution.asked} == {"GET"}


def test_the_new_token_is_used_at_once(system: System, evolution: EvolutionServer) -> None:
    there = Connected(system, evolution.url)
    evolution.add("balcao", "another-token-of-16-or-more")
    with system.projector.paused():
        wrong = there.tested()
        assert (wrong["ok"], wrong["reached"], wrong["token_ok"], wrong["problem"]) == (False, True, False, "token")
        assert "apikey" in wrong["detail"]
        body = {"evo_token": "another-token-of-16-or-more"}
        system.send(there.who, "PUT", f"{there.path}/token", body)
        assert there.tested()["ok"] is True


def test_another_name(system: System, evolution: EvolutionServer) -> None:
    there = Connected(system, evolution.url)
    evolution.add("Balcao", TOKEN)
    answer = there.tested()
    assert (answer["ok"], answer["reached"], answer["instance_found"]) == (False, True, False)
    assert (answer["problem"], answer["token_ok"]) == ("instance", None)


@pytest.mark.parametrize("state", ["close", "connecting"])
def test_not_online(system: System, evolution: EvolutionServer, state: str) -> None:
    there = Connected(system, evolution.url)
    evolution.add("balcao", TOKEN, state=state)
    answer = there.tested()
    assert (answer["ok"], answer["state"], answer["problem"]) == (False, state, "not online")
    assert "QR code" in answer["detail"]
    assert (answer["token_ok"], answer["instance_found"]) == (True, True)


def test_nobody_there_and_somebody_else(system: System, evolution: EvolutionServer) -> None:
    nobody = Connected(system, f"http://127.0.0.1:{free_port()}").tested()
    assert (nobody["ok"], nobody["reached"], nobody["problem"]) == (False, False, "refused")
    # A service of the inside, which only we can reach, is not read through us.
    evolution.everywhere(200, b'{"message": "' + SECRET.encode() + b'", "version": "' + SECRET.encode() + b'"}')
    inside = Connected(system, evolution.url).tested()
    assert (inside["ok"], inside["version"], inside["problem"]) == (False, None, "no evolution")
    evolution.everywhere(302, location=SECRET)
    assert Connected(system, evolution.url).tested()["problem"] == "redirect"
    evolution.everywhere(500, SECRET.encode())
    broken = Connected(system, evolution.url).tested()
    assert (broken["reached"], broken["problem"]) == (True, "busy")


@pytest.mark.parametrize(
    ("webhook", "said", "missing"),
    [
        (None, "none", []),
        ({"enabled": False, "url": "HOOK", "events": []}, "disabled", []),
        ({"enabled": True, "url": "https://example.com/other", "events": []}, "another address", []),
        ({"enabled": True, "url": SECRET, "events": []}, "another address", []),
        ({"enabled": True, "url": ["HOOK"], "events": []}, "another address", []),
        ({"enabled": True, "url": "http://[", "events": []}, "another address", []),
        ({"enabled": True, "url": "HOOK/", "events": None}, "ok", []),
        ({"webhook": {"enabled": True, "url": "HOOK", "events": []}}, "ok", []),
        (
            {"enabled": True, "url": "http://evosense.internal/webhooks/evolution/global?token=x", "events": []},
            "ok",
            [],
        ),
        (
            {"enabled": True, "url": "HOOK", "events": ["MESSAGES_UPSERT", "QRCODE_UPDATED", 7]},
            "events missing",
            ["SEND_MESSAGE", "MESSAGES_EDITED", "MESSAGES_DELETE", "CONNECTION_UPDATE"],
        ),
        ("nonsense", "none", []),
    ],
)
def test_how_the_webhook_is_set_up(
    system: System, evolution: EvolutionServer, webhook: Any, said: str, missing: list[str]
) -> None:
    there = Connected(system, evolution.url)
    instance: Instance = evolution.add("balcao", TOKEN)
    instance.webhook = _with_hook(webhook, there.made["webhook_url"])
    answer = there.tested()
    assert (answer["webhook"], answer["events_missing"], answer["ok"]) == (said, missing, True)


def _with_hook(value: Any, hook: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_hook(inner, hook) for name, inner in value.items()}
    return value.replace("HOOK", hook) if isinstance(value, str) else value


def test_a_webhook_that_can_not_be_read_is_no_problem(system: System, evolution: EvolutionServer) -> None:
    there = Connected(system, evolution.url)
    evolution.add("balcao", TOKEN)
    evolution.answers["/webhook/find/balcao"] = (500, {}, b"")
    answer = there.tested()
    assert (answer["webhook"], answer["ok"]) == ("unknown", True)


def test_only_admins_test(system: System, admin: Account, operator: Account) -> None:
    identifier, _ = system.new_connection(admin, "testada")
    system.send(operator, "POST", f"/connections/{identifier}/test", expect=403)
