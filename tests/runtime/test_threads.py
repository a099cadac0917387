"""Coroutines that go on in the task that is there, in a context of their own or within a time limit; futures of other threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from tests.runtime.pieces import LONG_S
from turncell import Agent, Hooks, ToolUse, tool
from turncell.runtime.loop import finished
from turncell.runtime.threads import in_context, within
from turncell.testing import ScriptedModel, call

pytestmark = pytest.mark.feature("A10")

place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="outside")


def test_what_a_coroutine_sets_stays_in_its_context_also_after_it_has_waited() -> None:
    async def main() -> None:
        async def move() -> list[str]:
            seen = [place.get()]
            place.set("inside")
            await asyncio.sleep(0)
            seen.append(place.get())
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            return [*seen, place.get()]

        context = contextvars.copy_context()
        assert await in_context(context, move()) == ["outside", "inside", "inside"]
        assert place.get() == "outside"
        assert context[place] == "inside"

    asyncio.run(main())


@pytest.mark.parametrize("is_limited", [False, True])
def test_what_is_raised_on_either_side_reaches_the_other(is_limited: bool) -> None:
    async def main() -> None:
        ended = []

        async def wait() -> None:
            try:
                await asyncio.sleep(LONG_S)
            finally:
                ended.append(True)

        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError("its own")

        def go(coroutine: object) -> object:
            return within(LONG_S, coroutine) if is_limited else in_context(contextvars.copy_context(), coroutine)  # type: ignore[arg-type]

        with pytest.raises(ValueError, match="its own"):
            await go(fail())  # type: ignore[misc]
        waiting = asyncio.ensure_future(go(wait()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended == [True]

    asyncio.run(main())


def test_the_limit_counts_from_the_first_wait_and_ends_what_is_late() -> None:
    async def main() -> None:
        async def at_once() -> str:
            return "done"

        async def soon() -> str:
            await asyncio.sleep(0)
            async with asyncio.timeout(LONG_S):
                await asyncio.sleep(0.001)
            return "done"

        async def never() -> None:
            await asyncio.Event().wait()

        assert await within(LONG_S, at_once()) == await within(LONG_S, soon()) == "done"
        with pytest.raises(TimeoutError):
            await within(0.01, never())

    asyncio.run(main())


def test_calls_that_come_one_by_one_share_a_task_and_not_their_contexts() -> None:
    tasks, places = set(), []

    async def look(use: ToolUse) -> None:
        tasks.add(id(asyncio.current_task()))
        places.append(place.get())

    @tool(effect="read")
    async def walk(to: str) -> str:
        """Walk."""
        tasks.add(id(asyncio.current_task()))
        places.append(place.get())
        place.set(to)
        return to

    steps = [call("walk", to="a"), call("walk", to="b"), "there"]
    run = Agent(ScriptedModel(steps), tools=[walk], mode="auto", hooks=Hooks(before_tool=look)).run_sync("Go.")
    assert [one.content for one in run.tool_calls] == ["a", "b"]
    assert len(tasks) == 1
    assert places == ["outside"] * 4


def test_what_another_thread_brings_to_its_end_is_waited_for_on_any_loop_and_by_many() -> None:
    future: Future[str] = Future()

    async def main() -> list[str]:
        waiting = [asyncio.ensure_future(finished(future)) for _ in range(3)]
        given_up = asyncio.ensure_future(finished(future))
        await asyncio.sleep(0)
        given_up.cancel()
        threading.Timer(0.01, future.set_result, ["done"]).start()
        return [*await asyncio.gather(*waiting), await finished(future)]

    assert asyncio.run(main()) == ["done"] * 4, "who stops waiting leaves it alone"


def test_what_has_ended_already_is_not_waited_for() -> None:
    future: Future[str] = Future()
    future.set_result("done")
    with pytest.raises(StopIteration, match="done"):
        finished(future).send(None)


@pytest.mark.parametrize("is_early", [True, False])
def test_what_fails_or_is_cancelled_is_so_for_who_waits(is_early: bool) -> None:
    async def main(end: Callable[[Future[str]], object]) -> str:
        future: Future[str] = Future()
        if is_early:
            end(future)
        else:
            threading.Timer(0.01, end, [future]).start()
        return await finished(future)

    with pytest.raises(ValueError, match="its own"):
        asyncio.run(main(lambda future: future.set_exception(ValueError("its own"))))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main(lambda future: future.cancel()))


def test_a_loop_that_is_closed_meanwhile_troubles_nobody(caplog: pytest.LogCaptureFixture) -> None:
    future: Future[str] = Future()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(finished(future), 0.01)

    asyncio.run(main())
    future.set_result("done")
    assert not caplog.records
