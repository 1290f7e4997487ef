"""The configuration: read once, refused in words that say which variable and what would be right."""

import os
import stat
from pathlib import Path

import pytest

from adapters.settings import Settings, SettingsError
from adapters.vault import MasterKey

SECRET = "postgresql://evosense:segredo-123@db:5432/evosense"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("EVOSENSE_"):
            monkeypatch.delenv(name)


def test_it_starts_with_nothing_set() -> None:
    settings = Settings.load()
    assert settings.home == Path(".evosense")
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8080)
    assert settings.database_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "http"),
        ("API_PORT", "70000"),
        ("WORKER_BATCH", "0"),
        ("PROJECTOR_POLL", "0"),
        ("PROJECTOR_BATCH", "20001"),
        ("LOG_LEVEL", "loud"),
        ("WAIT_TIMEOUT", "for ever"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"EVOSENSE_{name}", value)
    with pytest.raises(SettingsError, match=f"EVOSENSE_{name}: .*Input should be"):
        Settings.load()


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSENSE_API_PORT", "x")
    monkeypatch.setenv("EVOSENSE_LOG_FORMAT", "y")
    with pytest.raises(SettingsError, match=r"EVOSENSE_API_PORT.*EVOSENSE_LOG_FORMAT"):
        Settings.load()


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("runtime_dsn", "EVOSENSE_DATABASE_URL"),
        ("admin_dsn", "EVOSENSE_ADMIN_DATABASE_URL"),
        ("nats_dsn", "EVOSENSE_NATS_URL"),
    ],
)
def test_an_address_that_is_needed_and_missing_is_named(attribute: str, name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set; it looks like"):
        getattr(Settings.load(), attribute)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSENSE_DATABASE_URL", SECRET)
    monkeypatch.setenv("EVOSENSE_MASTER_KEY", MasterKey.generate_text())
    settings = Settings.load()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "segredo-123" not in shown
        assert settings.master_key_text() not in shown
    assert settings.runtime_dsn == SECRET


def test_the_master_key_comes_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = MasterKey.generate_text()
    file = tmp_path / "key"
    file.write_text(text + "\n")
    monkeypatch.setenv("EVOSENSE_MASTER_KEY_FILE", str(file))
    assert Settings.load().master_key_text() == text
    monkeypatch.setenv("EVOSENSE_MASTER_KEY", f" {text} ")
    with pytest.raises(SettingsError, match="both set"):
        Settings.load().master_key_text()
    monkeypatch.delenv("EVOSENSE_MASTER_KEY_FILE")
    assert Settings.load().master_key_text() == text


@pytest.mark.parametrize("name", ["EVOSENSE_DATABASE_URL", "EVOSENSE_ADMIN_DATABASE_URL"])
def test_an_address_that_is_none_is_named_without_its_password(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "postgres:/u:segredo@host/db")
    settings = Settings.load()
    with pytest.raises(SettingsError, match=f"{name} is no address") as wrong:
        _ = settings.runtime_dsn if name == "EVOSENSE_DATABASE_URL" else settings.admin_dsn
    assert "segredo" not in str(wrong.value)


def test_a_missing_master_key_says_how_to_make_one() -> None:
    with pytest.raises(SettingsError, match="openssl rand -base64 32"):
        Settings.load().master_key_text()


def test_a_key_file_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSENSE_MASTER_KEY_FILE", str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match="gone can't be read: No such file"):
        Settings.load().master_key_text()
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(stat.S_IRUSR)
    monkeypatch.setenv("EVOSENSE_MASTER_KEY_FILE", str(binary))
    with pytest.raises(SettingsError, match="binary can't be read: it is not text"):
        Settings.load().master_key_text()


def test_child_processes_get_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSENSE_DATABASE_URL", SECRET)
    monkeypatch.setenv("EVOSENSE_PROJECTOR_BATCH", "17")
    settings = Settings.load()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings
