"""When more arrives than can be appended: 503 with Retry-After at the edge, and nothing accepted and then lost."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.http import TOKEN, System, envelope
from tests.support.systems import administrator, wait_for


def test_a_webhook_is_asked_to_come_again_while_the_log_is_behind(own_system: System) -> None:
    system, group = own_system, own_system.write.group
    admin = system.new_user(system.new_tenant())
    _, hook = system.new_connection(admin)

    def deliver(number: int, messages: int = 1) -> httpx.Response:
        at = int(time.time())
        data = [envelope(f"mensagem {number}.{n}", f"3EB0{number:04}{n:04}", at)["data"] for n in range(messages)]
        body = {"event": "messages.set", "instance": "loja-centro", "data": data}
        with httpx.Client(base_url=system.url, timeout=60) as client:
            return client.post(hook, json=body, headers={"X-EvoSense-Token": TOKEN})

    full, group.waiting_events = group.waiting_events, 20
    try:
        with administrator(system.settings) as holder, ThreadPoolExecutor(4) as senders:
            with holder.transaction():
                # Somebody has the turn, and keeps it.
                holder.execute("SELECT evosense_log.lock_for_append()")
                accepted = [senders.submit(deliver, 1)]
                wait_for(lambda: _somebody_waits(system), "the first append waits for its turn")
                accepted.append(senders.submit(deliver, 2, 15))
                wait_for(lambda: group.waiting == 15, "the second delivery is queued")
                refused = deliver(3, 10)
                assert not any(answer.done() for answer in accepted)
            answers = [answer.result(30) for answer in accepted]
    finally:
        group.waiting_events = full
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert "15 events are waiting" in refused.json()["detail"]
    # What was accepted is there, and the refused delivery left nothing behind: sent again, all of it is new.
    assert [(answer.status_code, answer.json()["received"]) for answer in answers] == [(200, 1), (200, 15)]
    again = deliver(3, 10)
    assert again.status_code == 200
    assert (again.json()["received"], again.json()["duplicates"]) == (10, 0)
    system.projected()
    assert len(system.messages_of(admin.tenant_id)) == 26


def test_a_call_too_many_is_asked_to_come_again(own_system: System) -> None:
    system, door = own_system, own_system.services.door
    admin = system.new_user(system.new_tenant())
    _, hook = system.new_connection(admin)
    body = envelope("mensagem", "3EB0DOOR", int(time.time()))
    full, door.calls = door.calls, 1
    try:
        with administrator(system.settings) as holder, ThreadPoolExecutor(1) as sender:
            with holder.transaction():
                holder.execute("SELECT evosense_log.lock_for_append()")
                inside = sender.submit(system.deliver, hook, body)
                wait_for(lambda: _somebody_waits(system), "the first call waits for its turn")
                refused = system.deliver(hook, envelope("outra", "3EB0OUT", int(time.time())), expect=503)
            assert inside.result(30)["received"] == 1
    finally:
        door.calls = full
    assert "1 calls are under way" in refused["detail"]
    assert door.inside == 0


def _somebody_waits(system: System) -> bool:
    waiting = (
        "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return bool(system.rows(waiting)[0]["n"])
