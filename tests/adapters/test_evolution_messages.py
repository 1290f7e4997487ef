"""The client of `findMessages` against a server that turns pages, shifts them, and breaks in every way."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import evolution_messages
from adapters.evolution_api import EvolutionClient, EvolutionRefused, EvolutionUnavailable
from adapters.evolution_messages import EvolutionMessages
from tests.support.find_messages_server import OWNER, TOKEN, FindMessagesServer, Style, row

#: 2026-11-02 12:00 UTC.
T = 1793620800
NAME = "loja centro/2"


@pytest.fixture
def server() -> Iterator[FindMessagesServer]:
    with FindMessagesServer() as server:
        server.instances[NAME] = []
        yield server


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Asked:
    """What was found, and for how long it was waited between tries."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.pauses: list[float] = []
        self.filters = True

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def asked(
    server: FindMessagesServer, since: int, until: int, *, token: str = TOKEN, size: int = 10, tries: int = 3
) -> Asked:
    found = Asked()
    async with EvolutionClient(server.url, NAME, token) as client:
        messages = EvolutionMessages(client, page_size=size, tries=tries, sleep=found.sleep)
        async for rows in messages.pages(moment(since), moment(until)):
            found.keys += [one["key"]["id"] for one in rows]
        found.filters = messages.filters
        if not messages.filters:
            async for rows in messages.pages(moment(since), moment(until)):
                found.keys += [one["key"]["id"] for one in rows]
    return found


async def test_every_row_of_the_window_and_no_other(server: FindMessagesServer) -> None:
    server.instances[NAME] = [row(f"K{n}", T + n) for n in range(100)]
    found = await asked(server, T + 20, T + 79)
    assert set(found.keys) == {f"K{n}" for n in range(20, 80)}
    first = server.asked(NAME)[0]
    assert first == {
        "where": {"messageTimestamp": {"gte": "2026-11-02T12:00:20.000Z", "lte": "2026-11-02T12:01:19.000Z"}},
        "page": 1,
        "offset": 10,
    }
    assert (await asked(server, T + 200, T + 300)).keys == []


