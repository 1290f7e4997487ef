"""`evosense models`: what an operator sees of them, and never a key."""

import re
from pathlib import Path

from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide
from domain.model_choices import ChooseModels, model_choice
from domain.ports import Usage
from tests.api.test_cli import environment, evosense
from tests.support.http import utc_now
from tests.support.model_faults import no_key
from tests.support.openai_server import openai_server
from tests.support.systems import drain
from tests.support.world import World, record

KEY = "sk-chave-secreta"


def test_what_there_is(settings: Settings, write: WriteSide, read: ReadSide, tmp_path: Path) -> None:
    world = World(5, tenants=2)
    record(write, world.births())
    drain(read.engine)
    chooser, _ = world.tenants
    command = ChooseModels(at=utc_now(), tenant_id=chooser, analysers=("gone", "offline"), daily_budget=150)
    write.commands.handle(model_choice(chooser), command)
    write.usage.count(chooser, "modelo-1", Usage(calls=7, input_tokens=1234, output_tokens=56, cost=150))
    write.usage.flush()
    env = {
        **environment(settings),
        **{"EVOSENSE_HOME": str(tmp_path), "COLUMNS": "220", "EVOSENSE_MODEL": "modelo-1"},
        **{"EVOSENSE_MODEL_URL": "https://modelos.example.com/v1", "EVOSENSE_MODEL_API_KEY": KEY},
        "EVOSENSE_DAILY_BUDGET": "2.5",
    }
    shown = evosense("models", env=env).stdout
    assert KEY not in shown
    assert "/v1" not in shown
    assert re.search(r"model +│ analysis \(openai\) +│ modelo-1 +│ modelos\.example\.com", shown)
    assert "asked where a tenant chose nothing: model" in shown
    assert "daily budget of a tenant: $2.500000" in shown
    assert re.search(r"Loja 0 .*│ offline .*│ +7 │ +0 │ +1,234 │ +56 │ \$0\.000150 │ +\$0\.000150", shown), shown
    assert re.search(rf"{chooser} +│ no longer configured: gone .*spent: offline answers", shown), shown
    assert re.search(r"Loja 1 .*│ as configured .*│ \$0\.000000 │ +\$2\.500000", shown), shown


def test_a_model_is_tried(tmp_path: Path) -> None:
    with openai_server(key=KEY) as server:
        env = {
            **{"EVOSENSE_HOME": str(tmp_path), "EVOSENSE_MODEL": "modelo-1", "EVOSENSE_MODEL_URL": server.url},
            "EVOSENSE_MODEL_API_KEY": KEY,
        }
        shown = evosense("models", "test", "--text", "Que vergonha! CPF 529.982.247-25", env=env).stdout
        assert "529.982.247-25" not in shown + server.texts
        for told in (r"emotion +raiva", r"model +modelo-1", r"answered in +[\d,]+ ms", r"1 call, \d+ tokens in"):
            assert re.search(told, shown), shown
        server.always(no_key())
        failed = evosense("models", "test", env=env, rc=1).stderr
        assert "error: the analyser 'model' can't be asked" in failed
        assert KEY not in failed
        assert "there are model, offline" in evosense("models", "test", "gpt", env=env, rc=1).stderr
    assert re.search(r"sentiment +-", evosense("models", "test", "offline", env=env).stdout)
