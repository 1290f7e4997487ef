"""Whether the process lives and can work, over real HTTP."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.cli.roles import healthcheck
from tests.support.http import Account, System, envelope


def test_live_and_ready(system: System) -> None:
    system.projected()
    assert system.checked(system.client.get("/health/live"), 200) == {"status": "ok"}
    ready = system.checked(system.client.get("/health/ready"), 200)
    head = system.write.log.head()
    assert ready == {"status": "ok", "reason": None, "head": head, "projected": head, "lag": 0, "parked": {}}


def test_the_containers_check_does_not_ask_the_proxy_that_leads_out(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**system.settings.environment(), "EVOSENSE_API_PORT": system.url.rpartition(":")[2]}.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    healthcheck("api")


def test_ready_tells_how_far_behind_the_read_models_are(system: System, admin: Account) -> None:
    _, hook = system.new_connection(admin)
    system.projected()
    with system.projector.paused():
        messages = [envelope("oi", f"A{number}", 1761134400)["data"] for number in range(7)]
        system.deliver(hook, {**envelope("", "", 0), "event": "messages.set", "data": messages})
        ready = system.checked(system.client.get("/health/ready"), 200)
        assert ready["lag"] == ready["head"] - ready["projected"] == 7
    system.projected()
    assert system.checked(system.client.get("/health/ready"), 200)["lag"] == 0


def test_what_was_counted_can_be_read_by_prometheus(system: System, admin: Account) -> None:
    _, hook = system.new_connection(admin, "contada")

    def counted() -> dict[tuple[str, str], float]:
        answer = system.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.text)
        return {
            (sample.name, ",".join(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    before = counted()
    body = envelope("contada", "Z1", 1761134400)
    for _ in range(3):
        system.deliver(hook, body)
    system.deliver(hook, body, token="not the token", expect=401)
    after = counted()
    grown = {
        name: after[name] - before.get(name, 0)
        for name in (
            ("evosense_webhook_messages_total", "received"),
            ("evosense_webhook_messages_total", "duplicate"),
            ("evosense_webhook_refused_total", "401"),
        )
    }
    assert list(grown.values()) == [1, 2, 1]
    # Counters are of the whole house: they must not tell tenants apart.
    assert not any(str(admin.tenant_id) in labels for _, labels in after)
