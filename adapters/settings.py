"""The configuration: environment variables that begin with `EVOSENSE_`, checked once at the start."""

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_HOME = Path(".evosense")
#: Characters that mean themselves in an address.
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)

#: What Evolution publishes of interest: below the instance's name or a prefix, and without one where none is set.
_EVENTS = ("messages.upsert", "messages.set", "send.message", "messages.edited", "messages.delete", "connection.update")
_SUBJECTS = ",".join(f"*.{event},{event}" for event in _EVENTS)
_SUBJECT = re.compile(r"[^\s.*>]+|\*")


class SettingsError(Exception):
    """The configuration can't be used; the message says which variable, and what would be right."""


class Settings(BaseSettings):
    """All settings. Each field is read from `EVOSENSE_<FIELD IN CAPITALS>`; the README has them in one table."""

    model_config = SettingsConfigDict(
        env_prefix="EVOSENSE_", extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(DEFAULT_HOME, description="where the embedded servers and generated secrets live")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL for the running roles; the embedded server where it is missing"
    )
    admin_database_url: SecretStr | None = Field(
        None, description="PostgreSQL as an administrator, for `evosense migrate`"
    )
    nats_url: SecretStr | None = Field(None, description="NATS with JetStream; the embedded server where it is missing")
    evolution_nats_url: SecretStr | None = Field(
        None, description="the NATS that Evolution publishes to; not listened to where it is missing"
    )
    evolution_nats_subjects: str = Field(
        _SUBJECTS, description="what Evolution publishes there: subjects with commas between them"
    )
    master_key: SecretStr | None = Field(None, description="32 bytes in base64 that wrap every tenant's key")
    master_key_file: Path | None = Field(None, description="a file that holds the master key, instead of the variable")
    previous_master_key: SecretStr | None = Field(
        None, description="the master key that is being replaced: still accepted, no longer used for anything new"
    )
    previous_master_key_file: Path | None = Field(
        None, description="a file that holds the previous master key, instead of the variable"
    )
    model_url: SecretStr | None = Field(
        None, description="base address of a model server of OpenAI's protocol, with /v1"
    )
    model: str | None = Field(None, description="the model that analyses there, as the server calls it")
    model_api_key: SecretStr | None = Field(None, description="the model server's key, where it wants one")
    model_api_key_file: Path | None = Field(None, description="a file that holds that key, instead of the variable")
    embedding_model: str | None = Field(None, description="the model that embeds; the offline one where it is missing")
    embedding_url: SecretStr | None = Field(
        None, description="base address of the server that embeds, where it is not EVOSENSE_MODEL_URL's"
    )
    analysers: str | None = Field(
        None, description="which analysers are asked, in this order: names with commas between them"
    )
    models_file: Path | None = Field(None, description="a TOML file with several model servers")
    api_host: str = Field("127.0.0.1", description="address that the API listens on")
    api_port: int = Field(8080, ge=0, le=65535, description="port that the API listens on; 0 takes a free one")
    public_url: str | None = Field(None, description="how the API is reached from outside; used in webhook addresses")
    webhook_token: SecretStr | None = Field(
        None, min_length=16, description="lets Evolution's global webhook in; without it, that door is closed"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    log_format: Literal["console", "json"] = Field("json", description="how it is logged")
    worker_batch: int = Field(64, ge=1, le=1024, description="messages that the worker takes at once")
    worker_max_deliver: int = Field(5, ge=1, le=100, description="tries of a message before it is parked")
    worker_retry_delay: float = Field(5.0, ge=0, le=3600, description="seconds before a failed message is tried again")
    analysis_order: Literal["oldest", "newest"] = Field(
        "oldest", description="which messages a model behind a server is asked about first, when many wait for it"
    )
    projector_batch: int = Field(5000, ge=1, le=20000, description="most events that the projector takes at once")
    projector_poll: float = Field(1.0, gt=0, le=60, description="seconds between looks at the log without a wake-up")
    daily_budget: Decimal | None = Field(
        None,
        ge=0,
        le=10**9,
        description="US dollars that a tenant's models may cost a day (UTC); then the offline analyser answers",
    )
    sweep_seconds: int = Field(
        300,
        ge=0,
        le=86400,
        description="seconds between two looks for messages that Evolution has and we have not; 0: none",
    )
    catch_up_days: int = Field(
        7, ge=1, le=365, description="the longest gap, in days, that is caught up without `evosense backfill`"
    )
    wait_timeout: float = Field(
        10.0, ge=0, le=60, description="seconds that a query waits for the position it was given"
    )

    @field_validator("webhook_token")
    @classmethod
    def _fits_into_an_address(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not _UNRESERVED.fullmatch(token.get_secret_value()):
            raise ValueError("it stands in an address: use letters, digits and -._~ alone (openssl rand -hex 32)")
        return token

    @classmethod
    def load(cls) -> "Settings":
        """Read the environment. Raises `SettingsError`."""
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"EVOSENSE_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
                for problem in error.errors(include_input=False)
            )
            raise SettingsError(f"the configuration can't be used: {wrong}") from None

    @property
    def daily_budget_in_millionths(self) -> int | None:
        """The daily budget in millionths of a US dollar; None where there is none."""
        return None if self.daily_budget is None else int(self.daily_budget * 1_000_000)

    @property
    def runtime_dsn(self) -> str:
        """Where the running roles connect. Raises `SettingsError` where it is not set."""
        example = "postgresql://evosense:secret@host:5432/evosense"
        return _dsn(self.database_url, "EVOSENSE_DATABASE_URL", example)

    @property
    def admin_dsn(self) -> str:
        """Where `migrate` connects. Raises `SettingsError` where it is not set."""
        example = "postgresql://postgres:secret@host:5432/evosense"
        return _dsn(self.admin_database_url, "EVOSENSE_ADMIN_DATABASE_URL", example)

    @property
    def nats_dsn(self) -> str:
        """Where NATS is. Raises `SettingsError` where it is not set."""
        return _needed(self.nats_url, "EVOSENSE_NATS_URL", "nats://host:4222")

    def evolution_subjects(self) -> list[str]:
        """What Evolution publishes to NATS. Raises `SettingsError` where one can't be a subject."""
        subjects = [part for part in (piece.strip() for piece in self.evolution_nats_subjects.split(",")) if part]
        for subject in subjects:
            *parts, last = subject.split(".")
            if not all(map(_SUBJECT.fullmatch, parts)) or not (last == ">" or _SUBJECT.fullmatch(last)):
                raise SettingsError(
                    f"EVOSENSE_EVOLUTION_NATS_SUBJECTS: {subject!r} is no subject; one looks like *.messages.upsert"
                )
        if not subjects:
            raise SettingsError("EVOSENSE_EVOLUTION_NATS_SUBJECTS is empty; it looks like *.messages.upsert")
        return subjects

    def master_key_text(self) -> str:
        """The master key as it was written. Raises `SettingsError` where there is none, or two."""
        text = _key_text("EVOSENSE_MASTER_KEY", self.master_key, self.master_key_file)
        if text is None:
            raise SettingsError(
                "no master key: set EVOSENSE_MASTER_KEY, or EVOSENSE_MASTER_KEY_FILE, to 32 random bytes in base64 "
                "(openssl rand -base64 32). Keep a copy elsewhere: without it nothing in the log can be read"
            )
        return text

    def previous_master_key_text(self) -> str | None:
        """The previous master key as it was written; None where there is none. Raises `SettingsError`."""
        return _key_text("EVOSENSE_PREVIOUS_MASTER_KEY", self.previous_master_key, self.previous_master_key_file)

    def model_api_key_text(self) -> str | None:
        """The model server's key as it was written; None where there is none. Raises `SettingsError`."""
        what = "the model server's key"
        return _key_text("EVOSENSE_MODEL_API_KEY", self.model_api_key, self.model_api_key_file, what)

    def environment(self) -> dict[str, str]:
        """This process's environment with these settings in it, for the processes it starts."""
        ours = {
            f"EVOSENSE_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in self
            if value is not None
        }
        return {**os.environ, **ours}


def _key_text(
    name: str, value: SecretStr | None, file: Path | None, what: str = "32 random bytes in base64"
) -> str | None:
    if value and file:
        raise SettingsError(f"{name} and {name}_FILE are both set: set one of them")
    if value:
        return value.get_secret_value().strip()
    if file is None:
        return None
    return secret_text(f"{name}_FILE", file, what)


def secret_text(where: str, file: Path, what: str) -> str:
    """What a file holds, without the blanks around it. Raises `SettingsError` that names `where` and `what` it is."""
    try:
        text = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{where}: {file} can't be read: {why}") from None
    if not text:
        raise SettingsError(f"{where}: {file} is empty, and has to hold {what}")
    return text


def _dsn(value: SecretStr | None, name: str, example: str) -> str:
    dsn = _needed(value, name, example)
    try:
        conninfo_to_dict(dsn)
    except ProgrammingError:
        # The driver's own message would quote it, password and all.
        raise SettingsError(f"{name} is no address of a PostgreSQL database; it looks like {example}") from None
    return dsn


def _needed(value: SecretStr | None, name: str, example: str) -> str:
    if value is None:
        raise SettingsError(f"{name} is not set; it looks like {example}")
    return value.get_secret_value()
