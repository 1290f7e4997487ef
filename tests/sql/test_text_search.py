"""text_search(): what a Brazilian finds; that it asks its index under row-level security; that tenants stay apart."""

import datetime as dt
import unicodedata
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from adapters.migrations import migrate

ONE, OTHER, LARGE = (uuid.UUID(int=n) for n in (1, 2, 3))
START = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
SECRET = "cofrezul"
#: Rows of the large tenant: enough for the planner to want an index.
ROWS = 6000

SAID = [
    "Não recebi meu pedido, a entrega atrasou de novo",
    "nao recebi nada ainda",
    "Foi entregue ontem, obrigado!",
    "FAÇO UMA RECLAMAÇÃO FORMAL",
    "quantas reclamacoes mais?",
    "Chegou.Obrigada pela troca/devolução",
    "os cartões chegarão amanhã",
    unicodedata.normalize("NFD", "a maçã e o pão estão ótimos"),
    "Vocês não respondem 😡😡reclamações😡",
    "o boleto de segunda-feira venceu",
    "R$ 1.200,00 é caro",
]


@pytest.fixture(scope="module")
def dsn(database: str) -> str:
    migrate(database)
    with psycopg.connect(database) as conn, conn.cursor() as cursor:
        for tenant in (ONE, OTHER, LARGE):
            cursor.execute("INSERT INTO tenancy_tenant (id, name) VALUES (%s, 'x')", (tenant,))
        rows = [(ONE, text) for text in SAID] + [(OTHER, f"{SECRET} não recebi")]
        rows += [(LARGE, f"pedido {n} chegou{' jabuticaba' if n % 500 == 0 else ''}") for n in range(ROWS)]
        with cursor.copy("COPY messages_message (tenant_id, chat_id, sender, text, created_at) FROM STDIN") as copy:
            for n, (tenant, text) in enumerate(rows):
                copy.write_row((tenant, "chat", "hash", text, START + dt.timedelta(seconds=n)))
        conn.commit()
        cursor.execute("ANALYZE messages_message")
    return database


