"""The application behind a real port, with the projection engine beside it, over a database of the tests' own."""

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import psycopg
import uvicorn

from adapters.embeddings import OfflineEmbedder
from adapters.passwords import Passwords
from adapters.settings import Settings
from api.app import create_app
from api.security import stamp_of
from api.services import Services, build_services
from api.wiring import WriteSide, read_side
from domain.authn import RegisterUser, user, user_id
from domain.messages import AnalyzeMessage, EmbedMessage, message
from domain.ports import Analysis, Embedder
from domain.tenancy import RegisterTenant, tenant
from tests.support.systems import wait_for

#: Everybody's password in these tests.
PASSWORD: Final = "correto-cavalo-bateria"
#: The secret of connections in these tests.
TOKEN: Final = "evo-token-0123456789-abcdef"

# A hash takes a third of a second, on purpose: all users of the tests share one.
_HASH: Final = Passwords().hash(PASSWORD)
_numbers = itertools.count(1)


class Projector:
    """The projection engine in a thread of its own, which can be paused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Project from now on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Project no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(20)
            assert not self._thread.is_alive(), "the projector does not stop"

    def _run(self) -> None:
        side = read_side(self._settings)
        try:
            side.engine.run(self._stop, poll=0.2)
        finally:
            side.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is projected meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@dataclass
class Account:
    """A user who is logged in."""

    username: str
    tenant_id: UUID
    headers: dict[str, str]


@dataclass
class System:
    """A running API. `client` speaks to it without a log-in."""

    settings: Settings
    services: Services
    url: str
    client: httpx.Client
    projector: Projector

    @property
    def write(self) -> WriteSide:
        """The write side of the running application."""
        return self.services.write

    # ------------------------------------------------------------------------------------------ tenants and users

    def new_tenant(self, name: str = "Loja Teste", *, plan: str = "pro") -> UUID:
        """A tenant, with its key."""
        identifier = uuid4()
        self.write.vault.create(identifier)
        self.write.commands.handle(tenant(identifier), RegisterTenant(at=utc_now(), name=name, plan=plan), new=True)
        return identifier

    def new_user(
        self, tenant_id: UUID, *, role: str = "admin", superuser: bool = False, username: str | None = None
    ) -> Account:
        """A user of the tenant with an access token, made without the slow log-in."""
        username = username or f"user{next(_numbers)}@teste"
        command = RegisterUser(
            at=utc_now(),
            tenant_id=tenant_id,
            username=username,
            password_hash=_HASH,
            role=role,
            is_superuser=superuser,
        )
        empty = user(user_id(username))
        self.write.commands.handle(empty, command, new=True)
        return Account(username, tenant_id, self.bearer(empty.id))

    def bearer(self, identifier: UUID, *, at: datetime | None = None) -> dict[str, str]:
        """The header with an access token for a user, issued at a time."""
        account = self.services.aggregates.load(user(identifier))
        token = self.services.tokens.issue("access", identifier, stamp_of(account), at or utc_now())
        return {"authorization": f"Bearer {token}"}

    # ------------------------------------------------------------------------------------------ connections, messages

    def new_connection(self, who: Account, name: str = "loja-centro", *, token: str = TOKEN) -> tuple[int, str]:
        """Id and webhook path of a connection that is registered over HTTP."""
        body = {"name": name, "evo_ws_url": "https://evo.example.com", "evo_token": token}
        made = self.checked(self.client.post("/api/v1/connections", json=body, headers=who.headers), 201)
        return int(made["id"]), httpx.URL(made["webhook_url"]).path

    def deliver(self, hook: str, body: Any, *, token: str = TOKEN, expect: int = 200) -> dict[str, Any]:
        """Post a delivery as Evolution does."""
        content = body if isinstance(body, bytes) else None
        sent = self.client.post(
            hook, content=content, json=None if content else body, headers={"X-EvoSense-Token": token}
        )
        return self.checked(sent, expect)

    def get(self, who: Account, path: str, *, expect: int = 200, **query: Any) -> Any:
        """A query below /api/v1."""
        return self.checked(self.client.get(f"/api/v1{path}", params=query, headers=who.headers), expect)

    def send(self, who: Account, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """A command below /api/v1."""
        return self.checked(self.client.request(method, f"/api/v1{path}", json=body, headers=who.headers), expect)

    @staticmethod
    def checked(answer: httpx.Response, expect: int) -> Any:
        """The body of an answer, if it has the status that was expected."""
        assert answer.status_code == expect, f"{answer.request.method} {answer.request.url.path}: {answer.text}"
        if expect >= 400:
            assert answer.headers["content-type"].startswith("application/problem+json")
        return answer.json()

    def analyse(self, row_id: int, said: Analysis, *, vector: bytes | None = None, model: str = "model-1") -> int:
        """Record what a model said of a message, and perhaps its vector; returns the position."""
        found = self.write.log.stream_at(row_id)
        assert found is not None
        commands: list[Any] = [AnalyzeMessage(at=utc_now(), model_name=model, prompt_version="p-1", analysis=said)]
        if vector is not None:
            embedder = self.services.embedder.model_name
            commands.append(EmbedMessage(at=utc_now(), model_name=embedder, vector=vector))
        return self.write.commands.handle(message(found.stream_id), *commands).position

    def analyse_offline(self, row_id: int) -> int:
        """Record the vector that the application's own embedder gives a message, and a plain analysis."""
        text = self.rows("SELECT text FROM evosense.messages_message WHERE id = %s", row_id)[0]["text"]
        vector = asyncio.run(self.services.embedder.embed([text]))[0]
        return self.analyse(row_id, analysis(0.0), vector=vector)

    # ------------------------------------------------------------------------------------------ the database itself

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """Rows as the administrator sees them."""
        with psycopg.connect(self.settings.admin_dsn, row_factory=psycopg.rows.dict_row) as conn:
            return list(conn.execute(statement.encode(), parameters))

    def messages_of(self, tenant_id: UUID) -> list[dict[str, Any]]:
        """The tenant's rows of the documented table, in the order of their ids."""
        statement = "SELECT * FROM evosense.messages_message WHERE tenant_id = %s ORDER BY id"
        return self.rows(statement, tenant_id)

    def projected(self) -> None:
        """Wait until everything that is in the log is in the read models."""
        head = self.write.log.head()
        wait_for(lambda: self.services.waiter.position >= head, f"read models at position {head}")


