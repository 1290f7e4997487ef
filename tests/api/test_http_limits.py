"""How much a delivery may hold: what is large is taken whole, what is too large is told."""

import json

from adapters.evolution import CUT_MARK, MAX_TEXT_BYTES
from api.receiving import MAX_DOCUMENT
from tests.support.http import TOKEN, System, envelope

AT = 1761134400


def test_ten_thousand_history_messages_in_one_body_of_more_than_five_megabytes(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, hook = system.new_connection(who)
    rows = [
        envelope(f"mensagem {n}", f"3EB0{n:06}", AT + n, phone=f"551198765{n % 100:04}")["data"] | {"base64": "A" * 400}
        for n in range(10_000)
    ]
    body = json.dumps({"event": "messages.set", "instance": "loja-centro", "data": rows}).encode()
    assert len(body) > 5 * 2**20
    first = system.deliver(hook, body)
    assert (first["received"], first["duplicates"], first["ignored"], first["refused"]) == (10_000, 0, 0, 0)
    again = system.deliver(hook, body)
    assert (again["received"], again["duplicates"]) == (0, 10_000)
    system.projected()
    found = system.messages_of(who.tenant_id)
    assert len(found) == 10_000
    assert {int(row["created_at"].timestamp()) for row in found} == set(range(AT, AT + 10_000))


def test_a_text_that_is_too_long_is_cut_and_says_so(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, hook = system.new_connection(who)
    # Masking makes it longer still: each of these becomes a longer token.
    for number, text in enumerate(("não chegou " * 10_000, "@12345678 " * 6_600)):
        assert system.deliver(hook, envelope(text, f"LONG{number}", AT))["received"] == 1
    system.projected()
    for row in system.messages_of(who.tenant_id):
        assert len(row["text"].encode()) <= MAX_TEXT_BYTES
        assert row["text"].endswith(CUT_MARK)
        assert "12345678" not in row["text"]


def test_what_is_too_large_is_told_and_leaves_nothing(system: System) -> None:
    who = system.new_user(system.new_tenant())
    _, hook = system.new_connection(who)
    body = json.dumps(envelope("oi", "HUGE", AT) | {"base64": "A" * MAX_DOCUMENT}).encode()
    answer = system.client.post(hook, content=body, headers={"X-EvoSense-Token": TOKEN})
    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith("application/problem+json")
    system.projected()
    assert system.messages_of(who.tenant_id) == []