@pytest.fixture
def app(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """The application's role, as tenant ONE."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        tenant_is(conn, ONE)
        yield conn


def tenant_is(conn: psycopg.Connection[Any], tenant: object) -> None:
    conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant),))


def found(conn: psycopg.Connection[Any], query: str | None, limit: int | None = 100) -> list[str]:
    return [text for (text,) in conn.execute("SELECT text FROM text_search(%s, %s)", (query, limit))]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("nao", {0, 1, 8}),
        ("NÃO recebi", {0, 1}),
        ("ENTREGA", {0, 2}),
        ("entregas", {0, 2}),
        ("reclamação", {3, 4, 8}),
        ("reclamacoes", {3, 4, 8}),
        ("reclamar", {3, 4, 8}),
        ("obrigada", {2, 5}),
        ("devolucao", {5}),
        ("cartao", {6}),
        ("chegaram", {5, 6}),
        ("maca pao", {7}),
        (unicodedata.normalize("NFD", "maçã"), {7}),
        ("vocês não respondem", {8}),
        ('"voces nao respondem"', {8}),
        ('"recebi meu pedido"', {0}),
        ('"pedido meu recebi"', set()),
        ("segunda-feira", {9}),
        ('"segunda feira"', {9}),
        ("1.200,00", {10}),
        ("recebi -pedido", {1}),
        ('recebi -"meu pedido"', {1}),
        ("boleto OR maçã", {7, 9}),
        ("boleto OU maçã", {7, 9}),
        ("recebi pedido OR boleto", {0, 9}),
        ("de a o", set()),
        ("", set()),
        ("-pedido", set()),
        (None, set()),
    ],
)
def test_what_is_found(app: psycopg.Connection[Any], query: str | None, expected: set[int]) -> None:
    assert set(found(app, query)) == {SAID[index] for index in expected}


@pytest.mark.parametrize(
    "query",
    [
        '"', '""', "-", '-"', "--", "!", "&", "|", "<->", "a <2> b", ":*", "'", "\\", "OR", "OR OR", "a OR", "- - -",
        "%", "\x01\x02\x03",
        "x" * 100_000, "é" * 3000, '"' + "y " * 5000, "a " * 5000, "-z " * 5000,
        '"' * 999, "\U0010ffff", "\u0303", "((((", "*",
    ],
)  # fmt: skip
def test_nothing_that_is_typed_raises(app: psycopg.Connection[Any], query: str) -> None:
    heard: list[Any] = []
    app.add_notice_handler(heard.append)
    assert isinstance(found(app, query), list)
    assert heard == []


def test_best_first_and_the_newest_among_equals(app: psycopg.Connection[Any]) -> None:
    tenant_is(app, LARGE)
    rows = app.execute("SELECT rank, created_at FROM text_search('jabuticaba', 100)").fetchall()
    assert len(rows) == ROWS // 500
    assert [created_at for _, created_at in rows] == sorted((created_at for _, created_at in rows), reverse=True)
    tenant_is(app, ONE)
    # The words together are worth more than the words apart.
    assert found(app, "pedido entrega OR recebi")[0] == SAID[0]


@pytest.mark.parametrize(
    ("limit", "number"), [(0, 0), (-1, 0), (1, 1), (3, 3), (1000, 1000), (None, 1000), (2**31 - 1, 1000)]
)
def test_the_limit(app: psycopg.Connection[Any], limit: int | None, number: int) -> None:
    """Of more than a thousand matches the newest are ranked."""
    tenant_is(app, LARGE)
    assert len(found(app, "pedido", limit)) == number


def test_places_of_the_words(app: psycopg.Connection[Any]) -> None:
    for query, words in (
        ("formal reclamacoes", ["RECLAMAÇÃO", "FORMAL"]),
        ("cartao chegar", ["cartões", "chegarão"]),
        ("pao", ["pão"]),
        ("troca devoluções", ["troca", "devolução"]),
        ("respondem reclamacoes", ["respondem", "reclamações"]),
    ):
        row = app.execute("SELECT text, snippet, highlights FROM text_search(%s, 1)", (query,)).fetchone()
        assert row is not None
        text, snippet, places = row
        assert snippet == unicodedata.normalize("NFC", text)
        marked = [snippet[first - 1 : first - 1 + n] for first, n in zip(places[::2], places[1::2], strict=True)]
        assert marked == words


def test_a_snippet_is_the_part_around_what_was_found(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        for before, after in ((0, 500), (500, 0), (300, 300), (0, 0), (199, 0), (50, 100)):
            text = "ã" * before + " reclamações " + "ç" * after
            query = "SELECT s.* FROM evosense.search_snippet(%s, evosense.search_query('reclamar')) s"
            row = conn.execute(query, (text,)).fetchone()
            assert row is not None
            snippet, (first, number) = row
            assert snippet in text
            assert len(snippet) == min(200, len(text))
            assert snippet[first - 1 : first - 1 + number] == "reclamações"


# ------------------------------------------------------------------------------------------------- plans


def scans(conn: psycopg.Connection[Any], index: str) -> int:
    """How often an index was scanned, this session's scans included."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    row = conn.execute("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s", (index,)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
def test_a_prepared_statement_asks_the_index_each_time(app: psycopg.Connection[Any], mode: str) -> None:
    """As the application's role, whose policy keeps `@@` from the index, and after the change to a generic plan."""
    tenant_is(app, LARGE)
    app.execute(f"SET plan_cache_mode = {mode}".encode())
    app.execute("PREPARE words AS SELECT message_id, rank FROM text_search($1, 20)")
    before = scans(app, "idx_message_words")
    answers = [app.execute("EXECUTE words('jabuticaba')").fetchall() for _ in range(50)]
    assert scans(app, "idx_message_words") == before + 50
    assert len(answers[0]) == ROWS // 500
    assert all(answer == answers[2] for answer in answers)


def test_the_documented_full_text_search_uses_its_index(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        lines = conn.execute(
            "EXPLAIN SELECT id FROM messages_message "
            "WHERE to_tsvector('portuguese', text) @@ to_tsquery('portuguese', 'jabuticaba')"
        ).fetchall()
        assert "idx_message_text_gin" in str(lines)


# ------------------------------------------------------------------------------------------------- walls


def test_no_tenant_no_rows(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        assert found(conn, "recebi") == []
        with conn.transaction():
            conn.execute("SELECT set_config('evosense.tenant_id', %s, true)", (str(ONE),))
            assert len(found(conn, "recebi")) == 2
        assert found(conn, "recebi") == []
        tenant_is(conn, "")
        assert found(conn, "recebi") == []
        conn.execute("SET evosense.all_tenants = 'on'")
        assert found(conn, "recebi") == []
        tenant_is(conn, "no-tenant")
        with pytest.raises(errors.InvalidTextRepresentation):
            found(conn, "recebi")


def test_nobody_gets_rows_without_a_tenant_not_even_an_administrator(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert found(conn, "recebi") == []


def test_each_tenant_finds_its_own(app: psycopg.Connection[Any]) -> None:
    for words in (SECRET, f"{SECRET} OR recebi", f'"{SECRET}"', f"recebi -{SECRET}", "recebi"):
        assert not any(SECRET in text for text in found(app, words))
    tenant_is(app, OTHER)
    assert found(app, "recebi OR entrega") == [f"{SECRET} não recebi"]


def test_no_notice_tells_of_the_words_of_others(app: psycopg.Connection[Any], dsn: str) -> None:
    """`word is too long to be indexed`, where a row of another tenant is checked again."""
    with psycopg.connect(dsn) as conn:
        text = f"{'w' * 3000} demora entrega"
        conn.execute(
            "INSERT INTO messages_message (tenant_id, chat_id, sender, text, created_at) "
            "VALUES (%s, 'c', 's', %s, now())",
            (OTHER, text),
        )
        conn.commit()
        try:
            heard: list[str] = []
            app.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
            tenant_is(app, LARGE)  # large enough for the index, which knows no tenant
            assert found(app, '"demora entrega"') == []
            assert heard == []
        finally:
            conn.execute("DELETE FROM messages_message WHERE text = %s", (text,))


def test_filters_are_only_compared(app: psycopg.Connection[Any]) -> None:
    tenant_is(app, ONE)
    for strange in ("x' OR true --", str(OTHER), "%", "chat' OR tenant_id IS NOT NULL --"):
        for name in ("p_chat_id", "p_emotion", "p_author"):
            query = f"SELECT text FROM text_search('recebi', 100, {name} => %s)"  # noqa: S608
            assert app.execute(query.encode(), (strange,)).fetchall() == [], name
    with pytest.raises(errors.UndefinedFunction):
        app.execute("SELECT * FROM text_search('recebi', p_tenant_id => %s)", (str(OTHER),))


def test_nothing_of_the_caller_runs_as_the_owner(app: psycopg.Connection[Any]) -> None:
    """Functions, operators, tables and types of the caller's, before all others on the search path."""
    heard: list[str] = []
    app.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    app.execute(
        "CREATE TEMP TABLE messages_message AS SELECT 1 AS id, %s::uuid AS tenant_id, 'recebi' AS text"
        .replace("%s", f"'{ONE}'").encode()
    )  # fmt: skip
    told = "LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% heard', current_user; RETURN {}; END $$"
    for head, value in (
        ("current_setting(text, boolean) RETURNS text", f"'{OTHER}'"),
        ("ts_rank_cd(tsvector, tsquery) RETURNS real", "1"),
        ("search_words(text) RETURNS tsvector", "'recebi'::tsvector"),
        ("search_query(text) RETURNS tsquery", "'recebi'::tsquery"),
        ("search_form(text) RETURNS text", "'recebi'"),
        ("to_tsvector(regconfig, text) RETURNS tsvector", "'recebi'::tsvector"),
        ("mine(uuid, uuid) RETURNS boolean", "true"),
        ("lower(text) RETURNS text", "'recebi'"),
    ):
        app.execute(f"CREATE FUNCTION pg_temp.{head} {told.format(value)}".encode())
    app.execute("CREATE OPERATOR pg_temp.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_temp.mine)")
    app.execute("SET search_path = pg_temp, pg_catalog, evosense, public")
    texts = [text for (text,) in app.execute("SELECT text FROM evosense.text_search('recebi')")]
    assert sorted(texts) == sorted([SAID[0], SAID[1]])
    assert heard == []


def test_a_predicate_that_tells_hears_of_no_other_tenant(app: psycopg.Connection[Any]) -> None:
    """Conditions of the caller stay outside the function."""
    heard: list[str] = []
    app.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    app.execute(
        "CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS "
        "$$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$"
    )
    app.execute("SELECT * FROM text_search('recebi OR boleto') WHERE pg_temp.tell(text)").fetchall()
    assert len(heard) == 3
    assert not any(SECRET in one for one in heard)


def test_the_helpers_are_the_owners_alone(app: psycopg.Connection[Any]) -> None:
    for call in ("search_words('x')", "search_form('x')", "search_query('x')", "search_snippet('x', 'x'::tsquery)"):
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute(f"SELECT evosense.{call}".encode())
    app.execute("RESET ROLE")
    rows = app.execute(
        "SELECT proname, pg_get_userbyid(proowner), proconfig FROM pg_proc "
        "WHERE pronamespace = 'evosense'::regnamespace AND prosecdef ORDER BY proname"
    ).fetchall()
    # Beside it those of the writer, who sees no table.
    path = "search_path=pg_catalog, pg_temp"
    assert rows == [
        ("connection_habits", "evosense_owner", [path]),
        ("earlier_texts", "evosense_owner", [path]),
        ("known_connections", "evosense_owner", [path]),
        ("messages_of_keys", "evosense_owner", [path]),
        (
            "text_search",
            "evosense_owner",
            [path, "plan_cache_mode=force_custom_plan", "client_min_messages=warning"],
        ),
    ]
    earlier = "earlier_texts(gen_random_uuid(), '{}', '{}', '{}', 1)"
    for call in ("connection_habits(now())", earlier, "known_connections()", "messages_of_keys('{}')"):
        app.execute("SET ROLE evosense_app")
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute(f"SELECT evosense.{call}".encode())


def test_other_roles_do_not_search(dsn: str) -> None:
    for role in ("evosense_projector", "evosense_writer"):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"SET ROLE {role}".encode())
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute("SELECT * FROM evosense.text_search('recebi')")
