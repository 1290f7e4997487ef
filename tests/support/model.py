"""What the read models should say: the log folded event by event into plain dictionaries, and the tables in that form.

It shares nothing with the projectors but the classes of the events. Rows are kept one by one and totals are counted in
the end, from nothing: no batches, no differences, no SQL.
"""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier

from domain import authn, connections, embedding_models, experiments, messages, people, prompts, tenancy
from domain.event import Event
from domain.message_keys import message_key_id
from domain.ports import DIMENSIONS
from tests.support.systems import tables

Row = dict[str, Any]
#: Every row of every table, sorted by its key.
Tables = dict[str, list[Row]]
#: Whether an event counts for a projection: it has come so far, and the event is not set aside.
Counts = Callable[[str, int, Event], bool]

_KEYS: Final = {
    "messages_embedding": ("tenant_id", "model", "message_id"),
    "messages_embeddingmodel": ("tenant_id", "position"),
    "messages_person": ("tenant_id", "alias", "position"),
    "messages_messagekey": ("message_id",),
    "connections_companysender": ("connection_id",),
    "connections_state": ("connection_id",),
    "metrics_message": ("message_id",),
    "metrics_rollup": ("tenant_id", "author"),
    "metrics_emotion": ("tenant_id", "author", "emotion"),
    "metrics_latency": ("tenant_id",),
    "metrics_span": ("tenant_id", "since"),
    "metrics_latency_span": ("tenant_id", "since", "model_name", "is_shadow"),
}
#: By table: the same in every database of a run, and slow to be asked for.
_COLUMNS: Final[dict[str, Composable]] = {}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_SIX_PLACES: Final = Decimal("0.000001")


def everything(projection: str, position: int, event: Event) -> bool:
    """Every event counts."""
    return True


def fold(log: Mapping[int, Event], counts: Counts = everything) -> Tables:
    """What the tables should hold, given the log by position and which events count for which projection."""
    model = _Model({event.originator_id: position for position, event in sorted(log.items(), reverse=True)})
    for position, event in sorted(log.items()):
        for projection, take in model.projections.items():
            if counts(projection, position, event):
                take(position, event)
    return {table: _in_order(table, rows) for table, rows in model.tables().items()}


def stored(conn: psycopg.Connection[Any], schema: str = "evosense") -> Tables:
    """What the tables of a schema hold, to the digit and the bit, in one snapshot or the caller's transaction."""
    alone = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with conn.transaction():
        if alone:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {table: _in_order(table, _rows(conn, schema, table)) for table in tables(conn)}


def differences(there: Tables, should: Tables) -> list[str]:
    """What differs, a line for each row, without values; nothing where both say the same."""
    return list(_differences(there, should))


