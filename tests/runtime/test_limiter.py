"""The limiter: slow start, then a half for a refusal, and no call before the time that a provider has said."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runtime.pieces import Gate, until
from turncell import Agent, ModelFailure
from turncell.runtime import limiter
from turncell.runtime.limiter import Limiter
from turncell.runtime.ports import ModelRequest
from turncell.testing import ScriptedModel

pytestmark = pytest.mark.feature("F2")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def round_of(found: Limiter, clock: Clock, *failures: str | None, retry_after_s: float | None = None) -> None:
    """As many calls side by side as there are endings, then their ends."""
    slots = [await found.slot() for _ in failures]
    clock.now += 1
    for slot, failure in zip(slots, failures, strict=True):
        slot.leave(failure, retry_after_s)


def test_it_starts_slowly_and_doubles_each_round() -> None:
    async def main() -> list[int]:
        clock = Clock()
        found, limits = Limiter(first=2, clock=clock), []
        for _ in range(3):
            await round_of(found, clock, *[None] * int(found.limit))
            limits.append(int(found.limit))
        return limits

    [first, second, third] = asyncio.run(main())
    assert 2 < first < second < third <= 16


def test_the_refusals_of_one_round_halve_it_once_and_then_it_grows_by_one_a_round() -> None:
    async def main() -> None:
        clock = Clock()
        found = Limiter(first=16, clock=clock)
        await round_of(found, clock, *["rate_limit"] * 16, retry_after_s=0.0)
        assert found.limit == 8
        for _ in range(3):
            before = found.limit
            await round_of(found, clock, *[None] * int(found.limit))
            assert before < found.limit <= before + 1
        await round_of(found, clock, "overloaded", retry_after_s=0.0)
        assert found.limit < 8

    asyncio.run(main())


def test_it_never_falls_below_one_and_never_grows_beyond_the_most() -> None:
    async def main() -> None:
        clock = Clock()
        found = Limiter(first=2, most=3, clock=clock)
        for _ in range(5):
            await round_of(found, clock, "rate_limit", retry_after_s=0.0)
        assert found.limit == 1
        for _ in range(40):
            await round_of(found, clock, *[None] * int(found.limit))
        assert found.limit == 3

    asyncio.run(main())


def test_a_limit_that_is_not_reached_does_not_grow_and_another_failure_changes_nothing() -> None:
    async def main() -> None:
        clock = Clock()
        found = Limiter(first=8, clock=clock)
        await round_of(found, clock, None, None)
        await round_of(found, clock, *["auth"] * 8)
        assert found.limit == 8 and not found.pause_s

    asyncio.run(main())


def test_nobody_begins_before_the_time_that_the_provider_has_said() -> None:
    async def main() -> None:
        found = Limiter(first=4)
        slot, began = await found.slot(), asyncio.get_running_loop().time()
        slot.leave("rate_limit", 0.2)
        slots = await asyncio.gather(found.slot(), found.slot())
        assert asyncio.get_running_loop().time() - began >= 0.19
        assert len(slots) == 2 == found.running

    asyncio.run(main())


def test_who_waits_is_served_in_order_and_who_gives_up_costs_no_slot() -> None:
    async def main() -> None:
        found, served = Limiter(first=1), []

        async def take(name: str) -> None:
            slot = await found.slot()
            served.append(name)
            await asyncio.sleep(0)
            slot.leave()
            slot.leave()  # twice is once

        first = await found.slot()
        tasks = [asyncio.create_task(take(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        first.leave()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served == ["a", "c"] and found.running == 0

    asyncio.run(main())


def test_the_rows_of_a_batch_begin_slowly_and_a_turn_of_a_person_waits_for_none() -> None:
    running, most, first = 0, 0, Gate()

    async def answer(request: ModelRequest) -> str:
        nonlocal running, most
        if not request.messages[0].text.startswith("row"):
            return "Fine."
        running += 1
        most = max(most, running)
        if not first.opened.is_set():
            await first.wait_async()
        else:
            for _ in range(1_000):  # until more than the first have met
                if most > limiter.FIRST:
                    break
                await asyncio.sleep(0.005)
        running -= 1
        return "Fine."

    agent = Agent(ScriptedModel(answer, name="starts-slowly/model"))
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(agent.map, [f"row {n}" for n in range(30)], concurrency=20, progress=False)
        until(lambda: running == limiter.FIRST)
        assert limiter.of_model("starts-slowly/other").running == limiter.FIRST  # it is one for the provider
        assert agent.run_sync("And you?").status == "completed"
        assert most == limiter.FIRST
        first.open()
        assert list(found.result()["status"]) == ["completed"] * 30
    assert limiter.FIRST < most <= 20


def test_rows_that_are_refused_come_again_when_the_provider_has_said() -> None:
    refused: list[float] = []
    began: list[float] = []

    async def answer(request: ModelRequest) -> str:
        now = asyncio.get_running_loop().time()
        if len(refused) < 3:
            refused.append(now)
            raise ModelFailure("rate_limit", "slow down", status_code=429, retry_after_s=0.3)
        began.append(now)
        return "Fine."

    agent = Agent(ScriptedModel(answer, name="refuses/model"))
    found = agent.map([f"row {n}" for n in range(8)], progress=False)
    assert list(found["status"]) == ["completed"] * 8
    assert min(began) - max(refused) >= 0.29