def analysis(sentiment: float, *, emotion: str = "neutro", satisfaction: int = 50) -> Analysis:
    """What a model might say."""
    return Analysis(sentiment=sentiment, emotion=emotion, satisfaction=satisfaction, tone="neutro", summary="resumo")


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def envelope(text: str, key: str, at: int, *, phone: str = "5511987650001", from_me: bool = False) -> dict[str, Any]:
    """The smallest `messages.upsert` that is a message; `at` in seconds since 1970."""
    return {
        "event": "messages.upsert",
        "instance": "loja-centro",
        "data": {
            "key": {"remoteJid": f"{phone}@s.whatsapp.net", "fromMe": from_me, "id": key, "participant": ""},
            "message": {"conversation": text},
            "messageType": "conversation",
            "messageTimestamp": at,
        },
        "sender": "5511940028922@s.whatsapp.net",
        "apikey": "9C0B2F7E-61D4-4A58-8E33-5D0A7C1E42FA",
    }


@contextmanager
def running_system(settings: Settings, *embedders: Embedder) -> Iterator[System]:
    """The API on a free port of this machine, and the projector, until the end of the block."""
    services = build_services(settings, *(embedders or (OfflineEmbedder(),)))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(create_app(services), log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api", daemon=True)
    thread.start()
    projector = Projector(settings)
    projector.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "the API to start")
        assert server.started, "the API did not start"
        with httpx.Client(base_url=url, timeout=60) as client:
            yield System(settings, services, url, client, projector)
    finally:
        server.should_exit = True
        thread.join(20)
        projector.stop()
        listener.close()
        assert not thread.is_alive(), "the API does not stop"