class _Model:
    def __init__(self, births: Mapping[UUID, int]) -> None:
        self._births = births
        self._users: dict[int, Row] = {}
        self._tenants: dict[UUID, Row] = {}
        self._connections: dict[int, Row] = {}
        self._senders: dict[int, Row] = {}
        self._states: dict[int, Row] = {}
        self._messages: dict[int, Row] = {}
        self._embeddings: dict[tuple[int, str], Row] = {}
        self._models: dict[int, Row] = {}
        self._links: dict[int, Row] = {}
        self._keys: dict[int, Row] = {}
        self._inferences: dict[int, Row] = {}
        self._prompts: dict[int, Row] = {}
        self._counted: dict[int, Row] = {}
        self._latencies: list[experiments.InferenceRecorded] = []
        self.projections: dict[str, Callable[[int, Event], None]] = {
            "tenancy": self._tenancy,
            "authn": self._authn,
            "connections": self._connection,
            "messages": self._message,
            "experiments": self._experiment,
            "metrics": self._metric,
        }

    def tables(self) -> dict[str, Iterable[Row]]:
        return {
            "authn_user": self._users.values(),
            "billing_billingevent": [],
            "billing_paymentaccount": [],
            "connections_companysender": self._senders.values(),
            "connections_evolutionconnection": self._connections.values(),
            "connections_state": self._states.values(),
            "experiments_experimentrun": [],
            "experiments_inference": self._inferences.values(),
            "experiments_prompttemplate": self._prompts.values(),
            "messages_embedding": self._embeddings.values(),
            "messages_embeddingmodel": self._models.values(),
            "messages_message": self._named(),
            "messages_messagekey": self._keys.values(),
            "messages_person": self._links.values(),
            "metrics_emotion": self._emotions(),
            "metrics_latency": self._latency(),
            "metrics_latency_span": self._latency_spans(),
            "metrics_message": self._counted.values(),
            "metrics_rollup": self._rollups(),
            "metrics_span": self._spans(),
            "tenancy_tenant": self._tenants.values(),
        }

    # ------------------------------------------------------------------------------------------------ rows

    def _tenancy(self, position: int, event: Event) -> None:
        match event:
            case tenancy.TenantRegistered():
                self._tenants[event.originator_id] = {
                    "id": event.originator_id,
                    "name": event.name,
                    "plan": event.plan,
                    "next_billing_date": event.next_billing_date,
                    "status": event.status,
                    "created_at": event.at,
                    "updated_at": event.at,
                }
            case tenancy.TenantRenamed():
                _set(self._tenants, event.originator_id, name=event.name, updated_at=event.at)
            case tenancy.SubscriptionChanged():
                _set(
                    self._tenants,
                    event.originator_id,
                    plan=event.plan,
                    next_billing_date=event.next_billing_date,
                    status=event.status,
                    updated_at=event.at,
                )
            case tenancy.TenantSuspended():
                _set(self._tenants, event.originator_id, status="suspended", updated_at=event.at)
            case tenancy.TenantReactivated():
                _set(self._tenants, event.originator_id, status=event.status, updated_at=event.at)

    def _authn(self, position: int, event: Event) -> None:
        row_id = self._births[event.originator_id]
        match event:
            case authn.UserRegistered():
                self._users[row_id] = {
                    "id": row_id,
                    "tenant_id": event.tenant_id,
                    "username": event.username,
                    "password": event.password_hash,
                    "email": event.email,
                    "first_name": event.first_name,
                    "last_name": event.last_name,
                    "role": event.role,
                    "is_superuser": event.is_superuser,
                    "is_staff": event.is_superuser,
                    "is_active": True,
                    "last_login": None,
                    "date_joined": event.at,
                }
            case authn.PasswordChanged():
                _set(self._users, row_id, password=event.password_hash)
            case authn.RoleChanged():
                _set(self._users, row_id, role=event.role)
            case authn.UserDeactivated():
                _set(self._users, row_id, is_active=False)
            case authn.UserLoggedIn():
                _set(self._users, row_id, last_login=event.at)

    def _connection(self, position: int, event: Event) -> None:
        row_id = self._births[event.originator_id]
        match event:
            case connections.ConnectionRegistered():
                self._connections[row_id] = {
                    "id": row_id,
                    "tenant_id": event.tenant_id,
                    "name": event.name,
                    "evo_ws_url": event.evo_ws_url,
                    "evo_token": event.sealed_token,
                    "is_active": True,
                    "created_at": event.at,
                    "updated_at": event.at,
                }
                self._senders[row_id] = {
                    "connection_id": row_id,
                    "tenant_id": event.tenant_id,
                    "sender": event.company_sender,
                }
            case connections.TokenRotated():
                _set(self._connections, row_id, evo_token=event.sealed_token, updated_at=event.at)
            case connections.ConnectionActivated():
                _set(self._connections, row_id, is_active=True, updated_at=event.at)
            case connections.ConnectionDeactivated():
                _set(self._connections, row_id, is_active=False, updated_at=event.at)
            case connections.ConnectionStateChanged():
                self._states[row_id] = {
                    "connection_id": row_id,
                    "tenant_id": event.tenant_id,
                    "state": event.state,
                    "reason": event.reason,
                    "changed_at": event.at,
                }

    def _message(self, position: int, event: Event) -> None:
        row_id = self._births[event.originator_id]
        match event:
            case messages.MessageReceived():
                self._messages[row_id] = {
                    "id": row_id,
                    "tenant_id": event.tenant_id,
                    "connection_id": self._births[event.connection_id],
                    "chat_id": event.chat_id,
                    "sender": event.sender,
                    "text": event.text,
                    "created_at": event.sent_at,
                    "sentiment": None,
                    "emotion": None,
                    "satisfaction": None,
                    "tone": None,
                    "summary": None,
                    "embedding": None,
                }
                if event.external_id:
                    key = message_key_id(event.connection_id, event.external_id)
                    self._keys[row_id] = {"message_id": row_id, "tenant_id": event.tenant_id, "key": key}
            case messages.MessageEdited():
                self._rewrite(row_id, event.text)
            case messages.MessageDeleted() if row_id in self._messages:
                self._rewrite(row_id, "")
                key = {"message_id": row_id, "tenant_id": event.tenant_id, "key": event.key_id}
                self._keys.setdefault(row_id, key)
            case messages.MessageAnalyzed():
                _set(
                    self._messages,
                    row_id,
                    sentiment=event.sentiment,
                    emotion=event.emotion,
                    satisfaction=event.satisfaction,
                    tone=event.tone,
                    summary=event.summary,
                )
            case messages.MessageEmbedded() if row_id in self._messages and event.vector:
                _set(self._messages, row_id, embedding=_packed(event.vector, "f"))
                self._embeddings[row_id, event.model_name] = {
                    "message_id": row_id,
                    "tenant_id": event.tenant_id,
                    "model": event.model_name,
                    "embedding": _packed(event.vector, "e"),
                    "position": position,
                }
            case people.LidLinked():
                self._links[position] = {
                    "tenant_id": event.tenant_id,
                    "alias": event.alias,
                    "position": position,
                    "person": event.person,
                }
            case embedding_models.EmbeddingMoveBegun():
                self._answering(position, event, event.from_model, adopted=False)
            case embedding_models.EmbeddingModelAdopted():
                self._answering(position, event, event.model_name, adopted=True)
                self._embeddings = {
                    key: row
                    for key, row in self._embeddings.items()
                    if row["tenant_id"] != event.tenant_id or row["model"] == event.model_name
                }

    def _named(self) -> Iterator[Row]:
        for row in self._messages.values():
            yield row | {name: self._whose(row, row[name]) for name in ("chat_id", "sender")}

    def _whose(self, row: Row, name: str) -> str:
        said = [o for o in self._links.values() if (o["tenant_id"], o["alias"]) == (row["tenant_id"], name)]
        before = [one for one in said if one["position"] < row["id"]]
        return (before[-1] if before else said[0])["person"] if said else name

    def _rewrite(self, row_id: int, text: str) -> None:
        nothing = dict.fromkeys(("sentiment", "emotion", "satisfaction", "tone", "summary", "embedding"))
        _set(self._messages, row_id, text=text, **nothing)
        self._embeddings = {key: row for key, row in self._embeddings.items() if key[0] != row_id}

    def _answering(self, position: int, event: Event, model: str, *, adopted: bool) -> None:
        self._models[position] = {
            "tenant_id": event.tenant_id,
            "position": position,
            "model": model,
            "adopted": adopted,
            "decided_at": event.at,
        }

    def _experiment(self, position: int, event: Event) -> None:
        if isinstance(event, experiments.InferenceRecorded):
            self._inferences[position] = {
                "id": position,
                "tenant_id": event.tenant_id,
                "message_id": self._births[event.message_id],
                "model_name": event.model_name,
                "prompt_version": event.prompt_version,
                "template_hash": event.template_hash,
                "latency_ms": event.latency_ms,
                "sentiment": event.sentiment,
                "emotion": event.emotion,
                "satisfaction": event.satisfaction,
                "is_shadow": event.is_shadow,
                "run_id": event.run_id,
                "created_at": event.at,
            }

        if isinstance(event, prompts.PromptTemplateCreated):
            self._prompts[position] = {
                "id": position,
                "version": event.version,
                "body": event.body,
                "description": event.description,
                "is_active": False,
                "created_at": event.at,
                "created_by": event.created_by,
            }
        if isinstance(event, prompts.PromptTemplateActivated):
            for row in self._prompts.values():
                row["is_active"] = row["version"] == event.version

    def _metric(self, position: int, event: Event) -> None:
        match event:
            case messages.MessageReceived():
                self._counted[position] = {
                    "message_id": position,
                    "tenant_id": event.tenant_id,
                    "author": "company" if event.from_me else "customer",
                    "sentiment": None,
                    "satisfaction": None,
                    "emotion": None,
                    "hour": (event.sent_at - _EPOCH) // _HOUR,
                    "connection_id": self._births[event.connection_id],
                    "tone": None,
                }
            case messages.MessageAnalyzed():
                _set(
                    self._counted,
                    self._births[event.originator_id],
                    sentiment=event.sentiment,
                    satisfaction=event.satisfaction,
                    emotion=event.emotion,
                    tone=event.tone,
                )
            case messages.MessageEdited() | messages.MessageDeleted():
                nothing = dict.fromkeys(("sentiment", "satisfaction", "emotion", "tone"))
                _set(self._counted, self._births[event.originator_id], **nothing)
            case experiments.InferenceRecorded():
                self._latencies.append(event)

    # ------------------------------------------------------------------------------------------------ totals

    def _rollups(self) -> Iterator[Row]:
        for tenant_id, author in {(row["tenant_id"], row["author"]) for row in self._counted.values()}:
            rows = [r for r in self._counted.values() if (r["tenant_id"], r["author"]) == (tenant_id, author)]
            analysed = [row for row in rows if row["emotion"] is not None]
            yield {
                "tenant_id": tenant_id,
                "author": author,
                "messages": len(rows),
                "analysed": len(analysed),
                "sentiment_sum": sum((_decimal(row["sentiment"]) for row in analysed), Decimal("0.000000")),
                "satisfaction_sum": sum(row["satisfaction"] for row in analysed),
                "positive": sum(row["sentiment"] > 0.1 for row in analysed),
            }

    def _emotions(self) -> Iterator[Row]:
        found = [(r["tenant_id"], r["author"], r["emotion"]) for r in self._counted.values() if r["emotion"]]
        for one in set(found):
            yield dict(zip(("tenant_id", "author", "emotion"), one, strict=True)) | {"messages": found.count(one)}

    def _latency(self) -> Iterator[Row]:
        for tenant_id in {event.tenant_id for event in self._latencies}:
            of_tenant = [event.latency_ms for event in self._latencies if event.tenant_id == tenant_id]
            yield {"tenant_id": tenant_id, "inferences": len(of_tenant), "latency_ms_sum": sum(of_tenant)}

    def _spans(self) -> Iterator[Row]:
        spans: dict[tuple[UUID, datetime], list[tuple[Any, ...]]] = {}
        for row in self._counted.values():
            since, hour = _span(_EPOCH + row["hour"] * _HOUR)
            # Python compares texts by code points, which is the order of their bytes.
            key = hour, row["connection_id"], row["author"], row["emotion"] or "", row["tone"] or ""
            said = _millionths(row["sentiment"] or 0), row["satisfaction"] or 0, (row["sentiment"] or 0) > 0.1
            spans.setdefault((row["tenant_id"], since), []).append((key, *said))
        for (tenant_id, since), members in spans.items():
            keys = sorted({key for key, *_ in members})
            groups = [[said for key, *said in members if key == one] for one in keys]
            yield {
                "tenant_id": tenant_id,
                "since": since,
                "hours": [key[0] for key in keys],
                "connection_ids": [key[1] for key in keys],
                "authors": [key[2] for key in keys],
                "emotions": [key[3] for key in keys],
                "tones": [key[4] for key in keys],
                "messages": [len(group) for group in groups],
                "sentiment_sums": [sum(said[0] for said in group) for group in groups],
                "satisfaction_sums": [sum(said[1] for said in group) for group in groups],
                "positives": [sum(said[2] for said in group) for group in groups],
            }

    def _latency_spans(self) -> Iterator[Row]:
        spans: dict[tuple[Any, ...], list[tuple[tuple[int, int], int]]] = {}
        for event in self._latencies:
            since, hour = _span(event.at)
            key = event.tenant_id, since, event.model_name, event.is_shadow
            spans.setdefault(key, []).append(((hour, _bucket(event.latency_ms)), event.latency_ms))
        for key, members in spans.items():
            cells = sorted({cell for cell, _ in members})
            groups = [[latency for cell, latency in members if cell == one] for one in cells]
            yield dict(zip(_KEYS["metrics_latency_span"], key, strict=True)) | {
                "hours": [hour for hour, _ in cells],
                "buckets": [bucket for _, bucket in cells],
                "inferences": [len(group) for group in groups],
                "latency_ms_sums": [sum(group) for group in groups],
            }