async def test_more_rows_in_a_second_than_fit_on_a_page(server: FindMessagesServer) -> None:
    server.instances[NAME] = [row(f"K{n}", T + n // 35) for n in range(100)]
    found = await asked(server, T, T + 10)
    assert set(found.keys) == {f"K{n}" for n in range(100)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.lists(st.integers(0, 12), max_size=40),
    since=st.integers(0, 12),
    length=st.integers(0, 12),
    size=st.integers(1, 7),
    style=st.sampled_from(["2.3", "2.3 array", "unfiltered", "array", "everything"]),
)
def test_whatever_the_times_and_the_page_nothing_is_lost(
    server: FindMessagesServer, seconds: list[int], since: int, length: int, size: int, style: Style
) -> None:
    server.style = style
    server.instances[NAME] = [row(f"K{n}", T + at) for n, at in enumerate(seconds)]
    found = asyncio.run(asked(server, T + since, T + since + length, size=size))
    assert set(found.keys) == {f"K{n}" for n, at in enumerate(seconds) if since <= at <= since + length}


async def test_pages_that_shift_while_they_are_turned_lose_nothing(server: FindMessagesServer) -> None:
    server.instances[NAME] = [row(f"K{n}", T + n) for n in range(60)]
    gone = iter(range(59, 0, -1))

    def change(_: dict[str, Any]) -> None:
        # A late one comes to the front, and some go: by number, the pages behind would slip past in both ways.
        rows = server.instances[NAME]
        rows.append(row(f"NEW{len(server.requests)}", T + 59))
        for _ in range(3):
            number = next(gone)
            server.instances[NAME] = rows = [one for one in rows if one["key"]["id"] != f"K{number}"]

    server.on_request = change
    found = await asked(server, T, T + 100)
    left = {one["key"]["id"] for one in server.instances[NAME] if one["key"]["id"].startswith("K")}
    assert left <= set(found.keys)
    assert left


@pytest.mark.parametrize("style", ["unfiltered", "array", "everything"])
async def test_older_servers_pass_over_the_window(server: FindMessagesServer, style: Style) -> None:
    server.style = style
    server.instances[NAME] = [row(f"K{n}", T + n) for n in range(100)]
    found = await asked(server, T + 40, T + 79)
    assert set(found.keys) == {f"K{n}" for n in range(40, 80)}
    assert not found.filters
    if style != "everything":
        # Newest first: what is older than the window is not turned to.
        assert max(body["page"] for body in server.asked(NAME)) == 7


async def test_a_bare_array_of_a_server_that_keeps_to_the_window(server: FindMessagesServer) -> None:
    server.style = "2.3 array"
    server.instances[NAME] = [row(f"K{n}", T + n) for n in range(25)]
    found = await asked(server, T, T + 100)
    assert (len(found.keys), set(found.keys)) == (27, {f"K{n}" for n in range(25)})
    assert found.filters


async def test_rows_without_a_time_are_handed_on(server: FindMessagesServer) -> None:
    server.style = "everything"
    server.instances[NAME] = [row("A", T), {**row("B", 0), "messageTimestamp": 0}]
    assert set((await asked(server, T, T)).keys) == {"A", "B"}


@pytest.mark.parametrize(
    ("status", "problem"), [(401, "token"), (403, "token"), (404, "instance"), (400, "no evolution"), (302, "redirect")]
)
async def test_what_no_other_try_would_change(server: FindMessagesServer, status: int, problem: str) -> None:
    server.faults.append(status)
    with pytest.raises(EvolutionRefused) as refused:
        await asked(server, T, T + 1)
    assert refused.value.problem == problem
    assert "segredo" not in str(refused.value)
    assert len(server.requests) == 1


async def test_a_wrong_token_and_an_unknown_instance(server: FindMessagesServer) -> None:
    with pytest.raises(EvolutionRefused, match="does not accept the token"):
        await asked(server, T, T + 1, token="another-token-0123456789")
    server.instances.clear()
    with pytest.raises(EvolutionRefused, match="knows no such instance"):
        await asked(server, T, T + 1)


async def test_passing_faults_are_tried_again_with_growing_pauses(server: FindMessagesServer) -> None:
    server.instances[NAME] = [row("K", T)]
    server.faults.extend([500, "cut"])
    found = await asked(server, T, T + 1)
    assert found.keys == ["K"]
    assert found.pauses == [0.5, 1.0]
    server.faults.extend([502, 503, 500])
    with pytest.raises(EvolutionUnavailable, match="500: is Evolution running"):
        await asked(server, T, T + 1)


async def test_the_server_says_for_how_long_it_wants_to_be_left_alone(server: FindMessagesServer) -> None:
    server.instances[NAME] = [row("K", T)]
    server.faults.extend([(429, "7"), (503, "tomorrow")])
    assert (await asked(server, T, T + 1)).pauses == [7.0, 1.0]
    server.faults.append((429, "600"))
    with pytest.raises(EvolutionUnavailable) as busy:
        await asked(server, T, T + 1)
    assert busy.value.retry_after == 600


@pytest.mark.parametrize("fault", ["bad json", "no messages"])
async def test_what_is_no_answer_of_evolutions(server: FindMessagesServer, fault: Any) -> None:
    server.faults.append(fault)
    with pytest.raises(EvolutionRefused) as refused:
        await asked(server, T, T + 1)
    assert refused.value.problem == "no evolution"
    assert "segredo" not in str(refused.value)


async def test_a_server_that_says_nothing(server: FindMessagesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.evolution_api.TOTAL_TIMEOUT_S", 0.2)
    server.faults.append("hang")
    with pytest.raises(EvolutionUnavailable, match="does not answer in time"):
        await asked(server, T, T + 1, tries=1)


async def test_an_answer_that_is_too_large_is_asked_for_in_smaller_pages(
    server: FindMessagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.instances[NAME] = [row(f"K{n}", T + n, "a" * 5_000) for n in range(40)]
    monkeypatch.setattr(evolution_messages, "MAX_PAGE_BYTES", 40_000)
    found = await asked(server, T, T + 100, size=40)
    assert set(found.keys) == {f"K{n}" for n in range(40)}
    assert {body["offset"] for body in server.asked(NAME)} == {40, 10, 2}
    monkeypatch.setattr(evolution_messages, "MAX_PAGE_BYTES", 4_000)
    with pytest.raises(EvolutionRefused, match="larger than 4,000 bytes"):
        await asked(server, T, T + 100, size=40)


async def test_smaller_pages_by_number_lose_nothing(
    server: FindMessagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.style = "unfiltered"
    server.instances[NAME] = [row(f"K{n}", T + n, "a" * (6_000 if n < 25 else 10)) for n in range(60)]
    monkeypatch.setattr(evolution_messages, "MAX_PAGE_BYTES", 40_000)
    found = await asked(server, T, T + 50, size=20)
    assert set(found.keys) == {f"K{n}" for n in range(51)}
    assert len({body["offset"] for body in server.asked(NAME)}) > 1


async def test_a_server_that_turns_in_circles_is_left(
    server: FindMessagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evolution_messages, "MAX_PAGES", 5)
    server.instances[NAME] = [row(f"K{n}", T + n) for n in range(100)]
    with pytest.raises(EvolutionRefused, match="more than 5 pages"):
        await asked(server, T, T + 100)


async def test_a_server_that_comes_back_on_the_same_port(server: FindMessagesServer) -> None:
    server.instances[NAME] = [row("K", T)]
    server.stop()
    with pytest.raises(EvolutionUnavailable, match="nothing listens there"):
        await asked(server, T, T + 1)
    server.start()
    assert (await asked(server, T, T + 1)).keys == ["K"]


async def test_the_instances_own_address(server: FindMessagesServer) -> None:
    async with EvolutionClient(server.url, NAME, TOKEN) as client:
        messages = EvolutionMessages(client)
        assert await messages.owner() == OWNER
        server.owner = None
        assert await messages.owner() is None
