"""The gate before a model server: the limit, the deadline, retries, the breaker. Time is the test's own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adapters.model_server.breaker import DENIED_S, IN_A_ROW, LONGEST_S, OPEN_S, WINDOW
from adapters.model_server.faults import Fault
from adapters.model_server.gate import PROBING_S, TRUST, Gate
from adapters.model_server.limit import START
from domain.ports import AnswerRefused, ModelUnavailable


class Time:
    """A clock that stands still, except where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Server:
    """Does what it is told, call by call; afterwards it answers. Calls can be held."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.calls = 0
        self.at_once = self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, seconds: float) -> str:
        self.calls += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            if self.script and (outcome := self.script.pop(0)) is not None:
                raise outcome
            return "ok"
        finally:
            self.at_once -= 1


def made(time: Time, *, concurrency: int = 8, jitter: float = 1.0, timeout: float = 10.0) -> Gate:
    return Gate(
        "modelo", concurrency=concurrency, timeout=timeout, clock=time.clock, sleep=time.sleep, jitter=lambda: jitter
    )


def fault(kind: Any = "connect", **more: Any) -> Fault:
    return Fault(kind, f"it is {kind}", **more)


async def unavailable(gate: Gate, call: Callable[[float], Awaitable[str]]) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as caught:
        await gate.run(call)
    return caught.value


async def opened(time: Time, gate: Gate) -> None:
    """Fail until the breaker opens."""
    server = Server(*[fault() for _ in range(2 * IN_A_ROW)])
    while gate.state().breaker == "closed":
        await unavailable(gate, server)
    assert gate.state().breaker == "open"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["connect", "failed", "overload"])
async def test_what_may_pass_is_tried_three_times(kind: str) -> None:
    time = Time()
    server = Server(fault(kind), fault(kind))
    assert await made(time).run(server) == "ok"
    assert server.calls == 3
    assert time.slept == [0.5, 1.0]  # the whole of each pause, as drawn here


async def test_pauses_are_drawn_from_nothing_on() -> None:
    time = Time()
    await made(time, jitter=0.0).run(Server(fault(), fault()))
    assert time.slept == [0.0, 0.0]


async def test_after_three_tries_it_is_unavailable_for_the_last_reason() -> None:
    server = Server(*[fault() for _ in range(4)])
    gate = made(Time())
    error = await unavailable(gate, server)
    assert (server.calls, str(error)) == (3, "it is connect")
    assert gate.state().last_error == "it is connect"


@pytest.mark.parametrize("kind", ["broken", "denied", "rejected"])
async def test_what_does_not_pass_is_not_tried_again(kind: str) -> None:
    server = Server(fault(kind))
    await unavailable(made(Time()), server)
    assert server.calls == 1


async def test_a_timeout_is_tried_again_once() -> None:
    server = Server(fault("timeout"), fault("timeout"), fault("timeout"))
    await unavailable(made(Time()), server)
    assert server.calls == 2


async def test_a_call_that_never_ends_is_ended_and_frees_its_place() -> None:
    gate = Gate("modelo", concurrency=1, timeout=0.02, jitter=lambda: 0.0)
    server = Server()
    server.open.clear()
    error = await unavailable(gate, server)
    assert "does not answer within" in str(error)
    assert (server.at_once, gate.state().in_flight) == (0, 0)


async def test_a_retry_waits_as_long_as_the_server_asks_for() -> None:
    time = Time()
    assert await made(time, jitter=0.0).run(Server(fault("overload", retry_after=3.0))) == "ok"
    assert sum(time.slept) == pytest.approx(3.0)


async def test_a_retry_after_beyond_the_deadline_shuts_the_gate_for_everybody() -> None:
    time = Time()
    gate = made(time)
    server = Server(fault("overload", retry_after=60.0))
    assert (await unavailable(gate, server)).retry_after == pytest.approx(60.0)
    assert (gate.wait(), gate.room()) == (pytest.approx(60.0), 0)
    other = await unavailable(gate, server)
    assert (server.calls, other.retry_after) == (1, pytest.approx(60.0))
    time.now += 61
    assert (gate.wait(), gate.room()) == (0.0, 1)  # half of what it began with
    assert await gate.run(server) == "ok"


async def test_no_retry_after_shuts_the_gate_for_longer_than_an_hour() -> None:
    gate = made(Time())
    await unavailable(gate, Server(fault("overload", retry_after=1e9)))
    assert gate.wait() == pytest.approx(3600.0)


async def test_the_limit_grows_by_one_for_each_window_in_which_it_is_used() -> None:
    gate = made(Time(), concurrency=4)
    seen = []
    for _ in range(5):
        seen.append(gate.state().limit)
        server = Server()
        server.open.clear()
        running = [asyncio.create_task(gate.run(server)) for _ in range(seen[-1])]
        await settle()
        assert (gate.room(), server.at_once) == (0, seen[-1])
        server.open.set()
        await asyncio.gather(*running)
    assert seen == [2, 3, 4, 4, 4]


async def test_the_limit_does_not_grow_where_it_is_not_used() -> None:
    gate = made(Time())
    for _ in range(10):
        await gate.run(Server())
    assert gate.state().limit == START


async def test_never_more_than_the_limit_are_under_way_and_all_get_their_turn() -> None:
    gate = made(Time(), concurrency=3)
    server = Server()
    assert await asyncio.gather(*(gate.run(server) for _ in range(50))) == ["ok"] * 50
    assert server.most == 3
    assert (gate.state().in_flight, gate.state().waiting, gate.state().limit) == (0, 0, 3)


async def test_an_overload_halves_the_limit_once_for_all_that_met_it() -> None:
    time = Time()
    gate = made(time)
    await asyncio.gather(*(gate.run(Server()) for _ in range(60)))
    assert gate.state().limit == 8
    server = Server(*[fault("overload") for _ in range(8)])
    server.open.clear()
    running = [asyncio.create_task(gate.run(server)) for _ in range(8)]
    await settle()
    time.now += 1
    server.open.set()
    await settle()
    assert await asyncio.gather(*running) == ["ok"] * 8
    assert gate.state().limit == 5  # halved to four; the retries then filled a window
    assert gate.state().breaker == "closed"  # the smaller limit was the cure


async def test_the_limit_stays_at_one_and_then_overloads_open_the_breaker() -> None:
    time = Time()
    gate = made(time)
    server = Server(*[fault("overload") for _ in range(20)])
    while gate.state().breaker == "closed":
        await unavailable(gate, server)
        time.now += 1
    assert server.calls == 1 + IN_A_ROW  # the first halved the limit to one


async def test_failures_in_a_row_open_the_breaker_and_then_nothing_is_asked() -> None:
    time = Time()
    gate = made(time)
    await opened(time, gate)
    server = Server()
    error = await unavailable(gate, server)
    assert (server.calls, gate.room()) == (0, 0)
    assert error.retry_after == pytest.approx(OPEN_S) == gate.wait()
    assert "it is connect" in str(error)


async def test_a_server_that_fails_more_often_than_not_opens_the_breaker() -> None:
    gate = made(Time(), jitter=0.0)
    # Two failures and a success, over and over: never many in a row.
    server = Server(*[fault(), fault(), None] * WINDOW)
    for _ in range(WINDOW):
        if gate.state().breaker != "closed":
            break
        try:
            await gate.run(server)
        except ModelUnavailable:
            break
    assert gate.state().breaker != "closed"
    assert server.calls == WINDOW


async def test_waiting_callers_are_sent_away_when_the_breaker_opens() -> None:
    time = Time()
    gate = made(time)
    server = Server(fault("denied"))
    server.open.clear()
    running = [asyncio.create_task(gate.run(server)) for _ in range(6)]
    await settle()
    assert gate.state().waiting == 4
    server.open.set()
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert [type(one) for one in outcomes[2:]] == [ModelUnavailable] * 4
    assert server.calls == START


async def test_half_open_lets_exactly_one_through_and_its_success_closes() -> None:
    time = Time()
    gate = made(time)
    await opened(time, gate)
    time.now += OPEN_S
    assert (gate.state().breaker, gate.room(), gate.wait()) == ("half-open", 1, 0.0)
    server = Server()
    server.open.clear()
    probe = asyncio.create_task(gate.run(server))
    await settle()
    assert (gate.room(), gate.wait()) == (0, PROBING_S)
    others = await asyncio.gather(*(gate.run(server) for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in others} == {ModelUnavailable}
    server.open.set()
    assert await probe == "ok"
    assert server.calls == 1
    assert (gate.state().breaker, gate.state().limit) == ("closed", START)  # no stampede


async def test_a_probe_that_fails_opens_for_longer_up_to_a_maximum() -> None:
    time = Time()
    gate = made(time)
    await opened(time, gate)
    waits = []
    for _ in range(8):
        time.now += gate.wait()
        server = Server(fault())
        await unavailable(gate, server)
        assert server.calls == 1  # a probe is not tried again
        waits.append(gate.wait())
    assert waits[:3] == [pytest.approx(2 * OPEN_S), pytest.approx(4 * OPEN_S), pytest.approx(8 * OPEN_S)]
    assert waits[-1] == pytest.approx(LONGEST_S)


async def test_a_probe_whose_caller_goes_away_leaves_its_place() -> None:
    time = Time()
    gate = made(time)
    await opened(time, gate)
    time.now += OPEN_S
    server = Server()
    server.open.clear()
    probe = asyncio.create_task(gate.run(server))
    await settle()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert (gate.state().breaker, gate.room(), gate.state().in_flight) == ("half-open", 1, 0)
    server.open.set()
    assert await gate.run(server) == "ok"


async def test_calls_from_before_say_nothing_of_a_server_that_was_left_alone() -> None:
    time = Time()
    gate = made(time)
    late = Server()
    late.open.clear()
    running = asyncio.create_task(gate.run(late))
    await settle()
    await unavailable(gate, Server(fault("denied")))
    late.open.set()
    assert await running == "ok"
    assert gate.state().breaker == "open"


async def test_cancelled_callers_release_their_place_or_their_turn() -> None:
    gate = made(Time(), concurrency=1)
    server = Server()
    server.open.clear()
    first, second, third = (asyncio.create_task(gate.run(server)) for _ in range(3))
    await settle()
    assert (gate.state().in_flight, gate.state().waiting) == (1, 2)
    second.cancel()
    first.cancel()
    await settle()
    server.open.set()
    assert await third == "ok"
    assert server.calls == 2
    assert (gate.state().in_flight, gate.state().waiting) == (0, 0)


async def test_a_caller_whose_turn_comes_as_it_goes_away_hands_it_on() -> None:
    gate = made(Time(), concurrency=1)
    server = Server()
    server.open.clear()
    first, second, third = (asyncio.create_task(gate.run(server)) for _ in range(3))
    await settle()
    server.open.set()
    first.add_done_callback(lambda _: second.cancel())  # right after its place was handed over
    assert await first == await third == "ok"
    assert second.cancelled()
    assert (gate.state().in_flight, gate.state().waiting) == (0, 0)


async def test_who_waits_for_too_long_is_told_that_there_is_too_much_to_do() -> None:
    gate = Gate("modelo", concurrency=1, timeout=5.0, deadline=5.0, clock=(time := Time()).clock, sleep=time.sleep)
    server = Server()
    server.open.clear()
    first = asyncio.create_task(gate.run(server))
    await settle()
    waiting = asyncio.create_task(gate._turn(time.now))  # the whole patience is used up
    with pytest.raises(ModelUnavailable, match="more to do"):
        await waiting
    assert (gate.state().waiting, gate.state().breaker) == (0, "closed")
    server.open.set()
    assert await first == "ok"


async def test_a_denial_opens_for_long() -> None:
    gate = made(Time())
    await unavailable(gate, Server(fault("denied")))
    assert (gate.state().breaker, gate.wait()) == ("open", pytest.approx(DENIED_S))


async def test_a_refused_answer_counts_as_a_sign_of_life() -> None:
    time = Time()
    gate = made(time)
    await opened(time, gate)
    time.now += OPEN_S
    with pytest.raises(AnswerRefused):
        await gate.run(Server(AnswerRefused("too large")))
    assert gate.state().breaker == "closed"


@pytest.mark.parametrize("about", ["length", "content"])
async def test_a_message_that_is_rejected_for_itself_shuts_nobody_out(about: Any) -> None:
    gate = made(Time())
    for _ in range(10):
        with pytest.raises(AnswerRefused, match="it is rejected"):
            await gate.run(Server(fault("rejected", about=about)))
    assert gate.state().breaker == "closed"


async def test_a_rejection_for_reasons_unknown_is_the_messages_until_it_is_everybodys() -> None:
    gate = made(Time())
    await gate.run(Server())
    for _ in range(TRUST):
        with pytest.raises(AnswerRefused):
            await gate.run(Server(fault("rejected")))
    await unavailable(gate, Server(fault("rejected")))
    assert gate.state().breaker == "open"


async def test_an_error_of_our_own_passes_and_leaves_nothing_behind() -> None:
    gate = made(Time())
    with pytest.raises(ZeroDivisionError):
        await gate.run(Server(ZeroDivisionError()))
    assert (gate.state().in_flight, gate.state().breaker) == (0, "closed")
