"""`evosense connections`: the operator's view of all tenants."""

import re
from pathlib import Path

from adapters.settings import Settings
from tests.api.test_cli import environment, evosense, refused
from tests.support.evolution_server import evolution_server
from tests.support.http import TOKEN, System, envelope


def test_list_and_test(system: System, tmp_path: Path) -> None:
    env = {**environment(system.settings), "EVOSENSE_HOME": str(tmp_path), "COLUMNS": "300"}
    with evolution_server() as evolution:
        who = system.new_user(system.new_tenant())
        body = {"name": "[red]balcão", "evo_ws_url": evolution.url, "evo_token": TOKEN}
        made = system.send(who, "POST", "/connections", body, expect=201)
        hook = made["webhook_url"].removeprefix(system.url)
        identifier = hook.rpartition("/")[2]
        system.deliver(hook, envelope("oi", "A1", 1761134400))
        system.deliver(hook, envelope("oi", "A1", 1761134400))
        data = {"state": "close", "statusReason": 401}
        system.deliver(hook, {"event": "connection.update", "instance": "x", "data": data})
        system.write.activity.flush()
        system.projected()

        shown = evosense("connections", "list", env=env).stdout
        # Four lines a connection, of which the second has its id.
        lines = shown.splitlines()
        at = next(number for number, line in enumerate(lines) if identifier in line)
        row = "\n".join(lines[at - 1 : at + 3])
        assert "[red]balcão" in row
        assert re.search(r"close \(401\), [0-9: -]{19} UTC", row)
        assert re.search(r"1 accepted .*1 duplicate .*0 ignored .*0 refused", row, re.DOTALL), row
        assert TOKEN not in shown

        assert "letter for letter" in evosense("connections", "test", identifier, env=env, rc=1).stderr
        evolution.add("[red]balcão", TOKEN)
        shown = evosense("connections", "test", identifier, env=env).stdout
        assert "Evolution API 2.3.7" in shown
        assert re.search(r"state +open", shown)
        assert TOKEN not in shown


def test_what_is_not_there(settings: Settings, tmp_path: Path) -> None:
    env = {**environment(settings), "EVOSENSE_HOME": str(tmp_path)}
    assert "there are no connections" in evosense("connections", "list", env=env).stdout
    unknown = "00000000-0000-4000-8000-000000000000"
    assert "evosense connections list" in refused("connections", "test", unknown, env=env)
