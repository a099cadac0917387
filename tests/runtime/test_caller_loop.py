"""Tools with `loop="caller"`: on the loop that the run was started from."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate
from turncell import Agent, ToolError, tool
from turncell.runtime import caller_loop
from turncell.runtime.loop import BackgroundLoop
from turncell.testing import ScriptedModel, call, say

pytestmark = pytest.mark.feature("B2")


@tool(effect="read", loop="caller")
async def whose() -> str:
    """Whose loop this is."""
    here = asyncio.get_running_loop()
    return "background" if here is BackgroundLoop.current().loop else threading.current_thread().name


def agent(*tools: Any) -> Agent:
    chosen = tools or (whose,)
    return Agent(ScriptedModel([[call(one.name) for one in chosen], say("Done.")]), tools=chosen)


def test_it_runs_where_the_run_was_started() -> None:
    run = asyncio.run(agent().run("Go on."))
    assert run.state.calls[0].content == "MainThread"


def test_where_no_loop_runs_it_is_the_background_loop() -> None:
    assert agent().run_sync("Go on.").state.calls[0].content == "background"


def test_a_run_inside_of_a_run_is_on_the_loop_that_the_outer_one_was_started_from() -> None:
    where: list[str] = []

    @tool(effect="read", loop="caller")
    async def note() -> None:
        where.append(threading.current_thread().name)

    outer = Agent(ScriptedModel([call("inner", task="Go on."), say("Done.")]), tools=[agent(note).as_tool("inner")])
    assert asyncio.run(outer.run("Go on.")).status == "completed"
    assert where == ["MainThread"]


def test_many_run_side_by_side_there() -> None:
    both = asyncio.Barrier(2)

    @tool(effect="read", loop="caller")
    async def one() -> int:
        await asyncio.wait_for(both.wait(), LONG_S)
        return 1

    @tool(effect="read", loop="caller")
    async def two() -> int:
        await asyncio.wait_for(both.wait(), LONG_S)
        return 2

    run = asyncio.run(agent(one, two).run("Go on."))
    assert [done.content for done in run.state.calls] == ["1", "2"]


def test_its_errors_and_exits_are_those_of_the_call() -> None:
    @tool(effect="read", loop="caller")
    async def fails() -> None:
        raise ValueError("no such row")

    @tool(effect="read", loop="caller")
    async def leaves() -> None:
        raise SystemExit(3)

    async def main() -> list[str | None]:
        run = await agent(fails, leaves).run("Go on.")
        await asyncio.sleep(0)  # the loop goes on
        return [done.content for done in run.state.calls]

    assert asyncio.run(main()) == ["ValueError: no such row", "RuntimeError: the tool ended with SystemExit: 3"]


def test_cancelling_the_run_cancels_it_there() -> None:
    async def main() -> bool:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @tool(effect="read", loop="caller")
        async def waits() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        run = agent(waits).start("Go on.")
        await asyncio.wait_for(begun.wait(), LONG_S)
        run.cancel("enough")
        await asyncio.wait_for(cancelled.wait(), LONG_S)
        return True

    assert asyncio.run(main())
    assert not caller_loop._open, "nothing is left for a loop that is gone"


def test_a_loop_that_is_blocked_or_closed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_loop, "BEGIN_S", 0.2)

    async def blocks() -> str | None:
        return agent().run_sync("Go on.").state.calls[0].content

    said = asyncio.run(blocks())
    assert said is not None and "was blocked for 0.2 s, and the tool has not begun" in said

    gate = Gate()
    model = ScriptedModel([call("look"), call("whose"), say("Done.")])

    async def leaves() -> Any:
        return Agent(model, tools=[gate.read_tool(), whose]).start("Go on.")

    run = asyncio.run(leaves())
    gate.open()
    assert "is closed; its objects cannot be used" in (run.result().state.calls[1].content or "")


def test_a_sync_tool_and_another_word_are_refused() -> None:
    with pytest.raises(ToolError, match="loop='caller' is for async functions"):

        @tool(loop="caller")
        def plain() -> None: ...

    with pytest.raises(ToolError, match="loop is 'main'; use 'own' or 'caller'"):

        @tool(loop="main")  # type: ignore[arg-type]
        async def other() -> None: ...