def _span(at: datetime) -> tuple[datetime, int]:
    """The beginning of the six hours in which a moment lies, and in which of them."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    quarter, hour = divmod((at - day) // _HOUR, 6)
    return day + quarter * 6 * _HOUR, hour


def _bucket(latency_ms: int) -> int:
    """Said another way than in the projector: sixteen parts of each doubling, from 16 on."""
    if latency_ms < 16:
        return latency_ms
    doubling = math.frexp(latency_ms)[1] - 5
    return 16 + doubling * 16 + latency_ms // 2**doubling - 16


def _set(rows: dict[Any, Row], key: Any, **columns: Any) -> None:
    # What is said of a thing whose birth was left out leaves no trace.
    if key in rows:
        assert columns.keys() <= rows[key].keys()
        rows[key].update(columns)


def _decimal(number: float) -> Decimal:
    exact = Decimal(repr(number)).quantize(_SIX_PLACES)
    assert float(exact) == number, "the domain rounds to six places"
    return exact


def _millionths(number: float) -> int:
    return int(_decimal(number).scaleb(6))


@cache
def _packed(vector: bytes, kind: str) -> bytes:
    """A vector as pgvector stores it: dimensions, a zero, big-endian floats of 32 ("f") or 16 bits ("e")."""
    return struct.pack(f">HH{DIMENSIONS}{kind}", DIMENSIONS, 0, *struct.unpack(f"<{DIMENSIONS}f", vector))


# ---------------------------------------------------------------------------------------------------- tables


def _rows(conn: psycopg.Connection[Any], schema: str, table: str) -> list[Row]:
    if table not in _COLUMNS:
        found = conn.execute(
            "SELECT column_name, udt_name FROM information_schema.columns "
            "WHERE table_schema = 'evosense' AND table_name = %s ORDER BY ordinal_position",
            (table,),
        )
        _COLUMNS[table] = SQL(", ").join(_column(*one) for one in found)
    statement = SQL("SELECT {} FROM {}").format(_COLUMNS[table], Identifier(schema, table))
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement).fetchall()


def _column(name: str, kind: str) -> Composable:
    sent = {"vector": "vector_send", "halfvec": "halfvec_send"}.get(kind)
    if sent is None:
        return Identifier(name)
    return SQL("{}({}) AS {}").format(Identifier(sent), Identifier(name), Identifier(name))


def _in_order(table: str, rows: Iterable[Row]) -> list[Row]:
    key = _KEYS.get(table, ("id",))
    # A sum's places are part of what is stored, and equal for Decimal.
    shown = [{c: str(v) if isinstance(v, Decimal) else v for c, v in row.items()} for row in rows]
    return sorted(shown, key=lambda row: tuple(row[column] for column in key))


def _differences(there: Tables, should: Tables) -> Iterator[str]:
    for table in sorted(there.keys() | should.keys()):
        if table not in there or table not in should:
            yield f"{table}: {'not in the model' if table in there else 'not in the database'}"
            continue
        key = _KEYS.get(table, ("id",))
        found = {tuple(row[column] for column in key): row for row in there[table]}
        wanted = {tuple(row[column] for column in key): row for row in should[table]}
        for one in sorted(found.keys() | wanted.keys()):
            name = f"{table} {', '.join(map(str, one))}"
            if one not in found:
                yield f"{name}: missing"
            elif one not in wanted:
                yield f"{name}: too much"
            elif found[one] != wanted[one]:
                columns = sorted(found[one].keys() | wanted[one].keys())
                wrong = [c for c in columns if found[one].get(c, ...) != wanted[one].get(c, ...)]
                yield f"{name}: differs in {', '.join(wrong)}"
